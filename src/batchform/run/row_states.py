"""New row states, made in DuckDB from the recorded ones. Nothing here decides; it only writes what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.errors import StalePlan
from batchform.ledger.records import ROW_COLUMNS
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
    con.execute(f"COPY (SELECT {columns} FROM {source}) TO {literal(str(to))} (FORMAT parquet, COMPRESSION zstd)")
    counted = con.execute(f"SELECT count(*) FROM read_parquet({literal(str(to))})").fetchone()
    return int(counted[0]) if counted else 0


def give_back(con: DuckDBPyConnection, ledger: Ledger, spec: str, tag: str, *, at: str, to: Path) -> RowsFile:
    """The rows of a job that was surely not created: pending, and not charged an attempt."""
    rows = ledger.tag_rows(con, spec, tag)
    values = {"status": "'pending'", "attempt": "greatest(r.attempt - 1, 0)", "at": literal(at)}
    count = write_states(con, values, f"{rows} r WHERE r.status = 'in_flight'", to)
    return RowsFile(spec, to, count)


def take_back(con: DuckDBPyConnection, ledger: Ledger, spec: str, tag: str, *, at: str, to: Path) -> RowsFile:
    """The undoing of `give_back`, when the job turns up after all: its rows that still wait are in flight again."""
    rows = ledger.tag_rows(con, spec, tag)
    values = {"status": "'in_flight'", "attempt": "r.attempt + 1", "at": literal(at)}
    count = write_states(con, values, f"{rows} r WHERE r.status = 'pending'", to)
    return RowsFile(spec, to, count)


def refuse_changed(ctx: RunContext, spec: str, states: Path, *, since: int) -> None:
    """Raise StalePlan if the ledger changed any row of this Parquet of row states after the serial `since`."""
    if ctx.ledger.serial == since:
        return
    with closing(ctx.connect()) as con:
        rows, planned = ctx.ledger.rows_relation(con, spec), f"read_parquet({literal(str(states))})"
        counted = con.execute(
            f"SELECT count(*) FROM {rows} r SEMI JOIN {planned} s ON r.key_hash = s.key_hash "
            f"WHERE r.changed_serial > {since}"
        ).fetchone()
    if counted and counted[0]:
        raise StalePlan(
            f"{counted[0]} rows of {spec} changed in the ledger since they were planned.",
            hint="They were not touched. Plan again.",
        )
