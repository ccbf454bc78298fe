"""Response schemas: read, checked, and brought into the form that is sent as `responseJsonSchema`.

The service takes a part of JSON Schema (see the SDK's GenerateContentConfig.response_json_schema). What it does not
take is refused by name, since it would be refused, or worse ignored, once per paid request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from msgspec import Struct

from batchform.errors import Diagnostic, Place
from batchform.spec.schema_sense import senseless
from batchform.spec.wording import one_of, shown, source_line, suggestion
from batchform.spec.yaml_source import Document, NodePath, parse_yaml, read_text

SUPPORTED: Final = frozenset(
    {
        *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum"),
        *("items", "prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf"),
        *("properties", "additionalProperties", "required", "propertyOrdering"),
    }
)
STRIPPED: Final = frozenset(("$schema", "$comment"))
"""Speak to tools, not to the model: taken away before the schema is sent."""

_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
SCHEMAS_BY_NAME = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
ONE_SCHEMA = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
ONLY_VALIDATED = "Put it into `output.schema`, which answers are validated against and which is not sent."
HINTS: Final = {
    "nullable": 'Write type: [string, "null"].',
    "definitions": "Write $defs.",
    "example": "Say it in the description.",
    "examples": "Say it in the description.",
    "default": "Say it in the description.",
    "const": "Write an enum of one value, or put it into `output.schema`, which is not sent.",
    "allOf": "Write the properties into one object, or put it into `output.schema`, which is not sent.",
}

Sending = Literal["json_schema", "openapi"]
Problem = tuple[NodePath, str, str]
"""Path in the schema, message, hint."""


class SchemaSource(Struct, frozen=True):
    """A schema and the file or spec in which it stands. base: its path in that document."""

    schema: dict[str, Any]
    document: Document
    base: NodePath

    def diagnostic(self, problem: Problem) -> Diagnostic:
        """A complaint with the path in the schema and the place of the node."""
        path, message, hint = problem
        pointer = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
        where = f" at `${shown(pointer)}`" if path else ""
        full = (*self.base, *path)
        return self.document.diagnostic(
            "schema", f"{message}{where}", full, on_key=full in self.document.keys, hint=hint
        )


def read_schema(
    value: object, document: Document, path: NodePath, *, root: Path
) -> tuple[SchemaSource | None, list[Diagnostic]]:
    """The schema that a spec names (a file in schemas/) or holds. root: the project's `schemas` folder."""
    if isinstance(value, dict):
        return SchemaSource(value, document, path), []

    def bad(rule: str, message: str, hint: str) -> tuple[None, list[Diagnostic]]:
        return None, [document.diagnostic(rule, message, path, hint=hint)]

    if not isinstance(value, str):
        return bad("wrong-value", "a schema is a mapping, or the name of a file in schemas/", "")
    name = value.removeprefix("schemas/")
    pure = PurePosixPath(name)
    if not name.strip() or "\\" in name or "\0" in name or pure.is_absolute() or ".." in pure.parts:
        return bad("schema-outside", f"`{shown(value)}` is not a file in schemas/", "Schemas stand in that folder.")
    file = root / pure
    try:
        inside = file.resolve().is_relative_to(root.resolve())
        exists = file.is_file()
    except (OSError, RuntimeError, ValueError):
        inside, exists = True, False
    if not inside:
        return bad("schema-outside", f"`{shown(value)}` is a link that leaves schemas/", "Copy the file there.")
    if not exists:
        known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.json"))[:20] if root.is_dir() else []
        hint = suggestion(name, known, noun="Files") or "There are no files in schemas/ yet."
        return bad("schema-not-found", f"there is no schema `{shown(value)}` in schemas/", hint)
    return _read_file(file, f"schemas/{name}")


def _read_file(file: Path, shown_path: str) -> tuple[SchemaSource | None, list[Diagnostic]]:
    text = read_text(file, shown_path)
    if isinstance(text, Diagnostic):
        return None, [text]
    if file.suffix in (".yaml", ".yml"):
        document, problems = parse_yaml(text, shown_path)
        return (None, problems) if problems or document is None else (SchemaSource(document.value, document, ()), [])
    try:
        schema = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        line = source_line(text.split("\n")[exc.lineno - 1], exc.colno)
        place = Place(shown_path, exc.lineno, exc.colno, line)
        return None, [Diagnostic("schema", f"bad JSON: {exc.msg}", place)]
    except (ValueError, RecursionError) as exc:
        message = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        return None, [Diagnostic("schema", f"bad JSON: {shown(message)}", Place(shown_path))]
    if not isinstance(schema, dict):
        return None, [Diagnostic("schema", "a schema file holds one JSON object", Place(shown_path, 1, 1))]
    if _repeats_a_key(text):
        found = [p for p in _as_yaml(text, shown_path)[1] if p.rule == "duplicate-key"]
        return None, found or [Diagnostic("duplicate-key", "a key is given twice", Place(shown_path))]
    return SchemaSource(schema, _Positions(shown_path, schema, tuple(text.splitlines()), text=text), ()), []


class _Positions(Document, frozen=True):
    """A JSON file whose positions are found, with the YAML reader, when the first complaint needs them."""

    text: str = ""

    def diagnostic(self, rule: str, message: str, path: NodePath, **options: Any) -> Diagnostic:
        document, _ = _as_yaml(self.text, self.path)
        found = document or Document(self.path, self.value)
        options["on_key"] = path in found.keys
        return found.diagnostic(rule, message, path, **options)


def _as_yaml(text: str, shown_path: str) -> tuple[Document | None, list[Diagnostic]]:
    """A JSON text read by the YAML reader, which knows where things stand. JSON is YAML, but for its tabs."""
    return parse_yaml(text.replace("\t", " "), shown_path)


def _repeats_a_key(text: str) -> bool:
    repeated = False

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        result = dict(pairs)
        repeated = repeated or len(result) < len(pairs)
        return result

    json.loads(text, object_pairs_hook=check)
    return repeated


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} has no JSON form")


# --- checking ----------------------------------------------------------------------------------------------------


def check_schema(source: SchemaSource, *, sent: Sending | bool) -> list[Diagnostic]:
    """Complaints about a schema. sent: the form in which the service must understand it too; False for none.
    What the OpenAPI dialect lacks shows when it is translated."""
    try:
        problems = list(_refs(source.schema)) or _meta(source.schema)
        if sent == "openapi":
            problems = problems or _all_names(source.schema)
        elif sent:
            named = [*_unsupported(source.schema, ()), *_cycles(source.schema)]
            problems = named + [p for p in problems if p[0] not in {n[0] for n in named}]
        problems = problems or list(_senseless(source.schema, ()))
    except RecursionError:
        problems = [((), "the schema is nested too deeply", "")]
    return [source.diagnostic(p) for p in problems]


def sendable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what speaks to tools only."""
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in STRIPPED:
            continue
        if key in SCHEMAS_BY_NAME and isinstance(value, dict):
            result[key] = {n: sendable(s) if isinstance(s, dict) else s for n, s in value.items()}
        elif key in SCHEMA_LISTS and isinstance(value, list):
            result[key] = [sendable(s) if isinstance(s, dict) else s for s in value]
        else:
            result[key] = sendable(value) if key in ONE_SCHEMA and isinstance(value, dict) else value
    return result


def _meta(schema: dict[str, Any]) -> list[Problem]:
    """What the JSON Schema specification says against the schema."""
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for(schema)
    except jsonschema_rs.ValidationError as exc:
        path = tuple(exc.instance_path or ())
        return [(path, f"not a valid JSON Schema: {shown(exc.message, 160)}", _type_hint(schema, path))]
    except (jsonschema_rs.ReferencingError, ValueError) as exc:
        return [((), f"not a valid JSON Schema: {shown(str(exc).splitlines()[0], 160)}", "")]
    return []


def _type_hint(schema: Any, path: NodePath) -> str:
    for step in path:
        schema = schema[step]
    if isinstance(schema, str) and schema.lower() in _TYPES and path[-1] == "type":
        return f"JSON Schema writes `{schema.lower()}`."
    return f"Types: {', '.join(_TYPES)}." if path and path[-1] == "type" else ""


def _subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[NodePath, Any]]:
    for key, value in schema.items():
        if key in SCHEMAS_BY_NAME and isinstance(value, dict):
            yield from (((key, name), sub) for name, sub in value.items())
        elif key in SCHEMA_LISTS and isinstance(value, list):
            yield from (((key, i), sub) for i, sub in enumerate(value))
        elif key in ONE_SCHEMA and not isinstance(value, list):
            yield (key,), value


def _senseless(schema: Any, at: NodePath) -> Iterator[Problem]:
    if not isinstance(schema, dict):
        return
    yield from senseless(schema, at)
    for path, sub in _subschemas(schema):
        yield from _senseless(sub, (*at, *path))


def _refs(schema: Mapping[str, Any], at: NodePath = ()) -> Iterator[Problem]:
    """References and dialects that would have to be fetched from elsewhere. They must be found before any validator is
    built: validators fetch."""
    for word in ("$ref", "$dynamicRef", "$recursiveRef"):
        ref = schema.get(word)
        if isinstance(ref, str) and not ref.startswith("#"):
            yield (*at, word), f"`{shown(ref)}` is in another file", "Put it under $defs and refer to #/$defs/…."
    dialect = schema.get("$schema")
    if dialect is not None and not re.match(r"https?://json-schema\.org/draft[-/a-z0-9]*/", str(dialect)):
        yield (*at, "$schema"), "unknown dialect of JSON Schema", "Remove the line, or name a draft of json-schema.org."
    for path, sub in _subschemas(schema):
        if isinstance(sub, dict):
            yield from _refs(sub, (*at, *path))


def _unsupported(schema: Any, at: NodePath) -> Iterator[Problem]:
    """What the service does not take."""
    if not isinstance(schema, dict):
        if at and at[-1] != "additionalProperties":
            yield at, "the service wants a schema object here, not true or false", ""
        return
    for key in schema:
        if key not in SUPPORTED and key not in STRIPPED:
            hint = HINTS.get(key, "") or ONLY_VALIDATED
            yield (*at, key), f"the service does not support `{shown(key)}` in a response schema", hint
    if "$ref" in schema:
        extra = sorted(k for k in schema if not k.startswith("$"))
        if extra:
            message = f"beside $ref the service allows no {one_of([f'`{e}`' for e in extra])}"
            yield (*at, "$ref"), message, "Move them into the schema that is referred to."
    for i, value in enumerate(schema["enum"] if isinstance(schema.get("enum"), list) else ()):
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            yield (*at, "enum", i), "the service takes only texts and numbers in an enum", ""
    yield from _names(schema, at)
    for path, sub in _subschemas(schema):
        if path[0] in SUPPORTED:
            yield from _unsupported(sub, (*at, *path))


def _names(schema: Mapping[str, Any], at: NodePath) -> Iterator[Problem]:
    properties = schema.get("properties")
    known = list(properties) if isinstance(properties, dict) else []
    for key in ("required", "propertyOrdering"):
        names = schema.get(key)
        for i, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name not in known:
                message = f"`{key}` names `{shown(name)}`, which is not in `properties`"
                yield (*at, key, i), message, suggestion(name, known, noun="Properties")


def _all_names(schema: Mapping[str, Any]) -> list[Problem]:
    """`_names` of a schema and of all within it."""

    def walk(node: Any, at: NodePath) -> Iterator[Problem]:
        if isinstance(node, dict):
            yield from _names(node, at)
            for path, sub in _subschemas(node):
                yield from walk(sub, (*at, *path))

    return list(walk(schema, ()))


def _cycles(schema: dict[str, Any]) -> Iterator[Problem]:
    """References that lead back to themselves through required parts only: answers could never end."""
    done: dict[str, bool] = {}

    def visit(name: str, node: Any, at: NodePath) -> Iterator[Problem]:
        done[name] = False
        for path, ref in _required_refs(node, at):
            if done.get(ref) is False:
                message = f"`{shown(ref)}` contains itself through required properties"
                yield path, message, "The service allows a cycle only through a property that is not required."
            elif ref not in done and (target := resolved(schema, ref)) is not None:
                yield from visit(ref, target[1], target[0])
        done[name] = True

    yield from visit("#", schema, ())
    definitions = schema.get("$defs")
    for name, node in definitions.items() if isinstance(definitions, dict) else ():
        if f"#/$defs/{name}" not in done:
            yield from visit(f"#/$defs/{name}", node, ("$defs", name))


def _required_refs(node: Any, at: NodePath) -> Iterator[tuple[NodePath, str]]:
    if not isinstance(node, dict):
        return
    if isinstance(node.get("$ref"), str):
        yield (*at, "$ref"), node["$ref"]
    required = node.get("required")
    for path, sub in _subschemas(node):
        optional = path[0] == "properties" and (not isinstance(required, list) or path[1] not in required)
        if path[0] != "$defs" and not optional:
            yield from _required_refs(sub, (*at, *path))


def resolved(schema: dict[str, Any], ref: str) -> tuple[NodePath, Any] | None:
    if ref != "#" and not ref.startswith("#/"):
        return None
    node: Any = schema
    path: list[str | int] = []
    for part in ref[1:].split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or step not in node:
            return None
        node = node[step]
        path.append(step)
    return tuple(path), node
