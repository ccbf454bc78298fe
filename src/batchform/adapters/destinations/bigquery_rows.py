"""What a delivery to BigQuery is made of: its rows as JSON lines, its columns, and the statement that merges them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from batchform.adapters.bigquery_client import quoted, quoted_text
from batchform.adapters.bigquery_types import Column, column_of
from batchform.errors import DestinationError
from batchform.rows.sql import identifier, literal
from batchform.rows.stream import stream

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

METADATA: Final = "_batchform"
# A value of the first type may be put into a column of the second.
_WIDENS: Final = {
    "INTEGER": {"NUMERIC", "BIGNUMERIC", "FLOAT"},
    "NUMERIC": {"BIGNUMERIC", "FLOAT"},
    "BIGNUMERIC": {"FLOAT"},
    "JSON": {"STRING"},
}


class Lines(Struct, frozen=True):
    """Rows in a compressed file of JSON lines. digest: of the lines, the same for the same rows."""

    path: Path
    rows: int
    digest: str


def columns_of(con: DuckDBPyConnection, relation: str) -> list[Column]:
    """A relation's columns as BigQuery has them."""
    read = con.sql(f"SELECT * FROM {relation}")
    return [column_of(name, kind) for name, kind in zip(read.columns, read.types, strict=True)]


def write_lines(con: DuckDBPyConnection, relation: str, path: Path) -> Lines:
    """Write a relation as JSON lines that BigQuery loads without loss. Memory does not grow with the number of rows."""
    read = con.sql(f"SELECT * FROM {relation}")
    pairs = []
    for name, kind in zip(read.columns, read.types, strict=True):
        pairs.append(f"{literal(name)}, {_value(identifier(name), kind, depth=0)}")
    line = f"CAST(json_object({', '.join(pairs)}) AS VARCHAR)"
    rows, digest = 0, hashlib.sha256()
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0) as out:
        for batch in stream(con, f"SELECT {line} FROM {relation}"):
            rows += len(batch)
            text = "".join(f"{line}\n" for (line,) in batch).encode()
            digest.update(text)
            out.write(text)
    return Lines(path, rows, digest.hexdigest())


def _value(value: str, kind: Any, *, depth: int) -> str:
    """SQL of a value as the JSON that BigQuery reads back as the same value."""
    text, name = str(kind), kind.id
    if name in ("list", "array"):
        inner = kind.children[0][1]
        if column_of("c", kind).kind == "JSON":
            return f"CAST(to_json({value}) AS VARCHAR)"
        each = f"x{depth}"
        made = _value(each, inner, depth=depth + 1)
        # BigQuery's arrays are never NULL, and hold none.
        kept = f"list_filter({value}, lambda {each}: {each} IS NOT NULL)"
        return f"coalesce(list_transform({kept}, lambda {each}: {made}), [])"
    if name == "struct":
        fields = ", ".join(
            f"{literal(n)}, {_value(f'{value}.{identifier(n)}', inner, depth=depth)}" for n, inner in kind.children
        )
        return f"CASE WHEN {value} IS NOT NULL THEN json_object({fields}) END"
    if name == "map":
        return f"CAST(to_json({value}) AS VARCHAR)"
    if text in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isfinite({value}) THEN to_json({value}) ELSE to_json({_endless(value)}) END"
    if text == "TIMESTAMP WITH TIME ZONE":
        return f"strftime({value} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
    if text.startswith("TIMESTAMP"):
        return f"strftime({value}, '%Y-%m-%dT%H:%M:%S.%f')"
    if text == "BLOB":
        return f"base64({value})"
    if text in ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"):
        return value
    return f"CAST({value} AS VARCHAR)"  # integers of 64 bits too: not every reader of JSON keeps them exact


def _endless(value: str) -> str:
    return f"CASE WHEN isnan({value}) THEN 'NaN' WHEN {value} > 0 THEN 'Infinity' WHEN {value} < 0 THEN '-Infinity' END"


def staging_columns(columns: Iterable[Column]) -> list[Column]:
    """JSON is staged as text, and parsed by the merge: a number of many digits must not keep all rows from loading."""
    return [structs.replace(c, kind="STRING") if c.kind == "JSON" else c for c in columns]


# --- what is there, and what is new ------------------------------------------------------------------------------


def evolved(there: Sequence[Column], ours: Sequence[Column], *, shown: str) -> list[Column] | None:
    """The table's columns with ours added; None when it has them all. Raises DestinationError for any other change."""
    found = {c.name.casefold(): c for c in there}
    clashes, added = [], []
    for column in ours:
        other = found.get(column.name.casefold())
        if other is None:
            added.append(column)
        elif not fits(column, other):
            clashes.append(f"`{other.name}` is {other.shown}, and the answers have {column.shown}")
    if clashes:
        raise DestinationError(
            f"{shown}: the column {'; '.join(clashes)}.",
            hint="Only columns are added here. Deliver it under another name (destination.columns), or elsewhere.",
        )
    return [*there, *added] if added else None


def fits(ours: Column, there: Column) -> bool:
    """Whether our values go into a column as it is."""
    if ours.mode != there.mode:
        return False
    if ours.kind == "RECORD" or there.kind == "RECORD":
        # Fields are given by place: they must be the same ones.
        same = [f.name.casefold() for f in ours.fields] == [f.name.casefold() for f in there.fields]
        return ours.kind == there.kind and same and all(map(fits, ours.fields, there.fields))
    return ours.kind == there.kind or there.kind in _WIDENS.get(ours.kind, ())


# --- the merge ---------------------------------------------------------------------------------------------------


def merge_sql(
    target: str,
    staging: str,
    columns: Sequence[Column],
    there: Sequence[Column],
    *,
    key: Sequence[str],
    remove: str | None,
) -> str:
    """One statement that puts the staged rows into the table: by key, in place of what they had.

    remove: the condition of rows of the table that are removed when they are not staged ("true": all), None for none.
    """
    kinds = {c.name.casefold(): c.kind for c in there}
    values = {c.name: _merged(c, kinds.get(c.name.casefold(), c.kind)) for c in columns}
    match = " AND ".join(f"T.{quoted(k)} = S.{quoted(k)}" for k in key)
    keyed = {k.casefold() for k in key}
    sets = ", ".join(f"{quoted(c)} = {v}" for c, v in values.items() if c.casefold() not in keyed)
    parts = [f"MERGE {quoted(target)} T", f"USING {quoted(staging)} S", f"ON {match}"]
    if sets:
        parts.append(f"WHEN MATCHED THEN UPDATE SET {sets}")
    names = ", ".join(map(quoted, values))
    parts.append(f"WHEN NOT MATCHED BY TARGET THEN INSERT ({names}) VALUES ({', '.join(values.values())})")
    if remove is not None:
        condition = "" if remove == "true" else f" AND {remove}"
        parts.append(f"WHEN NOT MATCHED BY SOURCE{condition} THEN DELETE")
    return "\n".join(parts)


def _merged(column: Column, there: str) -> str:
    value = f"S.{quoted(column.name)}"
    return f"PARSE_JSON({value}, wide_number_mode=>'round')" if column.kind == "JSON" and there == "JSON" else value


def own_rows(spec: str) -> str:
    """The condition of rows of a shared table that this spec delivered."""
    return f"T.{quoted(METADATA)}.spec = {quoted_text(spec)}"
