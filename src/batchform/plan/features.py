"""What one of Google's two APIs has and the other lacks, as their own client tells them apart; said before anything is
sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from batchform.errors import Diagnostic
from batchform.spec.generation import snake
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.tools import REQUEST_FIELDS

ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    "vertex": (
        "tools[].retrieval",
        "tools[].enterpriseWebSearch",
        "tools[].parallelAiSearch",
        "tools[].exaAiSearch",
        "tools[].googleSearch.excludeDomains",
        "tools[].googleSearch.blockingConfidence",
        "tools[].googleMaps.groundingTypes",
        "toolConfig.functionCallingConfig.streamFunctionCallArguments",
        "safetySettings[].method",
        "modelArmorConfig",
        "generationConfig.routingConfig",
        "generationConfig.modelSelectionConfig",
        "generationConfig.audioTimestamp",
        "generationConfig.imageConfig.personGeneration",
        "generationConfig.imageConfig.prominentPeople",
        "generationConfig.imageConfig.outputMimeType",
        "generationConfig.imageConfig.outputCompressionQuality",
        "generationConfig.imageConfig.imageOutputOptions",
    ),
    "gemini": (
        "tools[].fileSearch",
        "toolConfig.includeServerSideToolInvocations",
        "generationConfig.enableEnhancedCivicAnswers",
        "store",
    ),
}
"""Where a request says what only that API takes."""

NOWHERE: Final = ("tools[].retrieval",)
"""What batches have on neither."""

TIERS: Final = ("serviceTier",)
_NAMES: Final = {"vertex": "Vertex AI", "gemini": "the Gemini API"}


def check_features(spec: ResolvedSpec, request: Mapping[str, Any]) -> list[Diagnostic]:
    """Complaints about what the other API alone has, each with its place in the spec. request: what all rows share."""
    here = cloud_of(spec.backend)
    other = "gemini" if here == "vertex" else "vertex"
    return _tiers(spec, request) + [
        Diagnostic(
            f"{here}-refuses",
            f"`{path.replace('[]', '')}` is for {_NAMES[other]}, and {_NAMES[here]} has no such thing",
            spec.at(_place(spec, path)),
            hint="Leave it out: batches have no such thing."
            if path in NOWHERE
            else f"Leave it out, or send the spec to a backend of `type: {other}`.",
        )
        for path in ONLY[other]
        if any(True for _ in _found(request, path.split(".")))
    ]


def _tiers(spec: ResolvedSpec, request: Mapping[str, Any]) -> list[Diagnostic]:
    """Flex, priority and provisioned throughput are for single calls."""
    path = next((p for p in TIERS if any(True for _ in _found(request, [p]))), None)
    if path is None:
        return []
    message = f"`{path}` is for single calls: batches have no tiers, on neither API"
    hint = "Leave it out: a batch has a price of its own."
    return [Diagnostic(f"{cloud_of(spec.backend)}-refuses", message, spec.at(_place(spec, path)), hint=hint)]


def check_inline(spec: ResolvedSpec, kind: str) -> list[Diagnostic]:
    """kind: of the model's answers. Results of an inline job come in one answer, which images make too large."""
    if spec.spec.submit != "inline" or kind != "image":
        return []
    message = "results of inline requests come in one answer, and images make it too large to be fetched"
    return [Diagnostic("inline-images", message, spec.at("submit"), hint="Use `submit: file`, or leave it out.")]


def _found(value: Any, names: list[str]) -> Iterator[Any]:
    """The values at a path."""
    if not names:
        yield value
        return
    name, many = names[0].removesuffix("[]"), names[0].endswith("[]")
    inner = next((value[n] for n in (name, snake(name)) if n in value), None) if isinstance(value, Mapping) else None
    for one in (inner if isinstance(inner, list) else ()) if many else ([inner] if inner is not None else ()):
        yield from _found(one, names[1:])


def _place(spec: ResolvedSpec, path: str) -> str:
    first = path.partition(".")[0].removesuffix("[]")
    return "request" if first in spec.request_overlay else REQUEST_FIELDS.get(first, "request")
