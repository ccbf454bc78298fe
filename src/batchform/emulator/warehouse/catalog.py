"""What exists and what it held when: datasets, tables, their versions and jobs, in SQLite; rows in Parquet files.

A version of a table is its schema and a list of files that never change. Every mutation adds a version in one
transaction, so a table can be read as of any time of the last seven days, and processes may share the folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.emulator.database import Database
from batchform.emulator.store import new_id
from batchform.emulator.warehouse.fields import Schema

TRAVEL_SECONDS: Final = 7 * 24 * 3600.0
"""How long old versions can be read."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS datasets (
  project TEXT, id TEXT, location TEXT NOT NULL, meta TEXT NOT NULL, created REAL NOT NULL, modified REAL NOT NULL,
  etag TEXT NOT NULL, PRIMARY KEY (project, id)
);
CREATE TABLE IF NOT EXISTS tables (
  key INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, dataset TEXT NOT NULL, id TEXT NOT NULL,
  meta TEXT NOT NULL, created REAL NOT NULL, modified REAL NOT NULL, etag TEXT NOT NULL, expires REAL,
  UNIQUE (project, dataset, id)
);
CREATE TABLE IF NOT EXISTS versions (
  table_key INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, schema TEXT NOT NULL, files TEXT NOT NULL,
  PRIMARY KEY (table_key, number)
);
CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, rows INTEGER NOT NULL, columns TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inserted (
  table_key INTEGER, insert_id TEXT, at REAL NOT NULL, PRIMARY KEY (table_key, insert_id)
);
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, location TEXT NOT NULL, id TEXT NOT NULL,
  config TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL, upload TEXT NOT NULL, request_id TEXT,
  parent TEXT NOT NULL DEFAULT '', created REAL NOT NULL, started REAL NOT NULL, ended REAL,
  outcome TEXT NOT NULL DEFAULT '{}', error TEXT, UNIQUE (project, id)
);
CREATE UNIQUE INDEX IF NOT EXISTS requests ON jobs (project, request_id);
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, project TEXT NOT NULL, job TEXT NOT NULL, answer TEXT);
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, spec TEXT NOT NULL, created REAL NOT NULL)
"""


class Conflict(Exception):
    """Somebody else changed the table in the meantime."""


class TableRef(msgspec.Struct, frozen=True, order=True):
    """Which table. `TableRef.parse` reads `p.d.t`, `p:d.t` and `bq://p.d.t`."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, name: str) -> TableRef:
        """Raises ValueError."""
        rest, _, table = name.removeprefix("bq://").rpartition(".")
        project, _, dataset = rest.rpartition(":" if ":" in rest else ".")
        if not (project and dataset and table):
            raise ValueError(f"'{name}' does not name a table as project.dataset.table.")
        return cls(project, dataset, table)

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    def resource(self) -> dict[str, str]:
        """As REST has it."""
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": self.table}


class File(msgspec.Struct, frozen=True):
    """One Parquet file. columns: name → bytes as BigQuery bills them."""

    id: str
    rows: int
    columns: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.columns.values())


class Version(msgspec.Struct, frozen=True):
    """What a table held from `at` (seconds since 1970) on."""

    number: int
    at: float
    schema: Schema
    files: tuple[File, ...]

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.files)


class TableRow(msgspec.Struct, frozen=True):
    """A table as the catalog has it. meta: what REST may set, but for the schema."""

    key: int
    ref: TableRef
    meta: dict[str, Any]
    created: float
    modified: float
    etag: str
    expires: float | None


class DatasetRow(msgspec.Struct, frozen=True):
    """A dataset as the catalog has it."""

    project: str
    id: str
    location: str
    meta: dict[str, Any]
    created: float
    modified: float
    etag: str


class Catalog(Database):
    """SQLite under `root`; safe to use from several threads and processes. `close` it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "catalog.sqlite", _lay_out)


def _lay_out(db: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";\n"):
        db.execute(statement)


def dataset(db: sqlite3.Connection, project: str, name: str) -> DatasetRow | None:
    row = db.execute("SELECT * FROM datasets WHERE project = ? AND id = ?", (project, name)).fetchone()
    return None if row is None else _dataset(row)


def datasets(db: sqlite3.Connection, project: str) -> list[DatasetRow]:
    rows = db.execute("SELECT * FROM datasets WHERE project = ? ORDER BY id", (project,)).fetchall()
    return [_dataset(row) for row in rows]


def _dataset(row: sqlite3.Row) -> DatasetRow:
    meta = msgspec.json.decode(row["meta"])
    return DatasetRow(row["project"], row["id"], row["location"], meta, row["created"], row["modified"], row["etag"])


def table(db: sqlite3.Connection, ref: TableRef, now: float) -> TableRow | None:
    """None when it does not exist or has expired."""
    row = db.execute(
        "SELECT * FROM tables WHERE project = ? AND dataset = ? AND id = ?", (ref.project, ref.dataset, ref.table)
    ).fetchone()
    return None if row is None or _expired(row, now) else _table(row)


def tables(db: sqlite3.Connection, project: str, name: str, now: float) -> list[TableRow]:
    """All tables of a dataset, by name."""
    rows = db.execute("SELECT * FROM tables WHERE project = ? AND dataset = ? ORDER BY id", (project, name)).fetchall()
    return [_table(row) for row in rows if not _expired(row, now)]


def _expired(row: sqlite3.Row, now: float) -> bool:
    return row["expires"] is not None and row["expires"] <= now


def _table(row: sqlite3.Row) -> TableRow:
    return TableRow(
        row["key"],
        TableRef(row["project"], row["dataset"], row["id"]),
        msgspec.json.decode(row["meta"]),
        row["created"],
        row["modified"],
        row["etag"],
        row["expires"],
    )


def version(db: sqlite3.Connection, key: int, at: float | None = None) -> Version | None:
    """The newest version, or the newest one that was there at a time."""
    row = db.execute(
        "SELECT * FROM versions WHERE table_key = ? AND at <= ? ORDER BY number DESC LIMIT 1",
        (key, float("inf") if at is None else at),
    ).fetchone()
    return None if row is None else _version(db, row)


def numbered(db: sqlite3.Connection, key: int, number: int) -> Version | None:
    """One version."""
    row = db.execute("SELECT * FROM versions WHERE table_key = ? AND number = ?", (key, number)).fetchone()
    return None if row is None else _version(db, row)


def _version(db: sqlite3.Connection, row: sqlite3.Row) -> Version:
    ids: list[str] = msgspec.json.decode(row["files"])
    found: dict[str, File] = {}
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        marks = ", ".join("?" * len(part))
        for file in db.execute(f"SELECT * FROM files WHERE id IN ({marks})", part).fetchall():
            found[file["id"]] = File(file["id"], file["rows"], msgspec.json.decode(file["columns"]))
    schema = msgspec.json.decode(row["schema"], type=Schema)
    return Version(row["number"], row["at"], schema, tuple(found[i] for i in ids))


def create_table(
    db: sqlite3.Connection, ref: TableRef, schema: Schema, meta: dict[str, Any], now: float, expires: float | None
) -> int:
    """A new, empty table; its key. One that has expired makes room. Raises sqlite3.IntegrityError."""
    old = db.execute(
        "SELECT * FROM tables WHERE project = ? AND dataset = ? AND id = ?", (ref.project, ref.dataset, ref.table)
    ).fetchone()
    if old is not None and _expired(old, now):
        drop_table(db, old["key"])
    made = db.execute(
        "INSERT INTO tables (project, dataset, id, meta, created, modified, etag, expires) VALUES (?,?,?,?,?,?,?,?)",
        (ref.project, ref.dataset, ref.table, msgspec.json.encode(meta).decode(), now, now, new_id(), expires),
    )
    key = made.lastrowid or 0
    _add(db, key, 1, now, schema, ())
    return key


def drop_table(db: sqlite3.Connection, key: int) -> None:
    """The table, its versions and what it remembers of inserts. Its files go when somebody tidies up."""
    for name in ("versions", "inserted"):
        db.execute(f"DELETE FROM {name} WHERE table_key = ?", (key,))
    db.execute("DELETE FROM tables WHERE key = ?", (key,))


def advance(
    db: sqlite3.Connection, key: int, base: int, schema: Schema, files: Iterable[File], now: float, *, append: bool
) -> None:
    """A new version. append: after what is there now, which others may have added to since; else `base` must be it.

    Raises Conflict.
    """
    current = version(db, key)
    if current is None:
        raise Conflict
    kept: tuple[File, ...] = ()
    if append:
        if current.number != base and current.schema != schema:
            raise Conflict
        kept = current.files
    elif current.number != base:
        raise Conflict
    new = tuple(files)
    for file in new:
        row = (file.id, file.rows, msgspec.json.encode(file.columns).decode())
        db.execute("INSERT OR IGNORE INTO files VALUES (?, ?, ?)", row)
    at = max(now, current.at)
    _add(db, key, current.number + 1, at, schema, (*kept, *new))
    db.execute("UPDATE tables SET modified = ?, etag = ? WHERE key = ?", (at, new_id(), key))


def _add(db: sqlite3.Connection, key: int, number: int, at: float, schema: Schema, files: tuple[File, ...]) -> None:
    names = msgspec.json.encode([f.id for f in files]).decode()
    row = (key, number, at, msgspec.json.encode(schema).decode(), names)
    db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?)", row)


def tidy(db: sqlite3.Connection, now: float) -> set[str]:
    """Forget expired tables and versions that nobody can ask for any more; the files that are still needed."""
    for (key,) in db.execute("SELECT key FROM tables WHERE expires <= ?", (now,)).fetchall():
        drop_table(db, key)
    db.execute(
        "DELETE FROM versions WHERE EXISTS (SELECT 1 FROM versions AS v WHERE v.table_key = versions.table_key"
        " AND v.number > versions.number AND v.at <= ?)",
        (now - TRAVEL_SECONDS,),
    )
    needed = {i for (text,) in db.execute("SELECT files FROM versions") for i in msgspec.json.decode(text)}
    for (file,) in db.execute("SELECT id FROM files").fetchall():
        if file not in needed:
            db.execute("DELETE FROM files WHERE id = ?", (file,))
    return needed
