"""Rows that were read before: by what was asked, of which version; private; never pulled from under a run."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from batchform.adapters.sources.bigquery_cache import SnapshotCache


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_is_kept_is_had_again(tmp_path: Path) -> None:
    cache = SnapshotCache(tmp_path / "deep/cache")
    assert not cache.take("slot", "v1", tmp_path / "none")
    cache.keep("slot", "v1", _file(tmp_path / "a", "rows"))
    assert cache.take("slot", "v1", tmp_path / "b") and (tmp_path / "b").read_text() == "rows"
    assert not cache.take("slot", "v2", tmp_path / "c") and not cache.take("other", "v1", tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert stat.S_IMODE((tmp_path / "deep/cache").stat().st_mode) == 0o700


def test_a_newer_version_takes_the_place_of_the_older_and_leaves_readers_alone(tmp_path: Path) -> None:
    cache = SnapshotCache(tmp_path / "cache")
    cache.keep("slot", "v1", _file(tmp_path / "a", "old"))
    cache.keep("more", "v1", _file(tmp_path / "m", "more"))
    assert cache.take("slot", "v1", tmp_path / "reading")
    cache.keep("slot", "v2", _file(tmp_path / "b", "new"))
    assert (tmp_path / "reading").read_text() == "old"
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["more-v1.parquet", "slot-v2.parquet"]


def test_what_nobody_asks_for_is_removed_after_a_month(tmp_path: Path) -> None:
    cache = SnapshotCache(tmp_path / "cache")
    for slot in ("old", "used"):
        cache.keep(slot, "v1", _file(tmp_path / slot, slot))
        long_ago = time.time() - 31 * 86_400
        os.utime(tmp_path / f"cache/{slot}-v1.parquet", (long_ago, long_ago))
    assert cache.take("used", "v1", tmp_path / "reading")
    cache.keep("new", "v1", _file(tmp_path / "new", "new"))
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["new-v1.parquet", "used-v1.parquet"]


def test_a_cache_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    cache = SnapshotCache(_file(tmp_path / "file", "in the way"))
    cache.keep("slot", "v1", _file(tmp_path / "a", "rows"))
    assert not cache.take("slot", "v1", tmp_path / "b")
