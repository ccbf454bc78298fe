"""A folder of image files at gs://, beside a destination."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Final

from batchform.adapters.storage.client import StorageClient
from batchform.adapters.storage.destinations import as_destination_errors, check_rights
from batchform.adapters.storage.errors import ObjectMissing, PreconditionLost
from batchform.errors import DestinationError
from batchform.spec.mime import mime_type
from batchform.spec.remote import address

_AT_ONCE: Final = 8


class ImageBucket:
    """Objects that are written whole or not at all, several at once. Names are batchform's own and lead nowhere else.

    A hidden object beside them has the names of those that were delivered last: what of them is gone, is made again.
    """

    def __init__(self, client: StorageClient, folder: str, *, spec: str) -> None:
        """folder: gs:// address without a slash at the end; spec: whose images are noted."""
        self._client = client
        self._at = address(f"{folder}/")
        self._shown = folder
        self._noted = f".batchform-{spec}.json"
        self._pending: deque[Future[None]] = deque()

    def check(self) -> None:
        """Raise DestinationError when the credentials surely may not write there."""
        with as_destination_errors():
            check_rights(self._client, self._at, f"{self._shown}/")

    def whole(self) -> bool:
        """Whether every image that was delivered last is still there."""
        with as_destination_errors():
            try:
                names = json.loads(self._client.read(self._at.below(self._noted))[0])
            except (ObjectMissing, ValueError):
                return False
            self.__dict__.pop("_there", None)  # what was seen before may be gone
            return set(map(str, names)) <= self._there.keys()

    @cached_property
    def _there(self) -> dict[str, int]:
        """Names of the objects in the folder, and their sizes."""
        start = len(str(self._at))
        return {str(found.at)[start:]: found.size for found in self._client.list(self._at, delimiter="/")}

    def holds(self, name: str, size: int) -> bool:
        with as_destination_errors():
            return self._there.get(Path(name).name) == size

    def put(self, name: str, content: bytes) -> None:
        """Begin to write; what fails is raised by a later call, `note` at the latest."""
        self._pending.append(self._pool.submit(self._write, Path(name).name, content))
        if len(self._pending) >= _AT_ONCE:
            self._pending.popleft().result()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="images")

    def note(self, names: Sequence[str]) -> None:
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            if pool := self.__dict__.pop("_pool", None):
                pool.shutdown(wait=True)
        listed = json.dumps(sorted(set(names)), indent=0).encode()
        self._write(self._noted, listed)

    def _write(self, name: str, content: bytes) -> None:
        at = self._at.below(name)
        with as_destination_errors():
            found = self._client.stat(at)
            if found is not None and found.holds(content):
                return
            try:
                self._client.write(at, content, match=found.generation if found else 0, content_type=mime_type(name))
            except PreconditionLost:
                now = self._client.stat(at)
                if now is None or not now.holds(content):  # it may be this very write, whose answer was lost
                    raise DestinationError(
                        f"{self._shown}/{name} was changed by another writer while it was delivered.",
                        hint="No answer is lost. See who else writes there, then run `batchform sync`.",
                    ) from None
