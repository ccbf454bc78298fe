"""Remembered token counts that somebody or something has changed are counted anew."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from batchform.adapters.token_counts import TokenCounts

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_is_no_count_is_not_known(tmp_path: Path) -> None:
    """A text ended the plan with a traceback, and a negative count made room under a budget."""
    counts = TokenCounts(tmp_path)
    for damaged in ("abc", -5_000_000, None, 5.5):
        counts.keep("gemini", {b"a": 5, b"b": 7}, now=NOW)
        with closing(sqlite3.connect(tmp_path / "tokens-1.sqlite3")) as db, db:
            db.execute("UPDATE counts SET tokens = ? WHERE fingerprint = ?", (damaged, b"a"))
        assert counts.find("gemini", [b"a", b"b"], now=NOW) == {b"b": 7}, damaged
