"""What practitioners learned the hard way about requests: each service accepts the job, and the rows come back with
errors, or not at all. Judged once on the part of the request that all rows share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from batchform.errors import Diagnostic
from batchform.plan.registry import ModelInfo
from batchform.plan.request_shape import check_shape
from batchform.spec.generation import SCHEMA_FIELDS, camel
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.tools import DECLARATIONS, functions
from batchform.spec.yaml_source import leaves

ROOM_TO_THINK: Final = 2048
"""Output tokens below which thinking is known to leave nothing for the answer."""


def check_request(spec: ResolvedSpec, request: Mapping[str, Any], info: ModelInfo | None) -> list[Diagnostic]:
    """Complaints about a spec. request: what all its rows share; info: what is known of its model."""
    return [
        *check_shape(spec),
        *room_to_think(spec, request.get("generationConfig") or {}, info),
        *_tools(spec, request),
        *_labels(spec, request),
        *_references(spec, request),
    ]


def room_to_think(spec: ResolvedSpec, config: Mapping[str, Any], info: ModelInfo | None) -> Iterator[Diagnostic]:
    """Thinking tokens count as output: too few in all, and the answer is cut before its first word. config: a
    generationConfig."""
    most, thinking = config.get("maxOutputTokens"), config.get("thinkingConfig") or {}
    if not isinstance(most, int) or not isinstance(thinking, Mapping):
        return
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    asked = (isinstance(level, str) and level != "MINIMAL") or (isinstance(budget, int) and budget != 0)
    told = level is not None or budget is not None
    always = info is not None and (info.thinking_off is False or (info.thinks is True and not told))
    needed = max(ROOM_TO_THINK, budget + 1 if isinstance(budget, int) else 0)
    if (asked or always) and most < needed:
        free = info is not None and info.thinking_off is not False
        why = (
            "thinking is asked for" if asked else f"{spec.model} thinks" + (" unless it is told not to" if free else "")
        )
        yield Diagnostic(
            "no-room-to-think",
            f"max_output_tokens {most:,} includes what the model thinks, and {why}",
            spec.at("generation_config"),
            hint=f"Allow {needed:,} or more: an answer that is cut while thinking is empty, and billed.",
            severity="warning",
        )


def _tools(spec: ResolvedSpec, request: Mapping[str, Any]) -> Iterator[Diagnostic]:
    config, tools = request.get("generationConfig") or {}, request.get("tools") or []
    shaped = any(name in config for name in SCHEMA_FIELDS) or config.get("responseMimeType") == "application/json"
    old = spec.model.removeprefix("models/").startswith(("gemini-1", "gemini-2"))
    at = spec.at("tools" if spec.spec.tools else "request")
    if old and functions(tools) and any(name != DECLARATIONS for tool in tools for name in tool):
        message = f"{spec.model} takes either functions or tools of its own in a request, not both"
        yield Diagnostic("model-refuses", message, at, hint="Use a model of Gemini 3, or ask in two specs.")
    if not tools or not shaped:
        return
    yield Diagnostic(
        "schema-with-tools",
        f"{spec.model} refuses tools together with structured output" if old else
        "tools together with structured output are new, and not known to work in batches",
        at,
        hint="Leave one of them out, or ask in two specs: tools in the first, the form of the answer in the second.",
        severity="error" if old else "warning",
    )  # fmt: skip


def _labels(spec: ResolvedSpec, request: Mapping[str, Any]) -> Iterator[Diagnostic]:
    if request.get("labels") and cloud_of(spec.backend) != "vertex":
        message = "labels are for the bills of Vertex AI; whether batches of the Gemini API take them is not known"
        hint = "Leave them out, or send the spec to a backend of `type: vertex`."
        at = spec.at("labels" if spec.spec.labels else "request")
        yield Diagnostic("gemini-refuses", message, at, hint=hint, severity="warning")


def _references(spec: ResolvedSpec, request: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """Content that lies elsewhere: where this service reads from, and how long it will be there."""
    vertex = cloud_of(spec.backend) == "vertex"
    if "cachedContent" in request and not vertex:
        message = "the job may start after the cache has ended: it lives an hour unless it was made to live longer"
        hint = "Make it with a ttl of 48 hours or more; a job may wait that long."
        yield Diagnostic("cache-may-end", message, spec.at("request"), hint=hint, severity="warning")
    for uri in _uris(request):
        wrong = _wrong_scheme(uri, vertex=vertex)
        if wrong:
            yield Diagnostic("unreachable-content", f"{uri[:120]}: {wrong[0]}", spec.at("request"), hint=wrong[1])
        elif not vertex and _is_uploaded(uri):
            message = f"{uri[:120]} is kept for 48 hours after its upload, and a job may wait that long"
            hint = "Upload it right before, or put the content into the request."
            yield Diagnostic("content-may-end", message, spec.at("request"), hint=hint, severity="warning")


def _wrong_scheme(uri: str, *, vertex: bool) -> tuple[str, str] | None:
    """What is wrong and what to do; None for what the service can read."""
    if uri.startswith("gs://") and not vertex:
        return (
            "the Gemini API does not read from Cloud Storage",
            "Upload it as a file, or use a backend of type vertex.",
        )
    if vertex and _is_uploaded(uri):
        return "Vertex AI does not read files of the Gemini API", "Put it into a bucket: gs://BUCKET/NAME."
    for host in ("https://storage.googleapis.com/", "https://storage.cloud.google.com/"):
        if uri.startswith(host) and vertex:
            return "pages of Cloud Storage are no content", f"Write gs://{uri.removeprefix(host)}."
    return None


def _is_uploaded(uri: str) -> bool:
    return uri.startswith("files/") or "generativelanguage.googleapis.com/" in uri


def _uris(request: Mapping[str, Any]) -> Iterator[str]:
    """Every `fileData.fileUri`, in either spelling."""
    for path, leaf in leaves(request):
        if isinstance(leaf, str) and camel(str(path[-1])) == "fileUri":
            yield leaf
