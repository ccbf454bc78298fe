"""What one result line says about its row. Pure, driven by tables, and never raising: every line has a class.

A result is a JSON object with a key and either a `response` or an `error`. Neither a blocked prompt nor a
truncated answer is an `error`: they are responses, told apart by their reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

ANSWERED: Final = "answered"
MESSAGE_CHARS: Final = 500

# google.rpc.Code, HTTP status or status name → failure class. What is not here is `invalid_request` when it looks
# like a refusal (4xx) and `internal` otherwise: attempts are bounded, and an answer is worth one more.
_ERROR_CLASSES: Final[dict[str, str]] = {
    **dict.fromkeys(("1", "499", "CANCELLED", "CANCELED"), "cancelled"),
    **dict.fromkeys(("8", "429", "RESOURCE_EXHAUSTED"), "rate_limited"),
    **dict.fromkeys(("2", "UNKNOWN", "4", "408", "504", "DEADLINE_EXCEEDED", "10", "409", "ABORTED"), "internal"),
    **dict.fromkeys(("13", "500", "INTERNAL", "14", "502", "503", "UNAVAILABLE", "15", "DATA_LOSS"), "internal"),
    **dict.fromkeys(
        ("3", "400", "INVALID_ARGUMENT", "5", "404", "NOT_FOUND", "6", "ALREADY_EXISTS"), "invalid_request"
    ),
    **dict.fromkeys(("7", "403", "PERMISSION_DENIED", "16", "401", "UNAUTHENTICATED"), "invalid_request"),
    **dict.fromkeys(
        ("9", "FAILED_PRECONDITION", "11", "OUT_OF_RANGE", "12", "501", "UNIMPLEMENTED"), "invalid_request"
    ),
}

# finishReason → class. What is not here (STOP, OTHER, none, new words) is judged by what the answer holds.
_FINISH_CLASSES: Final[dict[str, str]] = {
    "MAX_TOKENS": "truncated",
    **dict.fromkeys(
        (
            "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
            "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
        ),
        "blocked",
    ),
    **dict.fromkeys(
        (
            "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS",
            "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE",
        ),
        "invalid_output",
    ),
}  # fmt: skip

Validate = Callable[[Any], str]
"""Says what is wrong with a parsed answer; empty if nothing."""


class Reading(NamedTuple):
    """What a line says, in the order of ANSWER_COLUMNS between `key_hash` and `line`."""

    cls: str
    message: str | None = None
    text: str | None = None
    response: str | None = None
    finish_reason: str | None = None
    model_version: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached_tokens: int | None = None
    total_tokens: int | None = None


def key_of(line: Any) -> str | None:
    """The key of a result line, beside the response or in its metadata; None if there is none."""
    if not isinstance(line, dict):
        return None
    key = line.get("key")
    if key is None:
        key = _dict(line.get("metadata")).get("key")
    return key if isinstance(key, str) else None


def classify(line: Any, *, parse_json: bool, validate: Validate | None = None) -> Reading:
    """The class of a result line and everything that its row will show.

    parse_json: whether the answer's text must be JSON; validate: judges the parsed JSON.
    """
    if not isinstance(line, dict):
        return Reading("internal", "The result line is not a JSON object.")
    response = line.get("response")
    if not isinstance(response, dict) or not response:
        return _error(line)
    return _response(response, parse_json, validate)


def _error(line: dict[str, Any]) -> Reading:
    error = line.get("error") or line.get("status")
    if not error:
        return Reading("empty", "The result holds neither a response nor an error.")
    if not isinstance(error, dict):
        return Reading("internal", _clip(error))
    names = [str(error[field]) for field in ("code", "status") if error.get(field) is not None]
    cls = next((_ERROR_CLASSES[name] for name in names if name in _ERROR_CLASSES), None)
    if cls is None:
        cls = "invalid_request" if names and len(names[0]) == 3 and names[0].startswith("4") else "internal"
    code = f" (code {names[0]})" if names else ""
    return Reading(cls, _clip(error.get("message") or "The service gave no message.") + code)


def _response(response: dict[str, Any], parse_json: bool, validate: Validate | None) -> Reading:
    candidate = _first(response.get("candidates"))
    finish = _word(candidate.get("finishReason"))
    text = _text(candidate)
    cls, message, parsed = _judge(response, candidate, finish, text, parse_json, validate)
    usage = _dict(response.get("usageMetadata"))
    return Reading(
        cls,
        message,
        text,
        parsed,
        finish,
        _word(response.get("modelVersion")),
        _count(usage.get("promptTokenCount")),
        _count(usage.get("candidatesTokenCount")),
        _count(usage.get("thoughtsTokenCount")),
        _count(usage.get("cachedContentTokenCount")),
        _count(usage.get("totalTokenCount")),
    )


def _judge(
    response: dict[str, Any],
    candidate: dict[str, Any],
    finish: str | None,
    text: str | None,
    parse_json: bool,
    validate: Validate | None,
) -> tuple[str, str | None, str | None]:
    """Class, message, and the answer's JSON text."""
    feedback = _dict(response.get("promptFeedback"))
    if not candidate:
        reason = _word(feedback.get("blockReason"))
        if reason:
            detail = feedback.get("blockReasonMessage")
            return "blocked", _clip(f"The prompt was blocked: {reason}. {detail or ''}".strip()), None
        return "empty", "The response holds no candidate.", None
    cls = _FINISH_CLASSES.get(finish or "")
    if cls is not None:
        detail = candidate.get("finishMessage")
        return cls, _clip(f"The answer ended with {finish}. {detail or ''}".strip()), None
    if text is None:
        return "empty", f"The answer holds no text; it ended with {finish or 'no reason'}.", None
    return _parse(text, validate) if parse_json else (ANSWERED, None, None)


def _parse(text: str, validate: Validate | None) -> tuple[str, str | None, str | None]:
    try:
        value = msgspec.json.decode(text)
        encoded = msgspec.json.encode(value).decode()
    except (ValueError, RecursionError) as error:
        return "invalid_output", _clip(f"The answer is not JSON: {error}"), None
    complaint = validate(value) if validate else ""
    if complaint:
        return "invalid_output", _clip(f"The answer does not fit the schema: {complaint}"), None
    return ANSWERED, None, encoded


def _text(candidate: dict[str, Any]) -> str | None:
    """The text parts that are not thoughts, joined; None if there are none, or only empty ones."""
    parts = _dict(candidate.get("content")).get("parts")
    if not isinstance(parts, list):
        return None
    texts = [
        p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str) and not p.get("thought")
    ]
    return "".join(texts) or None


def _first(value: Any) -> dict[str, Any]:
    return _dict(value[0]) if isinstance(value, list) and value else {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    """A token count: a number, or digits in a string; None for what cannot be one."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 18:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62:
        return value
    return None


def _clip(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS - 1] + "…"
