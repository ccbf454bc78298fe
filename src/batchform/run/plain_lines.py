"""The result lines that nearly all are: one answer of text and nothing beside it, decoded straight into typed values.

A line that has anything else, unknown fields included, is no plain one; it is read by `classify`, whose readings of
plain lines are the same. So this saves time and decides nothing.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.run.classify import (
    ANSWERED,
    STOPPED,
    Decode,
    Reading,
    Validate,
    count_of,
    parse_text,
)

_TRIED: Final = 200
"""Lines of a file after which it is given up on, if most of them were not plain."""


class _Part(Struct, forbid_unknown_fields=True):
    text: str


class _Content(Struct, forbid_unknown_fields=True):
    parts: list[_Part]
    role: Any = None


class _Candidate(Struct, forbid_unknown_fields=True, rename="camel"):
    content: _Content
    finish_reason: str | None = None
    index: Any = None
    avg_logprobs: Any = None
    safety_ratings: Any = None
    token_count: Any = None


class _Usage(Struct, forbid_unknown_fields=True, rename="camel"):
    prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    cached_content_token_count: Any = None
    total_token_count: Any = None
    prompt_tokens_details: Any = None
    candidates_tokens_details: Any = None
    cache_tokens_details: Any = None
    traffic_type: Any = None
    service_tier: Any = None


_NO_USAGE: Final = _Usage()


class _Response(Struct, forbid_unknown_fields=True, rename="camel"):
    candidates: list[_Candidate]
    usage_metadata: _Usage | None = None
    model_version: Any = None
    response_id: Any = None
    create_time: Any = None


class _Line(Struct, forbid_unknown_fields=True):
    key: str
    response: _Response
    status: str | None = None
    metadata: Any = None
    request: Any = None
    processed_time: Any = None


_DECODER: Final = msgspec.json.Decoder(_Line)


class PlainLines:
    """Reads the plain lines of one file of results."""

    def __init__(self, decode: Decode | None, validate: Validate | None) -> None:
        """decode, validate: as of `classify`."""
        self._decode, self._validate = decode, validate
        self._plain = self._others = 0

    def read(self, line: bytes) -> tuple[str, Reading] | None:
        """(key, reading) of a plain line; None for any other."""
        if self._others > self._plain + _TRIED:
            return None
        found = plain(line)
        if found is None or (text := "".join([p.text for p in found.response.candidates[0].content.parts])) == "":
            self._others += 1
            return None
        self._plain += 1
        response = found.response
        cls, message, parsed = ANSWERED, None, None
        if self._decode is not None:
            cls, message, parsed = parse_text(text, self._decode, self._validate)
        usage, model = response.usage_metadata or _NO_USAGE, response.model_version
        return found.key, Reading(
            cls,
            message,
            text,
            parsed,
            response.candidates[0].finish_reason or None,
            model if isinstance(model, str) and model else None,
            None,
            None,
            None,
            None,
            None,
            None,
            count_of(usage.prompt_token_count),
            count_of(usage.candidates_token_count),
            count_of(usage.thoughts_token_count),
            count_of(usage.cached_content_token_count),
            count_of(usage.total_token_count),
        )


def plain(line: bytes) -> _Line | None:
    """A line with a key and an answer that was not stopped; None for any other."""
    try:
        found = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    candidates = found.response.candidates
    if not found.key or found.status or not candidates or candidates[0].finish_reason in STOPPED:
        return None
    return found
