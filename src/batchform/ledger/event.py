"""What all control events have in common."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of all control events. `at`: RFC 3339 UTC; `by`: user@host of the writer.

    serial: written by compaction only; absent in a fresh segment, where it means the segment's serial.
    """

    at: str
    by: str = ""
    serial: int = 0
