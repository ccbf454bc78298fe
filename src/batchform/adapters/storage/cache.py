"""Objects that were read once, kept on this machine by bucket, name and generation: the same generation is the same
bytes for ever. The folder may be deleted at any time; several processes may use it at once."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchform.adapters.storage.client import Stat, checksum

_UNUSED: Final = 14 * 86400.0  # seconds after which a file that nobody asked for is removed
_PARTIAL: Final = 86400.0  # seconds; a download that was killed is removed after this
_SUFFIX: Final = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,3}$")
_TEMPORARY: Final = ".part"


class Cache:
    """Files in one folder, which is made by the first write, for its owner only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[Path] = set()  # held against their checksum by this process
        self._swept = False

    def get(self, found: Stat, fetch: Callable[[Path], None], *, decoded: bool = False) -> Path:
        """The file with an object's bytes; `fetch` writes it if it is not there, or not what it was.

        decoded: the bytes are those without the object's Content-Encoding, so no checksum is known of them.
        """
        path = self._path(found, "-decoded" if decoded else "")
        if self._is_there(path, None if decoded else found):
            return path
        return self._put(path, fetch)

    def keep(self, found: Stat, content: bytes | Path) -> None:
        """Store what was just written to an object, so that it need not be read again. Best effort."""
        path = self._path(found)

        def copy(to: Path) -> None:
            if isinstance(content, bytes):
                to.write_bytes(content)
            else:
                shutil.copyfile(content, to)

        with suppress(OSError):
            self._put(path, copy)

    def _path(self, found: Stat, kind: str = "") -> Path:
        name = hashlib.sha256(f"{found.at.bucket}/{found.at.name}".encode()).hexdigest()[:32]
        suffix = _SUFFIX.search(found.at.name.rpartition("/")[2])
        return self.folder / f"{name}-{found.generation}{kind}{suffix[0] if suffix else ''}"

    def _is_there(self, path: Path, found: Stat | None) -> bool:
        try:
            size = path.stat().st_size
            if path not in self._seen:
                if found is not None and (size != found.size or checksum(path) != found.crc32c):
                    return False
                os.utime(path)
                self._seen.add(path)
        except OSError:
            return False
        return True

    def _put(self, path: Path, write: Callable[[Path], None]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        try:
            write(partial)
            partial.chmod(0o600)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._seen.add(path)
        return path

    def _sweep(self) -> None:
        """Once per process: remove what nobody uses, and what killed downloads left."""
        if self._swept:
            return
        self._swept = True
        now = time.time()
        with suppress(OSError):
            for entry in list(os.scandir(self.folder)):
                oldest = _PARTIAL if entry.name.endswith(_TEMPORARY) else _UNUSED
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < now - oldest:
                        Path(entry.path).unlink()
