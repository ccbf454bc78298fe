"""From recorded answers to output columns: everything becomes DuckDB SQL, but for Jinja columns, which are rendered in
batches into a narrow Parquet file beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchform.errors import DestinationError
from batchform.rows.sql import identifier, literal
from batchform.rows.stream import stream, values_sql
from batchform.spec.delivery import OutputColumn
from batchform.spec.expressions import (
    DETAILS,
    FIELDS,
    PARTS_FIELD,
    USAGE,
    VECTOR_FIELD,
    Expression,
    Field,
    InField,
    InResponse,
    InResponses,
    Key,
    KeyColumn,
    Metadata,
    Rendered,
    RowColumn,
    near,
)
from batchform.spec.image import IMAGE_FIELDS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ANSWERS = "bf_answers"
"""Temp view of deliverable answers: key, key_hash, bf_serial (that brought it) and FIELDS."""

PROVENANCE = ("plan", "request")
"""What Metadata needs of an answer beside FIELDS, as columns of ANSWERS with `bf_` in front: the digest of the plan
that sent it, and the fingerprint of the request that it answers."""

_OF_RESPONSE = {
    "response": "CAST(a.response AS JSON)",
    PARTS_FIELD: "CAST(a.parts AS JSON)",
    VECTOR_FIELD: "CAST(CAST(a.response AS JSON) AS FLOAT[])",
}
"""Fields that are made of the recorded response."""

_PIECE = r"(?:\\.|[^\\|])*"
# Types whose text reads back as the same value; a key column of another type is delivered as text. Integers wider than
# 64 bits are text too: JSON, Parquet and Arrow would hold them as floats.
_PLAIN_TYPES = frozenset(
    ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
     "FLOAT", "DOUBLE", "DATE", "TIME", "TIMESTAMP", "UUID", "DECIMAL")
)  # fmt: skip


def key_column_text(index: int, count: int, key: str = "key") -> str:
    r"""SQL of the text of one of a key's columns. A key of several columns is their texts joined with `|`, with `\` and
    `|` in them escaped by `\`; NULL when the key, of an earlier choice of columns, has fewer."""
    if count == 1:
        return key
    before = f"^(?:{_PIECE}\\|){{{index}}}"
    text = f"regexp_extract({key}, {literal(f'(?s){before}({_PIECE})')}, 1)"
    plain = rf"regexp_replace({text}, '(?s)\\(.)', '\1', 'g')"
    return plain if index == 0 else f"CASE WHEN regexp_matches({key}, {literal(f'(?s){before}')}) THEN {plain} END"


def key_types(
    con: DuckDBPyConnection, names: Sequence[str], recorded: Mapping[str, str], rows: str
) -> tuple[tuple[str, str], ...]:
    """(name, DuckDB type) of the key's columns. A recorded type holds only if every key reads back as it was: `007`
    that was once a number stays text.

    recorded: types that the source had when the rows were sent; rows: FROM-able relation with the column `key`.
    """
    typed = [n for n in names if recorded.get(n, "VARCHAR") != "VARCHAR" and _plain(recorded[n])]
    lossless = {}
    if typed:
        checks = []
        for name in typed:
            text = key_column_text(names.index(name), len(names))
            checks.append(
                f"bool_and(CAST(TRY_CAST({text} AS {recorded[name]}) AS VARCHAR) IS NOT DISTINCT FROM {text})"
            )
        [found] = con.execute(f"SELECT {', '.join(checks)} FROM {rows}").fetchall()
        lossless = dict(zip(typed, found, strict=True))
    return tuple((n, recorded[n] if lossless.get(n) else "VARCHAR") for n in names)


def recorded_kind(kind: str) -> str:
    """The type of a column of a key as its answers will have it, as far as its source tells."""
    return kind if _plain(kind) else "VARCHAR"


def _plain(kind: str) -> bool:
    return kind.partition("(")[0] in _PLAIN_TYPES and not kind.endswith("]")


class Context(Struct, frozen=True):
    """What columns are compiled against. source: FROM-able relation of the source's rows, with `key_hash`; scratch: a
    folder that the connection may read; images: the folder of image files, as the user wrote it."""

    spec: str
    key: tuple[tuple[str, str], ...]
    source: str | None
    scratch: Path
    images: str = ""


def output_relation(con: DuckDBPyConnection, columns: Sequence[OutputColumn], context: Context) -> str:
    """A SELECT of `bf_key` and `bf_serial` in front of the output columns, in no order.

    Raises DestinationError for a source column that is not there, and for a Jinja column that fails, naming the key.
    """
    source_columns = _source_columns(con, context.source)
    for column in columns:
        _check_row_column(column, source_columns, context.spec)
    rendered = [c for c in columns if isinstance(c.expression, Rendered)]
    joins = f"LEFT JOIN {context.source} s ON s.key_hash = a.key_hash " if context.source else ""
    if rendered:
        spool = _render(con, rendered, context, source_columns, joins)
        joins += f"JOIN read_parquet({literal(str(spool))}) j ON CAST(j.key_hash AS UUID) = a.key_hash"
    selected = [f"{_sql(c.expression, context, rendered)} AS {identifier(c.name)}" for c in columns]
    return f"SELECT a.key AS bf_key, a.bf_serial, {', '.join(selected)} FROM {ANSWERS} a {joins}"


def _sql(expression: Expression, context: Context, rendered: Sequence[OutputColumn]) -> str:
    match expression:
        case Key():
            return "a.key"
        case Metadata():
            own = {name: f"a.bf_{name}" for name in PROVENANCE}
            known = {"spec": literal(context.spec), "job": "a.batch_job"}
            known |= {"answered_at": "a.answered_at", "cost_usd": "a.cost_usd"}
            fields = {"spec": known["spec"], **own, **known}
            return f"struct_pack({', '.join(f'{name} := {sql}' for name, sql in fields.items())})"
        case KeyColumn(name):
            return _key_sql(name, context)
        case Field(name) if name in IMAGE_FIELDS:
            return _image_sql(name, context.images)
        case Field(name):
            is_json = DETAILS.get(name) == "JSON"
            return f"CAST(a.{name} AS JSON)" if is_json else _OF_RESPONSE.get(name, f"a.{name}")
        case InField(name, steps):
            return f"json_extract_string(a.{name}, {literal(_pointer(steps))})"
        case InResponse(steps, kind):
            return _response_sql(steps, kind)
        case InResponses(steps):
            one = f"json_extract(x, {literal(_pointer(steps))})"
            return f"to_json(list_transform(CAST(CAST(a.response AS JSON) AS JSON[]), lambda x: {one}))"
        case RowColumn(name):
            return f"s.{identifier(name)}"
        case Rendered():
            return f"j.c{[r.expression for r in rendered].index(expression)}"


def _image_sql(name: str, folder: str) -> str:
    """SQL of a field of an answer's images."""
    every = "CAST(CAST(a.response AS JSON) AS STRUCT(file VARCHAR, mime_type VARCHAR, bytes BIGINT, sha256 VARCHAR)[])"
    path = f"{literal(folder + '/')} || "
    if name == "image_count":
        return f"len({every})"
    if name == "images":
        one = f"struct_pack(path := {path}x.file, mime_type := x.mime_type, bytes := x.bytes, sha256 := x.sha256)"
        return f"to_json(list_transform({every}, lambda x: {one}))"
    field = name.removeprefix("image_")
    return f"{path}({every}[1].file)" if field == "path" else f"({every}[1].{field})"


def _key_sql(name: str, context: Context) -> str:
    names = [n for n, _ in context.key]
    index = names.index(name)
    return f"CAST({key_column_text(index, len(names), 'a.key')} AS {context.key[index][1]})"


def _response_sql(steps: Sequence[str | int], kind: str) -> str:
    """JSON null and a missing value are NULL. A value that does not fit its type is NULL too: one such row, answered
    under an earlier schema, must not keep all others from being delivered."""
    text = f"json_extract_string(a.response, {literal(_pointer(steps))})"
    return text if kind == "VARCHAR" else f"TRY_CAST({text} AS {kind})"


def _pointer(steps: Sequence[str | int]) -> str:
    return "".join("/" + str(s).replace("~", "~0").replace("/", "~1") for s in steps)


def _source_columns(con: DuckDBPyConnection, source: str | None) -> dict[str, str]:
    if source is None:
        return {}
    described = con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    return {name: kind for name, kind, *_ in described if name != "key_hash"}


def _check_row_column(column: OutputColumn, known: Mapping[str, str], spec: str) -> None:
    expression = column.expression
    if isinstance(expression, RowColumn) and expression.name not in known:
        raise DestinationError(
            f"destination.columns.{column.name} of {spec}: the source has no column `{expression.name}`"
            f"{near(expression.name, known)}",
            hint=f"Its columns are: {', '.join(known)}.",
        )


# --- Jinja columns -----------------------------------------------------------------------------------------------


def _render(
    con: DuckDBPyConnection,
    columns: Sequence[OutputColumn],
    context: Context,
    source_columns: Mapping[str, str],
    joins: str,
) -> Path:
    """Render the Jinja columns of all rows into a Parquet file of key_hash, c0, c1 …: text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reads = {"key"}.union(*(c.expression.reads for c in columns if isinstance(c.expression, Rendered)))
    variables = {name: _key_sql(name, context) for name, _ in context.key if name in reads}
    variables |= {name: f"a.{name}" for name in ("key", *FIELDS) if name in reads}
    variables |= {name: f"a.{name}" for name in DETAILS if name in reads and name not in variables}
    keys = frozenset(name for name, _ in context.key)
    usage = {api: f"a.{ours}" for api, ours in USAGE.items()} if "usage" in reads else {}
    row = tuple(source_columns) if "row" in reads else ()
    listed = ", ".join(["CAST(a.key_hash AS VARCHAR)", *variables.values(), *usage.values()])
    sql = f"SELECT {listed}{values_sql(row, source_columns, 's')} FROM {ANSWERS} a {joins if row else ''}"
    render = [_renderer(c, context) for c in columns]
    schema = pa.schema([("key_hash", pa.string()), *((f"c{i}", pa.string()) for i in range(len(columns)))])
    path = context.scratch / "rendered.parquet"
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in stream(con, sql):
            rows = [_variables(values, tuple(variables), tuple(usage), row, keys) for values in batch]
            out = [[r(v) for v in rows] for r in render]
            writer.write_batch(pa.record_batch([[values[0] for values in batch], *out], schema=schema))
    return path


def _variables(
    values: Sequence[Any], names: tuple[str, ...], usage: tuple[str, ...], row: tuple[str, ...], keys: frozenset[str]
) -> dict[str, Any]:
    """What a Jinja column sees of one row, from the values of `_render`'s query."""
    import msgspec

    from batchform.spec.template_env import Row

    rest = iter(values[1:])
    seen: dict[str, Any] = dict(zip(names, rest, strict=False))
    decoded = ("response", *(n for n in DETAILS if DETAILS[n] == "JSON" and n not in keys))
    for name in decoded:
        if seen.get(name) is not None:
            seen[name] = msgspec.json.decode(seen[name])
    if usage:
        seen["usage"] = dict(zip(usage, rest, strict=False))
    if row:
        seen["row"] = Row(zip(row, rest, strict=False))
    return seen


def _renderer(column: OutputColumn, context: Context) -> Callable[[Mapping[str, Any]], str]:
    from jinja2 import BaseLoader

    from batchform.spec.template_env import TemplateEnvironment, without_addresses

    assert isinstance(column.expression, Rendered)
    written = column.expression.text
    template = TemplateEnvironment(BaseLoader()).from_string(written)

    def render(values: Mapping[str, Any]) -> str:
        try:
            return without_addresses(template.render(values), values, [written])
        except Exception as exc:
            raise DestinationError(
                f"destination.columns.{column.name} of {context.spec} fails for the key {values['key']!r}: {exc}",
                hint="A field that may be missing can have a default: {{ response.note | default('') }}.",
            ) from exc

    return render
