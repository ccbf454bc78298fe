"""A project folder with a destination of any kind, written through a confined connection, read with other tools."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from pydantic import SecretStr

from batchform.adapters.destinations import make_destination
from batchform.adapters.sources import connect
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery, Destination
from batchform.spec.model import DatabaseDestination, FileDestination
from batchform.spec.model_sql import Database, SqlDestination

FILES = ["jsonl", "csv", "parquet"]
TABLES = ["sqlite", "duckdb"]
SQL = ["sql", "postgres"]  # through SQLAlchemy: a SQLite file, and a schema of a real server
ON_DISK = [*FILES, *TABLES, "sql"]
KINDS = [*ON_DISK, "postgres"]
TYPES = {"key": "VARCHAR", "n": "BIGINT", "doc": "JSON", "note": "VARCHAR", "score": "DOUBLE", "ok": "BOOLEAN"}
Row = tuple[Any, ...]
ROWS: list[Row] = [("a|b", 1, '{"x":[1,null]}', None, 0.5, True), ("c", 2, None, "", -1.0, False)]


class Place:
    """A project folder with one destination of a kind."""

    def __init__(self, root: Path, kind: str, *, schema: str = "", url: str = "sqlite:///out/answers.db") -> None:
        """schema, url: of a database that is no file."""
        self.root = root
        self.kind = kind
        self.url = url
        suffix = {"sqlite": "db", "sql": "db"}.get(kind, kind)
        self.file = root / "out" / f"answers.{suffix}"
        self.table = f"{schema}.answers" if schema else "answers"
        self.shown = f"table {self.table} of shop" if kind in SQL else f"out/answers.{suffix}"
        self.owned = "_batchform_tables" if kind in SQL else "_batchform"

    def destination(self, *, folder: bool = False, path: str | None = None, spec: str = "triage") -> Destination:
        made: Any
        if self.kind in SQL:
            made = SqlDestination(type="sql", database="shop", table=self.table)
            databases = {"shop": Database(url=SecretStr(self.url))}
            return make_destination(made, spec=spec, root=self.root, allow=(), databases=databases)
        shown = path or ("out/" if folder else self.shown)
        if self.kind in TABLES:
            made = DatabaseDestination(type=self.kind, path=shown, table="answers")  # type: ignore[arg-type]
        else:
            made = FileDestination(type=self.kind, path=shown)  # type: ignore[arg-type]
        return make_destination(made, spec=spec, root=self.root, allow=())

    def deliver(
        self,
        rows: list[Row],
        *,
        to: Destination | None = None,
        columns: str = "",
        changed: list[Row] | None = None,
        name: str = "triage-00000000.aaaa.1",
        previous: tuple[str, ...] = (),
        spec: str = "triage",
        full: bool = True,
    ) -> Delivered:
        with closing(self.connect()) as con:
            for view, some in (("everything", rows), ("news", rows if changed is None else changed)):
                columns_of = [[row[i] for row in some] for i in range(len(TYPES))]
                values = ", ".join(f"unnest(?::{kind}[]) AS {name}" for name, kind in TYPES.items())
                con.execute(f"CREATE TEMP TABLE t_{view} AS SELECT {values}", columns_of)
                at = "TIMESTAMPTZ '2026-11-21 13:30:00.25+01' AS at"
                chosen = columns or f"*, {at}"
                con.execute(f"CREATE TEMP VIEW {view} AS SELECT {chosen} FROM t_{view} ORDER BY key")
            delivery = Delivery(spec, name, "everything", "news", ("key",), full, previous, name.partition(".")[0])
            return (to or self.destination(spec=spec)).deliver(con, delivery)

    def connect(self) -> duckdb.DuckDBPyConnection:
        return connect(self.root / ".batchform" / "tmp", memory_limit="256MB", threads=2, allowed=[self.root])

    def read(self, path: Path | None = None) -> list[Row]:
        """The rows, read with tools that are not batchform's."""
        path = path or self.file
        match self.kind:
            case "jsonl":
                return [tuple(json.loads(line).values()) for line in path.read_text().split("\n")[:-1]]
            case "csv":
                with path.open(newline="") as file:
                    return [tuple(row) for row in csv.reader(file)][1:]
            case "parquet":
                return [tuple(row.values()) for row in pq.read_table(path).to_pylist()]
            case "sqlite" | "sql":
                with closing(sqlite3.connect(path)) as db:
                    return db.execute("SELECT * FROM answers ORDER BY rowid").fetchall()
            case "postgres":
                return execute(self, 'SELECT * FROM answers ORDER BY key COLLATE "C"')
        with duckdb.connect(str(path), read_only=True) as con:
            return [tuple(r.values()) for r in con.sql("SELECT * FROM answers").to_arrow_table().to_pylist()]

    def keys(self) -> list[str]:
        if self.kind != "duckdb":
            return [row[0] for row in self.read()]
        with duckdb.connect(str(self.file), read_only=True) as con:
            return [key for (key,) in con.execute("SELECT key FROM answers ORDER BY rowid").fetchall()]

    def identity(self) -> tuple[int, int, bytes]:
        """What changes when the destination is written."""
        if self.kind == "postgres":
            rows = execute(self, "SELECT ctid::text, xmin::text, answers::text FROM answers ORDER BY 1")
            return len(rows), 0, repr(rows).encode()
        found = self.file.stat()
        return found.st_ino, found.st_mtime_ns, self.file.read_bytes()

    def leftovers(self) -> list[str]:
        return [p.name for p in (self.root / "out").glob("*") if p.name != self.file.name]


def row(key: str, n: int = 0) -> Row:
    return (key, n, "{}", "note", 0.0, True)


def execute(place: Place, *statements: str) -> list[Row]:
    """Run SQL in the destination's database as its owner would."""
    if place.kind == "postgres":
        return _on_server(place, *statements)
    opened: Any = sqlite3.connect(place.file) if place.kind != "duckdb" else duckdb.connect(str(place.file))
    with closing(opened) as db:
        found: list[Row] = []
        for statement in statements:
            found = db.execute(statement).fetchall()
        if place.kind != "duckdb":
            db.commit()
    return found


def _on_server(place: Place, *statements: str) -> list[Row]:
    import psycopg

    found: list[Row] = []
    with closing(psycopg.connect(place.url.replace("+psycopg", ""), autocommit=True)) as db:
        db.execute(f"SET search_path = {place.table.partition('.')[0]}")
        for statement in statements:
            done = db.execute(statement)
            found = done.fetchall() if done.description else []
    return found


# --- in processes of their own -----------------------------------------------------------------------------------


def deliver_within_64_kb(root: str, kind: str) -> None:
    """Deliver the rows of stdin where no file may be larger, as if the disk were full."""
    rows = [tuple(r) for r in json.load(sys.stdin)]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
    with _told_if_refused():
        Place(Path(root), kind).deliver(rows)


def check_as_ordinary_user(root: str, kind: str) -> None:
    destination = Place(Path(root), kind).destination()
    with _told_if_refused():
        if kind in SQL:
            destination.check()  # imports what the ordinary user may not read
        if os.geteuid() == 0:
            os.setuid(65534)
        destination.check()


@contextmanager
def _told_if_refused() -> Iterator[None]:
    try:
        yield
    except DestinationError as error:
        print("refused" if "cannot be written" in error.render() else error.render())  # noqa: T201
