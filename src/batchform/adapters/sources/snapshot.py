"""Rows read once into a Parquet file of the run's temp folder, so that every later scan sees the same rows.

Anything but a bare Parquet source is read this way: errors come up while the source is opened, with file and line, rows
keep their numbers, and a source that changes during the run cannot make two scans disagree.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchform.adapters.sources.sql import check_query, check_where, quote_name, quote_text, source_error
from batchform.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

ROW_NUMBER = "batchform:row"
"""Hidden column of a filtered snapshot: 1-based row number before the filter."""

_GROUP_BYTES = 16 << 20
_MAX_GROUP_ROWS = 61_440
_MIN_GROUP_ROWS = 2_048  # DuckDB's vector size
# Types that Parquet holds exactly. The others are kept as text and cast back on reading.
_EXACT = re.compile(
    r"BOOLEAN|U?(TINY|SMALL|BIG)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB|DATE|TIME|UUID|JSON"
    r"|TIMESTAMP(_NS| WITH TIME ZONE)?"
)
_CAST_BACK = frozenset({"HUGEINT", "UHUGEINT", "BIGNUM", "INTERVAL", "TIMESTAMP_S", "TIMESTAMP_MS"})
_INEXACT_INSIDE = re.compile(r"\b(U?HUGEINT|BIGNUM|INTERVAL|UNION|BIT|ENUM|TIMESTAMP_S|TIMESTAMP_MS|TIME WITH)\b")


class Snapshot(Struct, frozen=True):
    """path: the Parquet file; sql: FROM-able, only the user's columns; numbered: whether it has ROW_NUMBER;
    positional: whether row N of it is row N of what was read (false after a query)."""

    path: Path
    sql: str
    columns: Mapping[str, str]
    numbered: bool = False
    positional: bool = True

    def origins(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[int] | None:
        """0-based row numbers of what was read, for 0-based ordinals of the snapshot. None after a query."""
        if not self.positional:
            return None
        if not self.numbered or not ordinals:
            return list(ordinals)
        rows = con.execute(
            f"SELECT file_row_number, {quote_name(ROW_NUMBER)} - 1 FROM "
            f"read_parquet({quote_text(str(self.path))}, file_row_number = true) "
            f"WHERE file_row_number IN ({', '.join(map(str, map(int, ordinals)))})"
        ).fetchall()
        found: dict[int, int] = dict(rows)
        return [found[ordinal] for ordinal in ordinals]


def locate(
    con: DuckDBPyConnection, snapshot: Snapshot | None, ordinals: Sequence[int], places: Iterator[str]
) -> list[str]:
    """Where rows of a snapshot stand. places: of every row that was read, in order."""
    origins = snapshot.origins(con, ordinals) if snapshot else None
    if origins is None:
        return [f"row {ordinal + 1} of source.query" for ordinal in ordinals]
    wanted = set(origins)
    read = enumerate(itertools.islice(places, max(origins, default=-1) + 1))
    found = {number: place for number, place in read if number in wanted}
    return [found.get(origin, "a row that is no longer there") for origin in origins]


def temp_folder(con: DuckDBPyConnection) -> Path:
    """The connection's own temp folder, where snapshots live until the run removes it."""
    found = con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
    folder = Path(str(found or ".tmp")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def temp_path(con: DuckDBPyConnection, suffix: str) -> Path:
    """A new name in the temp folder."""
    return temp_folder(con) / f"source-{secrets.token_hex(8)}{suffix}"


def group_rows(row_bytes: float) -> int:
    """Rows of a row group, so that wide rows do not fill the memory."""
    fitting = int(_GROUP_BYTES / max(row_bytes, 1.0))
    return max(_MIN_GROUP_ROWS, min(_MAX_GROUP_ROWS, fitting))


def take(
    con: DuckDBPyConnection,
    sql: str,
    *,
    where: str | None = None,
    query: str | None = None,
    row_bytes: float = 1024.0,
) -> Snapshot:
    """Read `sql` (FROM-able) into a snapshot: all of it, or the rows that `where` keeps, or what `query` makes of it.

    `query` sees a relation named source, and nothing that is not valid without it: the rows are read whole first.
    Raises SourceError; DuckDB's own errors pass while `sql` itself is read, for the caller to explain.
    """
    if query is not None:
        base = take(con, sql, where=where, row_bytes=row_bytes)
        try:
            return take_query(con, query, source=base.sql, row_bytes=row_bytes)
        finally:
            base.path.unlink(missing_ok=True)
    selected = sql
    if where is not None:
        condition = check_where(con, where)
        numbered = f"(SELECT *, row_number() OVER () AS {quote_name(ROW_NUMBER)} FROM {sql})"
        selected = f"(SELECT * FROM {numbered} AS source WHERE (\n{condition}\n))"
        _try_where(con, selected)
    return _copy(con, f"SELECT * FROM {selected}", row_bytes=row_bytes)


def take_query(
    con: DuckDBPyConnection, query: str, *, source: str | None = None, use: str | None = None, row_bytes: float = 1024.0
) -> Snapshot:
    """Run the user's `query` once, over a relation named source, or inside the attached database `use`."""
    statement = check_query(con, query)
    cursor = con.cursor()  # its own temp schema and its own default database
    try:
        if source is not None:
            cursor.execute(f"CREATE TEMP VIEW source AS SELECT * FROM {source}")
        if use is not None:
            cursor.execute(f"USE {quote_name(use)}")
        return _copy(cursor, statement, row_bytes=row_bytes, positional=False)
    except _duckdb_error() as error:
        raise source_error(error, "source.query") from error
    finally:
        cursor.close()


def _duckdb_error() -> type[Exception]:
    import duckdb

    return duckdb.Error


def _try_where(con: DuckDBPyConnection, selected: str) -> None:
    """Names and types of a condition, before the rows are read."""
    try:
        con.execute(f"DESCRIBE SELECT * FROM {selected}")
    except _duckdb_error() as error:
        raise source_error(error, "source.where") from error


def _copy(con: DuckDBPyConnection, select: str, *, row_bytes: float, positional: bool = True) -> Snapshot:
    described = con.execute(f"DESCRIBE {select}").fetchall()
    types = {str(row[0]): str(row[1]) for row in described}
    check_columns([str(row[0]) for row in described], "The source")
    stored = ", ".join(_store(name, kind) for name, kind in types.items())
    path = temp_path(con, ".parquet")
    try:
        con.execute(
            f"COPY (SELECT {stored} FROM (\n{select}\n)) TO {quote_text(str(path))} "
            f"(FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {group_rows(row_bytes)})"
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    numbered = types.pop(ROW_NUMBER, None) is not None
    return _reading(con, path, types, numbered=numbered, positional=positional)


def _store(name: str, kind: str) -> str:
    column = quote_name(name)
    exact = _EXACT.fullmatch(kind) or (kind.endswith((")", "]")) and not _INEXACT_INSIDE.search(kind))
    return column if exact else f"CAST({column} AS VARCHAR) AS {column}"


def _reading(
    con: DuckDBPyConnection,
    path: Path,
    types: Mapping[str, str],
    *,
    numbered: bool = False,
    positional: bool = True,
    read_as: Mapping[str, str] | None = None,
) -> Snapshot:
    cast = {name: kind for name, kind in types.items() if kind in _CAST_BACK} | dict(read_as or {})
    columns = ", ".join(
        f"CAST({quote_name(name)} AS {cast[name]}) AS {quote_name(name)}" if name in cast else quote_name(name)
        for name in types
    )
    sql = f"(SELECT {columns} FROM read_parquet({quote_text(str(path))}, hive_partitioning = false))"
    described = con.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
    return Snapshot(path, sql, {str(row[0]): str(row[1]) for row in described}, numbered, positional)


def write_batches(
    con: DuckDBPyConnection, schema: pa.Schema, batches: Iterator[Any], *, read_as: Mapping[str, str] | None = None
) -> Snapshot:
    """A snapshot of Arrow record batches, each one row group: the caller bounds their bytes.

    read_as: DuckDB types of columns that are text in the batches, where Arrow has no such type.
    """
    import pyarrow.parquet as pq

    path = temp_path(con, ".parquet")
    try:
        with pq.ParquetWriter(path, schema, compression="snappy") as writer:
            for batch in batches:
                writer.write_batch(batch)
        described = con.execute(f"DESCRIBE SELECT * FROM read_parquet({quote_text(str(path))})").fetchall()
        return _reading(con, path, {str(row[0]): str(row[1]) for row in described}, read_as=read_as or {})
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SourceError(f"The temp folder {path.parent} cannot be written: {error.strerror or error}.") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def check_columns(names: Sequence[str], what: str) -> None:
    """Raise SourceError for columns without a name, or of one name: SQL does not tell `Id` from `id`."""
    seen: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        if not name or "\0" in name:
            raise SourceError(f"{what} has no name for column {number}.", hint="Give every column a name.")
        other = seen.get(name.lower())
        if other is not None:
            both = f"column {name!r} twice" if other == name else f"columns {other!r} and {name!r}"
            raise SourceError(
                f"{what} has {both}, and names must differ in more than case.",
                hint="Rename one of them where the rows come from.",
            )
        seen[name.lower()] = name
