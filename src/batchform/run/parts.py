"""What an answer holds beside its text: calls, steps of tools, thoughts, and what it rests on.

Kept as JSON text, as it came, with fields that are new."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

STEPS: Final = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""Parts of tools that the service ran by itself."""


class Details(NamedTuple):
    """In the order of Reading. thoughts: text; all others: JSON. None: there is no such thing."""

    function_calls: str | None = None
    tool_steps: str | None = None
    citations: str | None = None
    grounding: str | None = None
    url_context: str | None = None
    thoughts: str | None = None


_NONE: Final = Details()


def details(candidate: dict[str, Any]) -> Details:
    """What a candidate holds beside its text."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    kept = [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []
    if len(kept) == 1 and kept[0].keys() == {"text"}:
        kept = []
    if not kept and candidate.keys() <= _PLAIN:
        return _NONE
    calls = [p["functionCall"] for p in kept if isinstance(p.get("functionCall"), dict)]
    steps = [{n: p[n] for n in STEPS if n in p} for p in kept if any(n in p for n in STEPS)]
    thoughts = [p["text"] for p in kept if p.get("thought") and isinstance(p.get("text"), str)]
    cited = candidate.get("citationMetadata")
    citations = cited.get("citations", cited.get("citationSources")) if isinstance(cited, dict) else None
    return Details(
        _json(calls),
        _json(steps),
        _json(citations),
        _json(candidate.get("groundingMetadata")),
        _json(candidate.get("urlContextMetadata")),
        "".join(thoughts) or None,
    )


_PLAIN: Final = frozenset({"content", "finishReason", "index", "avgLogprobs", "safetyRatings", "tokenCount"})


def _json(value: Any) -> str | None:
    """The JSON of an object or list that is not empty."""
    return msgspec.json.encode(value).decode() if isinstance(value, (dict, list)) and value else None
