"""The request of an embedding, as each of the two APIs takes it.

The Gemini API's is an EmbedContentRequest; on Vertex AI its settings lie in `embed_content_config`, spelt as Google's
guide spells it, since nothing says that rows of embeddings take another spelling there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchform.canon import normalise
from batchform.spec.model import Spec

VECTOR: Final = "vector"
"""The output format of embeddings: a list of numbers."""
_VERTEX_CONFIG: Final = "embed_content_config"


def embed_base(spec: Spec, cloud: str) -> dict[str, Any]:
    """What all requests of a spec share."""
    embed = spec.embed
    settings = {} if embed is None else {"taskType": embed.task_type, "outputDimensionality": embed.dimensions}
    said = {name: value for name, value in settings.items() if value is not None}
    if cloud != "vertex":
        return said
    names = {"taskType": "task_type", "outputDimensionality": "output_dimensionality"}
    return {_VERTEX_CONFIG: {names[name]: value for name, value in said.items()}} if said else {}


def embed_overlay(spec: Spec) -> dict[str, Any]:
    """`request:` of a spec for Vertex AI, in the spelling of the user, who merges into one that is not camelCase."""
    return dict(normalise(spec.request))


def embed_request(base: Mapping[str, Any], *, text: str, title: str | None, cloud: str) -> dict[str, Any]:
    """The whole request of one text."""
    request = {**base, "content": {"parts": [{"text": text}]}}
    if title is None:
        return request
    if cloud != "vertex":
        return {**request, "title": title}
    return {**request, _VERTEX_CONFIG: {**base.get(_VERTEX_CONFIG, {}), "title": title}}


def vector_schema(spec: Spec) -> dict[str, Any]:
    """A JSON Schema of the vectors that the spec asks for."""
    schema: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
    if spec.embed is not None and spec.embed.dimensions is not None:
        schema |= {"minItems": spec.embed.dimensions, "maxItems": spec.embed.dimensions}
    return schema
