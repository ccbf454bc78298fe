"""The parts of the emulator's BigQuery, one set per state folder and process."""

from __future__ import annotations

import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.store import Store, new_id
from batchform.emulator.warehouse import catalog
from batchform.emulator.warehouse.catalog import Catalog, TableRef, TableRow, Version
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.engine import Engine

_OPEN: Final[weakref.WeakKeyDictionary[Store, Warehouse]] = weakref.WeakKeyDictionary()
_LOCK: Final = threading.Lock()
Part = TypeVar("Part")
_YOUNG_SECONDS: Final = 3600.0


class Warehouse:
    """State in the folder `warehouse` of an emulator's state. `close` it."""

    def __init__(self, store: Store) -> None:
        root = store.root / "warehouse"
        self.root, self.objects, self._store = root, ObjectStore(store), store
        self.closing = store.closing
        self._changing = threading.RLock()
        self._uploads_lock, self._uploads = threading.Lock(), dict[str, threading.Lock]()
        self.data, self.uploads, self.spill = root / "data", root / "uploads", root / "spill"
        for folder in (self.data, self.uploads, self.spill):
            folder.mkdir(parents=True, exist_ok=True)
        self.catalog = Catalog(root)
        self.engine = Engine([self.data, self.uploads], self.spill)
        self.closers: list[Callable[[], None]] = []
        self.parts: dict[Any, Any] = {}
        self._tidy()

    def now(self) -> float:
        """The emulator's time in seconds since 1970, in whole microseconds, as timestamps of SQL have it."""
        return round(self._store.now() * 1_000_000) / 1_000_000

    def close(self) -> None:
        """End what runs, and close all files."""
        self.closing.set()
        self.engine.interrupt()
        for closer in reversed(self.closers):
            closer()
        self.engine.close()
        self.catalog.close()

    @contextmanager
    def finishing(self, upload: str) -> Iterator[None]:
        """One at a time for each upload: a last chunk that comes twice makes one job."""
        with self._uploads_lock:
            lock = self._uploads.setdefault(upload, threading.Lock())
        with lock:
            yield
        with self._uploads_lock:
            self._uploads.pop(upload, None)

    def turn(self, kind: str) -> AbstractContextManager[Any]:
        """Statements that change rows take turns, so that few of them have to be tried again."""
        return self._changing if kind in ("UPDATE", "DELETE", "MERGE", "TRUNCATETABLE") else nullcontext()

    def anonymous(self, project: str, location: str) -> str:
        """The dataset in which a project's results are kept, in a location. Nobody sees it in a list."""
        name = f"_results_{location.lower().replace('-', '_')}"
        with self.catalog.reading() as db:
            there = catalog.dataset(db, project, name)
        if there is None:
            now = self.now()
            with self.catalog.writing() as db:
                row = (project, name, location, "{}", now, now, new_id())
                db.execute("INSERT OR IGNORE INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return name

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
            found = _OPEN[store] = Warehouse(store)
            store.at_close(found.close)
        return found


def parts(warehouse: Warehouse, kind: Callable[[Warehouse], Part]) -> Part:
    """The one of its kind that belongs to a warehouse, made when it is first asked for."""
    with _LOCK:
        if kind not in warehouse.parts:
            warehouse.parts[kind] = kind(warehouse)
        found: Part = warehouse.parts[kind]
        return found
