"""Small words and figures that all sentences share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache

_LISTED = 24
_SECRET_FIELD = re.compile(r"(?i)(\b(?:api_?key|apikey|password|secret|token|credentials?)\b[\"']?\s*:\s*)\S.*")
_SECRET_URL = re.compile(r"(://[^\s:/@]*:)\S*@|([?&](?i:password|passwd|pwd|sslpassword|secret|token)=)[^&\s]*")
_SECRET_VALUE = re.compile(r"AIza[0-9A-Za-z_-]{10,}|-----BEGIN[^-]*-----.*")


def shown(text: object, limit: int = 80) -> str:
    """Text from a user's file as it may stand in a message: printable, one line, not endless, without secrets."""
    whole = str(text)
    if not whole.isprintable():
        whole = "".join(c if c.isprintable() else "\ufffd" for c in whole)
    clean = _SECRET_VALUE.sub("…", whole)
    clean = _SECRET_URL.sub(lambda found: f"{found[1]}…@" if found[1] else f"{found[2]}…", clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def source_line(text: str, column: int) -> str:
    """A line as a complaint shows it; empty when the caret would stand too far to the right to be read."""
    return _clean_line(text) if column <= 160 else ""


@lru_cache(maxsize=256)  # each node of a file is placed, and several stand in one line
def _clean_line(text: str) -> str:
    return shown(_SECRET_FIELD.sub(r"\1…", text.rstrip("\r\n").replace("\t", " ")), 160)


def nearest(name: object, options: Iterable[str]) -> str | None:
    """The option that looks most like `name`, if any does."""
    import difflib  # only complaints need it

    folded = {option.casefold(): option for option in reversed(list(options))}
    found = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def suggestion(name: object, options: Iterable[str], *, noun: str = "Known") -> str:
    """`Did you mean x? Known: a, b, x.`; a long list only when nothing is near; empty when there are no options."""
    known = list(options)
    close = nearest(name, known)
    if close and len(known) > _LISTED:
        return f"Did you mean `{close}`?"
    rest = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    first = f"Did you mean `{close}`? " if close else ""
    return f"{first}{noun}: {', '.join(known[:_LISTED])}{rest}." if known else ""


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,204 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def money(usd: float) -> str:
    """`$0.57`, `$0.0012`: cents, or two digits that mean something."""
    if usd == 0 or usd >= 0.01:
        return f"${usd:,.2f}"
    decimals = min(1 - math.floor(math.log10(usd)), 9)
    return f"${usd:.{decimals}f}"


def dotted(path: Iterable[str | int]) -> str:
    """A node's path as people write it: `retry.on[0]`."""
    return shown("".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix("."), 120)


def one_of(options: Iterable[str]) -> str:
    """`a, b or c`."""
    known = list(options)
    return known[0] if len(known) == 1 else f"{', '.join(known[:-1])} or {known[-1]}"
