"""Rows from a table or a query of a DuckDB file, attached read-only for as long as it takes to read them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.adapters.sources.paths import SourceFile, confine, expand
from batchform.adapters.sources.snapshot import Snapshot, take, take_query
from batchform.adapters.sources.sql import check_query, check_relation, quote_name, quote_text, source_error
from batchform.errors import SourceError
from batchform.ports import Relation
from batchform.spec.model import DatabaseSource

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_UNKNOWN_ROW_BYTES = 4_096
_SAMPLED_ROWS = 2_048


class DuckdbSource:
    """The `duckdb` source. The rows are copied, so that no lock is held while jobs run."""

    def __init__(self, spec: DatabaseSource, *, root: Path, allow: Sequence[Path]) -> None:
        check_spec(spec)
        self._spec, self._root, self._allow = spec, root, allow
        self._described = ""
        self._snapshot: Snapshot | None = None

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Read the table or query into a snapshot. Raises SourceError."""
        import duckdb

        file = the_file(self._spec, root=self._root, allow=self._allow)
        try:
            with _attached(con, file) as alias:
                if self._spec.query is not None:
                    self._described = f"{file.name}, source.query"
                    snapshot = take_query(con, self._spec.query, use=alias, row_bytes=_UNKNOWN_ROW_BYTES)
                else:
                    name = self._spec.table or ""
                    self._described = f"{file.name}, table {name}"
                    table = _table(con, alias, name, file)
                    check_relation(con, table, self._described)
                    snapshot = take(con, table, where=self._spec.where, row_bytes=_row_bytes(con, table))
        except duckdb.Error as error:
            what = "source.where" if self._spec.where is not None else self._described or file.name
            raise source_error(error, what) from error
        self._snapshot = snapshot
        return Relation(snapshot.sql, snapshot.columns, self._described)

    def probe(self, con: DuckDBPyConnection) -> str:
        """Attach the file and look for the table; of a query, that it is one that reads. Raises SourceError."""
        file = the_file(self._spec, root=self._root, allow=self._allow)
        with _attached(con, file) as alias:
            if self._spec.query is not None:
                check_query(con, self._spec.query)
                return f"{file.name}: source.query"
            check_relation(con, _table(con, alias, self._spec.table or "", file), f"{file.name}, table")
            return f"{file.name}, table {self._spec.table}"

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """`file, table t, row N` of each row."""
        origins = self._snapshot.origins(con, ordinals) if self._snapshot else None
        return [f"{self._described}, row {number + 1}" for number in (origins or ordinals)]


def check_spec(spec: DatabaseSource) -> None:
    """Raise SourceError unless there is a table or a query, and `where` only with a table."""
    if (spec.table is None) == (spec.query is None):
        raise SourceError("A database source needs either source.table or source.query.")
    if spec.where is not None and spec.table is None:
        raise SourceError("source.where goes with source.table; write the condition into source.query.")


def the_file(spec: DatabaseSource, *, root: Path, allow: Sequence[Path]) -> SourceFile:
    """The database file. Raises SourceError if it is missing, empty or a glob of several."""
    files = expand(spec.path, root=root, allow=allow)
    if len(files) > 1:
        raise SourceError(f"source.path {spec.path!r} names {len(files)} files, and must name one database.")
    if files[0].path.stat().st_size == 0:
        raise SourceError(f"{files[0].name} is empty, and no {spec.type} database.")
    for suffix in ("-journal", "-wal", ".wal"):  # read along with the database
        beside = files[0].path.with_name(files[0].path.name + suffix)
        if beside.is_symlink():
            confine(beside, root=root, allow=allow)
    return files[0]


def no_such_table(name: str, tables: Sequence[str], file: SourceFile) -> SourceError:
    """The error for a table that is not there, with the nearest names."""
    near = difflib.get_close_matches(name.lower(), [t.lower() for t in tables], n=3, cutoff=0.5)
    shown = [t for t in tables if t.lower() in near] or list(tables)[:5]
    hint = f"It has {', '.join(shown)}." if shown else "It has no tables."
    return SourceError(f"{file.name} has no table {name!r}.", hint=hint)


@contextmanager
def _attached(con: DuckDBPyConnection, file: SourceFile) -> Iterator[str]:
    """The database under its own name, so that names qualified with it go on working."""
    import duckdb

    rows = con.execute("SELECT database_name, path FROM duckdb_databases()").fetchall()
    for name, path in rows:
        if path is not None and Path(path).resolve() == file.path:
            yield str(name)  # attached by someone else, who detaches it
            return
    taken = {str(name).lower() for name, _ in rows} | {"temp", "system", "memory", "main", "source"}
    alias = file.path.stem
    while alias.lower() in taken:
        alias += "_"
    try:
        con.execute(f"ATTACH {quote_text(str(file.path))} AS {quote_name(alias)} (READ_ONLY, TYPE duckdb)")
    except duckdb.Error as error:
        if "lock" in str(error):
            raise SourceError(
                f"{file.name} is held by another process that writes to it.",
                hint="Close that process, or copy the file.",
            ) from error
        if "not a valid DuckDB" in str(error):
            raise SourceError(f"{file.name} is not a DuckDB database.") from error
        raise source_error(error, file.name) from error
    try:
        yield alias
    finally:
        con.execute(f"DETACH {quote_name(alias)}")


def _table(con: DuckDBPyConnection, alias: str, name: str, file: SourceFile) -> str:
    """The qualified name of `table` or `schema.table`. Raises SourceError with the nearest names."""
    rows = con.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = $1 UNION ALL "
        "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal ORDER BY ALL",
        [alias],
    ).fetchall()
    for schema, table in rows:
        spoken = {f"{schema}.{table}".lower()} | ({str(table).lower()} if schema == "main" else set())
        if name.lower() in spoken:
            return ".".join(map(quote_name, (alias, schema, table)))
    raise no_such_table(name, [t if s == "main" else f"{s}.{t}" for s, t in rows], file)


def _row_bytes(con: DuckDBPyConnection, table: str) -> float:
    """Bytes of a row, from the first rows: text and binary by their length, anything else as 8."""
    sample = f"(SELECT * FROM {table} LIMIT {_SAMPLED_ROWS})"
    described = con.execute(f"DESCRIBE SELECT * FROM {sample}").fetchall()
    length = {"VARCHAR": "strlen", "JSON": "strlen", "BLOB": "octet_length"}
    sizes = [
        f"coalesce({length[kind]}({quote_name(str(name))}), 0)" if kind in length else "8"
        for name, kind, *_ in described
    ]
    found = con.execute(f"SELECT avg({' + '.join(sizes)}) FROM {sample}").fetchone()
    return float(found[0]) if found and found[0] is not None else 1.0
