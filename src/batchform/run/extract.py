"""JSON out of an answer that wraps it: in a code fence, or in sentences before and after it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_FENCE: Final = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*[\w+-]*[ \t]*\n(.*?)^[ \t]*\1`*[ \t]*$", re.DOTALL | re.MULTILINE)
_OPENING: Final = re.compile(r"[{\[]")
_DECODER: Final = json.JSONDecoder()
_LOOKS: Final = 100
"""Brackets at which JSON is looked for: text may be full of them, and each look may read to the end."""


def json_in(text: str) -> Any:
    """The one JSON value of an answer: all of it, or what its one fence holds, or its one object or list.

    Raises ValueError when there is none, or several that are not the same: which of them is meant nobody knows.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        whole = error
    for found in (_fenced(text), _bare(text)):
        values = list(found)
        if values and all(value == values[0] for value in values):
            return values[0]
        if values:
            raise ValueError(f"it holds {len(values)} JSON values that differ")
    raise whole


def _fenced(text: str) -> Iterator[Any]:
    for match in _FENCE.finditer(text):
        try:
            yield msgspec.json.decode(match[2])
        except (ValueError, RecursionError):
            continue


def _bare(text: str) -> Iterator[Any]:
    """Objects and lists that stand in the text by themselves, outermost ones only."""
    at = 0
    for _ in range(_LOOKS):
        opening = _OPENING.search(text, at)
        if opening is None:
            return
        try:
            _, end = _DECODER.raw_decode(text, opening.start())
            yield msgspec.json.decode(text[opening.start() : end])
            at = end
        except (ValueError, RecursionError):
            at = opening.end()
