"""Content of objects: files in the state folder, and their digests."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

from batchform.emulator.store import Store, new_id

PIECE: Final = 1 << 20


class Digest(NamedTuple):
    """CRC32C and MD5 as Cloud Storage shows them: base64. md5: None for composed objects."""

    crc32c: str
    md5: str | None


class Digester:
    """Digests what is written, piece by piece."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = 0

    def update(self, data: bytes) -> None:
        self._md5.update(data)
        self._crc32c = google_crc32c.extend(self._crc32c, data)

    def digest(self) -> Digest:
        """Of all pieces so far."""
        crc32c = base64.b64encode(self._crc32c.to_bytes(4, "big")).decode()
        return Digest(crc32c, base64.b64encode(self._md5.digest()).decode())


def digest_of(path: Path) -> Digest:
    """The digest of a file, read in pieces."""
    digester = Digester()
    with path.open("rb") as f:
        while piece := f.read(PIECE):
            digester.update(piece)
    return digester.digest()


def hex_of(digest: str) -> str:
    """A digest in base64 as hex digits."""
    return base64.b64decode(digest).hex()


def incoming(store: Store, upload: str) -> Path:
    """Where content is gathered until it is an object."""
    return store.incoming / upload


def path_of(store: Store, content: str) -> Path:
    """Where an object's content lies."""
    return store.objects / content[:2] / content


def keep(store: Store, gathered: Path) -> str:
    """Move gathered content to where objects lie; its name there."""
    content = new_id(32)
    path = path_of(store, content)
    path.parent.mkdir(exist_ok=True)
    gathered.rename(path)
    return content
