"""The emulator's Cloud Storage and BigQuery, as jobs use them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from batchform.emulator.refusal import Refusal
from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.store import Store
from batchform.emulator.vertex.places import Column, Folder, Gone, Table

if TYPE_CHECKING:  # its engine is only loaded for a job that reads or writes a table
    from batchform.emulator.warehouse.tables import TableRef, Tables

_PIECE: Final = 256 * 1024
_AROUND: Final = {"global": "US", "us": "US", "eu": "EU"}
"""Locations of jobs that are no place for a bucket."""


class Stores:
    """Buckets and datasets of one emulator's state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._objects = ObjectStore(store)

    @cached_property
    def _tables(self) -> Tables:
        try:
            from batchform.emulator.warehouse.tables import Tables
        except ImportError as e:
            message = f"The emulator's BigQuery needs a package that is not installed ({e})"
            raise Refusal(501, f"{message}: pip install 'batchform[emulator]'.") from e
        return Tables(self._store)

    def provide(self, location: str, *, bucket: str = "", project: str = "", dataset: str = "") -> None:
        """Make a bucket and a dataset where jobs at a location can use them, unless they are there."""
        place = _AROUND.get(location, location)
        if bucket and self.place_of_bucket(bucket) is None:
            with suppress(Refusal):  # made by others in this moment
                self._objects.create_bucket(bucket, location=place)
        if dataset and self.place_of_dataset(Table(project, dataset, "")) is None:
            with suppress(Refusal):
                self._tables.create_dataset(project, dataset, place)

    @contextmanager
    def alone_for(self, job: str) -> Iterator[None]:
        """Nobody else writes the results of this job meanwhile, in any process."""
        path = self._store.jobs / f"{job}.lock"
        with path.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def place_of_bucket(self, bucket: str) -> str | None:
        """Where a bucket is, such as `US-CENTRAL1`; None when there is no such bucket."""
        try:
            return self._objects.bucket(bucket).location
        except Refusal:
            return None

    def objects(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes of objects, in order."""
        return ((info.name, info.size) for info in self._objects.list(bucket, prefix=prefix))

    def read_object(self, folder: Folder) -> Iterator[bytes]:
        """An object's bytes in pieces, as they are now. Raises Gone."""
        try:
            stream = self._objects.open_read(folder.bucket, folder.name)
        except Refusal as e:
            raise Gone(f"Not found: {folder}") from e
        with stream:
            while piece := stream.read(_PIECE):
                yield piece

    def write_object(self, folder: Folder, pieces: Iterator[bytes]) -> None:
        """Make an object, or replace it. Raises Gone."""
        try:
            with self._objects.writing(folder.bucket, folder.name, content_type="application/octet-stream") as out:
                for piece in pieces:
                    out.write(piece)
        except Refusal as e:
            raise Gone(e.message) from e

    def place_of_dataset(self, table: Table) -> str | None:
        """Where a table's dataset is; None when there is no such dataset."""
        tables = self._tables
        try:
            return tables.location(table.project, table.dataset)
        except Refusal:
            return None

    def columns(self, table: Table) -> list[Column] | None:
        """A table's columns; None when there is no such table."""
        if not self._tables.exists(_ref(table)):
            return None
        fields = self._tables.schema(_ref(table))
        return [Column(field.name, field.type, repeated=field.repeated) for field in fields]

    def read_table(self, table: Table) -> Iterator[dict[str, Any]]:
        """A table's rows, as JSON has them."""
        return self._tables.rows(_ref(table))

    def write_table(self, table: Table, columns: list[Column], rows: Iterator[dict[str, Any]]) -> None:
        """Make a table of these rows, unless that is done already. Raises Gone."""
        ref = _ref(table)
        try:
            with suppress(Refusal):  # it is there: made for this job before the emulator was interrupted
                self._tables.create(ref, [{"name": c.name, "type": c.kind} for c in columns])
            if not self._tables.count(ref):
                self._tables.append(ref, rows)
        except Refusal as e:
            raise Gone(e.message) from e


def _ref(table: Table) -> TableRef:
    from batchform.emulator.warehouse.tables import TableRef

    return TableRef(table.project, table.dataset, table.table)
