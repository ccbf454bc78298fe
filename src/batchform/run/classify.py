"""What one result line says about its row. Pure, driven by tables, and never raising: every line has a class.

A result is a JSON object with a key and either a `response` or an `error`; on Vertex AI with a `status`, which is empty
when the row was answered. Neither a blocked prompt nor a truncated answer is an `error`: they are responses, told apart
by their reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from batchform.run.parts import details

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
STOPPED: Final[dict[str, str]] = {
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

_USAGE: Final = (
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "totalTokenCount",
)
_MOST_TOKENS: Final = 2**62

Decode = Callable[[str], Any]
"""The JSON of an answer's text. Raises ValueError when there is none."""
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
    function_calls: str | None = None
    tool_steps: str | None = None
    citations: str | None = None
    grounding: str | None = None
    url_context: str | None = None
    thoughts: str | None = None
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


def classify(line: Any, *, decode: Decode | None = None, validate: Validate | None = None) -> Reading:
    """The class of a result line and everything that its row will show.

    decode: reads the answer's text as JSON, None where any text will do; validate: judges the parsed JSON.
    """
    if not isinstance(line, dict):
        return Reading("internal", "The result line is not a JSON object.")
    response = line.get("response")
    if not isinstance(response, dict) or not response or failed(line):
        return error_reading(line)
    return _response(response, decode, validate)


def did_not_run(line: dict[str, Any]) -> bool:
    """Whether a line has a row but nothing that became of it: no response, no status, no error."""
    return not (line.get("response") or line.get("status") or line.get("error"))


def failed(line: dict[str, Any]) -> bool:
    """Whether a line's `status` says that its row failed, whatever stands in its response."""
    return isinstance(status := line.get("status"), str) and bool(status)


def error_reading(line: dict[str, Any]) -> Reading:
    """What a line without a response says."""
    error = line.get("error") or line.get("status")
    if not error:
        return Reading("empty", "The result holds neither a response nor an error.")
    if not isinstance(error, dict):
        inner = _stated(error)
        if inner is None:
            return Reading("internal", _clip(error))
        error = inner
    if _file_is_gone(error):
        return Reading("expired", _clip(error["message"]))
    names = [str(error[field]) for field in ("code", "status") if error.get(field) is not None]
    cls = next((_ERROR_CLASSES[name] for name in names if name in _ERROR_CLASSES), None)
    if cls is None:
        cls = "invalid_request" if names and len(names[0]) == 3 and names[0].startswith("4") else "internal"
    code = f" (code {names[0]})" if names else ""
    return Reading(cls, _clip(error.get("message") or "The service gave no message.") + code)


def _file_is_gone(error: dict[str, Any]) -> bool:
    """Whether a file or a cache that a request names had expired when the job read it. The service says so as of one
    that was never there, but requests only name those that were."""
    code, said = {str(error.get("code")), str(error.get("status"))}, str(error.get("message") or "")
    return bool(code & {"403", "7", "PERMISSION_DENIED"}) and (" File " in said or "CachedContent not found" in said)


def _stated(status: Any) -> dict[str, Any] | None:
    """The error within a text such as `Bad Request: {"error": {"code": 400, …}}`; None if there is none."""
    text = str(status)
    at = text.find("{")
    try:
        value = _dict(msgspec.json.decode(text[at:])) if at >= 0 else {}
    except (ValueError, RecursionError):
        return None
    return _dict(value.get("error", value)) or None


def _response(response: dict[str, Any], decode: Decode | None, validate: Validate | None) -> Reading:
    candidates = response.get("candidates")
    candidate = _dict(candidates[0]) if isinstance(candidates, list) and candidates else {}
    finish = _word(candidate.get("finishReason"))
    text, found = _text(candidate), details(candidate)
    if not candidate:
        cls, message, parsed = _no_candidate(response)
    elif finish in STOPPED:
        cls, message, parsed = _stopped(candidate, finish)
    elif found.function_calls is not None:  # the call is the answer, whatever is said beside it
        parsed = parse_text(text, decode, validate)[2] if text is not None and decode is not None else None
        cls, message = ANSWERED, None
    elif text is None and decode is None and found.tool_steps is not None:
        cls, message, parsed = ANSWERED, None, None
    elif text is None:
        cls, message, parsed = "empty", f"The answer holds no text; it ended with {finish or 'no reason'}.", None
    elif decode is not None:
        cls, message, parsed = parse_text(text, decode, validate)
    else:
        cls, message, parsed = ANSWERED, None, None
    usage = _counts(response.get("usageMetadata"))
    return Reading(cls, message, text, parsed, finish, _word(response.get("modelVersion")), *found, *usage)


Judged = tuple[str, str | None, str | None]
"""Class, message, and the answer's JSON text."""


def _no_candidate(response: dict[str, Any]) -> Judged:
    feedback = _dict(response.get("promptFeedback"))
    reason = _word(feedback.get("blockReason"))
    if reason is None:
        return "empty", "The response holds no candidate.", None
    detail = feedback.get("blockReasonMessage") or ""
    return "blocked", _clip(f"The prompt was blocked: {reason}. {detail}".strip()), None


def _stopped(candidate: dict[str, Any], finish: str) -> Judged:
    detail = candidate.get("finishMessage") or ""
    return STOPPED[finish], _clip(f"The answer ended with {finish}. {detail}".strip()), None


def parse_text(text: str, decode: Decode, validate: Validate | None) -> Judged:
    """What becomes of an answer's text that must be JSON."""
    try:
        value = decode(text)
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
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str) and not part.get("thought")
    ]
    return "".join(texts) or None


def _counts(usage: Any) -> list[int | None]:
    """The token counts of a response, in the order of Reading; None for what is no count."""
    if not isinstance(usage, dict):
        return [None] * len(_USAGE)
    return [count_of(usage.get(name)) for name in _USAGE]


def count_of(value: Any) -> int | None:
    """A token count; None for what is none."""
    return value if value is None or (value.__class__ is int and 0 <= value < _MOST_TOKENS) else _odd_count(value)


def _odd_count(value: Any) -> int | None:
    """int64 values of proto-JSON are strings of digits."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 18 else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _clip(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS - 1] + "…"
