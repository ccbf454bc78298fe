"""Files in Cloud Storage that sources read: found by a listing, and brought here in exactly the generation listed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from batchform.adapters.sources.paths import SourceFile
from batchform.adapters.storage.cache import Cache
from batchform.adapters.storage.client import Stat, StorageClient
from batchform.adapters.storage.errors import ObjectMissing, StorageError
from batchform.errors import SourceError
from batchform.spec.lint import glob_matches
from batchform.spec.remote import Address, address

_GLOB: Final = "*?["
_AT_ONCE: Final = 8
_ATTEMPTS: Final = 3
_SHOWN: Final = 1000  # names that are looked at for a hint


class StorageFiles:
    """`Remote` of the sources. A generation that was read before is not downloaded again."""

    def __init__(self, client: StorageClient, cache: Path) -> None:
        """cache: a local folder that DuckDB may read."""
        self._client = client
        self._cache = Cache(cache)

    def fetch(self, pattern: str) -> list[SourceFile]:
        with _as_source_errors():
            found = self._found(pattern)
            with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(found)), thread_name_prefix="gs") as pool:
                return list(pool.map(self._fetched, found))

    def versions(self, pattern: str) -> list[str]:
        with _as_source_errors():
            return [_version(stat) for stat in self._found(pattern)]

    def _found(self, pattern: str) -> list[Stat]:
        """The objects that the pattern names, at least one."""
        at = _parsed(pattern)
        first = min((i for c in _GLOB if (i := at.name.find(c)) >= 0), default=-1)
        if first < 0:
            found = self._client.stat(at)
            if found is None:
                raise self._nothing(pattern, at)
            return [found]
        below = Address(at.bucket, at.name[:first])
        deep = "/" in at.name[first:] or "**" in at.name
        listed = self._client.list(below, delimiter="" if deep else "/")
        matching = [s for s in listed if s.at.name == at.name or _matches(at.name, s.at.name, first)]
        if not matching:
            raise self._nothing(pattern, at)
        return matching

    def _fetched(self, found: Stat) -> SourceFile:
        for _ in range(_ATTEMPTS):
            decoded = bool(found.encoding) and not found.at.name.lower().endswith((".gz", ".zst"))
            try:
                fetch = partial(self._client.download, found, decoded=decoded)
                path = self._cache.get(found, fetch, decoded=decoded)
            except ObjectMissing:
                again = self._client.stat(found.at)
                if again is None:
                    raise SourceError(f"{found.at} was deleted while the source was read.") from None
                found = again
            else:
                return SourceFile(path.resolve(), str(found.at), _version(found))
        raise SourceError(f"{found.at} is replaced all the time.", hint="Read a copy that stays.")

    def _nothing(self, pattern: str, at: Address) -> SourceError:
        """No object: say what is there instead."""
        folder = Address(at.bucket, at.name[: min((at.name.find(c) for c in _GLOB if c in at.name), default=None)])
        folder = Address(at.bucket, folder.name.rpartition("/")[0])
        prefix = folder.below("") if folder.name else folder
        there = [s.at.name.removeprefix(prefix.name) for s in self._client.list(prefix, at_most=_SHOWN)]
        verb = "No object matches" if any(c in at.name for c in _GLOB) else "There is no object"
        wanted = at.name.removeprefix(prefix.name)
        near = difflib.get_close_matches(wanted, there, n=3, cutoff=0.5) or there[:3]
        hint = f"In {prefix} there is {', '.join(near)}." if near else f"Nothing lies in {prefix}."
        return SourceError(f"{verb} {pattern}.", hint=hint)


def _parsed(pattern: str) -> Address:
    try:
        at = address(pattern)
    except ValueError as error:
        raise SourceError(f"source.path {pattern!r}: {error}.", hint="Write gs://BUCKET/NAME.") from None
    if not at.name or at.name.endswith("/"):
        inside = f"{pattern.rstrip('/')}/*"
        raise SourceError(f"source.path {pattern!r} is a folder.", hint=f"Name the files in it, such as {inside}")
    return at


def _matches(pattern: str, name: str, first: int) -> bool:
    """Whether a glob names an object. Hidden parts must be spelled out, as in a local folder."""
    if not glob_matches(pattern, name):
        return False
    start = pattern.rfind("/", 0, first) + 1
    hidden = any(part.startswith(".") for part in name[start:].split("/"))
    return not hidden or any(part.startswith(".") for part in pattern[start:].split("/"))


def _version(stat: Stat) -> str:
    return f"{stat.at}#{stat.generation}"


@contextmanager
def _as_source_errors() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise SourceError(error.message, hint=error.hint) from error
