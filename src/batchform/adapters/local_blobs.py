"""The ledger's storage in a local folder: immutable files and a head that is swapped under a file lock."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NoReturn

from batchform.adapters.blob_names import HEAD, check_name
from batchform.adapters.durable import make_folder, sync, sync_file
from batchform.canon import digest, file_digest
from batchform.errors import BatchformError, LedgerMoved

_LOCK = ".lock"
_SCRATCH = ".tmp"
_CHUNK = 1 << 20
_SCRATCH_AGE = 24 * 3600.0  # seconds; what a killed writer left is removed after this
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


class LocalBlobs:
    """Blobs in a folder, which is made by the first write. Readers take no lock.

    A file comes into being by rename, from a synced file in `.tmp/`, and its folder is synced after: a reader sees
    all of it or nothing. All writers hold a lock on `.lock` while they rename, so nothing is overwritten unseen.
    """

    spacing = 0.0

    def __init__(self, root: Path, *, described: str = "", lock_timeout: float = 30.0) -> None:
        """described: the place as the user wrote it; lock_timeout: seconds to wait for another writer's rename."""
        self.root = root
        self._described = described or root.as_posix()
        self._lock_timeout = lock_timeout
        self._folders: set[Path] = set()  # known to be durable in their parents

    def describe(self) -> str:
        return self._described

    def read(self, name: str) -> bytes:
        with self._reading(name):
            return self._path(name).read_bytes()

    def local(self, name: str) -> Path:
        path = self._path(name)
        with self._reading(name):
            if not path.is_file():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def list(self, prefix: str) -> list[str]:
        folder = self.root / prefix.rpartition("/")[0]
        names = []
        for base, folders, files in os.walk(folder):
            relative = PurePosixPath(Path(base).relative_to(self.root).as_posix())
            if base == str(self.root):
                folders[:] = [f for f in folders if f != _SCRATCH]
                files = [f for f in files if f not in (HEAD, _LOCK)]
            names += [str(relative / f) for f in files]
        return sorted(n for n in names if n.startswith(prefix))

    def write_new(self, name: str, content: bytes | Path) -> None:
        target = self._path(name)
        with self._writing(name), self._scratch(content) as scratch, self._locked():
            if not target.exists():
                self._make_folder(target.parent)
                scratch.rename(target)
            elif file_digest(target) != file_digest(scratch):
                raise FileExistsError(errno.EEXIST, f"{self._described}/{name} exists with other bytes")
            sync(target.parent)

    def delete(self, name: str) -> None:
        path = self._path(name)
        with self._writing(name):
            with suppress(FileNotFoundError):
                path.unlink()
            with suppress(FileNotFoundError):
                sync(path.parent)

    def head(self) -> tuple[bytes, str] | None:
        try:
            with self._reading(HEAD):
                content = (self.root / HEAD).read_bytes()
        except FileNotFoundError:
            return None
        return content, digest(content)

    def swap_head(self, content: bytes, expect: str | None) -> str:
        with self._writing(HEAD), self._scratch(content) as scratch, self._locked():
            current = self.head()
            if (current[1] if current else None) != expect:
                raise LedgerMoved(f"Another writer changed {self._described} first.", hint="Run the command again.")
            scratch.replace(self.root / HEAD)
            sync(self.root)
            self._sweep_scratch()
            return digest(content)

    def _path(self, name: str) -> Path:
        return self.root / check_name(name, reserved=(HEAD, _LOCK, _SCRATCH))

    def _make_folder(self, folder: Path) -> None:
        """A folder that is surely there after a power cut, even if whoever made it was killed before he saw to that."""
        if folder in self._folders and folder.is_dir():
            return
        make_folder(folder)
        if folder != self.root:
            self._make_folder(folder.parent)
        sync(folder.parent)
        self._folders.add(folder)

    @contextmanager
    def _scratch(self, content: bytes | Path) -> Iterator[Path]:
        """A synced file with the content, outside of what readers see. Removed unless renamed."""
        folder = self.root / _SCRATCH
        self._make_folder(folder)
        path = folder / uuid.uuid4().hex
        try:
            with path.open("xb") as out:
                if isinstance(content, bytes):
                    out.write(content)
                else:
                    with content.open("rb") as source:
                        while chunk := source.read(_CHUNK):
                            out.write(chunk)
                sync_file(out)
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other writers, threads included. The kernel drops the lock of a process that dies."""
        fd = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            end = time.monotonic() + self._lock_timeout
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise LedgerMoved(
                            f"Another process has held the lock on {self._described} for {self._lock_timeout:.0f} s.",
                            hint="See whether a batchform process hangs; then run the command again.",
                        ) from None
                    time.sleep(0.002)
            yield
        finally:
            os.close(fd)

    def _sweep_scratch(self) -> None:
        """Remove what killed writers left, long after any live one could still need it."""
        oldest = time.time() - _SCRATCH_AGE
        for entry in os.scandir(self.root / _SCRATCH):
            with suppress(OSError):
                if entry.stat().st_mtime < oldest:
                    Path(entry.path).unlink()

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            self._explain(error, f"{self._described}/{name} cannot be read", "Check the path and its permissions.")

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            if error.filename is None:  # ours: other bytes under the same name
                raise
            self._explain(error, f"{self._described}/{name} cannot be written", "A file stands where a folder must be.")
        except OSError as error:
            hint = "Check the path. Nothing was recorded."
            if error.errno in _FULL:
                hint = "Free some space and run the command again. Nothing was recorded."
            elif error.errno in _REFUSED:
                hint = "Make the folder writable for this user. Nothing was recorded."
            self._explain(error, f"{self._described}/{name} cannot be written", hint)

    @staticmethod
    def _explain(error: OSError, what: str, hint: str) -> NoReturn:
        raise BatchformError(f"{what}: {error.strerror or error}.", hint=hint) from error
