"""Values for a response schema: valid against it, and the same for the same prompt.

`responseSchema` (the API's own dialect) is first rewritten as JSON Schema; then both go one way: a schema is laid
flat into alternatives without references and combinators, and one alternative is filled in. `oneOf` is read as
`anyOf`. Not followed: `not`, `if`, `contains`, `propertyNames`, `patternProperties`, which the API does not document.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any, Final

import msgspec

from batchform.emulator.draw import Draw
from batchform.emulator.flat import Flattener, Unsatisfiable
from batchform.emulator.values import Filler

Maker = Callable[[Draw], Any]

_FIELDS: Final = ("responseSchema", "responseJsonSchema")


def complaint(config: dict[str, Any], field: str) -> str | None:
    """Why the schema under this field of a generationConfig cannot be used; None if it can."""
    made = _compiled(field == "responseSchema", msgspec.json.encode(config[field]))
    return made if isinstance(made, str) else None


def maker(config: dict[str, Any]) -> Maker | None:
    """What answers for this generationConfig look like; None when it has no schema."""
    for field in _FIELDS:
        if field in config:
            made = _compiled(field == "responseSchema", msgspec.json.encode(config[field]))
            return None if isinstance(made, str) else made
    return None


def complaint_of(schema: Any) -> str | None:
    """Why a JSON Schema cannot be used; None if it can."""
    made = _compiled(own_dialect=False, encoded=msgspec.json.encode(schema))
    return made if isinstance(made, str) else None


def maker_of(schema: Any) -> Maker | None:
    """Values of a JSON Schema; None when there is none, or none can be made."""
    made = None if schema is None else _compiled(own_dialect=False, encoded=msgspec.json.encode(schema))
    return None if isinstance(made, str) else made


@lru_cache(maxsize=256)
def _compiled(own_dialect: bool, encoded: bytes) -> Maker | str:
    schema = msgspec.json.decode(encoded)
    if own_dialect:
        schema = as_json_schema(schema)
    else:
        wrong = _malformed(schema)
        if wrong:
            return wrong
    try:
        too_much = _oversized(schema)
        if too_much:
            return too_much
        filler = Filler(Flattener(schema))
        filler.prepare(schema)
    except Unsatisfiable as e:
        return str(e)
    except RecursionError:
        return "the schema is nested too deeply"
    lock = Lock()  # a filler learns as it goes, and calls come from several threads

    def make(draw: Draw) -> Any:
        with lock:
            return filler.value(schema, draw)

    return make


_LEAST: Final = {"minItems": 1_000, "minProperties": 1_000, "minLength": 100_000}


def _oversized(node: Any) -> str | None:
    """Complaint about a schema that asks for more than the emulator makes up."""
    if isinstance(node, list):
        return next((found for item in node if (found := _oversized(item))), None)
    if not isinstance(node, dict):
        return None
    for word, most in _LEAST.items():
        if isinstance(node.get(word), (int, float)) and node[word] > most:
            return f"{word} is {node[word]}; the emulator makes up {most} at most"
    return _oversized(list(node.values()))


def _malformed(schema: Any) -> str | None:
    import jsonschema_rs

    if not isinstance(schema, (dict, bool)):
        return "the schema must be a JSON object"
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as e:
        at = "/".join(str(p) for p in e.instance_path)
        return f"not a JSON Schema: {e.message}" + (f" at '{at}'" if at else "")
    except (jsonschema_rs.ReferencingError, ValueError) as e:
        return f"not a JSON Schema: {e}"
    return None


_SAME: Final = (
    *("format", "title", "description", "required", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minimum", "maximum", "minLength", "maxLength", "pattern", "propertyOrdering"),
)


def as_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A `responseSchema` (normalised: camelCase, upper-case types) as JSON Schema."""
    out: dict[str, Any] = {field: schema[field] for field in _SAME if field in schema}
    nullable = schema.get("nullable", False)
    kind = schema.get("type", "TYPE_UNSPECIFIED").lower()
    if kind != "type_unspecified":
        out["type"] = [kind, "null"] if nullable and kind != "null" else kind
    if "enum" in schema:
        out["enum"] = [*schema["enum"], None] if nullable else schema["enum"]
    if "items" in schema:
        out["items"] = as_json_schema(schema["items"])
    if "properties" in schema:
        out["properties"] = {name: as_json_schema(s) for name, s in schema["properties"].items()}
    if "anyOf" in schema:
        out["anyOf"] = [as_json_schema(s) for s in schema["anyOf"]]
        if nullable:
            out["anyOf"].append({"type": "null"})
    return out
