"""The tables of one statement as DuckDB sees them: temporary views over Parquet files, or tables to be changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sqlglot import exp

from batchform.emulator.warehouse import translate
from batchform.emulator.warehouse.catalog import TableRef, TableRow, Version
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.fields import AS_TEXT, Field, Schema, quoted, text
from batchform.emulator.warehouse.information import information
from batchform.emulator.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    import duckdb

_DEEPEST: Final = 16


class Context:
    """Whose statement it is. location: where it runs, or nothing when the first dataset decides."""

    def __init__(self, warehouse: Warehouse, project: str, dataset: str, location: str, now: float) -> None:
        self.warehouse, self.project, self.dataset, self.now = warehouse, project, dataset, now
        self.location = location

    def check_location(self, ref: TableRef) -> None:
        """Raises Declined when a dataset is somewhere else."""
        home = self.warehouse.dataset(ref.project, ref.dataset)
        if self.location and home.location.upper() != self.location.upper():
            raise Declined(
                404, f"Not found: Dataset {ref.project}:{ref.dataset} was not found in location {self.location}"
            )
        self.location = home.location


Read = Callable[[TableRef, float | None], tuple[TableRow, Version]]


class Used:
    """A table that a statement reads. marker: what it is called in DuckDB; name: by which its columns are qualified."""

    def __init__(self, marker: str, name: str, version: Version) -> None:
        self.marker, self.name, self.version = marker, name, version


class Relations:
    """Replaces the tables of a statement by names that DuckDB knows on one connection."""

    def __init__(self, context: Context, read: Read, cursor: duckdb.DuckDBPyConnection) -> None:
        self._context, self._read, self._cursor = context, read, cursor
        self._made: dict[tuple[TableRef, float | None], str] = {}
        self.used: dict[str, Used] = {}
        self.views: list[exp.Query] = []
        self._depth = 0
        self._made_text: set[str] = set()

    def referenced(self) -> list[TableRef]:
        """The tables that are read, those under views included, each once."""
        return list(dict.fromkeys(ref for ref, _ in self._made))

    def bind(self, statement: exp.Expr) -> None:
        """Every table by name, but for the ones that are bound already."""
        for table in translate.tables_in(statement):
            if table.name not in self.used and not table.name.startswith("_target"):
                self._bind(table)

    def _bind(self, table: exp.Table) -> None:
        context = self._context
        name, alias = table.name, table.alias or table.name
        if name.upper().startswith(translate.INFORMATION):
            marker = self._view(f"_information{len(self.used)}", information(context, table))
            alias = table.alias or name.rpartition(".")[2]
        else:
            at = self._at(table)
            ref = translate.ref_of(table, context.project, context.dataset)
            ref, at = _decorated(ref, at)
            context.check_location(ref)
            marker = self._made.get((ref, at)) or self._table(ref, at)
            self._made[ref, at] = marker
        table.set("this", exp.to_identifier(marker))
        for part in ("db", "catalog", "version"):
            table.set(part, None)
        kept = table.args.get("alias")
        table.set(
            "alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True), columns=kept.columns if kept else [])
        )

    def _table(self, ref: TableRef, at: float | None) -> str:
        row, version = self._read(ref, at)
        marker = f"_read{len(self.used)}"
        if "view" in row.meta:
            self.used[marker] = Used(marker, ref.table, version)
            return self._view(marker, self._view_sql(row))
        self.used[marker] = Used(marker, ref.table, version)
        return self._view(marker, select_version(self._context.warehouse, version))

    def _view(self, marker: str, sql: str) -> str:
        self._cursor.execute(f"CREATE TEMP VIEW {marker} AS {sql}")
        self.used.setdefault(marker, Used(marker, marker, Version(0, 0, (), ())))
        return marker

    def _view_sql(self, row: TableRow) -> str:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise invalid(f"Views nest deeper than {_DEEPEST} levels, or view {row.ref} names itself.")
        query = translate.parse_view(row.meta["view"]["query"])
        outer, self._context = (
            self._context,
            Context(self._context.warehouse, row.ref.project, "", self._context.location, self._context.now),
        )
        try:
            self.bind(query)
        finally:
            self._context = outer
        self._depth -= 1
        self.views.append(query)
        translate.name_columns(query)
        return str(translate.prepare(query, self._context.now, _no_parameters).sql(dialect="duckdb"))

    def _at(self, table: exp.Table) -> float | None:
        version = table.args.get("version")
        if version is None:
            return None
        prepared = translate.prepare(version.expression.copy(), self._context.now, _no_parameters)
        found = self._cursor.execute(
            f"SELECT epoch_us(CAST({prepared.sql(dialect='duckdb')} AS TIMESTAMPTZ))"
        ).fetchone()
        if not found or found[0] is None:
            raise invalid("FOR SYSTEM_TIME AS OF needs a timestamp that is not NULL.")
        return int(found[0]) / 1_000_000

    def note_casts(self, query: exp.Expr) -> None:
        """Remember which columns of a query's result are made text by itself."""
        for column in query.selects if isinstance(query, exp.Query) else ():
            made = column.unalias()
            if isinstance(made, exp.Cast) and made.to.this == exp.DataType.Type.TEXT:
                self._made_text.add(column.alias_or_name.lower())

    def text_fields(self) -> dict[str, Field]:
        """Columns that DuckDB takes for text, by name, without those that the query made text."""
        found = {f.name.lower(): f for u in self.used.values() for f in u.version.schema if f.names() & AS_TEXT}
        return {name: field for name, field in found.items() if name not in self._made_text}


def _no_parameters(node: exp.Expr) -> exp.Expr:
    raise invalid(f"There is no value for the parameter {node.sql(dialect='bigquery')} here.")


def _decorated(ref: TableRef, at: float | None) -> tuple[TableRef, float | None]:
    """`table@1700000000000` is the table at a time."""
    name, mark, millis = ref.table.partition("@")
    if not mark:
        return ref, at
    try:
        return TableRef(ref.project, ref.dataset, name), int(millis) / 1000
    except ValueError:
        raise invalid(f"Invalid snapshot decorator of table {ref}.") from None


def at_decorator(ref: TableRef) -> tuple[TableRef, float | None]:
    """The table, and the time that its name carries."""
    return _decorated(ref, None)


def select_version(warehouse: Warehouse, version: Version) -> str:
    """SQL for the rows of a version, with the types that statements work on."""
    columns = version.schema
    if not columns:
        return "SELECT 1 AS _nothing WHERE false"
    if not version.files:
        return (
            "SELECT " + ", ".join(f"CAST(NULL AS {f.duckdb()}) AS {quoted(f.name)}" for f in columns) + " WHERE false"
        )
    there = set().union(*(f.columns for f in version.files))
    shown = [
        f"CAST({quoted(f.name) if f.name in there else 'NULL'} AS {f.duckdb()}) AS {quoted(f.name)}" for f in columns
    ]
    paths = ", ".join(text(str(warehouse.path(f.id))) for f in version.files)
    return f"SELECT {', '.join(shown)} FROM read_parquet([{paths}], union_by_name = true)"


def kept_sql(schema: Schema, source: str, *, names: list[str] | None = None) -> str:
    """SQL for what is kept in Parquet of a relation's columns. names: what they are called there."""
    parts = []
    for name, field in zip(names or [f.name for f in schema], schema, strict=True):
        cast = f"CAST({quoted(name)} AS {field.duckdb(kept=True)})"
        parts.append(f"{f'coalesce({cast}, [])' if field.repeated else cast} AS {quoted(field.name)}")
    return f"SELECT {', '.join(parts)} FROM {source}"


def field_of(name: str, kind: Any, hints: dict[str, Field]) -> Field:
    """The column of a result. kind: DuckDB's type; hints: columns by that name which DuckDB takes for text."""
    hint = hints.get(name.lower())
    if hint is not None and str(kind).replace(" ", "") == hint.duckdb().replace(" ", ""):
        return Field(hint.name, hint.type, "REPEATED" if hint.repeated else "NULLABLE", hint.fields, _element_of(hint))
    word = kind.id
    if word in ("list", "array"):
        inner = field_of(name, kind.children[0][1], {})
        if inner.repeated:
            raise invalid("Cannot construct array with element type ARRAY because nested arrays are not supported")
        return Field(name, inner.type, "REPEATED", inner.fields)
    if word == "struct":
        return Field(name, "RECORD", "NULLABLE", tuple(field_of(n, k, {}) for n, k in kind.children))
    if str(kind) == "JSON":
        return Field(name, "JSON")
    return Field(name, _WORDS.get(word, "STRING"))


def _element_of(field: Field) -> dict[str, Any]:
    """What belongs to the type itself: that of which a range is."""
    return {name: value for name, value in field.more.items() if name == "rangeElementType"}


_WORDS: Final = {
    **dict.fromkeys(("tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint"), "INTEGER"),
    **dict.fromkeys(("uinteger", "ubigint", "uhugeint", "null", '"NULL"'), "INTEGER"),
    **dict.fromkeys(("float", "double"), "FLOAT"),
    **dict.fromkeys(("timestamp", "timestamp_ns", "timestamp_ms", "timestamp_s"), "DATETIME"),
    "decimal": "NUMERIC",
    "boolean": "BOOLEAN",
    "blob": "BYTES",
    "date": "DATE",
    "time": "TIME",
    "timestamp with time zone": "TIMESTAMP",
}
