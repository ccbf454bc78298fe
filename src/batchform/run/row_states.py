"""New row states, made in DuckDB from the recorded ones. Nothing here decides; it only writes what was decided."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.errors import StalePlan
from batchform.ledger.records import ROW_COLUMNS
from batchform.ledger.row_writer import ROW_GROUP
from batchform.ledger.store import Ledger, RowsFile
from batchform.rows.sql import literal
from batchform.run.context import RunContext

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

WAITING = "r.status IN ('in_flight', 'pending')"
"""Rows that wait for the job of their tag. Others with that tag only point to an answer of it."""


def write_states(con: DuckDBPyConnection, values: Mapping[str, str], source: str, to: Path) -> int:
    """Write row states: `values` give SQL for the columns that change, the others come from alias `r` of `source`.

    Returns the number of rows.
    """
    fixed = {"changed_serial": "NULL", **values}
    columns = ", ".join(
        f"CAST({fixed.get(name, f'r.{name}')} AS {kind}) AS {name}" for name, kind in ROW_COLUMNS.items()
    )
    con.execute(
        f"COPY (SELECT {columns} FROM {source}) TO {literal(str(to))} "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
    )
    counted = con.execute(f"SELECT count(*) FROM read_parquet({literal(str(to))})").fetchone()
    return int(counted[0]) if counted else 0


def give_back(con: DuckDBPyConnection, ledger: Ledger, spec: str, tag: str, *, at: str, to: Path) -> RowsFile:
    """The rows of a job that was surely not created: pending, and not charged an attempt."""
    rows = ledger.tag_rows(con, spec, tag)
    values = {"status": "'pending'", "attempt": "greatest(r.attempt - 1, 0)", "at": literal(at)}
    count = write_states(con, values, f"{rows} r WHERE r.status = 'in_flight'", to)
    return RowsFile(spec, to, count)


def wait_again(
    con: DuckDBPyConnection, ledger: Ledger, spec: str, tag: str, *, sent: Path | None, charge: int, at: str, to: Path
) -> RowsFile:
    """The rows of a job that turns up, or is alive after all: queued and failed ones are in flight with it again.

    sent: Parquet of what it carried, None if that is not archived. By it those are found, too, that were sent in other
    jobs since, or nearly, and are with none now. charge: attempts that the job adds to those recorded.
    """
    values = {
        "status": "'in_flight'", "tag": literal(tag), "attempt": f"r.attempt + {charge}", "failure": "NULL",
        "failure_message": "NULL", "failure_parse": "NULL", "at": literal(at),
    }  # fmt: skip
    own = f"r.tag IS NOT DISTINCT FROM {literal(tag)}"
    if sent is not None:
        own += (
            f" OR (r.key_hash, r.request_fp) IN (SELECT (key_hash, request_fp) FROM read_parquet({literal(str(sent))}))"
        )
    source = f"{ledger.rows_relation(con, spec)} r WHERE r.status IN ('pending', 'failed') AND ({own})"
    return RowsFile(spec, to, write_states(con, values, source, to))


def sent_again(rows: str, tag: str) -> str:
    """FROM-able key_hash of those of `rows` that another job than that of this tag has, or had. Not of those that are
    queued: the tag of a queued row is of a job that it was given back from."""
    return f"(SELECT key_hash FROM {rows} WHERE tag <> {literal(tag)} AND status <> 'pending')"


def waiting_rows(ctx: RunContext, spec: str, tag: str) -> int:
    """How many rows wait for the job of this tag."""
    with closing(ctx.connect()) as con:
        rows = ctx.ledger.tag_rows(con, spec, tag)
        return int(con.execute(f"SELECT count(*) FROM {rows} r WHERE {WAITING}").fetchall()[0][0])


def queue_rows(con: DuckDBPyConnection, ledger: Ledger, spec: str, states: Path, *, at: str, to: Path) -> RowsFile:
    """The rows of a shard that was planned and not sent, from its row states: pending, and not charged an attempt.

    A row keeps the tag under which this very request was sent before: that job may still turn up.
    """
    values = {
        "status": "'pending'",
        "attempt": "greatest(r.attempt - 1, 0)",
        "tag": "CASE WHEN l.request_fp = r.request_fp THEN l.tag END",
        "at": literal(at),
    }
    planned = f"read_parquet({literal(str(states))})"
    recorded = f"(SELECT key_hash, request_fp, tag FROM {ledger.rows_of(con, spec, planned)})"
    source = f"{planned} r LEFT JOIN {recorded} l ON l.key_hash = r.key_hash"
    return RowsFile(spec, to, write_states(con, values, source, to))


def refuse_changed(ctx: RunContext, spec: str, states: Path, *, since: int, own: Collection[int] = frozenset()) -> None:
    """Raise StalePlan if the ledger changed any row of this Parquet of row states after the serial `since`.

    own: serials of commits that are known to concern other rows, or to be part of what was planned.
    """
    for serial, event in ctx.ledger.control().moves:
        if serial > since and serial not in own and spec in (event.spec, getattr(event, "before", "")):
            raise StalePlan(
                f"rows of {spec} moved to another name or key since they were planned.",
                hint="Nothing more was sent. Plan again.",
            )
    if not any(s.serial > since and s.serial not in own for s in ctx.ledger.row_segments(spec)):
        return
    others = f" AND r.changed_serial NOT IN ({', '.join(map(str, sorted(own)))})" if own else ""
    with closing(ctx.connect()) as con:
        rows = ctx.ledger.rows_of(con, spec, f"read_parquet({literal(str(states))})")
        counted = con.execute(f"SELECT count(*) FROM {rows} r WHERE r.changed_serial > {since}{others}").fetchone()
    if counted and counted[0]:
        raise StalePlan(
            f"{counted[0]} rows of {spec} changed in the ledger since they were planned.",
            hint="They were not touched. Plan again.",
        )
