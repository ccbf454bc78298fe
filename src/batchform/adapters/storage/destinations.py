"""Answers in an object that is replaced whole, or in a folder that takes one part per delivery, at gs://.

The rows are written to a file of the run's temp folder first, then uploaded: readers see the old object or the new one.
An upload names the generation that it replaces, so that another writer in between is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform.adapters.destinations.columns_in import columns_of
from batchform.adapters.destinations.files import parts_after, strangers
from batchform.adapters.destinations.staging import refusing, write_rows
from batchform.adapters.sources.snapshot import temp_path
from batchform.adapters.storage.client import StorageClient, checksum
from batchform.adapters.storage.errors import PreconditionLost, StorageError
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery, Destination
from batchform.spec.remote import Address, address

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_WRITE: Final = ("storage.objects.create", "storage.objects.delete")  # to replace an object is to delete it
_ELSEWHERE: Final = "Move it away, or choose another path."


def make_remote(client: StorageClient, path: str, *, format: str) -> Destination:  # noqa: A002
    """The destination of a gs:// path; one that ends in / takes parts. Raises DestinationError for what is no path."""
    try:
        at = address(path)
    except ValueError as error:
        raise DestinationError(f"destination.path {path!r}: {error}.", hint="Write gs://BUCKET/NAME.") from None
    if path.endswith("/"):
        return StorageParts(client, at, format=format, shown=path)
    if not at.name:
        raise DestinationError(f"destination.path {path!r} is a bucket; name a file in it, or end it with /.")
    return StorageFile(client, at, format=format, shown=path)


class StorageFile:
    """One object with all rows. Equal content leaves it untouched."""

    def __init__(self, client: StorageClient, at: Address, *, format: str, shown: str) -> None:  # noqa: A002
        """format: jsonl, csv or parquet; shown: the path as the user wrote it."""
        self._client = client
        self._at = at
        self._format = format
        self._shown = shown

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:  # noqa: ARG002
        with as_destination_errors():
            there = self._client.stat(self._at)
            return there is not None and all(_stamp(there.size, there.crc32c) == stamp for stamp in stamps)

    def check(self, columns: Sequence[str] | None = None) -> None:
        with as_destination_errors():
            check_rights(self._client, self._at, self._shown)
            if columns is not None:
                self._refuse_foreign(columns)

    def _refuse_foreign(self, columns: Sequence[str]) -> None:
        """What batchform made has just the columns that it would write: it tells without a ledger."""
        there = self._client.stat(self._at)
        if there is None or not there.size:
            return
        with self._client.seekable(there) as file:
            found = columns_of(file, format=self._format)
        if found != list(columns):
            raise DestinationError(f"{self._shown} is already there, and batchform did not make it.", hint=_ELSEWHERE)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        with as_destination_errors():
            rows, stamp = _put(self._client, con, delivery.relation, self._at, format=self._format, shown=self._shown)
        return Delivered(rows, self._shown, stamps=(stamp,))


class StorageParts:
    """A folder with a part per delivery: the rows that are new since the last one. A full delivery replaces all parts.

    Other objects below the folder, and the parts of other specs and ledgers, are not touched.
    """

    def __init__(self, client: StorageClient, at: Address, *, format: str, shown: str) -> None:  # noqa: A002
        """at: the folder; the rest as for StorageFile."""
        self._client = client
        self._at = at
        self._format = format
        self._shown = shown

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:
        with as_destination_errors():
            there = self._there("part-" if parts else "")
        if not there or not all(part in there for part in parts):
            return False
        return not stamps or (
            not strangers(there, parts, following)
            and all(there[part] == stamp for part, stamp in zip(parts, stamps, strict=True))
        )

    def check(self, columns: Sequence[str] | None = None) -> None:  # noqa: ARG002  (parts bear names of our own)
        with as_destination_errors():
            check_rights(self._client, self._at, self._shown)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        part = f"part-{delivery.name}.{self._format}"
        with as_destination_errors():
            relation = delivery.relation if delivery.full else delivery.changed
            at, shown = self._at.below(part), self._shown + part
            rows, stamp = _put(self._client, con, relation, at, format=self._format, shown=shown)
            # Only now: at no moment may a row be in no part.
            if delivery.full:
                self._remove_parts(delivery, keep=part)
        parts, stamps = parts_after(delivery, part, stamp)
        return Delivered(rows, shown, parts, stamps)

    def _remove_parts(self, delivery: Delivery, *, keep: str) -> None:
        """Remove the recorded parts, and unrecorded ones of this spec and ledger that a killed delivery left."""
        ours = f"part-{delivery.owner}." if delivery.owner else None
        for name in self._there("part-"):
            stale = name in delivery.previous or (ours is not None and name.startswith(ours))
            if stale and name != keep:
                self._client.delete(self._at.below(name))

    def _there(self, prefix: str) -> dict[str, str]:
        """The objects in the folder itself: their names and stamps."""
        folder = self._at.below(prefix)
        start = len(str(self._at.below("")))
        found = self._client.list(folder, delimiter="/")
        return {str(stat.at)[start:]: _stamp(stat.size, stat.crc32c) for stat in found}


def _put(
    client: StorageClient,
    con: DuckDBPyConnection,
    relation: str,
    at: Address,
    *,
    format: str,  # noqa: A002
    shown: str,
) -> tuple[int, str]:
    """Replace an object by the relation's rows, unless it already holds just that. Returns the number of rows and the
    stamp of what was written."""
    staged = temp_path(con, f".{format}")
    try:
        with refusing(shown):
            rows = write_rows(con, relation, staged, format=format)
        stamp = _stamp(staged.stat().st_size, checksum(staged))
        _replace(client, at, staged, shown)
    finally:
        staged.unlink(missing_ok=True)
    return rows, stamp


def _stamp(size: int, crc32c: str) -> str:
    return f"{size} {crc32c}"


def _replace(client: StorageClient, at: Address, staged: Path, shown: str) -> None:
    there = client.stat(at)
    if there is not None and there.holds(staged):
        return
    try:
        client.write(at, staged, match=there.generation if there else 0)
    except PreconditionLost:
        now = client.stat(at)
        if now is None or not now.holds(staged):  # it may be this very write, whose answer was lost
            raise DestinationError(
                f"{shown} was changed by another writer while it was delivered.",
                hint="No answer is lost. See who else writes there, then run `batchform sync`.",
            ) from None


def check_rights(client: StorageClient, at: Address, shown: str) -> None:
    """Refuse what the credentials surely may not write. Rights on a part of a bucket show only at an object in it:
    where there is none, nothing is sure."""
    missing = [p for p in _WRITE if p not in client.allowed(at.bucket, *_WRITE)]
    if not missing:
        return
    there = next(iter(client.list(at, at_most=1)), None)
    held = client.allowed_at(there.at, *missing) if there else None
    if held is not None and not held.issuperset(missing):
        raise DestinationError(
            f"{shown} cannot be written: the credentials lack {', '.join(missing)}.",
            hint=f"Grant it: gcloud storage buckets add-iam-policy-binding gs://{at.bucket} --member=MEMBER "
            "--role=roles/storage.objectUser",
        )


@contextmanager
def as_destination_errors() -> Iterator[None]:
    """Errors of Cloud Storage as those of a destination."""
    try:
        yield
    except StorageError as error:
        raise DestinationError(error.message, hint=error.hint) from error
