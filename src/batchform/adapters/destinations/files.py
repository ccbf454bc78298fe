"""Answers in a file that is replaced whole, or in a folder that takes one part per delivery."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
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

    def exists(self, parts: Sequence[str] = ()) -> bool:  # noqa: ARG002
        return self._path.is_file()

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
            rows = _write(con, delivery.relation, self._path, format=self._format)
        return Delivered(rows, self._shown)


class PartFolder:
    """A folder with a part per delivery: the rows that are new since the last one. A full delivery replaces all parts.

    Other files in the folder, and the parts of other specs and ledgers, are not touched.
    """

    def __init__(self, path: Path, *, format: str, shown: str) -> None:  # noqa: A002
        """path: real path of the folder; the rest as for FileDestination."""
        self._path = path
        self._format = format
        self._shown = shown

    def exists(self, parts: Sequence[str] = ()) -> bool:
        return self._path.is_dir() and all((self._path / part).is_file() for part in parts)

    def check(self, columns: Sequence[str] | None = None) -> None:  # noqa: ARG002  (parts bear names of our own)
        if self._path.exists() and not self._path.is_dir():
            raise DestinationError(f"{self._shown} is a file.", hint="A path that ends with / names a folder of parts.")
        check_folder(self._path, shown=self._shown)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.check()
        part = f"part-{delivery.name}.{self._format}"
        with refusing(self._shown):
            relation = delivery.relation if delivery.full else delivery.changed
            rows = _write(con, relation, self._path / part, format=self._format)
            # Only now: at no moment may a row be in no part.
            if delivery.full:
                self._remove_parts(delivery, keep=part)
        kept = () if delivery.full else tuple(p for p in delivery.previous if p != part)
        return Delivered(rows, self._shown + part, (*kept, part))

    def _remove_parts(self, delivery: Delivery, *, keep: str) -> None:
        """Remove the recorded parts, and unrecorded ones of this spec and ledger that a killed delivery left."""
        ours = f"part-{delivery.owner}." if delivery.owner else None
        for entry in list(os.scandir(self._path)):
            stale = entry.name in delivery.previous or (ours is not None and entry.name.startswith(ours))
            if stale and entry.name != keep:
                Path(entry.path).unlink()
        sync(self._path)


_ELSEWHERE = "Move it away, or choose another path."


def _write(con: DuckDBPyConnection, relation: str, target: Path, *, format: str) -> int:  # noqa: A002
    """Replace `target` by the relation's rows, atomically and durably, unless it already holds just that."""
    with staged(target) as new:
        rows = write_rows(con, relation, new, format=format)
        if target.is_file():
            if file_digest(target) == file_digest(new):
                return rows
            shutil.copymode(target, new)
        sync(new)
        new.replace(target)
        sync(target.parent)
    return rows
