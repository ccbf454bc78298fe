"""What the ledger's tests share: a clock to move, rows to write, a ledger in a folder."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from batchform.adapters.local_blobs import LocalBlobs
from batchform.canon import key_hash
from batchform.ledger.records import Intent
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.store import Ledger, RowsFile

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class HandClock:
    """Time that moves only when told to, or when slept."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def open_ledger(root: Path, *, clock: HandClock | None = None, who: str = "ann@desk") -> Ledger:
    return Ledger.open(LocalBlobs(root), clock=clock or HandClock(), who=who)


def rows_file(
    path: Path,
    keys: Iterable[str],
    *,
    spec: str = "triage",
    columns: Mapping[str, list[Any]] | None = None,
    **constants: Any,
) -> RowsFile:
    """Row states of these keys; status "pending" unless said otherwise."""
    listed = list(keys)
    with RowStateWriter(path, constants={"status": "pending", **constants}) as out:
        out.append({"key": listed, "key_hash": [key_hash(k) for k in listed], **(columns or {})})
    return RowsFile(spec, path, out.rows)


def intent(tag: str, *, spec: str = "triage", rows: int = 1) -> Intent:
    return Intent(
        at="2026-03-01T12:00:00Z",
        tag=tag,
        spec=spec,
        backend="local",
        fingerprint="sha256:00",
        realm="emulator",
        model="m",
        shard_digest="sha256:11",
        rows=rows,
        requests=rows,
        bytes=100,
        input_name="files/x",
        deadline="2026-03-01T12:15:00Z",
    )


def database() -> duckdb.DuckDBPyConnection:
    """A connection to this process's database, with temporary views of its own: to make a database costs 20 ms."""
    return _database(os.getpid()).cursor()


@atexit.register  # the engine's binding counts what is left at the end
def _close() -> None:
    _database.cache_clear()


@cache
def _database(pid: int) -> duckdb.DuckDBPyConnection:  # noqa: ARG001  (a forked process must not use its parent's)
    return duckdb.connect()


def values(ledger: Ledger, spec: str, *columns: str) -> list[tuple[Any, ...]]:
    """Some columns of a spec's rows, ordered by key."""
    with database() as con:
        rows = ledger.rows_relation(con, spec)
        return con.execute(f"SELECT {', '.join(columns)} FROM {rows} ORDER BY key").fetchall()
