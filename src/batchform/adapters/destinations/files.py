"""Answers in a file that is replaced whole, or in a folder that takes one part per delivery."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.adapters.destinations.columns_in import columns_in
from batchform.adapters.destinations.staging import check_folder, refusing, staged, write_rows
from batchform.adapters.durable import sync
from batchform.canon import file_digest
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class FileDestination:
    """One file with all rows. Readers see the old one or the new one; equal content leaves it untouched."""

    def __init__(self, path: Path, *, format: str, shown: str) -> None:  # noqa: A002
        """path: real path; format: jsonl, csv or parquet; shown: the path as the user wrote it."""
        self._path = path
        self._format = format
        self._shown = shown

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:  # noqa: ARG002
        return self._path.is_file() and all(_bears(self._path, stamp) for stamp in stamps)

    def check(self, columns: Sequence[str] | None = None) -> None:
        if self._path.is_dir():
            raise DestinationError(
                f"{self._shown} is a folder.", hint="Name a file, or end the path with / for one part per delivery."
            )
        check_folder(self._path.parent, shown=self._shown)
        if self._path.exists() and not self._path.is_file():
            raise DestinationError(f"{self._shown} is not a regular file.", hint=_ELSEWHERE)
        if columns is not None and self._path.exists() and self._path.stat().st_size:
            self._refuse_foreign(columns)

    def _refuse_foreign(self, columns: Sequence[str]) -> None:
        """What batchform made has just the columns that it would write: it tells without a ledger."""
        try:
            found = columns_in(self._path, format=self._format)
        except OSError as error:
            raise DestinationError(
                f"{self._shown} is already there and cannot be read: {error.strerror or error}.", hint=_ELSEWHERE
            ) from error
        if found != list(columns):
            raise DestinationError(f"{self._shown} is already there, and batchform did not make it.", hint=_ELSEWHERE)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.check()
        with refusing(self._shown):
            rows, stamp = _write(con, delivery.relation, self._path, format=self._format)
        return Delivered(rows, self._shown, stamps=(stamp,))


class PartFolder:
    """A folder with a part per delivery: the rows that are new since the last one. A full delivery replaces all parts.

    Other files in the folder, and the parts of other specs and ledgers, are not touched.
    """

    def __init__(self, path: Path, *, format: str, shown: str) -> None:  # noqa: A002
        """path: real path of the folder; the rest as for FileDestination."""
        self._path = path
        self._format = format
        self._shown = shown

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:
        if not self._path.is_dir() or not all((self._path / part).is_file() for part in parts):
            return False
        if not stamps:
            return True
        there = (entry.name for entry in os.scandir(self._path))
        return not strangers(there, parts, following) and all(
            _bears(self._path / part, stamp) for part, stamp in zip(parts, stamps, strict=True)
        )

    def check(self, columns: Sequence[str] | None = None) -> None:  # noqa: ARG002  (parts bear names of our own)
        if self._path.exists() and not self._path.is_dir():
            raise DestinationError(f"{self._shown} is a file.", hint="A path that ends with / names a folder of parts.")
        check_folder(self._path, shown=self._shown)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.check()
        part = f"part-{delivery.name}.{self._format}"
        with refusing(self._shown):
            relation = delivery.relation if delivery.full else delivery.changed
            rows, stamp = _write(con, relation, self._path / part, format=self._format)
            # Only now: at no moment may a row be in no part.
            if delivery.full:
                self._remove_parts(delivery, keep=part)
        parts, stamps = parts_after(delivery, part, stamp)
        return Delivered(rows, self._shown + part, parts, stamps)

    def _remove_parts(self, delivery: Delivery, *, keep: str) -> None:
        """Remove the recorded parts, and unrecorded ones of this spec and ledger that a killed delivery left."""
        ours = f"part-{delivery.owner}." if delivery.owner else None
        for entry in list(os.scandir(self._path)):
            stale = entry.name in delivery.previous or (ours is not None and entry.name.startswith(ours))
            if stale and entry.name != keep:
                Path(entry.path).unlink()
        sync(self._path)


_ELSEWHERE = "Move it away, or choose another path."


def strangers(names: Iterable[str], parts: Sequence[str], following: str) -> list[str]:
    """Of the names in a folder, the parts of this spec and ledger that are none of `parts`, nor of the next delivery:
    left by a delivery that was overtaken."""
    owner = following.partition(".")[0]
    return [
        name for name in names
        if name.startswith(f"part-{owner}.") and name not in parts and not name.startswith(f"part-{following}.")
    ]  # fmt: skip


def parts_after(delivery: Delivery, part: str, stamp: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts that hold the answers after one was written, and their stamps: none if earlier ones have none."""
    if delivery.full:
        return (part,), (stamp,)
    parts = tuple(p for p in delivery.previous if p != part)
    known = dict(zip(delivery.previous, delivery.stamps, strict=False))
    stamps = tuple(known[p] for p in parts if p in known)
    return (*parts, part), (*stamps, stamp) if len(stamps) == len(parts) else ()


def _write(con: DuckDBPyConnection, relation: str, target: Path, *, format: str) -> tuple[int, str]:  # noqa: A002
    """Replace `target` by the relation's rows, atomically and durably, unless it already holds just that.

    Returns the number of rows and the stamp of what was written."""
    with staged(target) as new:
        rows, content = write_rows(con, relation, new, format=format), file_digest(new)
        if target.is_file():
            if file_digest(target) == content:
                return rows, _stamp(target, content)
            shutil.copymode(target, new)
        sync(new)
        stamp = _stamp(new, content)
        new.replace(target)
        sync(target.parent)
    return rows, stamp


def _stamp(path: Path, content: str) -> str:
    """Size, time of the last write, and digest: the first two tell quickly that a file is as it was."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {content}"


def _bears(path: Path, stamp: str) -> bool:
    """Whether a file is as it was stamped; copied or checked out with the same content, it is."""
    found, (size, written, content) = path.stat(), stamp.split(" ", 2)
    if str(found.st_size) != size:
        return False
    return str(found.st_mtime_ns) == written or file_digest(path) == content
