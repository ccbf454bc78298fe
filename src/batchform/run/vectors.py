"""Embeddings: what one result line says about its row, when a vector was asked for. Never raises."""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import msgspec

from batchform.run.classify import ANSWERED, Reading, count_of, error_reading, failed

_TOKENS: Final = ("promptTokenCount", "totalTokenCount")


def read_vector(line: Any, *, dimensions: int | None) -> Reading:
    """The class of a result line and its vector as JSON text. dimensions: how many numbers it must have, if known."""
    if not isinstance(line, dict):
        return Reading("internal", "The result line is not a JSON object.")
    response = line.get("response")
    if not isinstance(response, dict) or not response or failed(line):
        return error_reading(line)
    usage = response.get("usageMetadata")
    said = usage if isinstance(usage, dict) else {}
    tokens = next((n for name in _TOKENS if (n := count_of(said.get(name))) is not None), None)
    tokens = count_of(response.get("tokenCount")) if tokens is None else tokens
    values, wrong = _vector(response, dimensions)
    version = response.get("modelVersion")
    return Reading(
        ANSWERED if not wrong else "empty" if values is None else "invalid_output",
        wrong or None,
        response=None if wrong else msgspec.json.encode(values).decode(),
        model_version=version if isinstance(version, str) and version else None,
        prompt_tokens=tokens,
        total_tokens=tokens,
    )


def _vector(response: dict[str, Any], dimensions: int | None) -> tuple[list[Any] | None, str]:
    """The vector, and what is wrong with it; None where there is none."""
    found = response.get("embedding")
    several = response.get("embeddings")
    if found is None and isinstance(several, list):
        if len(several) > 1:
            return [], f"The answer holds {len(several)} vectors, and one was asked for."
        found = several[0] if several else None
    values = found.get("values") if isinstance(found, dict) else None
    if not isinstance(values, list) or not values:
        return None, "The answer holds no vector."
    for at, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            return values, f"The vector holds {str(value)[:40]!r} at {at}, which is no finite number."
    if dimensions is not None and len(values) != dimensions:
        return values, f"The vector has {len(values)} dimensions, and {dimensions} were asked for."
    return values, ""
