"""BigQuery's types: as columns of a source, and the columns of a destination as BigQuery's types.

What is read arrives by one of two ways, Arrow of the Storage Read API or JSON of REST. Both are brought to the same
Arrow types here, so that a row looks the same, and has the same fingerprint, whichever way it came.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    from google.cloud.bigquery import SchemaField

_RECORDS: Final = ("RECORD", "STRUCT")
_SHORT: Final = {
    "INT64": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}
# BigQuery's type → (DuckDB type, name of the Arrow type). Arrow has no JSON: it is cast on reading.
_SCALARS: Final = {
    "STRING": ("VARCHAR", "string"),
    "BYTES": ("BLOB", "binary"),
    "INTEGER": ("BIGINT", "int64"),
    "FLOAT": ("DOUBLE", "float64"),
    "BOOLEAN": ("BOOLEAN", "bool_"),
    "NUMERIC": ("DECIMAL(38,9)", "decimal"),
    "BIGNUMERIC": ("VARCHAR", "string"),
    "DATE": ("DATE", "date32"),
    "TIME": ("TIME", "time"),
    "DATETIME": ("TIMESTAMP", "datetime"),
    "TIMESTAMP": ("TIMESTAMP WITH TIME ZONE", "timestamp"),
    "JSON": ("JSON", "string"),
    "GEOGRAPHY": ("VARCHAR", "string"),
}
CAST_TO_TEXT: Final = ("INTERVAL", "RANGE")
"""Types that BigQuery itself is asked to write as text."""


def kind_of(field: SchemaField) -> str:
    """The type's name, one for each: INTEGER, not INT64."""
    kind = str(field.field_type).upper()
    return _SHORT.get(kind, kind)


def repeated(field: SchemaField) -> bool:
    return str(field.mode).upper() == "REPEATED"


def duckdb_type(field: SchemaField, *, top: bool = True) -> str:
    """The DuckDB type of a column. Raises SourceError for one that has none."""
    kind = kind_of(field)
    if kind in _RECORDS:
        inner = ", ".join(f'"{_doubled(f.name)}" {duckdb_type(f, top=False)}' for f in field.fields)
        found = f"STRUCT({inner})"
    elif kind in CAST_TO_TEXT and top and not repeated(field):
        found = "VARCHAR"
    elif kind in _SCALARS:
        found = _SCALARS[kind][0]
        if found == "JSON" and (not top or repeated(field)):
            found = "VARCHAR"  # inside a list or a struct it stays text
    else:
        where = "column" if top and not repeated(field) else "column, or part of one,"
        raise SourceError(
            f"source.table: the {where} {field.name} is of type {kind}, which cannot be read.",
            hint="Leave it out, or cast it to text, in source.query.",
        )
    return f"{found}[]" if repeated(field) else found


def _doubled(name: str) -> str:
    return name.replace('"', '""')


def arrow_type(field: SchemaField) -> pa.DataType:
    """The Arrow type in which a column is kept."""
    import pyarrow as pa

    kind = kind_of(field)
    if kind in _RECORDS:
        found = pa.struct([pa.field(f.name, arrow_type(f)) for f in field.fields])
    else:
        name = _SCALARS.get(kind, ("", "string"))[1]
        special: dict[str, Callable[[], pa.DataType]] = {
            "decimal": lambda: pa.decimal128(38, 9),
            "time": lambda: pa.time64("us"),
            "datetime": lambda: pa.timestamp("us"),
            "timestamp": lambda: pa.timestamp("us", tz="UTC"),
        }
        found = special[name]() if name in special else getattr(pa, name)()
    return pa.list_(found) if repeated(field) else found


def arrow_schema(fields: Sequence[SchemaField]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(f.name, arrow_type(f)) for f in fields])


# --- from the Storage Read API -----------------------------------------------------------------------------------


def from_arrow(batch: pa.RecordBatch, fields: Sequence[SchemaField], schema: pa.Schema) -> pa.RecordBatch:
    """A batch of the Storage Read API in the types of `arrow_schema`."""
    import pyarrow as pa

    arrays = [_from_arrow(batch.column(batch.schema.get_field_index(f.name)), f) for f in fields]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _from_arrow(array: pa.Array, field: SchemaField) -> pa.Array:
    import pyarrow as pa

    to = arrow_type(field)
    if array.type == to:
        return array
    if repeated(field):
        inner = _from_arrow(array.flatten(), _single(field))
        return pa.ListArray.from_arrays(_offsets(array), inner, type=to)
    if kind_of(field) in _RECORDS:
        inner = [_from_arrow(array.field(f.name), f) for f in field.fields]
        return pa.StructArray.from_arrays(inner, fields=list(to), mask=array.is_null())
    if kind_of(field) == "BIGNUMERIC":
        return plain_decimals(array.cast(pa.string()))
    return array.cast(to)


def _offsets(array: pa.Array) -> pa.Array:
    """Offsets of a list array that begin at 0, whatever slice it is. Arrays of BigQuery are never NULL."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])


def plain_decimals(array: pa.Array) -> pa.Array:
    """Numbers as BigQuery writes them: no zeros behind the last digit, no exponent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.any(pc.match_substring_regex(array, "[eE]")).as_py():
        array = pa.array([None if v is None else _no_exponent(v) for v in array.to_pylist()], pa.string())
    point = pc.match_substring(array, ".")
    trimmed = pc.utf8_rtrim(pc.utf8_rtrim(array, "0"), ".")
    return pc.if_else(point, trimmed, array)


def _no_exponent(text: str) -> str:
    from decimal import Decimal

    return format(Decimal(text), "f")


def _single(field: SchemaField) -> SchemaField:
    from google.cloud.bigquery import SchemaField

    return SchemaField(field.name, field.field_type, mode="NULLABLE", fields=field.fields)


# --- from REST ---------------------------------------------------------------------------------------------------


def from_rest(rows: Sequence[dict[str, Any]], fields: Sequence[SchemaField], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of REST (`{"f": [{"v": …}]}`) in the types of `arrow_schema`."""
    import pyarrow as pa

    arrays = []
    for index, field in enumerate(fields):
        cells, read = [row["f"][index]["v"] for row in rows], _reader(field)
        arrays.append(pa.array(map(read, cells) if read else cells, schema.field(index).type, size=len(cells)))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _reader(field: SchemaField) -> Callable[[Any], Any] | None:
    """What makes a cell of REST a value; None where it is one already."""
    if repeated(field):
        one = _reader(_single(field))
        return lambda cell: [one(item["v"]) if one else item["v"] for item in cell or ()]
    kind = kind_of(field)
    if kind in _RECORDS:
        inner = [(f.name, _reader(f)) for f in field.fields]

        def record(cell: Any) -> Any:
            if cell is None:
                return None
            return {n: read(c["v"]) if read else c["v"] for (n, read), c in zip(inner, cell["f"], strict=True)}

        return record
    parse = _PARSERS.get(kind)
    return None if parse is None else lambda cell: None if cell is None else parse(cell)


def _timestamp(cell: str) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=int(cell))


def _bignumeric(cell: str) -> str:
    text = _no_exponent(cell)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _numeric(cell: str) -> Any:
    from decimal import Decimal

    return Decimal(cell)


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "INTEGER": int,
    "FLOAT": float,
    "BOOLEAN": lambda cell: str(cell).lower() == "true",
    "BYTES": base64.b64decode,
    "NUMERIC": _numeric,
    "BIGNUMERIC": _bignumeric,
    "DATE": dt.date.fromisoformat,
    "TIME": dt.time.fromisoformat,
    "DATETIME": dt.datetime.fromisoformat,
    "TIMESTAMP": _timestamp,
}


# --- of a destination --------------------------------------------------------------------------------------------


class Column(Struct, frozen=True):
    """A column as a destination has it. kind: BigQuery's type; mode: NULLABLE or REPEATED; fields: of a RECORD."""

    name: str
    kind: str
    mode: str = "NULLABLE"
    fields: tuple[Column, ...] = ()

    def api(self) -> dict[str, Any]:
        """The column in a table's schema, as REST writes it."""
        made: dict[str, Any] = {"name": self.name, "type": self.kind, "mode": self.mode}
        if self.fields:
            made["fields"] = [f.api() for f in self.fields]
        return made

    @property
    def shown(self) -> str:
        """The type as SQL writes it: `ARRAY<STRUCT<a INT64>>`."""
        return self.sql(str)

    def sql(self, quoted: Callable[[str], str]) -> str:
        """The type as SQL writes it, with names of fields as `quoted` has them."""
        inner = _SQL_NAMES.get(self.kind, self.kind)
        if self.fields:
            inner = f"STRUCT<{', '.join(f'{quoted(f.name)} {f.sql(quoted)}' for f in self.fields)}>"
        return f"ARRAY<{inner}>" if self.mode == "REPEATED" else inner


_SQL_NAMES: Final = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
_TO_BIGQUERY: Final = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "INTEGER"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "FLOAT"),
    **dict.fromkeys(("UBIGINT", "HUGEINT"), "BIGNUMERIC"),
    "BOOLEAN": "BOOLEAN",
    "BLOB": "BYTES",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "DATETIME",
    "TIMESTAMP_S": "DATETIME",
    "TIMESTAMP_MS": "DATETIME",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "JSON": "JSON",
}
_DECIMAL: Final = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def column_of(name: str, duckdb: Any) -> Column:
    """The BigQuery column for a column of DuckDB. duckdb: its DuckDBPyType. What has no type there becomes text."""
    kind = duckdb.id
    if kind in ("list", "array"):
        inner = column_of(name, duckdb.children[0][1])
        if inner.mode != "REPEATED" and inner.kind != "JSON":
            return Column(name, inner.kind, "REPEATED", inner.fields)
        return Column(name, "JSON")  # BigQuery has no arrays of arrays
    if kind == "struct":
        return Column(name, "RECORD", fields=tuple(column_of(n, inner) for n, inner in duckdb.children))
    if kind == "map":
        return Column(name, "JSON")
    text = str(duckdb)
    if decimal := _DECIMAL.fullmatch(text):
        width, scale = int(decimal[1]), int(decimal[2])
        return Column(name, "NUMERIC" if scale <= 9 and width - scale <= 29 else "BIGNUMERIC")
    return Column(name, _TO_BIGQUERY.get(text, "STRING"))


def column_in(field: SchemaField) -> Column:
    """A column of a table that is there."""
    fields = tuple(column_in(f) for f in field.fields)
    kind = "RECORD" if kind_of(field) in _RECORDS else kind_of(field)
    return Column(field.name, kind, "REPEATED" if repeated(field) else "NULLABLE", fields)
