"""Embeddings: unit vectors that depend on nothing but the text and their length. Texts that share words lie near each
other, so that a search through them finds something."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any, Final

from batchform.emulator import markers
from batchform.emulator.answers import CHARS_PER_TOKEN, Outcome
from batchform.emulator.draw import Draw
from batchform.emulator.models import Model
from batchform.emulator.refusal import Refusal, bad_field

_VERTEX_CONFIG: Final = "embedContentConfig"
_PLACES: Final = 24  # numbers that one word moves
_NOISE: Final = 0.05
_EFFECTS: Final = (markers.MISSING, markers.DUPLICATE, markers.UNKNOWN_KEY)


def check(request: dict[str, Any], model: Model) -> None:
    """Raise Refusal 400 with the first complaint about a normalised request."""
    for complaint in _complaints(request, model):
        raise complaint


def _complaints(request: dict[str, Any], model: Model) -> Iterator[Refusal]:
    if "content" not in request:
        yield _about("content", "content is not specified")
    parts = request.get("content", {}).get("parts", [])
    if not parts:
        yield _about("content.parts", "content.parts must not be empty.")
    for i, part in enumerate(parts):
        if not part.get("text"):
            yield _about(f"content.parts[{i}]", "the emulator embeds text only")
    if request.get("model", model.id).removeprefix("models/") != model.id:
        yield _about("model", f"the call is for models/{model.id}, the request says {request['model']}")
    said = settings(request)
    least, most = model.dimensions
    if not least <= said.get("outputDimensionality", most) <= most:
        asked = said["outputDimensionality"]
        yield _about("output_dimensionality", f"{asked} is outside the range [{least}, {most}]")
    if "title" in said and said.get("taskType") != "RETRIEVAL_DOCUMENT":
        yield _about("title", "a title is for the task type RETRIEVAL_DOCUMENT")


def settings(request: dict[str, Any]) -> dict[str, Any]:
    """taskType, title and outputDimensionality, which lie elsewhere on Vertex AI."""
    nested: dict[str, Any] = request.get(_VERTEX_CONFIG, request)
    return nested


def answer(request: dict[str, Any], *, model: Model, attempt: Callable[[], int]) -> Outcome:
    """The outcome of a normalised request. attempt is only asked when the request needs it."""
    text = "\n".join(part.get("text", "") for part in request["content"]["parts"])
    marker = markers.asked(text, attempt)
    name = marker.name if marker else ""
    if marker and name == markers.ERROR:
        message = marker.wrong or f"The emulator was asked for this error ({marker.status})."
        return Outcome(None, Refusal(marker.status, message), 0, 0)
    tokens = -(-len(text) // CHARS_PER_TOKEN)
    length = settings(request).get("outputDimensionality", model.dimensions[1])
    values = [] if name == markers.EMPTY else vector(markers.without(text), length)
    if name == markers.INVALID_JSON:
        values = values[:-1]
    response = {"tokenCount": str(tokens), "embedding": {"values": values}}
    return Outcome(response, None, tokens, 0, name if name in _EFFECTS else "")


def vector(text: str, length: int) -> list[float]:
    """A unit vector of a text."""
    draw = Draw(text)
    values = [_NOISE * (draw.below(2_000) - 999.5) / 1_000 for _ in range(length)]
    for word in text.lower().split():
        seed = zlib.crc32(word.strip(".,:;!?\"'()[]{}").encode(errors="replace"))
        for _ in range(min(_PLACES, length)):
            seed = (seed * 1_103_515_245 + 12_345) & 0xFFFFFFFF
            values[(seed >> 8) % length] += 1.0 if seed & 128 else -1.0
    norm = sqrt(sum(value * value for value in values)) or 1.0
    return [round(value / norm, 8) for value in values]


def _about(path: str, message: str) -> Refusal:
    return bad_field(f"* EmbedContentRequest.{path}: {message}", path)
