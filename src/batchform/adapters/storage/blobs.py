"""The ledger's storage at gs://: immutable objects and a head that is swapped by generation."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from batchform.adapters.blob_names import HEAD, check_name
from batchform.adapters.storage.cache import Cache
from batchform.adapters.storage.client import Stat, StorageClient
from batchform.adapters.storage.errors import ObjectMissing, PreconditionLost
from batchform.errors import LedgerMoved
from batchform.spec.remote import Address

PACE: Final = 1.0
"""Seconds between two writes of one object: Cloud Storage takes no more, and answers 429 to what comes sooner."""

_SEGMENTS: Final = "segments/"
_READ_AGAIN: Final = (_SEGMENTS, "answers/")
_SMALL: Final = 1 << 20  # bytes; up to this, equal checksums are not taken for equal bytes
_ATTEMPTS: Final = 3


class StorageBlobs:
    """Blobs below a prefix of a bucket.

    The client sends a write again when no answer came, and is then refused for its own write. So whoever is refused
    reads back: a head holds its writer's token, an object its bytes, and what is there decides who was first.
    """

    spacing = PACE

    def __init__(
        self,
        client: StorageClient,
        place: Address,
        *,
        cache: Path,
        described: str,
        pace: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """place: the ledger's folder; cache: a local folder for what was read; described: the place as the user wrote
        it; pace: seconds between two writes of the head, by default PACE unless an emulator is asked."""
        self._client = client
        self._place = place
        self._cache = Cache(cache)
        self._described = described
        self._pace = pace if pace is not None else 0.0 if client.emulated else PACE
        self._sleep = sleep
        self._next_head = 0.0  # by the monotonic clock
        self._segments: dict[str, Stat] = {}
        self._lock = threading.Lock()

    def describe(self) -> str:
        return self._described

    def read(self, name: str) -> bytes:
        if name.startswith(_SEGMENTS):
            return self.local(name).read_bytes()
        at = self._at(name)
        try:
            return self._client.read(at)[0]
        except ObjectMissing:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(at)) from None

    def local(self, name: str) -> Path:
        at = self._at(name)
        for _ in range(_ATTEMPTS):
            found = self._known(name)
            if found is None:
                break
            try:
                return self._cache.get(found, partial(self._client.download, found))
            except ObjectMissing:
                self._forget(name)  # replaced or deleted between the two calls
        raise FileNotFoundError(errno.ENOENT, "no such object", str(at))

    def has(self, name: str) -> bool:
        return name in self.list(name)

    def list(self, prefix: str) -> list[str]:
        start = len(str(self._place.below("")))
        listed = {str(stat.at)[start:]: stat for stat in self._client.list(self._place.below(prefix))}
        listed.pop(HEAD, None)
        if prefix == _SEGMENTS:
            with self._lock:
                self._segments = dict(listed)
        return sorted(listed)

    def write_new(self, name: str, content: bytes | Path) -> None:
        at = self._at(name)
        for _ in range(_ATTEMPTS):
            try:
                written = self._client.write(at, content, match=0)
            except PreconditionLost:
                there = self._client.stat(at)
                if there is None:
                    continue  # deleted in between
                if not self._same(there, content):
                    raise FileExistsError(errno.EEXIST, f"{self._described}/{name} exists with other bytes") from None
                written = there
            if name.startswith(_READ_AGAIN):
                self._cache.keep(written, content)
            self._remember(name, written)
            return
        raise LedgerMoved(f"{at} is written and deleted by others all the time.", hint="Run the command again.")

    def delete(self, name: str) -> None:
        at = self._at(name)
        self._forget(name)
        self._client.delete(at)

    def head(self) -> tuple[bytes, str] | None:
        try:
            content, generation = self._client.read(self._place.below(HEAD))
        except ObjectMissing:
            return None
        return content, str(generation)

    def swap_head(self, content: bytes, expect: str | None) -> str:
        if expect is not None and not expect.isdigit():
            raise self._moved()
        self._wait_turn()
        try:
            written = self._client.write(self._place.below(HEAD), content, match=int(expect or 0))
        except PreconditionLost:
            there = self.head()
            if there is None or there[0] != content:
                raise self._moved() from None
            return there[1]  # it was this very write, its answer was lost
        finally:
            self._next_head = time.monotonic() + self._pace
        return str(written.generation)

    # --- inside --------------------------------------------------------------------------------------------------

    def _at(self, name: str) -> Address:
        return self._place.below(check_name(name))

    def _moved(self) -> LedgerMoved:
        return LedgerMoved(f"Another writer changed {self._described} first.", hint="Run the command again.")

    def _wait_turn(self) -> None:
        """Space commits that follow each other quickly, so that the service need not refuse them."""
        left = self._next_head - time.monotonic()
        if left > 0:
            self._sleep(left)

    def _known(self, name: str) -> Stat | None:
        """The object as it is. Segments, which never change, are looked up by one listing for all of them."""
        if not name.startswith(_SEGMENTS):
            return self._client.stat(self._at(name))
        with self._lock:
            found = self._segments.get(name)
        if found is None:
            self.list(_SEGMENTS)
            with self._lock:
                found = self._segments.get(name)
        return found

    def _remember(self, name: str, stat: Stat) -> None:
        if name.startswith(_SEGMENTS):
            with self._lock:
                self._segments[name] = stat

    def _forget(self, name: str) -> None:
        with self._lock:
            self._segments.pop(name, None)

    def _same(self, there: Stat, content: bytes | Path) -> bool:
        if not there.holds(content):
            return False
        if there.size > _SMALL:
            return True
        try:
            found, _ = self._client.read(there.at, generation=there.generation)
        except ObjectMissing:
            return False
        return found == (content if isinstance(content, bytes) else content.read_bytes())
