"""Files that rows name elsewhere, brought to this machine for a service that takes uploads only.

Each is kept, by its address and content, and asked for again only if it is newer. The folder may be deleted at any
time; several processes may use it at once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from batchform.canon import file_digest
from batchform.errors import SourceError
from batchform.run.attachments import changed
from batchform.spec.remote import HTTPS, address

if TYPE_CHECKING:
    from batchform.adapters.storage.client import Stat, StorageClient
    from batchform.adapters.web import Web

_AT_ONCE: Final = 8


class _Note(msgspec.Struct, frozen=True):
    """Which file an address had last, and what its server calls that version."""

    file: str
    etag: str = ""
    modified: str = ""
    at: str = ""


class Fetched:
    """storage: opens Cloud Storage; web: opens the rest; None where there is no network, and only what is kept is
    found."""

    def __init__(self, folder: Path, *, storage: Callable[[], StorageClient], web: Callable[[], Web] | None) -> None:
        self._folder, self._storage, self._web = folder, storage, web
        self._fresh: dict[str, Path | SourceError | None] = {}

    def get(self, text: str) -> Path | None:
        """A file with what lies at a gs:// or https:// address now; None if it is not known, and there is no network.

        Raises SourceError.
        """
        if text in self._fresh:
            found = self._fresh[text]
            if isinstance(found, SourceError):
                raise found
            return found
        if text.startswith(HTTPS):
            return self._from_web(text)
        return None if self._web is None else self._object(text)

    def prefetch(self, texts: Iterable[str]) -> None:
        """Several at once, for `get` until the next call. What fails is told when it is asked for."""

        def one(text: str) -> Path | SourceError | None:
            try:
                return self.get(text)
            except SourceError as error:
                return error

        self._fresh, asked = {}, list(texts)
        if asked:
            with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="fetch") as pool:
                self._fresh = dict(zip(asked, pool.map(one, asked), strict=True))

    def having(self, text: str, digest: str) -> Path:
        """The file of an address that was planned. Raises StalePlan when it holds something else by now."""
        kept = self._kept(text) if text.startswith(HTTPS) else None
        for found in (kept[1] if kept else None, self.get(text)):
            if found is not None and file_digest(found) == digest:
                return found
        raise changed(text)

    def stat(self, text: str) -> Stat:
        """An object as it is now. Raises SourceError."""
        return stat(text, self._storage())

    def _object(self, text: str) -> Path:
        from batchform.adapters.storage.cache import Cache

        found = self.stat(text)
        packed = bool(found.encoding)  # as a service would read it: without

        def download(to: Path) -> None:
            self._storage().download(found, to, decoded=packed)

        return Cache(self._folder).get(found, download, decoded=packed)

    def _from_web(self, url: str) -> Path | None:
        kept = self._kept(url)
        if self._web is None:
            return kept[1] if kept else None
        from batchform.adapters.web import Version

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._folder / f"{secrets.token_hex(8)}.part"
        try:
            known = Version(kept[0].etag, kept[0].modified, kept[0].at) if kept else None
            version = self._web().read(url, part, known)
            if version is None and kept:
                return kept[1]
            content = file_digest(part).rpartition(":")[2]
            file = self._folder / f"{_stem(url)}-{content[:32]}{_suffix(url)}"
            part.replace(file)
            version = version or Version()
            part.write_bytes(msgspec.json.encode(_Note(file.name, version.etag, version.modified, version.at)))
            part.replace(self._note(url))
        except OSError as error:
            raise SourceError(f"{self._folder} cannot be written: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)
        if kept and kept[1] != file:
            kept[1].unlink(missing_ok=True)
        return file

    def _kept(self, url: str) -> tuple[_Note, Path] | None:
        try:
            note = msgspec.json.decode(self._note(url).read_bytes(), type=_Note)
        except (OSError, msgspec.DecodeError):
            return None
        path = self._folder / PurePosixPath(note.file).name
        return (note, path) if path.is_file() else None

    def _note(self, url: str) -> Path:
        return self._folder / f"{_stem(url)}.json"


def stat(text: str, storage: StorageClient) -> Stat:
    """An object as it is now. Raises SourceError."""
    try:
        at = address(text)
    except ValueError as error:
        raise SourceError(f"{text}: {error}.") from None
    found = storage.stat(at) if at.name else None
    if found is None:
        raise SourceError(f"There is no object {text}.")
    return found


def _stem(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def _suffix(url: str) -> str:
    suffix = PurePosixPath(urlsplit(url).path).suffix
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) < 10 else ""
