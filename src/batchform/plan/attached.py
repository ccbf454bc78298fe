"""The files of a shard: counted while it is cut, and listed beside it for whoever sends it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from batchform.rows.attached import AttachedFile, Carried

_DECODE: Final = msgspec.json.Decoder(AttachedFile).decode


class ShardFiles:
    """The files that the requests of one shard name. Each is listed once, however many rows have it."""

    def __init__(self, carried: Carried) -> None:
        self._carried = carried
        self._row: list[AttachedFile] = []
        self.begin()

    def begin(self) -> None:
        """Of the next shard nothing is known yet."""
        self._files: dict[tuple[str, str], AttachedFile] = {}
        self.tokens = 0  # for all rows together
        self.leading: tuple[int, ...] = ()  # of the files of its first row, in their order
        self.extra_bytes = 0  # that its lines have more once they say where the files are

    @property
    def count(self) -> int:
        return len(self._files)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(f.size for f in self._files.values())

    def look(self, request: bytes) -> int:
        """Take in the request that was rendered last; returns the bytes that its line will have more."""
        self._row = self._carried.of(request)
        return sum(f.extra_bytes for f in self._row)

    def take(self) -> None:
        """Add the files of the row that was looked at last."""
        self.leading = self.leading or tuple(f.tokens for f in self._row)
        for file in self._row:
            self._files[file.identity] = file
            self.tokens += file.tokens
            self.extra_bytes += file.extra_bytes

    def write(self, path: Path) -> bool:
        """List the files, one JSON array a line. False, and nothing is written, if there are none."""
        if self._files:
            path.write_bytes(b"".join(msgspec.json.encode(f) + b"\n" for f in self._files.values()))
        return bool(self._files)


def listed_files(path: Path) -> list[AttachedFile]:
    """The files of a shard, as `ShardFiles.write` listed them. Raises msgspec.DecodeError."""
    return [_DECODE(line) for line in path.read_bytes().splitlines() if line]
