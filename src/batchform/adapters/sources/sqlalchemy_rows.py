"""Rows from a table or a query of any database that SQLAlchemy speaks to, streamed into a snapshot.

The database filters, orders and hands over batches from a cursor of its own; nothing is held but one batch.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.adapters.sources.snapshot import Snapshot, check_columns, write_batches
from batchform.adapters.sources.sqlalchemy_text import check_query, check_where
from batchform.adapters.sources.sqlalchemy_types import Column, Seen, is_builtin, postgres_column
from batchform.adapters.sql_database import SqlDatabase, column_names, quoted
from batchform.canon import file_digest
from batchform.errors import SourceError
from batchform.ports import Relation
from batchform.spec.model_sql import Database, SqlSource
from batchform.spec.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection
    from sqlalchemy import Connection, CursorResult

_FIRST_BATCH_ROWS: Final = 16  # rows may be wide; the next batches grow by what the first ones weigh
_BATCH_ROWS: Final = 16_384
_BATCH_BYTES: Final = 8 << 20
_CAST_FIRST: Final = "Cast the column to text in source.query, such as CAST(column AS text)."


class _Select(Struct, frozen=True):
    """What is read, as SQL. columns: quoted by name; table: FROM-able; where: condition; order: of the rows; whole: the
    user's own statement, if it can run as it is."""

    columns: Mapping[str, str]
    table: str
    where: str = ""
    order: str = ""
    whole: str = ""

    def sql(self, *items: str) -> str:
        """The statement, with these in place of its columns."""
        return f"{self._from(items)}{f' ORDER BY {self.order}' if self.order else ''}"

    def without_rows(self, *items: str) -> str:
        """The statement when only its columns are asked for."""
        return f"{self._from(items)}{' AND' if self.where else ' WHERE'} 1 = 0"

    def _from(self, items: Sequence[str]) -> str:
        # The line breaks keep a trailing comment from swallowing what comes after.
        where = f" WHERE (\n{self.where}\n)" if self.where else ""
        return f"SELECT {', '.join(items or self.columns.values())} FROM {self.table}{where}"


class SqlSourceRows:
    """The `sql` source. `where` and `query` are the database's own SQL, and may only read."""

    def __init__(
        self, spec: SqlSource, *, root: Path, databases: Mapping[str, Database], needed: Collection[str] | None = None
    ) -> None:
        """needed: columns that somebody reads; the others stay in the database. None: all."""
        if (spec.table is None) == (spec.query is None):
            raise SourceError("A database source needs either source.table or source.query.")
        if spec.where is not None and spec.table is None:
            raise SourceError("source.where goes with source.table; write the condition into source.query.")
        if spec.database not in databases:
            raise SourceError(f"source.database: there is no database {spec.database!r} in batchform.yaml.")
        self._spec = spec
        self._database = SqlDatabase(spec.database, databases[spec.database].url, root=root, error=SourceError)
        self._needed = needed
        self._described = f"{spec.database}, {f'table {spec.table}' if spec.table else 'source.query'}"

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Read the table or query into a snapshot. Raises SourceError."""
        where = check_where(self._spec.where) if self._spec.where is not None else None
        looked = check_query(self._spec.query) if self._spec.query is not None else None
        with self._database.refusing(f"source.{self._field}"), self._database.reading() as db:
            select = self._query(db, looked.sql, ordered=looked.ordered) if looked else self._table(db, where)
            snapshot = self._postgres(con, db, select) if _is_postgres(db) else self._measured(con, db, select)
        identity = f"{self._described} {file_digest(snapshot.path)}"  # of what was read: equal rows, equal bytes
        return Relation(snapshot.sql, snapshot.columns, self._described, identity=identity)

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """`database, table t, row N` of each row, counted among those that source.where keeps."""
        del con
        kept = " of those that source.where keeps" if self._spec.where is not None else ""
        return [f"{self._described}, row {ordinal + 1}{kept}" for ordinal in ordinals]

    def probe(self, con: DuckDBPyConnection) -> str:
        """Run the statement without its rows: the database then checks names and rights. Raises SourceError."""
        del con
        where = check_where(self._spec.where) if self._spec.where is not None else None
        looked = check_query(self._spec.query) if self._spec.query is not None else None
        with self._database.refusing(f"source.{self._field}"), self._database.reading() as db:
            select = self._query(db, looked.sql, ordered=looked.ordered) if looked else self._table(db, where)
            columns = self._described_by(db, select.without_rows(*([] if select.columns else ["*"])))
        return f"{self._described}: {counted(len(columns), 'column')} that this spec reads"

    # --- what is selected

    @property
    def _field(self) -> str:
        return "query" if self._spec.query is not None else "where" if self._spec.where is not None else "table"

    def _table(self, db: Connection, where: str | None) -> _Select:
        from sqlalchemy import inspect

        name, schema = self._name(db)
        inspector = inspect(db)
        names = column_names(db, name, schema)
        table = ".".join(quoted(db, part) for part in (schema, name) if part)
        if self._needed is not None and set(self._needed) <= set(names):
            chosen = [n for n in names if n in self._needed] or names[:1]
        else:
            chosen = names  # what is missing is told with all that there are
        key = inspector.get_pk_constraint(name, schema).get("constrained_columns")
        if key:
            order = [f"{table}.{quoted(db, column)}" for column in key]
        else:
            order = _by_all(db, [f"{table}.{quoted(db, column)}" for column in names])
        return _Select({n: quoted(db, n) for n in chosen}, table, where or "", ", ".join(order))

    def _query(self, db: Connection, query: str, *, ordered: bool) -> _Select:
        source = f"(\n{query}\n) source"
        if ordered and not _is_postgres(db):
            return _Select({}, source, whole=query)
        names = [str(column[0]) for column in self._described_by(db, f"SELECT * FROM {source} WHERE 1 = 0")]
        check_columns(names, self._described)
        columns = {n: quoted(db, n) for n in names}
        if ordered:
            return _Select(columns, source, whole=query)
        return _Select(columns, source, order=", ".join(_by_all(db, columns.values())))

    def _name(self, db: Connection) -> tuple[str, str | None]:
        """The table and its schema as the database knows them. Raises SourceError with the nearest names."""
        from sqlalchemy import inspect

        inspector, written = inspect(db), self._spec.table or ""
        schema, _, name = written.rpartition(".")
        for table, of in ((written, None), (name, schema)):
            if table and (of or of is None) and inspector.has_table(table, of):
                return table, of
        of = schema or None
        there = [*inspector.get_table_names(of), *inspector.get_view_names(of)]
        same = [t for t in there if t.lower() == name.lower()]
        if len(same) == 1:
            return same[0], of
        near = difflib.get_close_matches(name.lower(), [t.lower() for t in there], n=3, cutoff=0.5)
        shown = [t for t in there if t.lower() in near] or sorted(there)[:5]
        hint = f"It has {', '.join(shown)}." if shown else "It has no tables that this user may read."
        raise SourceError(f"source.table: {self._spec.database} has no table {written!r}.", hint=hint)

    def _described_by(self, db: Connection, statement: str) -> list[Sequence[Any]]:
        """What the driver says of each column of a statement without rows."""
        with db.exec_driver_sql(statement, execution_options={"no_parameters": True}) as result:
            return [tuple(column) for column in result.cursor.description or ()]

    # --- what is read

    def _postgres(self, con: DuckDBPyConnection, db: Connection, select: _Select) -> Snapshot:
        """In one pass: the database names the types. What Arrow lacks is cast to text over there."""
        described = self._described_by(db, select.without_rows())
        others = {int(d[1]) for d in described if not is_builtin(int(d[1]))}
        arrays = self._arrays(db, others) if others else frozenset()
        columns, taken = [], []
        for d, listed in zip(described, select.columns.values(), strict=True):
            column, cast = postgres_column(d, array=int(d[1]) in arrays)
            columns.append(column)
            taken.append(f"CAST({listed} AS {cast}) AS {listed}" if cast else listed)
        as_it_is = select.whole and taken == list(select.columns.values())
        return self._written(con, db, select.whole if as_it_is else select.sql(*taken), columns)

    def _arrays(self, db: Connection, others: Collection[int]) -> frozenset[int]:
        listed = ", ".join(map(str, sorted(others)))
        found = db.exec_driver_sql(f"SELECT oid FROM pg_catalog.pg_type WHERE typcategory = 'A' AND oid IN ({listed})")
        return frozenset(int(oid) for (oid,) in found)

    def _measured(self, con: DuckDBPyConnection, db: Connection, select: _Select) -> Snapshot:
        """In two passes over the same state: what the values are, then the values."""
        statement = select.whole or select.sql()
        with self._streamed(db, statement) as result:
            names = [str(column[0]) for column in result.cursor.description or ()]
            check_columns(names, self._described)
            seen = [Seen() for _ in names]
            while batch := result.fetchmany(1_024):
                for one, values in zip(seen, zip(*batch, strict=True), strict=True):
                    one.add(values)
        return self._written(con, db, statement, [s.column(n) for s, n in zip(seen, names, strict=True)])

    def _streamed(self, db: Connection, statement: str) -> CursorResult[Any]:
        return db.exec_driver_sql(statement, execution_options={"stream_results": True, "no_parameters": True})

    def _written(self, con: DuckDBPyConnection, db: Connection, statement: str, columns: Sequence[Column]) -> Snapshot:
        import pyarrow as pa

        schema = pa.schema([pa.field(column.name, column.arrow) for column in columns])
        read_as = {column.name: column.read_as for column in columns if column.read_as}
        with self._streamed(db, statement) as result:
            return write_batches(con, schema, self._batches(result, columns, schema), read_as=read_as)

    def _batches(
        self, result: CursorResult[Any], columns: Sequence[Column], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        number, size = 0, _FIRST_BATCH_ROWS
        while batch := result.fetchmany(size):
            arrays = [
                self._array(column, values, number)
                for column, values in zip(columns, zip(*batch, strict=True), strict=True)
            ]
            made = pa.record_batch(arrays, schema=schema)
            yield made
            number += len(batch)
            fitting = int(_BATCH_BYTES * len(batch) / max(made.nbytes, 1))
            size = max(1, min(2 * size, fitting, _BATCH_ROWS))

    def _array(self, column: Column, values: Sequence[Any], before: int) -> pa.Array:
        """Raises SourceError that names the row of the first value that its column cannot hold."""
        try:
            return _arrow_array(column, values)
        except (ValueError, TypeError, OverflowError):  # Arrow's errors are among them
            pass
        for number, value in enumerate(values, before + 1):
            try:
                _arrow_array(column, [value])
            except (ValueError, TypeError, OverflowError):
                raise SourceError(
                    f"{self._described}, row {number}: column {column.name!r} holds what {_words(column)} cannot hold.",
                    hint=_CAST_FIRST,
                ) from None
        raise SourceError(f"{self._described}: column {column.name!r} cannot be read.", hint=_CAST_FIRST)


def _arrow_array(column: Column, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    convert = column.convert
    taken = values if convert is None else [None if value is None else convert(value) for value in values]
    return pa.array(taken, column.arrow)


def _words(column: Column) -> str:
    kind = str(column.arrow)
    return "text in UTF-8" if kind == "string" else f"a flat {kind}" if kind.startswith("list") else kind


def _is_postgres(db: Connection) -> bool:
    return db.dialect.name == "postgresql"


def _by_all(db: Connection, columns: Iterable[str]) -> list[str]:
    """An order for rows without a key: all columns. In PostgreSQL not every type has an order, but its text has."""
    return [f"CAST({column} AS text)" if _is_postgres(db) else column for column in columns]
