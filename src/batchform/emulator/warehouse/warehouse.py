"""The parts of the emulator's BigQuery, one set per state folder and process."""

from __future__ import annotations

import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

from batchform.emulator.store import Store
from batchform.emulator.warehouse import catalog
from batchform.emulator.warehouse.catalog import Catalog, TableRef, TableRow, Version
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.engine import Engine

_OPEN: Final[weakref.WeakKeyDictionary[Store, Warehouse]] = weakref.WeakKeyDictionary()
_LOCK: Final = threading.Lock()
_YOUNG_SECONDS: Final = 3600.0


class Warehouse:
    """State under `root`. now: the emulator's time, in seconds since 1970. `close` it."""

    def __init__(self, root: Path, now: Callable[[], float]) -> None:
        self.root, self.now = root, now
        self.data, self.uploads, self.spill = root / "data", root / "uploads", root / "spill"
        for folder in (self.data, self.uploads, self.spill):
            folder.mkdir(parents=True, exist_ok=True)
        self.catalog = Catalog(root)
        self.engine = Engine([self.data, self.uploads], self.spill)
        self.closers: list[Callable[[], None]] = []
        self._tidy()

    def close(self) -> None:
        """End what runs, and close all files."""
        for closer in reversed(self.closers):
            closer()
        self.engine.close()
        self.catalog.close()

    def path(self, file: str) -> Path:
        """Where a file of a version lies."""
        return self.data / f"{file}.parquet"

    def dataset(self, project: str, name: str) -> catalog.DatasetRow:
        """Raises Declined 404."""
        with self.catalog.reading() as db:
            found = catalog.dataset(db, project, name)
        if found is None:
            raise Declined(404, f"Not found: Dataset {project}:{name}")
        return found

    def find(self, ref: TableRef) -> TableRow:
        """A table or view. Raises Declined 404."""
        self.dataset(ref.project, ref.dataset)
        with self.catalog.reading() as db:
            found = catalog.table(db, ref, self.now())
        if found is None:
            raise Declined(404, f"Not found: Table {ref}")
        return found

    def version(self, table: TableRow, at: float | None = None) -> Version:
        """The newest version of a table, or the one of a time. Raises Declined."""
        if at is not None:
            now = self.now()
            if at > now + 1:
                raise invalid(f"Invalid snapshot time for table {table.ref}: it is in the future.")
            if at < now - catalog.TRAVEL_SECONDS:
                raise invalid(f"Invalid snapshot time for table {table.ref}: it is more than 7 days ago.")
        with self.catalog.reading() as db:
            found = catalog.version(db, table.key, at)
        if found is None:
            raise Declined(404, f"Not found: Table {table.ref} did not exist at that time.")
        return found

    def _tidy(self) -> None:
        """Remove what nobody can ask for any more. Files that are young may be on their way into a version."""
        with self.catalog.writing() as db:
            needed = catalog.tidy(db, self.now())
        old = time.time() - _YOUNG_SECONDS
        for path in self.data.iterdir():
            if path.stem not in needed and path.stat().st_mtime < old:
                path.unlink(missing_ok=True)
        for path in self.spill.iterdir():
            if path.stat().st_mtime < old:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def of(store: Store) -> Warehouse:
    """The warehouse of an emulator's state, opened when it is first asked for and closed with the state."""
    with _LOCK:
        found = _OPEN.get(store)
        if found is None:
            found = _OPEN[store] = Warehouse(store.root / "warehouse", store.now)
            store.at_close(found.close)
        return found
