"""Columns and their types: as REST has them, as Parquet and DuckDB keep them, as the Storage Read API sends them.

No type loses anything: BIGNUMERIC, GEOGRAPHY, INTERVAL and RANGE are kept as text, JSON as its text, NUMERIC as
DECIMAL(38, 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchform.emulator.warehouse.declined import invalid, not_supported

if TYPE_CHECKING:
    import pyarrow as pa

LEGACY: Final = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
"""Standard names → the names that REST answers with."""
ALIASES: Final = {
    **LEGACY,
    "INT": "INTEGER",
    "SMALLINT": "INTEGER",
    "BIGINT": "INTEGER",
    "TINYINT": "INTEGER",
    "BYTEINT": "INTEGER",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}
STANDARD: Final = {legacy: standard for standard, legacy in LEGACY.items()}
DUCKDB: Final = {
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "NUMERIC": "DECIMAL(38, 9)",
    "BIGNUMERIC": "VARCHAR",
    "BOOLEAN": "BOOLEAN",
    "TIMESTAMP": "TIMESTAMPTZ",
    "DATE": "DATE",
    "TIME": "TIME",
    "DATETIME": "TIMESTAMP",
    "GEOGRAPHY": "VARCHAR",
    "INTERVAL": "VARCHAR",
    "RANGE": "VARCHAR",
    "JSON": "JSON",
}
AS_TEXT: Final = frozenset({"BIGNUMERIC", "GEOGRAPHY", "INTERVAL", "RANGE"})
"""What DuckDB takes for plain text."""
_RANGES_OF: Final = ("DATE", "DATETIME", "TIMESTAMP")
FIXED_WIDTH: Final = {
    "INTEGER": 8,
    "FLOAT": 8,
    "NUMERIC": 16,
    "BIGNUMERIC": 32,
    "BOOLEAN": 1,
    "TIMESTAMP": 8,
    "DATE": 8,
    "TIME": 8,
    "DATETIME": 8,
}
"""Bytes of a value, as BigQuery bills them."""
_NAME: Final = re.compile(
    r"(?i)(?!_table_|_file_|_partition|_row_timestamp|__root__|_colidentifier)[\w &%=+:'<>#|-]{1,300}"
)


class Field(msgspec.Struct, frozen=True):
    """One column. type: REST's name (INTEGER, RECORD, …); more: description and whatever else REST keeps."""

    name: str
    type: str
    mode: str = "NULLABLE"
    fields: tuple[Field, ...] = ()
    more: dict[str, Any] = {}

    @property
    def repeated(self) -> bool:
        return self.mode == "REPEATED"

    @property
    def required(self) -> bool:
        return self.mode == "REQUIRED"

    def element(self) -> Field:
        """One entry of a repeated field."""
        return msgspec.structs.replace(self, mode="NULLABLE")

    def resource(self) -> dict[str, Any]:
        """As REST has it."""
        shown = {"name": self.name, "type": self.type, "mode": self.mode, **self.more}
        return {**shown, "fields": [f.resource() for f in self.fields]} if self.fields else shown

    def duckdb(self, *, kept: bool = False) -> str:
        """Its type in DuckDB's SQL. kept: as Parquet has it, where JSON is plain text."""
        if self.type == "RECORD":
            one = "STRUCT(" + ", ".join(f"{quoted(f.name)} {f.duckdb(kept=kept)}" for f in self.fields) + ")"
        else:
            one = "VARCHAR" if kept and self.type == "JSON" else DUCKDB[self.type]
        return one + "[]" if self.repeated else one

    def sql_type(self) -> str:
        """Its type in GoogleSQL: `ARRAY<STRUCT<a INT64>>`."""
        if self.type == "RECORD":
            one = "STRUCT<" + ", ".join(f"{f.name} {f.sql_type()}" for f in self.fields) + ">"
        else:
            one = STANDARD.get(self.type, self.type)
        return f"ARRAY<{one}>" if self.repeated else one

    def names(self) -> frozenset[str]:
        """All types in it."""
        return frozenset({self.type}).union(*(f.names() for f in self.fields))


Schema = tuple[Field, ...]


def quoted(name: str) -> str:
    """An identifier of DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string literal of DuckDB."""
    return "'" + value.replace("'", "''") + "'"


def read_schema(value: Mapping[str, Any] | None) -> Schema:
    """`{"fields": [...]}` of REST. Raises Declined."""
    fields = (value or {}).get("fields") or []
    schema = tuple(_read_field(f) for f in fields)
    seen: set[str] = set()
    for field in schema:
        if field.name.lower() in seen:
            raise invalid(f"Duplicate column name: '{field.name}'.")
        seen.add(field.name.lower())
    return schema


def _read_field(value: Any) -> Field:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise invalid("Each field of a schema needs a name and a type.")
    name, kind = value["name"], str(value.get("type", "")).upper()
    kind = ALIASES.get(kind, kind)
    mode = str(value.get("mode") or "NULLABLE").upper()
    if not _NAME.fullmatch(name):
        raise invalid(f'Invalid field name "{name}". Fields must contain only letters, numbers, and underscores.')
    element = value.get("rangeElementType")
    if kind == "RANGE" and (
        not isinstance(element, dict) or element.get("type") not in ("DATE", "DATETIME", "TIMESTAMP")
    ):
        raise invalid(f"Field {name} is type RANGE but has no rangeElementType of DATE, DATETIME or TIMESTAMP")
    if kind not in DUCKDB and kind != "RECORD":
        raise invalid(f"Invalid value for type: {value.get('type')} is not a valid value (field {name}).")
    if mode not in ("NULLABLE", "REQUIRED", "REPEATED"):
        raise invalid(f"Invalid value for mode: {mode} is not a valid value (field {name}).")
    inner = read_schema(value) if kind == "RECORD" else ()
    if kind == "RECORD" and not inner:
        raise invalid(f"Field {name} is type RECORD but has no schema")
    more = {k: v for k, v in value.items() if k not in ("name", "type", "mode", "fields") and v is not None}
    return Field(name, kind, mode, inner, more)


def schema_resource(schema: Iterable[Field]) -> dict[str, Any]:
    """As REST has it."""
    return {"fields": [f.resource() for f in schema]}


def arrow_field(field: Field) -> pa.Field:
    """As it is kept in Parquet."""
    import pyarrow as pa

    return pa.field(field.name, _arrow_type(field), nullable=True)


def arrow_schema(schema: Sequence[Field]) -> pa.Schema:
    """As it is kept in Parquet."""
    import pyarrow as pa

    return pa.schema([arrow_field(f) for f in schema])


def _arrow_type(field: Field) -> pa.DataType:
    import pyarrow as pa

    one = pa.struct([arrow_field(f) for f in field.fields]) if field.type == "RECORD" else _scalars()[field.type]
    return pa.list_(one) if field.repeated else one


def _scalars() -> dict[str, pa.DataType]:
    import pyarrow as pa

    return {
        "STRING": pa.string(),
        "BYTES": pa.binary(),
        "INTEGER": pa.int64(),
        "FLOAT": pa.float64(),
        "NUMERIC": pa.decimal128(38, 9),
        "BIGNUMERIC": pa.string(),
        "BOOLEAN": pa.bool_(),
        "TIMESTAMP": pa.timestamp("us", tz="UTC"),
        "DATE": pa.date32(),
        "TIME": pa.time64("us"),
        "DATETIME": pa.timestamp("us"),
        "GEOGRAPHY": pa.string(),
        "INTERVAL": pa.string(),
        "RANGE": pa.string(),
        "JSON": pa.string(),
    }


_SENT_AS: Final = {
    "DATETIME": "google:sqlType:datetime",
    "GEOGRAPHY": "google:sqlType:geography",
    "JSON": "google:sqlType:json",
}


def sent_field(field: Field) -> pa.Field:
    """As the Storage Read API sends it: BIGNUMERIC as DECIMAL256, some types marked with an extension name."""
    import pyarrow as pa

    if field.type == "RECORD":
        one = pa.struct([sent_field(f) for f in field.fields])
    elif field.type in ("INTERVAL", "RANGE"):
        raise not_supported(f"columns of type {field.type} in the Storage Read API (field {field.name})")
    else:
        one = pa.decimal256(76, 38) if field.type == "BIGNUMERIC" else _scalars()[field.type]
    marks = {"ARROW:extension:name": _SENT_AS[field.type]} if field.type in _SENT_AS else None
    if field.repeated:
        return pa.field(field.name, pa.list_(pa.field("item", one, metadata=marks)), nullable=False)
    return pa.field(field.name, one, nullable=not field.required, metadata=marks)


def sent_schema(schema: Sequence[Field]) -> pa.Schema:
    """As the Storage Read API sends it."""
    import pyarrow as pa

    return pa.schema([sent_field(f) for f in schema])


def of_arrow(field: pa.Field) -> Field:
    """The column that a field of a Parquet file becomes. Raises Declined for types that BigQuery has not."""
    import pyarrow as pa
    import pyarrow.types as is_

    kind, mode = field.type, "NULLABLE" if field.nullable else "REQUIRED"
    if isinstance(kind, pa.ExtensionType) or getattr(kind, "extension_name", None) == "arrow.json":
        return Field(field.name, "JSON", mode)
    if is_.is_list(kind) or is_.is_large_list(kind):
        return msgspec.structs.replace(of_arrow(pa.field(field.name, kind.value_type)), mode="REPEATED")
    if is_.is_struct(kind):
        return Field(field.name, "RECORD", mode, tuple(of_arrow(kind.field(i)) for i in range(kind.num_fields)))
    if is_.is_dictionary(kind):
        return of_arrow(pa.field(field.name, kind.value_type, field.nullable))
    for fits, name in (
        (is_.is_integer, "INTEGER"),
        (is_.is_floating, "FLOAT"),
        (is_.is_boolean, "BOOLEAN"),
        (is_.is_date, "DATE"),
        (is_.is_time, "TIME"),
        (lambda t: is_.is_timestamp(t) and t.tz is not None, "TIMESTAMP"),
        (is_.is_timestamp, "DATETIME"),
        (lambda t: is_.is_string(t) or is_.is_large_string(t), "STRING"),
        (lambda t: is_.is_binary(t) or is_.is_large_binary(t) or is_.is_fixed_size_binary(t), "BYTES"),
        (lambda t: is_.is_decimal(t) and t.scale <= 9 and t.precision - t.scale <= 29, "NUMERIC"),
        (is_.is_decimal, "BIGNUMERIC"),
    ):
        if fits(kind):
            return Field(field.name, name, mode)
    raise invalid(f"Field {field.name} has type {kind}, which BigQuery cannot load from Parquet.")


def bytes_sql(field: Field, column: str) -> str:
    """What a value takes, as BigQuery bills it, as an expression over `column`. Null is 0."""
    if field.repeated:
        one = bytes_sql(field.element(), "_e")
        return f"coalesce(list_sum(list_transform({column}, lambda _e: {one})), 0)"
    if field.type == "RECORD":
        return "(" + " + ".join(bytes_sql(f, f"{column}.{quoted(f.name)}") for f in field.fields) + ")"
    if field.type in FIXED_WIDTH:
        return f"(CASE WHEN {column} IS NULL THEN 0 ELSE {FIXED_WIDTH[field.type]} END)"
    size = f"octet_length({column})" if field.type == "BYTES" else f"strlen(CAST({column} AS VARCHAR))"
    return f"coalesce(2 + {size}, 0)"
