"""A command's private folder, and the removal of those that killed ones left behind: they hold prompts and answers."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOCK: Final = ".lock"
_NEW_LOCK: Final = ".lock-new"
_OLD: Final = 24 * 3600.0  # seconds; a folder without a lock is let alone as long: its owner may be about to make one


class Scratch:
    """A folder that is removed by `close`, or by a later command once this process is gone. `path` is where.

    The process holds a lock on a file in it, which the kernel drops when the process ends, however it ends.
    """

    def __init__(self, ledger: Path) -> None:
        """ledger: its folder takes the scratch if it can be written; else the system's temporary folder does."""
        writable = ledger.is_dir() and os.access(ledger, os.W_OK)
        system = Path(tempfile.gettempdir())
        sweep(system, "batchform-")
        if writable:
            sweep(ledger, "tmp-")
        self.path = Path(
            tempfile.mkdtemp(prefix="tmp-" if writable else "batchform-", dir=ledger if writable else system)
        )
        self._lock = os.open(self.path / _NEW_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # a file system without locks: nobody can take it for left
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.rename(self.path / _NEW_LOCK, self.path / _LOCK)  # noqa: PTH104  (never there without being held)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep(parent: Path, prefix: str) -> None:
    """Remove what commands of this user left in `parent` that were killed."""
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False) and _left(entry, prefix):
                shutil.rmtree(entry.path, ignore_errors=True)


def _left(entry: os.DirEntry[str], prefix: str) -> bool:
    try:
        about = entry.stat(follow_symlinks=False)
        if about.st_uid != os.getuid():
            return False
        lock = os.open(Path(entry.path) / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return prefix == "tmp-" and about.st_mtime < time.time() - _OLD
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
