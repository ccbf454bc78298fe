"""Where token counts are remembered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol


class TokenCounts(Protocol):
    """Counts by request fingerprint, apart for each service: services need not count alike. Nothing depends on it."""

    def find(self, service: str, fingerprints: Iterable[bytes], *, now: datetime) -> dict[bytes, int]:
        """What is known of these requests, and not too old."""
        ...

    def keep(self, service: str, counts: Mapping[bytes, int], *, now: datetime) -> None: ...
