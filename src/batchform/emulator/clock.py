"""The emulator's time: a clock that can only be moved forward, by an offset that the state keeps."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Protocol


class Now(Protocol):
    """What the emulator needs of a clock (`batchform.ports.Clock` is one)."""

    def now(self) -> datetime:
        """Current time, timezone-aware UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time(), UTC)


def rfc3339(seconds: float) -> str:
    """`2026-11-21T07:05:58.000123Z` of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds_of(stamp: str) -> float:
    """The other way round."""
    return datetime.fromisoformat(stamp).timestamp()


def http_date(seconds: float) -> str:
    """`Sat, 21 Nov 2026 07:05:58 GMT`, as a Date header has it."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)
