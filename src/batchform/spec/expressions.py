"""Column expressions: what a destination's `columns` may say, parsed and typed without reading a row.

response.category      response.items[0].name      response["odd name"]      of the parsed answer
usage.total_token_count                                                      the API's own usageMetadata names
row.subject                                                                  a column of the source, as it is now
key    ticket_id    key.ticket_id                                            the key, or one of its columns
text    finish_reason    model_version    batch_job    answered_at …         see FIELDS
function_calls[0].args.order    grounding.webSearchQueries    thoughts …        see DETAILS
{{ response.tags | join(", ") }}                                             Jinja for the rest; the result is text
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from batchform.spec.embed import VECTOR
from batchform.spec.image import IMAGE_FIELDS, IMAGES
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import nearest

# What is known of every answer, beside its key: name → DuckDB type, in the order of the default columns.
FIELDS: Final[dict[str, str]] = {
    "response": "JSON",
    "text": "VARCHAR",
    "finish_reason": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "thought_tokens": "BIGINT",
    "cached_tokens": "BIGINT",
    "total_tokens": "BIGINT",
    "model_version": "VARCHAR",
    "batch_job": "VARCHAR",
    "answered_at": "TIMESTAMPTZ",
    "cost_usd": "DOUBLE",
}

VECTOR_FIELD: Final = "embedding"
"""The answer of `task: embed`, as a list of FLOAT."""

# What few answers have: name → DuckDB type. Delivered where `columns` asks for it, or the spec's tools give it. Their
# parts have the API's own names: `grounding.groundingChunks[0].web.uri`.
DETAILS: Final[dict[str, str]] = {
    "function_calls": "JSON",
    "tool_steps": "JSON",
    "citations": "JSON",
    "grounding": "JSON",
    "url_context": "JSON",
    "thoughts": "VARCHAR",
}

PARTS_FIELD: Final = "parts"
"""Of a row that is asked about in parts, what is known of each: JSON list, in the order of the pages."""

# The API's names of token counts → ours.
USAGE: Final[dict[str, str]] = {
    "prompt_token_count": "prompt_tokens",
    "candidates_token_count": "output_tokens",
    "thoughts_token_count": "thought_tokens",
    "cached_content_token_count": "cached_tokens",
    "total_token_count": "total_tokens",
}

_JSON_TYPES = {"string": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}
_ROOT = re.compile(r"[^\W\d]\w*")
_STEP = re.compile(r"""\.([^\s.\[\]{}"']+)|\[(\d{1,9})\]|\[("(?:[^"\\]|\\.)*")\]|\['([^'\\]*)'\]""")
_MAX_HOPS = 32  # of $ref, so that a schema that refers to itself ends


class ExpressionError(ValueError):
    """A column expression that cannot be read, as a sentence."""


class Key(Struct, frozen=True):
    """The whole key, as text."""


class KeyColumn(Struct, frozen=True):
    """One column of the key, in the source's type."""

    name: str


class Field(Struct, frozen=True):
    """One of FIELDS or DETAILS."""

    name: str


class InField(Struct, frozen=True):
    """A value inside one of DETAILS, as text."""

    name: str
    steps: tuple[str | int, ...]


class InResponse(Struct, frozen=True):
    """A value inside the parsed answer. type: VARCHAR, BIGINT, DOUBLE, BOOLEAN, or JSON for arrays and objects."""

    steps: tuple[str | int, ...]
    type: str


class InResponses(Struct, frozen=True):
    """A value inside the answer to each part of a row: JSON list, in the order of the pages."""

    steps: tuple[str | int, ...]


class RowColumn(Struct, frozen=True):
    """A column of the source."""

    name: str


class Rendered(Struct, frozen=True):
    """A Jinja expression. reads: names at its top level that it uses; row: source columns that must be there, as far
    as its text tells."""

    text: str
    reads: frozenset[str]
    row: frozenset[str] = frozenset()


class Metadata(Struct, frozen=True):
    """Whose the row is and what it came of: spec, plan, job, request, answered_at, cost_usd."""


Expression = Key | Metadata | KeyColumn | Field | InField | InResponse | InResponses | RowColumn | Rendered


def parse(text: str, spec: ResolvedSpec) -> Expression:
    """The expression, checked against the spec's key and output schema. Raises ExpressionError."""
    if "{{" in text or "{%" in text:
        return _rendered(text, spec)
    if text.strip() in spec.key_columns and text.strip() not in FIELDS:
        return KeyColumn(text.strip())
    root, steps = split(text)
    if root == "response" and steps:
        found = in_response(steps, spec)
        return InResponses(found.steps) if spec.splits else found
    if root == "usage":
        return Field(USAGE[_only_step(root, steps, USAGE)])
    if root == "key" and steps:
        return KeyColumn(_only_step(root, steps, spec.key_columns))
    if root == "row":
        column = _only_step(root, steps, None)
        return KeyColumn(column) if column in spec.key_columns else RowColumn(column)
    if root == "key":
        return Key()
    if root in IMAGE_FIELDS and not steps and spec.output_format == IMAGES:
        return Field(root)
    if root == PARTS_FIELD and not steps and spec.splits:
        return Field(PARTS_FIELD)
    if root == VECTOR_FIELD and not steps and spec.output_format == VECTOR:
        return Field(VECTOR_FIELD)
    if steps and (root, spec.output_format) in (*((name, IMAGES) for name in IMAGE_FIELDS), (VECTOR_FIELD, VECTOR)):
        raise ExpressionError(f"`{root}` is delivered whole: leave out what stands behind it")
    if steps and DETAILS.get(root) == "JSON":
        return InField(root, steps)
    if root not in FIELDS and root not in DETAILS:
        known = ["response", "usage", "row", "key", *spec.key_columns, *FIELDS, *DETAILS]
        known += [PARTS_FIELD] if spec.splits else []
        known += [VECTOR_FIELD] if spec.output_format == VECTOR else []
        known += IMAGE_FIELDS if spec.output_format == IMAGES else []
        raise ExpressionError(f"nothing is called `{root}`{near(root, known)}; a column of the source is `row.{root}`")
    if steps:
        raise ExpressionError(f"`{root}` has no parts")
    _check_field(root, spec)
    return Field(root)


def split(text: str) -> tuple[str, tuple[str | int, ...]]:
    """`response.items[0].name` → ("response", ("items", 0, "name")). Raises ExpressionError naming the position."""
    text = text.strip()
    head = _ROOT.match(text)
    if head is None:
        raise ExpressionError("it must begin with a name: response, usage, row, key, text …, or be Jinja in {{ }}")
    steps: list[str | int] = []
    at = head.end()
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise ExpressionError(
                f'cannot read {text[at:]!r} after {text[:at]!r}: write .name, [0] or ["name"]; '
                "anything more is Jinja in {{ }}"
            )
        name, index, quoted, single = step.groups()
        steps.append(int(index) if index else name or single or _unquoted(quoted))
        at = step.end()
    return head[0], tuple(steps)


def _unquoted(quoted: str | None) -> str:
    try:
        return str(json.loads(quoted or '""'))
    except ValueError as exc:
        raise ExpressionError(f"{quoted} is not a JSON string") from exc


def in_response(steps: Sequence[str | int], spec: ResolvedSpec) -> InResponse:
    """A path into the parsed answer, typed by the output schema; text where there is no schema to say."""
    _check_field("response", spec)
    schema = spec.output_schema
    if schema is None:
        return InResponse(tuple(steps), "VARCHAR")
    at: Mapping[str, Any] | None = schema
    walked = "response"
    for step in steps:
        at = _descend(at, step, schema, walked)
        walked += f"[{step}]" if isinstance(step, int) else f".{step}"
    return InResponse(tuple(steps), _column_type(at, schema))


def properties(schema: Mapping[str, Any] | None) -> dict[str, str]:
    """The top-level properties of an object schema and their column types, in order; empty if it is not an object."""
    if schema is None:
        return {}
    found = _plain(schema, schema).get("properties")
    return {name: _column_type(sub, schema) for name, sub in found.items()} if isinstance(found, Mapping) else {}


def near(name: str, known: Collection[str]) -> str:
    """` (did you mean `x`?)`, or nothing."""
    close = nearest(name, known)
    return f" (did you mean `{close}`?)" if close else ""


def _check_field(name: str, spec: ResolvedSpec) -> None:
    if name in ("response", "text") and spec.output_format == VECTOR:
        raise ExpressionError(f"the answers of this spec are vectors, so there is no `{name}`: use `{VECTOR_FIELD}`")
    if name == "response" and spec.output_format == IMAGES:
        known = ", ".join(IMAGE_FIELDS)
        raise ExpressionError(f"the answers of this spec are images, so there is no `response`: there is {known}")
    if name == "response" and spec.output_format == "text":
        raise ExpressionError("the answers of this spec are free text, so there is no `response`: use `text`")


def _only_step(root: str, steps: Sequence[str | int], known: Collection[str] | None) -> str:
    """The one name after `root.`, which must be among `known` unless that is None."""
    if len(steps) != 1 or not isinstance(steps[0], str):
        shown = f"one of {', '.join(known)}" if known else "a column's name"
        raise ExpressionError(f"after `{root}.` comes {shown}, and nothing else; the rest needs Jinja in {{{{ }}}}")
    if known is not None and steps[0] not in known:
        shown = f"{near(steps[0], known)}; there are {', '.join(known)}" if known else ""
        raise ExpressionError(f"`{root}` has no `{steps[0]}`{shown}")
    return steps[0]


def _descend(
    schema: Mapping[str, Any] | None, step: str | int, whole: Mapping[str, Any], walked: str
) -> Mapping[str, Any] | None:
    """The schema one step further; None where nothing is said. Refuses what the schema rules out."""
    if schema is None:
        return None
    here = _plain(schema, whole)
    if isinstance(step, int):
        if _json_type(here) not in (None, "array"):
            raise ExpressionError(f"`{walked}` is {_article(_json_type(here))} in the output schema, not an array")
        prefix = here.get("prefixItems")
        if isinstance(prefix, list) and step < len(prefix):
            return _schema_or_none(prefix[step])
        return _schema_or_none(here.get("items"))
    if _json_type(here) not in (None, "object"):
        raise ExpressionError(f"`{walked}` is {_article(_json_type(here))} in the output schema: it has no `{step}`")
    known = here.get("properties")
    if isinstance(known, Mapping) and step in known:
        return _schema_or_none(known[step])
    extra = here.get("additionalProperties")
    if isinstance(known, Mapping) and not extra and "patternProperties" not in here:
        raise ExpressionError(
            f"`{walked}` has no `{step}` in the output schema{near(step, known)}; "
            f"it has {', '.join(known) or 'nothing'}"
        )
    return _schema_or_none(extra)


def _schema_or_none(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _plain(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind `$ref`, and behind an anyOf or oneOf whose only other branch is null."""
    for _ in range(_MAX_HOPS):
        ref = schema.get("$ref")
        branches = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(ref, str):
            target = _resolve_ref(ref, whole)
        elif isinstance(branches, list):
            real = [b for b in branches if isinstance(b, Mapping) and b.get("type") not in ("null", "NULL")]
            target = real[0] if len(real) == 1 else None
        else:
            return schema
        if target is None:
            return {}
        schema = target
    return {}


def _resolve_ref(ref: str, whole: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not ref.startswith("#"):
        return None
    at: Any = whole
    for part in ref[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        at = at.get(name) if isinstance(at, Mapping) else None
    return _schema_or_none(at)


def _json_type(schema: Mapping[str, Any]) -> str | None:
    """The one JSON type that a schema allows beside null, lower case (the API also writes STRING); None if open."""
    declared = schema.get("type")
    if declared is None and isinstance(schema.get("enum"), list):
        values = [v for v in schema["enum"] if v is not None]
        return "string" if values and all(isinstance(v, str) for v in values) else None
    names = [declared] if isinstance(declared, str) else declared if isinstance(declared, list) else []
    real = [str(n).lower() for n in names if str(n).lower() != "null"]
    if sorted(real) == ["integer", "number"]:
        return "number"
    return real[0] if len(real) == 1 else None


def _column_type(schema: Mapping[str, Any] | None, whole: Mapping[str, Any]) -> str:
    if not isinstance(schema, Mapping):
        return "VARCHAR"
    plain = _plain(schema, whole)
    kind = _json_type(plain)
    if kind in ("array", "object") or (kind is None and ("properties" in plain or "items" in plain)):
        return "JSON"
    return _JSON_TYPES.get(kind or "", "VARCHAR")


def _article(kind: str | None) -> str:
    return f"an {kind}" if kind and kind[0] in "aeiou" else f"a {kind}"


def _rendered(text: str, spec: ResolvedSpec) -> Rendered:
    from jinja2 import BaseLoader, TemplateSyntaxError, meta, nodes

    from batchform.spec.template_env import GLOBALS, TemplateEnvironment
    from batchform.spec.template_reads import row_columns_needed

    environment = TemplateEnvironment(BaseLoader())
    known = ["response", "usage", "row", "key", *spec.key_columns, *FIELDS, *DETAILS]
    try:
        environment.from_string(text)
    except TemplateSyntaxError as exc:
        raise ExpressionError(f"the Jinja does not parse: {exc.message}") from exc
    tree = environment.parse(text)
    if any(True for _ in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        raise ExpressionError("a column cannot include or import a template")
    reads = meta.find_undeclared_variables(tree) - GLOBALS.keys()
    for name in sorted(reads - set(known)):
        raise ExpressionError(f"nothing is called `{name}`{near(name, known)}; a column of the source is `row.{name}`")
    if "response" in reads:
        _check_field("response", spec)
    return Rendered(text, frozenset(reads), row_columns_needed(tree))
