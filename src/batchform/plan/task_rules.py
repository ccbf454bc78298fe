"""What a model and a service take of a task: judged once for a spec, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from batchform.errors import Diagnostic
from batchform.plan.registry import ModelInfo
from batchform.spec.generation import camel, snake
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec

_GEMINI_FIELDS: Final = ("content", "taskType", "title", "outputDimensionality")
_VERTEX_FIELDS: Final = ("content", "embedContentConfig")


def check_task(spec: ResolvedSpec, info: ModelInfo | None) -> list[Diagnostic]:
    """Complaints about a spec, each with its place. info: what is known of its model."""
    return [*_embed(spec, info)] if spec.task == "embed" else []


def _embed(spec: ResolvedSpec, info: ModelInfo | None) -> Iterator[Diagnostic]:
    vertex, embed = cloud_of(spec.backend) == "vertex", spec.spec.embed
    if vertex and getattr(spec.backend, "via", "storage") == "bigquery":
        message = "embeddings of Vertex AI are read from Cloud Storage, and not from BigQuery"
        hint = "Use a backend with `via: storage`."
        yield Diagnostic("vertex-refuses", message, spec.at("backend"), hint=hint)
    known = _VERTEX_FIELDS if vertex else _GEMINI_FIELDS
    for name in spec.request_overlay:
        if camel(name) not in known:
            message = f"`{snake(name)}` is no field of a request for a vector that is known"
            hint = f"A whole job is refused for one unknown field. Fields: {', '.join(map(snake, known))}."
            yield Diagnostic("unknown-request-field", message, spec.at("request"), hint=hint, severity="warning")
    if info is None or embed is None:
        return
    if info.dimensions and embed.dimensions is not None:
        least, most = info.dimensions
        if not least <= embed.dimensions <= most:
            message = f"vectors of {info.id} have {least:,} to {most:,} dimensions, and not {embed.dimensions:,}"
            yield Diagnostic("model-refuses", message, spec.at("embed.dimensions"), hint=f"{most:,} is its own length.")
    if info.heeds_task_type is False:
        for name in ("task_type", "title"):
            if getattr(embed, name) is not None:
                hint = "Say it in the text that is embedded, such as `title: … | text: …`."
                message = f"{info.id} takes `{name}` and does not heed it"
                at = spec.at(f"embed.{name}")
                yield Diagnostic("model-ignores", message, at, hint=hint, severity="warning")
