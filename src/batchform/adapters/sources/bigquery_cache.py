"""Rows that were read before, kept beside the project: a table that has not changed is not read, and paid for, twice.

A private folder of Parquet files, `SLOT-VERSION.parquet`: the slot says what is asked, the version what of. A newer
version replaces the older; what nobody has asked for in thirty days is removed.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_KEPT_SECONDS: Final = 30 * 86_400


class SnapshotCache:
    """folder: made when something is kept, for its owner only. One that cannot be written keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, slot: str, version: str, to: Path) -> bool:
        """Link what is kept to `to`: a run goes on reading it when another replaces it. Whether there is something."""
        kept = self._path(slot, version)
        try:
            _link(kept, to)
            os.utime(kept)
        except OSError:
            with suppress(OSError):
                to.unlink(missing_ok=True)
            return False
        return True

    def keep(self, slot: str, version: str, path: Path) -> None:
        """Keep a file that is complete and will not change, in place of older versions."""
        kept = self._path(slot, version)
        partial = kept.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            _link(path, partial)
            partial.replace(kept)
            self._sweep(slot, kept)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _sweep(self, slot: str, kept: Path) -> None:
        oldest = time.time() - _KEPT_SECONDS
        for path in list(self._folder.iterdir()):
            stale = path.stat().st_mtime < oldest
            if path != kept and path.is_file() and (path.name.startswith(f"{slot}-") or stale):
                path.unlink(missing_ok=True)

    def _path(self, slot: str, version: str) -> Path:
        return self._folder / f"{slot}-{version}.parquet"


def _link(source: Path, to: Path) -> None:
    """A second name for a file, or a copy where disks cannot do that."""
    try:
        os.link(source, to)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, to)
