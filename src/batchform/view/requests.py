"""A request as a person reads it: the prompt as text, everything else as JSON, line by line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from batchform.view.text import safe_lines


def request_lines(request: str) -> list[str]:
    """The lines of a canonical request: a `[role]` heading per turn with its text, then the other fields as JSON."""
    body = _object(request)
    if body is None:
        return safe_lines(request)
    system = body.get("systemInstruction")
    shown = ["[system]", *_parts(system)] if isinstance(system, dict) else []
    return [*shown, *_turns(body), *_other_fields(body)]


def prompt_lines(request: str) -> list[str]:
    """Only what is the row's own: `[user]` and `[model]` turns with their text, without the system instruction."""
    body = _object(request)
    return safe_lines(request) if body is None else _turns(body)


def request_diff(before: str, after: str) -> list[tuple[str, str]]:
    """(mark, line) of the difference of two requests, one line of context; mark: " ", "-", "+", or "@" for a gap."""
    changed = difflib.unified_diff(request_lines(before), request_lines(after), n=1, lineterm="")
    return [("@", "…") if line.startswith("@@") else (line[:1], line[1:]) for line in list(changed)[2:]]


def _object(request: str) -> dict[str, Any] | None:
    try:
        body = json.loads(request)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _turns(body: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    contents = body.get("contents")
    for turn in contents if isinstance(contents, list) else []:
        if isinstance(turn, dict):
            lines += [f"[{safe_lines(str(turn.get('role', 'user')))[0]}]", *_parts(turn)]
    return lines


def _parts(turn: dict[str, Any]) -> Iterator[str]:
    parts = turn.get("parts")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict) and set(part) == {"text"} and isinstance(part["text"], str):
            yield from safe_lines(part["text"])
        else:
            yield from safe_lines(json.dumps(part, ensure_ascii=False, sort_keys=True))


def _other_fields(body: dict[str, Any]) -> Iterator[str]:
    for name in sorted(set(body) - {"contents", "systemInstruction"}):
        yield f"[{safe_lines(name)[0]}]"
        yield from safe_lines(json.dumps(body[name], ensure_ascii=False, indent=2, sort_keys=True))
