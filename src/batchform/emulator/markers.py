"""Markers in a prompt, by which a test asks for an outcome: `[[emulator:error 503 x1]]`. A model just reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from batchform.emulator.refusal import RPC_CODES

BLOCKED: Final = "blocked"
MAX_TOKENS: Final = "max_tokens"
ERROR: Final = "error"
MISSING: Final = "missing"
DUPLICATE: Final = "duplicate"
INVALID_JSON: Final = "invalid_json"
EMPTY: Final = "empty"
UNKNOWN_KEY: Final = "unknown_key"
NAMES: Final = (BLOCKED, MAX_TOKENS, ERROR, MISSING, DUPLICATE, INVALID_JSON, EMPTY, UNKNOWN_KEY)

_OPENING: Final = "[[emulator:"
_MARKER = re.compile(r"\[\[emulator:([^\]]*)\]\]")
_FORM = re.compile(r"(?P<name>[a-z_]+)(?: (?P<status>\d{3}))?(?: x(?P<times>\d{1,6}))?")


class Marker(Struct, frozen=True):
    """What a prompt asks for. status: HTTP status of an error; wrong: why the marker itself cannot be followed."""

    name: str
    status: int = 0
    wrong: str = ""


def without(text: str) -> str:
    """The text without its markers."""
    return _MARKER.sub("", text) if _OPENING in text else text


def asked(text: str, attempt: Callable[[], int]) -> Marker | None:
    """The first marker of a prompt that still holds. attempt: counts this run, and says how many there were."""
    if _OPENING not in text:
        return None
    run = 0
    for found in _MARKER.finditer(text):
        form = _FORM.fullmatch(found[1].strip())
        if form is None or form["name"] not in NAMES or (form["status"] and form["name"] != ERROR):
            wrong = (
                f"The emulator does not know the marker '{found[0]}'. Known: {', '.join(NAMES)}; see docs/emulator.md."
            )
            return Marker(ERROR, 400, wrong)
        status = int(form["status"] or 500)
        if status not in RPC_CODES:
            wrong = f"The emulator cannot answer '{found[0]}': use one of {', '.join(map(str, RPC_CODES))}."
            return Marker(ERROR, 400, wrong)
        if form["times"] is not None:
            run = run or attempt()
        if form["times"] is None or run <= int(form["times"]):
            return Marker(form["name"], status)
    return None
