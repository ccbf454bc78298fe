"""SQLite for what is true: one file, many threads, and other processes beside this one."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_LAYING_OUT: Final = 10.0
"""Seconds to wait for other processes that open the same new file."""


class Database:
    """A SQLite file in WAL mode. `close` it; it is safe to use from several threads and processes."""

    def __init__(self, path: Path, lay_out: Callable[[sqlite3.Connection], None]) -> None:
        """lay_out: makes the tables that are missing, in one transaction."""
        self._path = path
        self._closed = False
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._one_writer = threading.Lock()  # SQLite makes who waits sleep, and takes no turns
        deadline = time.monotonic() + _LAYING_OUT
        while True:
            try:
                self._open(lay_out)
            except sqlite3.OperationalError as e:
                # Switching to WAL does not wait for other processes that open the same new file.
                if "locked" not in str(e) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def close(self) -> None:
        """Close all connections, those that are at work as soon as they are given back."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _give_back(self, db: sqlite3.Connection) -> None:
        self._idle.put(db)
        if self._closed:
            self._close_idle()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading: each statement sees the newest state."""
        db = self._connection()
        try:
            yield db
        finally:
            self._give_back(db)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: others that write wait for it. Rolled back when the block raises, or to `start` by hand."""
        db = self._connection()
        try:
            with self._one_writer:
                db.execute("BEGIN IMMEDIATE")
                db.execute("SAVEPOINT start")
                try:
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
        finally:
            self._give_back(db)

    def _open(self, lay_out: Callable[[sqlite3.Connection], None]) -> None:
        with self.reading() as db:
            if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                db.execute("PRAGMA journal_mode = WAL")
        with self.writing() as db:
            lay_out(db)

    def _connection(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            db = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = NORMAL")
            return db
