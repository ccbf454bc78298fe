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
_OLD: Final = 24 * 3600.0  # seconds; a folder with content and without a lock is let alone as long: it is not of ours


class Scratch:
    """A folder that is removed by `close`, or by a later command once this process is gone. `path` is where.

    The process holds a lock on a file in it, which the kernel drops when the process ends, however it ends.
    """

    def __init__(self, ledger: Path) -> None:
        """ledger: its folder takes the scratch if it can be written; else the system's temporary folder does."""
        writable = ledger.is_dir() and os.access(ledger, os.W_OK)
        system = Path(tempfile.gettempdir())
        sweep(system, "batchform-run-")
        if writable:
            sweep(ledger, "tmp-")
        made = None
        while made is None:
            made = _make("tmp-" if writable else "batchform-run-", ledger if writable else system)
        self.path, self._lock = made

    def close(self) -> None:
        _remove(self.path)
        os.close(self._lock)


def sweep(parent: Path, prefix: str) -> None:
    """Remove what commands of this user left in `parent` that were killed."""
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                _sweep(entry, prefix)


def _make(prefix: str, parent: Path) -> tuple[Path, int] | None:
    """A new folder and its held lock; None if another command swept it away before the lock was in place."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        lock = os.open(folder / _NEW_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return folder, lock  # a file system without locks: nobody can take it for left
    try:
        os.rename(folder / _NEW_LOCK, folder / _LOCK)  # noqa: PTH104  (never there without being held)
    except FileNotFoundError:
        os.close(lock)
        return None
    return folder, lock


def _sweep(entry: os.DirEntry[str], prefix: str) -> None:
    """Remove one folder if its owner is gone: none holds its lock, or it has none and nothing else either."""
    try:
        about = entry.stat(follow_symlinks=False)
        if about.st_uid != os.getuid():
            return
        lock = _open_lock(Path(entry.path))
    except OSError:
        return
    if lock is None:
        with suppress(OSError):  # not empty: then it is told by its age
            os.rmdir(entry.path)  # noqa: PTH106
            return
        if prefix == "tmp-" and about.st_mtime < time.time() - _OLD:
            shutil.rmtree(entry.path, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(Path(entry.path))
    except OSError:
        return
    finally:
        os.close(lock)


def _open_lock(folder: Path) -> int | None:
    for name in (_LOCK, _NEW_LOCK):
        with suppress(FileNotFoundError):
            return os.open(folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    return None


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: killed in the middle, what is left can be told by the next command."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name not in (_LOCK, _NEW_LOCK):
                with suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108
    shutil.rmtree(folder, ignore_errors=True)
