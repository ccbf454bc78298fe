"""A request in two: what a context cache holds for all rows, and what a row still says.

Planned, fingerprinted and archived is the whole request. Only the lines that a job reads are cut like this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

HELD: Final = ("systemInstruction", "toolConfig", "tools")
"""What a request that names a cache cannot have beside it."""


def cut(request: Mapping[str, Any], *, turns: int, parts: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the cache holds, what the row says) of a request. turns: of its contents, that are held whole; parts: of
    the content after them, likewise."""
    contents = list(request.get("contents", ()))
    shared, own = contents[:turns], contents[turns:]
    if parts and own:
        said = own[0].get("parts", [])
        shared = [*shared, {**own[0], "parts": said[:parts]}]
        own = [{**own[0], "parts": said[parts:]}, *own[1:]]
    held = {name: request[name] for name in HELD if name in request}
    rest = {name: value for name, value in request.items() if name not in HELD}
    return {**held, "contents": shared} if shared else held, {**rest, "contents": own}


def own_part(request: Mapping[str, Any], *, turns: int, parts: int) -> dict[str, Any]:
    """What a row says by itself, of a request in either form: whole, or with the name of a cache."""
    if "cachedContent" in request:
        return {name: value for name, value in request.items() if name != "cachedContent"}
    return cut(request, turns=turns, parts=parts)[1]
