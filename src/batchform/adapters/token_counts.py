"""Token counts of requests, remembered by their fingerprints in a file that may be deleted at any time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

_VALID: Final = timedelta(days=30)
_AT_ONCE: Final = 500


class TokenCounts:
    """ports.TokenCounts in a folder. What cannot be read or written is counted anew, and nothing else changes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokens-1.sqlite3"

    def find(self, service: str, fingerprints: Iterable[bytes], *, now: datetime) -> dict[bytes, int]:
        wanted, since = list(fingerprints), (now - _VALID).timestamp()
        found: dict[bytes, int] = {}
        if not self._path.exists():
            return found
        with suppress(OSError, sqlite3.Error), closing(sqlite3.connect(self._path, timeout=5.0)) as db:
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                sql = (
                    "SELECT fingerprint, tokens FROM counts WHERE service = ? AND counted_at >= ? "
                    f"AND typeof(tokens) = 'integer' AND tokens >= 0 AND fingerprint IN ({', '.join('?' * len(some))})"
                )
                found |= {bytes(f): int(t) for f, t in db.execute(sql, (service, since, *some))}
        return found

    def keep(self, service: str, counts: Mapping[bytes, int], *, now: datetime) -> None:
        with suppress(OSError, sqlite3.Error):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=5.0)) as db, db:
                db.execute(
                    "CREATE TABLE IF NOT EXISTS counts (service TEXT, fingerprint BLOB, tokens INTEGER, "
                    "counted_at REAL, PRIMARY KEY (service, fingerprint))"
                )
                at = now.timestamp()
                db.execute("DELETE FROM counts WHERE counted_at < ?", ((now - _VALID).timestamp(),))
                db.executemany(
                    "INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?)",
                    [(service, f, t, at) for f, t in counts.items()],
                )
