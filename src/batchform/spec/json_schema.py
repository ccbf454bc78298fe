"""JSON Schemas of `batchform.yaml` and of specs, for editors: generated from the models, so that they cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from batchform.spec.generation import FIELDS, SAFETY_FIELDS, Kind, snake
from batchform.spec.model import Project, Spec
from batchform.spec.row_values import BY_ROW
from batchform.spec.tools import CONFIG, DECLARATIONS, TOOLS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {"text": "string", "int": "integer", "number": "number", "bool": "boolean"}


def project_schema() -> dict[str, Any]:
    """JSON Schema of `batchform.yaml`."""
    return _schema(Project, "batchform.yaml: a project of batchform")


def spec_schema() -> dict[str, Any]:
    """JSON Schema of a spec."""
    schema = _schema(Spec, "A spec of batchform: rows, prompt, model, destination")
    shared: dict[str, Any] = schema["$defs"]
    where = "A file in schemas/, the schema itself, or {python: package.module:Class}."
    named = {"type": ["object", "string"], "description": where}
    more = {"response_schema": named, "responseSchema": named}
    schema["properties"]["generation_config"].update(_object(FIELDS, shared, more=more))
    properties = schema["properties"]
    listed = {"type": "array", "items": _object(SAFETY_FIELDS, shared, more={})}
    properties["safety_settings"]["anyOf"] = [listed, _thresholds()]
    properties["tools"]["items"] = _tools(shared)
    properties["tool_config"].update(_object(CONFIG, shared, more={}))
    return schema


def _thresholds() -> dict[str, Any]:
    """Safety settings as thresholds by category."""
    words, levels = SAFETY_FIELDS["category"], SAFETY_FIELDS["threshold"]
    names = [w.removeprefix("HARM_CATEGORY_").lower() for w in words]
    threshold = {"enum": [*levels, *(level.lower() for level in levels)]}
    return {"type": "object", "properties": dict.fromkeys(names, threshold)}


def _tools(shared: dict[str, Any]) -> dict[str, Any]:
    """One item of `tools`."""
    named = {name: _object(settings, shared, more={}) for name, settings in TOOLS.items()}
    function = {"type": ["object", "string"], "description": "A file in schemas/, or the declaration itself."}
    named[DECLARATIONS] = {"type": "array", "items": function}
    tool = {spelling: kind for name, kind in named.items() for spelling in (name, snake(name))}
    words = {"enum": [spelling for name in TOOLS for spelling in (name, snake(name))]}
    return {"anyOf": [words, {"type": "object", "properties": tool, "additionalProperties": False}]}


def _schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    generated: dict[str, Any] = _clean(model.model_json_schema(by_alias=True, mode="validation"))
    return {"$schema": _DIALECT, **generated, "title": title}


def _clean(node: Any, *, names: bool = False) -> Any:
    """Without what says nothing to an editor: generated titles, our own `wire` marks, OpenAPI's discriminator."""
    if isinstance(node, dict):
        dropped = () if names else ("title", "wire", "discriminator")
        return {
            k: _clean(v, names=k in ("properties", "$defs") and not names) for k, v in node.items() if k not in dropped
        }
    return [_clean(v) for v in node] if isinstance(node, list) else node


def _object(kinds: Mapping[str, Kind], shared: dict[str, Any], *, more: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = dict(more)
    for name, kind in kinds.items():
        made = _kind(name, kind, shared)
        properties[snake(name)] = properties[name] = {"anyOf": [made, _EXPRESSION]} if name in BY_ROW else made
    return {"type": "object", "properties": properties, "additionalProperties": False}


_EXPRESSION = {
    "type": "object",
    "description": "An expression over the row's columns.",
    "properties": {"expr": {"type": "string"}},
    "required": ["expr"],
    "additionalProperties": False,
}


def _kind(name: str, kind: Kind, shared: dict[str, Any]) -> dict[str, Any]:
    if isinstance(kind, Mapping):
        shared[name] = _object(kind, shared, more={})
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(kind, list):
        return {"type": "array", "items": _kind(name, kind[0], shared)}
    if isinstance(kind, tuple):
        return {"enum": [*kind, *(word.lower() for word in kind)]}
    return {"type": _TYPES[kind]} if kind in _TYPES else {}
