"""The forms in which a response schema is sent: as JSON Schema, as that without references, or in the OpenAPI dialect
of the API's `responseSchema`. Each is a translation that accepts the same answers; what has no translation is refused
by name. Answers are validated against the schema as it was written, whatever was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from batchform.errors import Diagnostic
from batchform.spec.schemas import (
    HINTS,
    ONE_SCHEMA,
    ONLY_VALIDATED,
    SCHEMA_LISTS,
    SCHEMAS_BY_NAME,
    STRIPPED,
    SUPPORTED,
    Problem,
    SchemaSource,
    check_schema,
    resolved,
    sendable,
)
from batchform.spec.wording import shown
from batchform.spec.yaml_source import NodePath

Dialect = Literal["auto", "json_schema", "inlined", "openapi"]

_MOST_NODES: Final = 5_000
_SPEAK_OF_DOCUMENTS: Final = (*STRIPPED, "$id", "$anchor", "$defs")
_NOTES: Final = ("title", "description")
_OF_TYPE: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("format", "enum", "const", "minLength", "maxLength", "pattern"),
    "number": ("format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "integer": ("format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "boolean": (),
    "array": ("items", "minItems", "maxItems"),
    "object": (
        *("properties", "required", "propertyOrdering", "additionalProperties", "minProperties", "maxProperties"),
    ),
    "null": (),
}
_SAME: Final = (
    *("title", "description", "format", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems"),
    *("maxItems", "minProperties", "maxProperties", "required", "propertyOrdering"),
)
_TAKEN: Final = frozenset(
    (
        *(*_SAME, "type", "enum", "const", "items", "properties", "additionalProperties", "anyOf", "oneOf", "allOf"),
        *("exclusiveMinimum", "exclusiveMaximum", "default", "example", "$ref"),
    )
)
_IN_JSON_SCHEMA: Final = "Or send it as it is, with `schema_dialect: json_schema`."


class Sent(Struct, frozen=True):
    """A schema in the form that is sent: the field of generationConfig, and its value."""

    field: str
    schema: dict[str, Any]


def written(schema: dict[str, Any], dialect: Dialect, *, importer: bool) -> tuple[Sent, list[Problem]]:
    """A schema as it is sent, and what cannot be said so.

    dialect: what the spec asks for; importer: whether requests are loaded like rows of BigQuery, as Vertex AI loads
    files of Cloud Storage: it takes no references, and one type for each path.
    """
    if dialect == "openapi":
        return _openapi(schema)
    if dialect == "json_schema" or (dialect == "auto" and not importer):
        return Sent("responseJsonSchema", sendable(schema)), []
    flat, problems = inlined(sendable(schema)) if dialect == "inlined" or _refers(schema) else (sendable(schema), [])
    if dialect == "auto" and not problems and _mixes_types(flat):
        other, refused = _openapi(schema)
        if not refused and not _mixes_types(other.schema):
            return other, []
    return Sent("responseJsonSchema", flat), problems


def check_sent(source: SchemaSource, dialect: Dialect, *, importer: bool) -> tuple[Sent, list[Diagnostic]]:
    """A schema as it is sent, and all complaints about it, each with its place. See `written`."""
    found = check_schema(source, sent="openapi" if dialect == "openapi" else "json_schema")
    if found:
        return Sent("responseJsonSchema", {}), found
    made, problems = written(source.schema, dialect, importer=importer)
    return made, [source.diagnostic(p) for p in problems]


# --- references ----------------------------------------------------------------------------------------------------


def inlined(schema: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The schema with every reference written out, and those that cannot be."""
    return _Inliner(schema).run()


class _Inliner:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._nodes = 0
        self._problems: dict[NodePath, Problem] = {}

    def run(self) -> tuple[dict[str, Any], list[Problem]]:
        made = self._node(self._root, (), ("#",))
        return made, list(self._problems.values())

    def _node(self, node: dict[str, Any], at: NodePath, trail: tuple[str, ...]) -> dict[str, Any]:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            message = f"written out without references it has more than {_MOST_NODES:,} parts"
            self._problems.setdefault((), ((), message, "Let fewer parts of it refer to each other."))
            return {}
        if isinstance(ref := node.get("$ref"), str):
            return self._written_out(node, ref, at, trail)
        result: dict[str, Any] = {}
        for key, value in node.items():
            if key not in _SPEAK_OF_DOCUMENTS:
                result[key] = self._value(key, value, (*at, key), trail)
        return result

    def _value(self, key: str, value: Any, at: NodePath, trail: tuple[str, ...]) -> Any:
        if key in SCHEMAS_BY_NAME and isinstance(value, dict):
            return {n: self._node(s, (*at, n), trail) if isinstance(s, dict) else s for n, s in value.items()}
        if key in SCHEMA_LISTS and isinstance(value, list):
            return [self._node(s, (*at, i), trail) if isinstance(s, dict) else s for i, s in enumerate(value)]
        return self._node(value, at, trail) if key in ONE_SCHEMA and isinstance(value, dict) else value

    def _written_out(self, node: dict[str, Any], ref: str, at: NodePath, trail: tuple[str, ...]) -> dict[str, Any]:
        target = resolved(self._root, ref)
        if ref in trail:
            hint = (
                "Say how deep it goes: a schema for each level. Or use a backend and `schema_dialect` that take $ref."
            )
            message = f"`{shown(ref)}` contains itself, and cannot be written out without $ref"
            self._problems[at] = ((*at, "$ref"), message, hint)
            return {}
        if target is None or not isinstance(target[1], dict):
            message = f"`{shown(ref)}` cannot be written out"
            self._problems[at] = ((*at, "$ref"), message, "Refer to #/$defs/NAME.")
            return {}
        beside = {k: v for k, v in node.items() if k != "$ref" and k not in _SPEAK_OF_DOCUMENTS}
        return {**self._node(target[1], target[0], (*trail, ref)), **self._node(beside, at, trail)}


def _refers(node: Any) -> bool:
    """Whether a schema has references, or definitions for them."""
    if isinstance(node, dict):
        return any(k in ("$ref", "$defs") or _refers(v) for k, v in node.items())
    return isinstance(node, list) and any(_refers(v) for v in node)


def _mixes_types(schema: dict[str, Any]) -> bool:
    """Whether values at one path, lists without their numbers, are of several types."""
    seen: dict[tuple[str, ...], str] = {}
    for path, value in _walk(schema, ()):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        kind = "number" if number else type(value).__name__
        if seen.setdefault(path, kind) != kind:
            return True
    return False


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, (*path, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, (*path, "[]"))


# --- the OpenAPI dialect ---------------------------------------------------------------------------------------------


def _openapi(schema: dict[str, Any]) -> tuple[Sent, list[Problem]]:
    flat, problems = inlined(sendable(schema))
    translated = _Translator()
    made = translated.node(flat, ()) if not problems else {}
    found = {(_origin(schema, at), message, hint): None for at, message, hint in translated.problems}
    return Sent("responseSchema", made), [*problems, *found]


def _origin(schema: dict[str, Any], path: NodePath) -> NodePath:
    """Where a part of the schema without references stands in the one that has them."""
    node: Any = schema
    at: NodePath = ()
    for step in path:
        while isinstance(node, dict) and step not in node and (target := resolved(schema, node.get("$ref", ""))):
            at, node = target
        at = (*at, step)
        try:
            node = node[step]
        except (LookupError, TypeError):
            node = None
    return at


class _Translator:
    """JSON Schema without references → the API's `Schema`: types in upper case, `nullable` in place of null."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def _refuse(self, at: NodePath, message: str, hint: str = "") -> None:
        known = not at or at[-1] in SUPPORTED
        self.problems.append(
            (at, f"the OpenAPI dialect {message}", f"{hint} {_IN_JSON_SCHEMA if known else ''}".strip())
        )

    def node(self, schema: Any, at: NodePath) -> dict[str, Any]:
        if not isinstance(schema, dict):
            self._refuse(at, "wants a schema object here, not true or false")
            return {}
        for key in schema:
            if key not in _TAKEN:
                hint = HINTS.get(key, "" if key in SUPPORTED else ONLY_VALIDATED)
                self._refuse((*at, key), f"does not have `{shown(key)}`", hint)
        if isinstance(schema.get("allOf"), list):
            return self._all_of(schema, at)
        choices = next((k for k in ("anyOf", "oneOf") if isinstance(schema.get(k), list)), None)
        if choices is not None:
            return self._any_of(schema, choices, at)
        types = schema.get("type")
        if isinstance(types, list):
            return self._several(schema, types, at)
        if types is None and ("const" in schema or "enum" in schema):
            types = "string"
        if types is None:
            self._refuse(at, "wants a `type`", "Write the type of what stands here.")
            return {}
        return self._typed(schema, str(types), at)

    def _all_of(self, schema: dict[str, Any], at: NodePath) -> dict[str, Any]:
        parts = schema["allOf"]
        rest = {k: v for k, v in schema.items() if k != "allOf"}
        if len(parts) != 1 or not isinstance(parts[0], dict) or not set(rest) <= set(_NOTES):
            self._refuse((*at, "allOf"), "does not have `allOf`", "Write the properties into one object.")
            return {}
        return self.node({**parts[0], **rest}, (*at, "allOf", 0))

    def _any_of(self, schema: dict[str, Any], word: str, at: NodePath) -> dict[str, Any]:
        beside = [k for k in schema if k not in (word, *_NOTES, "default", "example")]
        if beside:
            where = (*at, beside[0])
            self._refuse(where, f"has nothing beside `{word}`", "Write it into each of the alternatives.")
            return {}
        numbered = [(i, s) for i, s in enumerate(schema[word]) if not (isinstance(s, dict) and _is_null(s))]
        null = len(numbered) < len(schema[word])
        made = [self.node(s, (*at, word, i)) for i, s in numbered]
        if not made:
            return {**_notes(schema), "type": "NULL"}
        one = made[0] if len(made) == 1 else {"anyOf": made}
        return {**one, **_notes(schema), **({"nullable": True} if null else {})}

    def _several(self, schema: dict[str, Any], types: list[Any], at: NodePath) -> dict[str, Any]:
        kinds = [str(t) for t in types if t != "null"]
        null = len(kinds) < len(types)
        if not kinds:
            return {**_notes(schema), "type": "NULL"}
        if len(kinds) == 1:
            made = self._typed(schema, kinds[0], at)
            return {**made, "nullable": True} if null else made
        plain = {k: v for k, v in schema.items() if k not in (*_NOTES, "type")}
        parts = [
            self._typed({k: v for k, v in plain.items() if k in _OF_TYPE.get(kind, ())}, kind, at) for kind in kinds
        ]
        return {**_notes(schema), "anyOf": parts, **({"nullable": True} if null else {})}

    def _typed(self, schema: dict[str, Any], kind: str, at: NodePath) -> dict[str, Any]:
        made: dict[str, Any] = {
            k: schema[k] for k in _SAME if k in schema and (k in _NOTES or k in _OF_TYPE.get(kind, ()))
        }
        made["type"] = kind.upper()
        made |= {k: schema[k] for k in ("default", "example") if schema.get(k) is not None}
        if "enum" in schema or "const" in schema:
            self._enum(made, schema, kind, at)
        self._bounds(made, schema, kind, at)
        if kind == "array" and "items" in schema:
            made["items"] = self.node(schema["items"], (*at, "items"))
        if kind == "object":
            self._object(made, schema, at)
        return made

    def _enum(self, made: dict[str, Any], schema: dict[str, Any], kind: str, at: NodePath) -> None:
        word = "enum" if "enum" in schema else "const"
        values = schema["enum"] if word == "enum" else [schema["const"]]
        texts = [v for v in values if isinstance(v, str)]
        if kind != "string" or len(texts) + values.count(None) < len(values):
            self._refuse((*at, word), f"has `{word}` for texts only", "Give the least and the most, or texts.")
            return
        made["enum"] = texts
        made.setdefault("format", "enum")

    def _bounds(self, made: dict[str, Any], schema: dict[str, Any], kind: str, at: NodePath) -> None:
        for word, inclusive, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            limit = schema.get(word)
            if limit is None or kind not in ("integer", "number"):
                continue
            if kind == "number" or not float(limit).is_integer():
                self._refuse((*at, word), f"does not have `{word}` for numbers", f"Write `{inclusive}`.")
            else:
                pick = max if step > 0 else min
                made[inclusive] = pick(int(limit) + step, made.get(inclusive, int(limit) + step))

    def _object(self, made: dict[str, Any], schema: dict[str, Any], at: NodePath) -> None:
        properties = schema.get("properties") or {}
        if properties:
            made["properties"] = {n: self.node(s, (*at, "properties", n)) for n, s in properties.items()}
            made.setdefault("propertyOrdering", list(properties))
        if not isinstance(schema.get("additionalProperties", False), bool):
            hint = "Make it a list of objects with a name and a value."
            self._refuse((*at, "additionalProperties"), "has no properties of free names", hint)


def _is_null(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "null" or schema.get("type") == ["null"] or schema.get("enum") == [None]


def _notes(schema: dict[str, Any]) -> dict[str, Any]:
    return {k: schema[k] for k in _NOTES if k in schema}
