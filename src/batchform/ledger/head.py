"""`head.json`, the ledger's only mutable object, and the segments that it names. Documented in docs/ledger.md."""

from __future__ import annotations

from typing import Literal

import msgspec


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One immutable object of the ledger. kind: "rows" or "events"; spec: of a rows segment.

    base: a compacted segment that holds every key of its spec at most once; the others are newer.
    """

    name: str
    kind: Literal["rows", "events"]
    serial: int
    sha256: str
    bytes: int
    rows: int = 0
    spec: str | None = None
    base: bool = False


class Retired(msgspec.Struct, frozen=True, kw_only=True):
    """A segment that no head may name again: folded by compaction, or left by a commit that never was.

    at: RFC 3339; until: it is not deleted before, whoever compacts by then; absent where nothing was asked.
    """

    name: str
    at: str
    until: str = ""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """`head.json`: the only mutable object. lineage: made once; serial: commits so far; writer: token of the last one.

    by: user@host of that writer; recent: tokens of the last commits, newest first, by which a writer whose swap went
    unanswered finds out that it won; retired: segments that wait for their deletion.
    """

    format_version: int
    lineage: str
    serial: int
    writer: str
    written_at: str
    by: str = ""
    segments: tuple[Segment, ...] = ()
    recent: tuple[str, ...] = ()
    retired: tuple[Retired, ...] = ()
