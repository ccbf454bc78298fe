"""Rows from Parquet files, read in place: only the columns that a scan asks for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.adapters.sources.delimited import differing, glob_escape
from batchform.adapters.sources.paths import Remote, SourceFile, describe, expand, read_from
from batchform.adapters.sources.snapshot import Snapshot, check_columns, take
from batchform.adapters.sources.sql import quote_text, source_error
from batchform.errors import SourceError
from batchform.ports import Relation
from batchform.spec.model import FileSource

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"})


class ParquetSource:
    """The `parquet` source. With `where` or `query` the selected rows are read once into a snapshot."""

    def __init__(self, spec: FileSource, *, root: Path, allow: Sequence[Path], remote: Remote | None = None) -> None:
        self._spec, self._root, self._allow, self._remote = spec, root, allow, remote
        self._files: list[SourceFile] = []
        self._rows: list[int] = []
        self._snapshot: Snapshot | None = None

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Check that the files fit together. Raises SourceError naming the file and the column."""
        import duckdb

        files = expand(self._spec.path, root=self._root, allow=self._allow, remote=self._remote)
        self._files = files
        described = describe(files, self._spec.path)
        try:
            columns = _checked(con, files)
            self._rows, row_bytes = _sizes(con, files)
            sql = _reader(files)
            if self._spec.where is None and self._spec.query is None:
                return Relation(sql, columns, described, **read_from(files))
            self._snapshot = take(con, sql, where=self._spec.where, query=self._spec.query, row_bytes=row_bytes)
        except duckdb.Error as error:
            raise source_error(error, "source.where" if self._spec.where is not None else described) from error
        return Relation(self._snapshot.sql, self._snapshot.columns, described, **read_from(files))

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """`file: row N` of each row."""
        origins = self._snapshot.origins(con, ordinals) if self._snapshot else list(ordinals)
        if origins is None:
            return [f"row {ordinal + 1} of source.query" for ordinal in ordinals]
        ends = list(itertools.accumulate(self._rows))
        places = []
        for origin in origins:
            index = next((i for i, end in enumerate(ends) if origin < end), None)
            if index is None:
                places.append("a row that is no longer there")
            else:
                places.append(f"{self._files[index].name}: row {origin - ends[index] + self._rows[index] + 1}")
        return places


def _reader(files: Sequence[SourceFile]) -> str:
    paths = ", ".join(quote_text(glob_escape(file.path)) for file in files)
    by_name = "true" if len(files) > 1 else "false"
    return f"read_parquet([{paths}], union_by_name = {by_name}, hive_partitioning = false)"


def _checked(con: DuckDBPyConnection, files: Sequence[SourceFile]) -> Mapping[str, str]:
    """Columns and types, the same in all files. Each distinct schema is described once."""
    import duckdb

    for file in files:
        if file.path.stat().st_size == 0:
            raise SourceError(f"{file.name} is empty.", hint="Even a Parquet file without rows has a footer.")
    seen: dict[str, tuple[str, dict[str, str]]] = {}
    for file in files:
        path = quote_text(glob_escape(file.path))
        try:
            row = con.execute(
                "SELECT md5(string_agg(concat_ws(chr(1), name, type, type_length, repetition_type, num_children, "
                "converted_type, scale, precision, logical_type), chr(2) ORDER BY rowid)), list(name ORDER BY rowid) "
                f"FROM (SELECT *, row_number() OVER () AS rowid FROM parquet_schema({path}))"
            ).fetchone()
            signature = str(row[0]) if row else ""
            if signature not in seen:
                seen[signature] = (file.name, _described(con, file))
        except duckdb.Error as error:
            raise source_error(error, file.name) from error
    (first, columns), *others = seen.values()
    for other, found in others:
        differing(first, list(columns), other, list(found))
        for name, kind in columns.items():
            _same_type(name, first, kind, other, found[name])
    return columns if not others else _types(con, _reader(files))


def _described(con: DuckDBPyConnection, file: SourceFile) -> dict[str, str]:
    columns = _types(con, _reader([file]))
    raw = con.execute(
        "SELECT name, num_children FROM parquet_schema(" + quote_text(glob_escape(file.path)) + ")"
    ).fetchall()
    check_columns(_top_level(raw), file.name)  # DuckDB itself renames duplicates
    return columns


def _top_level(schema: Sequence[tuple[str, int | None]]) -> list[str]:
    """Names of the root's children, from the flat depth-first listing."""
    names: list[str] = []
    open_children: list[int] = []
    for name, children in schema:
        while open_children and open_children[-1] == 0:
            open_children.pop()
        if len(open_children) == 1:
            names.append(name)
        if open_children:
            open_children[-1] -= 1
        if children:
            open_children.append(children)
    return names


def _types(con: DuckDBPyConnection, sql: str) -> dict[str, str]:
    return {str(row[0]): str(row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()}


def _same_type(name: str, first: str, kind: str, other: str, found: str) -> None:
    if kind == found or {kind, found} <= _INTEGERS:
        return
    # Widening would change the text of values that did not change: 7 becomes 7.0.
    raise SourceError(
        f"Column {name!r} is {kind} in {first} and {found} in {other}.",
        hint="Files of one source must agree on types; write one of them again.",
    )


def _sizes(con: DuckDBPyConnection, files: Sequence[SourceFile]) -> tuple[list[int], float]:
    """Rows of each file, and the mean bytes of a row."""
    paths = ", ".join(quote_text(glob_escape(file.path)) for file in files)
    rows = dict(con.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata([{paths}])").fetchall())
    counts = [int(rows[str(file.path)]) for file in files]
    size = sum(file.path.stat().st_size for file in files)
    return counts, 4.0 * size / max(sum(counts), 1)  # unpacked, text is about four times its size
