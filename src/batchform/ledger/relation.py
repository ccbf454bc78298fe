"""Row segments as one DuckDB relation: the latest record of each key, nothing loaded before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from batchform.ledger.records import ROW_COLUMNS
from batchform.ledger.segments import DIGEST_ON_READ, literal_path, parquet
from batchform.rows.sql import identifier, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Part(Struct, frozen=True):
    """One rows segment as a local file. base: its serials are filled in, and it is older than all others."""

    path: Path
    serial: int
    base: bool = False


def create_rows_view(con: DuckDBPyConnection, name: str, parts: Sequence[Part]) -> str:
    """Make the temp view `name` with ROW_COLUMNS, one row per key_hash, the last commit winning; its quoted name.

    Segments of the oldest commit hold a key once, so it needs no folding: only the keys of later commits are
    compared. With one segment the view is a plain scan, so that reading few columns stays cheap.
    """
    _read_footers(con, [p.path for p in parts if p.path.stat().st_size > DIGEST_ON_READ])
    view = identifier(name)
    serials = sorted({p.serial for p in parts})
    groups = [[p for p in parts if p.serial == s] for s in serials]
    if not groups:
        body = _nothing()
    elif len(groups) == 1:
        body = _all(groups[0])
    else:
        oldest, newer = _all(groups[0]), [p for group in groups[1:] for p in group]
        keys, folded = _last_wins(con, name + "_last", newer, folded=len(groups) > 2)
        body = f"SELECT * FROM ({oldest}) AS o ANTI JOIN {keys} AS n ON o.key_hash = n.key_hash UNION ALL {folded}"
    con.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {body}")
    return view


def _read_footers(con: DuckDBPyConnection, paths: Sequence[Path]) -> None:
    """Of files that no digest has vouched for: a scan of several files looks at the first only before it has rows."""
    if paths:
        names = ", ".join(literal(literal_path(p)) for p in paths)
        con.execute(f"SELECT count(*) FROM parquet_file_metadata([{names}])")


def create_keys_view(con: DuckDBPyConnection, name: str, parts: Sequence[Part], keys: str) -> str:
    """As `create_rows_view`, of some keys only. Memory is theirs, whatever the table has, and only files that hold
    the last record of one are read whole.

    keys: FROM-able key_hash; parts: in order of commit.
    """
    view, last, files = identifier(name), identifier(name + "_last"), parquet([p.path for p in parts])
    if not parts:
        con.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {_nothing()}")
        return view
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {last} AS SELECT key_hash, max(CAST(file_index AS BIGINT)) AS part "
        f"FROM {files} SEMI JOIN (SELECT key_hash FROM {keys}) USING (key_hash) GROUP BY key_hash"
    )
    held = con.execute(f"SELECT DISTINCT part FROM {last} ORDER BY part").fetchall()
    body = " UNION ALL ".join(
        f"SELECT * FROM ({_all([parts[number]])}) SEMI JOIN (SELECT key_hash FROM {last} WHERE part = {number}) "
        "USING (key_hash)"
        for (number,) in held
    )
    con.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {body or _nothing()}")
    return view


def _last_wins(con: DuckDBPyConnection, table: str, newer: Sequence[Part], *, folded: bool) -> tuple[str, str]:
    """FROM-able (key_hash) of the newer segments, and a SELECT of their latest records.

    With several commits among them, the winning serial of each key is kept in a narrow temp table: folding the wide
    rows themselves would read every column of them for every query.
    """
    if not folded:
        return f"(SELECT key_hash FROM {parquet([p.path for p in newer])})", _all(newer)
    last = identifier(table)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {last} AS SELECT key_hash, max(changed_serial) AS changed_serial "
        f"FROM ({_all(newer)}) GROUP BY key_hash"
    )
    return last, (
        f"SELECT d.* FROM ({_all(newer)}) AS d SEMI JOIN {last} AS l "
        f"ON d.key_hash = l.key_hash AND d.changed_serial = l.changed_serial"
    )


def _all(parts: Sequence[Part]) -> str:
    """A SELECT of every record. Few scans of many files, since DuckDB binds each scan anew for each query."""
    scans = [[p for p in parts if p.base], [p for p in parts if not p.base]]
    return " UNION ALL ".join(
        f"SELECT {_columns(scan)} FROM {parquet([p.path for p in scan])}" for scan in scans if scan
    )


def _columns(scan: Sequence[Part]) -> str:
    if scan[0].base:
        return ", ".join(identifier(c) for c in ROW_COLUMNS)
    serials = [p.serial for p in scan]
    serial = f"{serials[0]}::BIGINT" if len({*serials}) == 1 else f"({serials}::BIGINT[])[file_index::BIGINT + 1]"
    filled = {
        "changed_serial": serial,
        "answer_serial": f"CASE WHEN answer_fp IS NOT NULL THEN coalesce(answer_serial, {serial}) END",
    }
    return ", ".join(f"{filled[c]} AS {identifier(c)}" if c in filled else identifier(c) for c in ROW_COLUMNS)


def _nothing() -> str:
    return "SELECT " + ", ".join(f"NULL::{kind} AS {identifier(c)}" for c, kind in ROW_COLUMNS.items()) + " WHERE false"
