"""Rows from a table or a query of a SQLite file, opened read-only and streamed in batches.

SQLite types values, not columns. A column's type is what its values are: integers BIGINT, reals DOUBLE, texts VARCHAR,
blobs BLOB; anything mixed is VARCHAR, where a number is its digits and a blob must be UTF-8.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from batchform.adapters.sources.databases import check_spec, no_such_table, the_file
from batchform.adapters.sources.paths import SourceFile
from batchform.adapters.sources.snapshot import Snapshot, check_columns, write_batches
from batchform.adapters.sources.sql import quote_name, unsteady_error
from batchform.errors import SourceError
from batchform.ports import Relation
from batchform.spec.model import DatabaseSource
from batchform.spec.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_BUSY_SECONDS = 5.0
_FIRST_BATCH_ROWS = 16  # rows may be wide; the next batches grow by what the first ones weigh
_BATCH_ROWS = 61_440
_BATCH_BYTES = 16 << 20
_UNSTEADY = frozenset({"random", "randomblob"})
_REFUSED = "not authorized to use function: "
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


class SqliteSource:
    """The `sqlite` source. `where` and `query` are SQLite's own SQL, and may only read."""

    def __init__(self, spec: DatabaseSource, *, root: Path, allow: Sequence[Path]) -> None:
        check_spec(spec)
        self._spec, self._root, self._allow = spec, root, allow
        self._described = ""

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Read the table or query into a snapshot. Raises SourceError."""
        file = the_file(self._spec, root=self._root, allow=self._allow)
        self._described = f"{file.name}, {f'table {self._spec.table}' if self._spec.table else 'source.query'}"
        try:
            with closing(_connect(file)) as db:
                db.execute("BEGIN")  # both passes see the same rows
                snapshot = self._read(con, db, self._select(db, file))
        except sqlite3.Error as error:
            raise self._explain(error, file) from error
        return Relation(snapshot.sql, snapshot.columns, self._described)

    def probe(self, con: DuckDBPyConnection) -> str:
        """Compile the statement. Raises SourceError."""
        del con
        file = the_file(self._spec, root=self._root, allow=self._allow)
        self._described = f"{file.name}, {f'table {self._spec.table}' if self._spec.table else 'source.query'}"
        try:
            with closing(_connect(file)) as db:
                select = self._select(db, file)
                db.set_authorizer(_authorize)
                found = db.execute(f"SELECT * FROM (\n{select}\n) LIMIT 0").description
        except sqlite3.Error as error:
            raise self._explain(error, file) from error
        return f"{self._described}: {counted(len(found), 'column')}"

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """`file, table t, row N` of each row, counted among those that source.where keeps."""
        del con
        kept = " of those that source.where keeps" if self._spec.where is not None else ""
        return [f"{self._described}, row {ordinal + 1}{kept}" for ordinal in ordinals]

    def _select(self, db: sqlite3.Connection, file: SourceFile) -> str:
        if self._spec.query is not None:
            return self._spec.query.rstrip().removesuffix(";")
        name = self._spec.table or ""
        rows = db.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
        kinds = {_decoded(row[0]): _decoded(row[1]) for row in rows}
        tables = {table.lower(): table for table in kinds}
        if name.lower() not in tables:
            raise no_such_table(name, list(tables.values()), file)
        table = quote_name(tables[name.lower()])
        # The line break keeps a trailing comment from swallowing the parenthesis.
        where = f" WHERE (\n{self._spec.where}\n)" if self._spec.where is not None else ""
        order = _order(db, table) if kinds[tables[name.lower()]] == "table" else ""
        return f"SELECT * FROM {table}{where}{order}"

    def _read(self, con: DuckDBPyConnection, db: sqlite3.Connection, select: str) -> Snapshot:
        import pyarrow as pa

        db.set_authorizer(_authorize)
        columns = db.execute(select).description
        if columns is None:
            raise SourceError(f"source.{self._field} must be one SELECT.")
        names = [_decoded(column[0]) for column in columns]
        check_columns(names, self._described)
        kinds = self._kinds(db, select, len(names))
        fields = [(name, _arrow_type(kind)) for name, kind in zip(names, kinds, strict=True)]
        schema = pa.schema([pa.field(name, kind) for name, kind in fields])
        return write_batches(con, schema, self._batches(db.execute(select), schema, kinds))

    def _kinds(self, db: sqlite3.Connection, select: str, width: int) -> list[set[str]]:
        """The storage classes that occur in each column."""
        # Positional names, since a query's own may need quoting that SQLite does not round-trip.
        aliases = [f"c{index}" for index in range(width)]
        facts = ", ".join(f"group_concat(DISTINCT typeof({alias}))" for alias in aliases)
        row = db.execute(f"WITH s({', '.join(aliases)}) AS (\n{select}\n) SELECT {facts} FROM s").fetchone()
        return [set(_decoded(value).split(",")) - {"null"} if value is not None else set() for value in row]

    def _batches(self, rows: sqlite3.Cursor, schema: pa.Schema, kinds: Sequence[set[str]]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        number, size = 0, _FIRST_BATCH_ROWS
        while batch := rows.fetchmany(size):
            columns = list(zip(*batch, strict=True))
            for index, kind in enumerate(kinds):
                if schema.types[index] == pa.string():
                    mixed = kind != {"text"}
                    columns[index] = self._texts(columns[index], number, schema.names[index], mixed=mixed)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            made = pa.record_batch(arrays, schema=schema)
            yield made
            number += len(batch)
            fitting = int(_BATCH_BYTES * len(batch) / max(made.nbytes, 1))
            size = max(1, min(2 * size, fitting, _BATCH_ROWS))

    def _texts(self, values: Sequence[Any], before: int, column: str, *, mixed: bool) -> tuple[str | None, ...]:
        try:
            if mixed:
                return tuple(None if v is None else v.decode() if isinstance(v, bytes) else str(v) for v in values)
            return tuple(None if v is None else v.decode() for v in values)
        except UnicodeDecodeError:
            bad = next(i for i, v in enumerate(values, 1) if isinstance(v, bytes) and not _is_utf8(v))
            raise SourceError(
                f"{self._described}, row {before + bad}: column {column!r} holds bytes that are not UTF-8.",
                hint="Convert the column with source.query, such as hex(column).",
            ) from None

    def _explain(self, error: sqlite3.Error, file: SourceFile) -> SourceError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return SourceError(
                f"{file.name} is locked by a process that writes to it.", hint="Try again when it is done."
            )
        if name.startswith("SQLITE_NOTADB"):
            return SourceError(f"{file.name} is not a SQLite database.")
        if name.startswith("SQLITE_CORRUPT"):
            return SourceError(
                f"{file.name} is damaged: {error}.", hint="`sqlite3 FILE 'PRAGMA integrity_check'` says where."
            )
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            return SourceError(
                f"{file.name} cannot be opened for reading: {error}.",
                hint="A database in WAL mode needs a folder that can be written, or a copy without it.",
            )
        if str(error).startswith(_REFUSED):
            return unsteady_error(f"{str(error).removeprefix(_REFUSED).lower()}()", f"source.{self._field}")
        if name.startswith("SQLITE_AUTH"):
            return SourceError(f"source.{self._field} may only read: {error}.")
        if "one statement" in str(error):
            return SourceError(f"source.{self._field} must hold exactly one SELECT.")
        return (
            SourceError(f"{self._described}: {error}.")
            if self._field == "table"
            else SourceError(f"source.{self._field}: {error}.")
        )

    @property
    def _field(self) -> str:
        return "query" if self._spec.query is not None else "where" if self._spec.where is not None else "table"


def _connect(file: SourceFile) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(str(file.path))}?mode=ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    db.text_factory = bytes  # text that is not UTF-8 must be named, not raised from inside the driver
    return db


def _authorize(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    unsteady = action == sqlite3.SQLITE_FUNCTION and (function or "").lower() in _UNSTEADY
    return sqlite3.SQLITE_OK if action in _READS and not unsteady else sqlite3.SQLITE_DENY


def _order(db: sqlite3.Connection, table: str) -> str:
    """The table's own order, which a condition could otherwise change by choosing an index."""
    try:
        db.execute(f"SELECT rowid FROM {table} LIMIT 0")
    except sqlite3.OperationalError:
        keys = [(row[5], _decoded(row[1])) for row in db.execute(f"PRAGMA table_info({table})") if row[5]]
        return f" ORDER BY {', '.join(quote_name(name) for _, name in sorted(keys))}" if keys else ""
    return " ORDER BY rowid"


def _decoded(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _arrow_type(kinds: set[str]) -> pa.DataType:
    import pyarrow as pa

    exact = {"integer": pa.int64(), "real": pa.float64(), "blob": pa.binary()}
    return exact.get(next(iter(kinds)), pa.string()) if len(kinds) == 1 else pa.string()
