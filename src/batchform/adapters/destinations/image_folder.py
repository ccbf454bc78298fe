"""A folder of image files beside a destination, and a destination that is whole only with them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchform.adapters.destinations.staging import SUFFIX, check_folder, refusing
from batchform.adapters.durable import sync
from batchform.ports import Delivered, Delivery, Destination, ImageStore

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class ImageFolder:
    """Files that are written whole or not at all. Names are batchform's own and lead nowhere else.

    A hidden file beside them has the names of those that were delivered last: what of them is gone, is made again.
    """

    def __init__(self, path: Path, *, shown: str, spec: str) -> None:
        """path: real path; shown: as the user wrote it; spec: whose images are noted."""
        self._path = path
        self._noted = f".batchform-{spec}.json"
        self._shown = shown

    def check(self) -> None:
        """Raise DestinationError when no file could be made there."""
        check_folder(self._path, shown=f"{self._shown}/")

    def whole(self) -> bool:
        """Whether every image that was delivered last is still there."""
        try:
            names = json.loads((self._path / self._noted).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return all((self._path / Path(str(name)).name).is_file() for name in names)

    def holds(self, name: str, size: int) -> bool:
        path = self._path / Path(name).name
        return path.is_file() and path.stat().st_size == size

    def put(self, name: str, content: bytes) -> None:
        with refusing(f"{self._shown}/{name}"):
            self._write(Path(name).name, content)

    def note(self, names: Sequence[str]) -> None:
        listed = json.dumps(sorted(set(names)), indent=0).encode()
        path = self._path / self._noted
        with refusing(f"{self._shown}/{self._noted}"):
            if not path.is_file() or path.read_bytes() != listed:
                self._write(self._noted, listed)
            sync(self._path)

    def _write(self, name: str, content: bytes) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        new = self._path / f".{name}.{secrets.token_hex(4)}{SUFFIX}"
        try:
            with new.open("xb") as file:
                file.write(content)
            sync(new)
            new.replace(self._path / name)
        finally:
            new.unlink(missing_ok=True)


class Images(ImageStore, Protocol):
    """A folder of image files, wherever it is."""

    def check(self) -> None:
        """Raise DestinationError when no file could be made there."""
        ...

    def whole(self) -> bool:
        """Whether every image that was delivered last is still there."""
        ...


class WithImages:
    """A destination whose rows point to image files. It exists when its rows and all of its images do."""

    def __init__(self, rows: Destination, images: Images) -> None:
        self._rows = rows
        self.images = images

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:
        return self._rows.exists(parts, stamps=stamps, following=following) and self.images.whole()

    def check(self, columns: Sequence[str] | None = None) -> None:
        self._rows.check(columns)
        self.images.check()

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        return self._rows.deliver(con, delivery)
