"""JSON Schemas of `batchform.yaml` and of specs, for editors: generated from the models, so that they cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from batchform.spec.generation import FIELDS, SAFETY_FIELDS, Kind, snake
from batchform.spec.model import Project, Spec

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
    schema["properties"]["safety_settings"]["items"] = _object(SAFETY_FIELDS, shared, more={})
    return schema


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
        properties[snake(name)] = properties[name] = _kind(name, kind, shared)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _kind(name: str, kind: Kind, shared: dict[str, Any]) -> dict[str, Any]:
    if isinstance(kind, Mapping):
        shared[name] = _object(kind, shared, more={})
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(kind, list):
        return {"type": "array", "items": _kind(name, kind[0], shared)}
    if isinstance(kind, tuple):
        return {"enum": [*kind, *(word.lower() for word in kind)]}
    return {"type": _TYPES[kind]} if kind in _TYPES else {}
