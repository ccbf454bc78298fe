"""Figures and untrusted text as people read them. No colour, no layout, no rich."""

from __future__ import annotations

import math
from typing import Final

_JOINERS: Final = frozenset("\u200c\u200d\u00a0\u202f\u2003\u3000")
"""Not printable by Unicode's book, but part of honest text: joiners, and the spaces that are not ASCII."""


def safe(text: str) -> str:
    """Text that cannot steer a terminal or reorder a line: control, format and surrogate characters are
    escaped.

    Row text is untrusted everywhere it is shown.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS else _escape(c) for c in text)


def safe_lines(text: str) -> list[str]:
    """The lines of a text, each made safe; tabs become four spaces. At least one line."""
    return [safe(line.expandtabs(4)) for line in text.split("\n")]


def clipped(text: str, length: int) -> str:
    """The first `length` characters of a text, with … when there is more."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"


def count(number: int) -> str:
    """`1,204`."""
    return f"{number:,}"


def tokens(number: float) -> str:
    """`98,765`, `1.61 M`."""
    return f"{number:,.0f}" if number < 1_000_000 else f"{number / 1e6:,.2f} M"


def size(number: int) -> str:
    """`512 B`, `12.3 MB`, decimal."""
    if number < 1000:
        return f"{number} B"
    units = ("kB", "MB", "GB", "TB")
    power = min(int(math.log10(number)) // 3, len(units))
    return f"{number / 1000**power:,.1f} {units[power - 1]}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`. Negative is zero."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24} h"


def _escape(character: str) -> str:
    point = ord(character)
    short = {0x07: "\\a", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}.get(point)
    if short:
        return short
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
