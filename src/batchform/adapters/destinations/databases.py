"""Answers in a table of a SQLite or DuckDB file, replaced in one transaction.

The table `_batchform` in the same file says which tables are ours. Another table is never written, and never dropped.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from batchform.adapters.destinations.staging import as_text, check_folder, column_types, refusing, staged, write_rows
from batchform.canon import digest_of, file_digest
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery
from batchform.rows.sql import identifier, literal
from batchform.rows.stream import stream

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

OWNED: Final = "_batchform"
LOCK_SECONDS: Final = 30.0

_OWNED_COLUMNS = ("table_name", "spec", "digest", "delivered_at")
_NEW_OWNED = (
    f"CREATE TABLE IF NOT EXISTS {OWNED} (table_name TEXT PRIMARY KEY, spec TEXT, digest TEXT, delivered_at TEXT)"
)


class _Table(ABC):
    """What both kinds have in common: who owns a table, and when there is nothing to do."""

    _COLUMNS_OF: ClassVar[str]  # query: names of a table's or view's columns; empty when there is none
    _NOW: ClassVar[str]  # SQL: the time, in ISO 8601 UTC

    def __init__(
        self,
        path: Path,
        *,
        table: str,
        spec: str,
        shown: str,
        was: Collection[str] = (),
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        """path: real path of the database; spec: name of the spec whose answers the table holds; shown: path as the
        user wrote it; was: earlier names of the spec; lock_seconds: how long to wait for a lock."""
        self._path = path
        self._table = table
        self._spec, self._was = spec, was
        self._shown = f"table {table} of {shown}"
        self._lock_seconds = lock_seconds

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:  # noqa: ARG002
        """A database that another program keeps to itself counts as still holding the table."""
        if not self._path.is_file():
            return False
        try:
            with self._reading() as db:
                owner = self._owner(db) if self._columns(db, self._table) else None
                return owner is not None and all(owner[1] == stamp for stamp in stamps)
        except DestinationError:
            return True

    def check(self, columns: Sequence[str] | None = None) -> None:  # noqa: ARG002  (the database says what is ours)
        folded = self._table.casefold()
        if not folded.strip() or "\0" in folded or folded == OWNED or folded.startswith("sqlite_"):
            raise DestinationError(f"{self._shown}: a table cannot have this name.")
        if self._path.is_dir():
            raise DestinationError(f"{self._shown}: the path is a folder, not a database file.")
        check_folder(self._path.parent, shown=self._shown)
        if self._path.exists():
            with self._reading() as db:
                self._refuse_foreign(db)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.check()
        with refusing(self._shown), staged(self._path) as rows_file:
            rows = write_rows(con, delivery.relation, rows_file, format="parquet")
            columns = column_types(con, delivery.relation)
            digest = digest_of("table", [*map(list, columns), list(delivery.key_columns), file_digest(rows_file)])
            is_new = not self._path.exists()
            try:
                with self._writing() as db:
                    self._refuse_foreign(db)
                    if self._columns(db, self._table) and self._owner(db) == (self._spec, digest):
                        return Delivered(rows, self._shown, stamps=(digest,))
                    self._replace(db, con, columns, delivery.key_columns, rows_file)
                    self._own(db, digest)
            except BaseException:
                if is_new:  # what a database engine makes before it fails
                    for path in (self._path, *(Path(f"{self._path}{s}") for s in (".wal", "-journal", "-wal", "-shm"))):
                        path.unlink(missing_ok=True)
                raise
        return Delivered(rows, self._shown, stamps=(digest,))

    def _refuse_foreign(self, db: Any) -> None:
        """Raise DestinationError unless the table is this spec's or not there."""
        if self._columns(db, OWNED) not in ([], list(_OWNED_COLUMNS)):
            raise DestinationError(
                f"{self._shown}: the database has a table {OWNED} that batchform did not make.", hint=_ELSEWHERE
            )
        if not self._columns(db, self._table):
            return
        owner = self._owner(db)
        if owner is None:
            raise DestinationError(
                f"{self._shown} is already there, and batchform did not make it: it is left alone.", hint=_ELSEWHERE
            )
        if owner[0] != self._spec and owner[0] not in self._was:
            raise DestinationError(
                f"{self._shown} belongs to the spec {owner[0]}: two specs cannot share a table.",
                hint=f"Choose another table, or drop this one if {owner[0]} no longer delivers to it.",
            )

    def _columns(self, db: Any, table: str) -> list[str]:
        return [name for (name,) in db.execute(self._COLUMNS_OF, [table]).fetchall()]

    def _owner(self, db: Any) -> tuple[str, str] | None:
        """(spec, digest of the content) of the table, None if it is not recorded as ours."""
        if not self._columns(db, OWNED):
            return None
        found = db.execute(
            f"SELECT spec, digest FROM {OWNED} WHERE lower(table_name) = lower(?)", [self._table]
        ).fetchone()
        return (found[0], found[1]) if found else None

    def _own(self, db: Any, digest: str) -> None:
        db.execute(_NEW_OWNED)
        db.execute(f"DELETE FROM {OWNED} WHERE lower(table_name) = lower(?)", [self._table])
        db.execute(f"INSERT INTO {OWNED} VALUES (?, ?, ?, {self._NOW})", [self._table, self._spec, digest])

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Any]:
        """A read-only connection. DestinationError when the file is locked or no such database."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Any]:
        """A connection inside a transaction that is committed at the end, rolled back on any exception."""

    @abstractmethod
    def _replace(
        self, db: Any, con: DuckDBPyConnection, columns: Sequence[tuple[str, str]], key: Sequence[str], rows: Path
    ) -> None:
        """Make the table hold exactly the rows of the Parquet file `rows`."""


_ELSEWHERE = "Choose another table or database in destination."


class SqliteTable(_Table):
    """A table of a SQLite file, with the key as primary key."""

    _COLUMNS_OF = "SELECT name FROM pragma_table_info(?)"
    _NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
    _TYPES: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "INTEGER"),
        **dict.fromkeys(("FLOAT", "DOUBLE"), "REAL"),
        "BOOLEAN": "BOOLEAN",
        "BLOB": "BLOB",
    }  # others are TEXT

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._explained(), closing(self._open("ro")) as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._explained(), closing(self._open("rwc")) as db:
            # In the usual journal mode, pages that do not fit the cache lock readers out until the commit.
            db.execute("PRAGMA cache_size = -65536")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _open(self, mode: str) -> sqlite3.Connection:
        uri = f"{self._path.as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=self._lock_seconds, isolation_level=None)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            said = f"another program has kept it locked for {self._lock_seconds:g} seconds" if busy else str(error)
            raise DestinationError(
                f"{self._shown} cannot be written: {said}.", hint=_CLOSE if busy else _CHANGED
            ) from error

    def _replace(
        self, db: Any, con: DuckDBPyConnection, columns: Sequence[tuple[str, str]], key: Sequence[str], rows: Path
    ) -> None:
        table = identifier(self._table)
        declared = [(name, self._TYPES.get(kind, "TEXT")) for name, kind in columns]
        wanted = [(name, kind, list(key).index(name) + 1 if name in key else 0) for name, kind in declared]
        if wanted == db.execute("SELECT name, type, pk FROM pragma_table_info(?)", [self._table]).fetchall():
            db.execute(f"DELETE FROM {table}")  # keeps the indexes that users made
        else:
            defined = [f"{identifier(name)} {kind}" for name, kind in declared]
            if key:
                defined.append(f"PRIMARY KEY ({', '.join(map(identifier, key))})")
            db.execute(f"DROP TABLE IF EXISTS {table}")
            db.execute(f"CREATE TABLE {table} ({', '.join(defined)})")
        places = ", ".join("?" * len(columns))
        selected = ", ".join(self._value(name, kind) for name, kind in columns)
        for batch in stream(con, f"SELECT {selected} FROM read_parquet({literal(str(rows))})"):
            db.executemany(f"INSERT INTO {table} VALUES ({places})", batch)

    def _value(self, name: str, kind: str) -> str:
        return identifier(name) if kind in self._TYPES else as_text(name, kind)


class DuckDBTable(_Table):
    """A table of a DuckDB file. Only one process at a time can have such a file open for writing."""

    _COLUMNS_OF = (
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = 'main' AND lower(table_name) = lower(?) ORDER BY ordinal_position"
    )
    _NOW = "strftime(now() AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ')"

    @contextmanager
    def _reading(self) -> Iterator[DuckDBPyConnection]:
        with self._explained(), closing(self._open(read_only=True)) as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[DuckDBPyConnection]:
        with self._explained(), closing(self._open(read_only=False)) as db:
            db.execute("SET memory_limit = '256MB'")
            db.execute("BEGIN TRANSACTION")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _open(self, *, read_only: bool) -> DuckDBPyConnection:
        """A connection of our own: the one that made the rows may be confined."""
        import duckdb

        return duckdb.connect(str(self._path), read_only=read_only)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            first = str(error).strip().splitlines()[0].rstrip(".")
            busy = "lock" in first or "different configuration" in first
            said = f"another connection has it open ({first})" if busy else first
            raise DestinationError(
                f"{self._shown} cannot be written: {said}.", hint=_CLOSE if busy else _CHANGED
            ) from error

    def _replace(
        self,
        db: Any,
        con: DuckDBPyConnection,  # noqa: ARG002
        columns: Sequence[tuple[str, str]],
        key: Sequence[str],  # noqa: ARG002  (a primary key costs ten times the writing, and much memory)
        rows: Path,
    ) -> None:
        selected = ", ".join(f"CAST({identifier(name)} AS {kind}) AS {identifier(name)}" for name, kind in columns)
        db.execute(
            f"CREATE OR REPLACE TABLE main.{identifier(self._table)} AS "
            f"SELECT {selected} FROM read_parquet({literal(str(rows))})"
        )


_CHANGED = "Nothing was changed there, and no answer is lost: put this right and run `batchform sync`."
_CLOSE = "Nothing was changed there, and no answer is lost: close the other program and run `batchform sync`."
