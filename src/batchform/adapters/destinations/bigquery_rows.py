"""What a delivery to BigQuery is made of: its rows as JSON lines, and its columns."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from batchform.adapters.bigquery_types import Column, column_of
from batchform.rows.sql import identifier, literal
from batchform.rows.stream import stream

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


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
    return [
        structs.replace(c, kind="STRING" if c.kind == "JSON" else c.kind, fields=tuple(staging_columns(c.fields)))
        for c in columns
    ]
