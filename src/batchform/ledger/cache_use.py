"""What a job's intent says of the context cache that its requests name."""

from __future__ import annotations

import msgspec


class CacheUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The context cache that a job's requests name. turns, parts: how much of each archived request it holds: turns
    from the beginning, and parts of the one after them; until: RFC 3339, how long it was made to live when the intent
    was recorded; kept: whether it stays that long when no open job names it; usd: this job's share of what making and
    keeping it was estimated at."""

    name: str
    title: str
    turns: int
    parts: int
    until: str
    tokens: int = 0
    kept: bool = False
    usd: float = 0.0
