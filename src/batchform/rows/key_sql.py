"""The key of each row of a source, as SQL: of columns, or of an expression, which runs in SQL where it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from batchform.rows.names import MADE
from batchform.rows.sql import identifier, literal
from batchform.rows.stream import stream, values_sql
from batchform.spec.resolved import Template

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

INTEGERS = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
}


def key_sql(
    con: DuckDBPyConnection,
    template: Template | None,
    key_columns: Sequence[str],
    columns: Mapping[str, str],
    base: str,
    *,
    rendered: str = "bf_keys",
) -> tuple[str, str]:
    """(SQL of the key, FROM clause that it reads). NULL where the row has no key.

    template: None when the key is made of `key_columns`; columns: of the rows, with their DuckDB types; base: FROM
    clause of the rows, under the alias `s`; rendered: temp table for keys that SQL cannot make.
    """
    if template is None:
        return columns_key([f"s.{identifier(c)}" for c in key_columns]), base
    pushed = _pushed(template, columns)
    if pushed is not None:
        return pushed, base
    _render(con, template, columns, base, rendered)
    return "k.key", f"{base} POSITIONAL JOIN {rendered} k"


def columns_key(columns: Sequence[str]) -> str:
    """One column: its text. Several: texts joined with `|`, with `\\` and `|` escaped, so that no two meet."""
    texts = [f"CAST({c} AS VARCHAR)" for c in columns]
    if len(texts) == 1:
        return texts[0]
    escaped = [f"replace(replace({t}, '\\', '\\\\'), '|', '\\|')" for t in texts]
    whole = " || '|' || ".join(escaped)
    empty = " AND ".join(f"{t} = ''" for t in texts)
    return f"CASE WHEN {empty} THEN '' ELSE {whole} END"


def _pushed(template: Template, columns: Mapping[str, str]) -> str | None:
    """A key expression of literal text and bare text or integer columns runs in SQL; others are rendered."""
    from batchform.spec.templates import simple_parts

    parts = simple_parts(template)
    if parts is None:
        return None
    pieces = []
    for kind, value in parts:
        if kind == "column" and not (columns[value] == "VARCHAR" or columns[value] in INTEGERS):
            return None
        pieces.append(literal(value) if kind == "text" else f"CAST(s.{identifier(value)} AS VARCHAR)")
    return " || ".join(pieces) if pieces else "''"


def _render(con: DuckDBPyConnection, template: Template, columns: Mapping[str, str], base: str, table: str) -> None:
    """Render a key expression for every row, in order, into a temp table with the column `key`."""
    import pyarrow as pa

    from batchform.spec.templates import explain_render_error

    read = columns if template.columns is None else template.columns
    names = [c for c in columns if c in read and c not in MADE]
    wanted = values_sql(names, columns, "s").removeprefix(", ") or "NULL"
    con.execute(f"CREATE OR REPLACE TEMP TABLE {table} (key VARCHAR)")
    chunks: list[pa.Array] = []
    done = 0
    for batch in stream(con, f"SELECT {wanted} FROM {base}"):
        keys = []
        for values in batch:
            row = dict(zip(names, values, strict=False))
            try:
                missing = any(row[c] is None for c in names) if template.columns is not None else False
                keys.append(None if missing else template.render(row))
            except Exception as exc:
                raise explain_render_error(template, exc, f"row {done + len(keys) + 1}") from exc
        done += len(batch)
        chunks.append(pa.array(keys, pa.string()))
    con.register("bf_keys_arrow", pa.table({"key": pa.chunked_array(chunks, pa.string())}))
    con.execute(f"INSERT INTO {table} SELECT key FROM bf_keys_arrow")
    con.unregister("bf_keys_arrow")
