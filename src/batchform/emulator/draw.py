"""Choices that look random and depend on nothing but the prompt."""

from __future__ import annotations

import re
import zlib
from typing import Any, Final

_MASK: Final = (1 << 64) - 1
_PUNCTUATION: Final = ".,:;!?\"'`()[]{}<>"
_ENOUGH_TEXT: Final = 400
_MOST_REPEATS: Final = 1_000


class Draw:
    """A stream of choices for one prompt: the same prompt draws the same, whatever else is in the request."""

    __slots__ = ("_state", "words")

    def __init__(self, prompt: str) -> None:
        self._state = zlib.crc32(prompt.encode(errors="replace")) ^ 0x9E3779B97F4A7C15
        stripped = (word.strip(_PUNCTUATION) for word in prompt[:_ENOUGH_TEXT].split())
        self.words = [word for word in stripped if word] or ["emulator"]

    def below(self, n: int) -> int:
        """A number from 0 to n-1."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return ((self._state >> 33) * n) >> 31

    def phrase(self, low: int, high: int | None) -> str:
        """A few neighbouring words of the prompt, at least `low` and at most `high` characters."""
        start = self.below(len(self.words))
        picked = self.words[start : start + 1 + self.below(6)]
        text = " ".join(picked)
        while len(text) < low:
            text += " " + self.words[len(text) % len(self.words)]
        return text if high is None else text[: int(high)]


def matching(pattern: str, draw: Draw) -> str | None:
    """A text that matches a pattern, or None when this cannot follow it (look-around, references)."""
    from re import _parser  # type: ignore[attr-defined]  # the only parser of patterns that Python has

    try:
        return "".join(_texts(_parser.parse(pattern), draw))
    except (re.error, KeyError, ValueError, OverflowError):
        return None


_CATEGORIES: Final = {
    "CATEGORY_DIGIT": "0123456789",
    "CATEGORY_WORD": "abcdefghij0123456789_",
    "CATEGORY_SPACE": " ",
}
_ANY: Final = "abcdefghijklmnopqrstuvwxyz"


def _texts(tokens: Any, draw: Draw) -> list[str]:
    return [_text(str(op), arg, draw) for op, arg in tokens]


def _text(op: str, arg: Any, draw: Draw) -> str:
    """One token of a parsed pattern. KeyError when there is no way to follow it."""
    if op == "LITERAL":
        return chr(arg)
    if op == "ANY":
        return _ANY[draw.below(len(_ANY))]
    if op == "AT":
        return ""
    if op == "IN":
        return _one_of(arg, draw)
    if op == "NOT_LITERAL":
        return next(c for c in _ANY if ord(c) != arg)
    if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high, tokens = arg
        if low > _MOST_REPEATS:
            raise KeyError(op)
        times = low + draw.below(min(high - low, 3) + 1)
        return "".join("".join(_texts(tokens, draw)) for _ in range(times))
    if op == "SUBPATTERN":
        return "".join(_texts(arg[3], draw))
    if op == "BRANCH":
        return "".join(_texts(arg[1][draw.below(len(arg[1]))], draw))
    raise KeyError(op)


def _one_of(choices: Any, draw: Draw) -> str:
    allowed = ""
    negated = str(choices[0][0]) == "NEGATE"
    for op, arg in choices[negated:]:
        match str(op):
            case "LITERAL":
                allowed += chr(arg)
            case "RANGE":
                allowed += "".join(map(chr, range(arg[0], min(arg[1], arg[0] + 64) + 1)))
            case _:
                allowed += _CATEGORIES[str(arg)]
    if negated:
        allowed = "".join(c for c in _ANY + "0123456789 -." if c not in allowed)
    return allowed[draw.below(len(allowed))] if allowed else ""
