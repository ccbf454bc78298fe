"""The emulator's state: SQLite (WAL) for what is true, plain files for bytes. Several processes may share it."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from batchform.emulator.clock import Now
from batchform.emulator.database import Database
from batchform.errors import BatchformError

FORMAT: Final = 5

_TABLES: Final = """
CREATE TABLE offset (seconds REAL NOT NULL);
INSERT INTO offset VALUES (0);
CREATE TABLE uploads (
  id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT, display_name TEXT, mime_type TEXT NOT NULL,
  declared INTEGER NOT NULL
);
CREATE TABLE files (
  account TEXT NOT NULL, id TEXT NOT NULL, display_name TEXT, mime_type TEXT NOT NULL, size INTEGER NOT NULL,
  sha256 TEXT NOT NULL, source TEXT NOT NULL, path TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL,
  PRIMARY KEY (account, id)
);
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, model TEXT NOT NULL,
  display_name TEXT, priority TEXT, input_name TEXT, created_at REAL NOT NULL, ends_at REAL NOT NULL,
  cancelled_at REAL, deleted INTEGER NOT NULL DEFAULT 0, lines INTEGER NOT NULL, offsets BLOB NOT NULL,
  blocks INTEGER NOT NULL, next_block INTEGER NOT NULL DEFAULT 0, out_bytes INTEGER NOT NULL DEFAULT 0,
  succeeded INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, result_id TEXT NOT NULL
);
CREATE TABLE bill (
  id INTEGER PRIMARY KEY, job TEXT, account TEXT NOT NULL, key TEXT, model TEXT NOT NULL, digest BLOB NOT NULL,
  prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, at REAL NOT NULL
);
CREATE TABLE attempts (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""

_FAULT_TABLES: Final = """
CREATE TABLE fault_schedule (version INTEGER NOT NULL, faults TEXT NOT NULL);
INSERT INTO fault_schedule VALUES (0, '[]');
CREATE TABLE fault_counts (fault INTEGER PRIMARY KEY, seen INTEGER NOT NULL, fired INTEGER NOT NULL);
CREATE TABLE fault_log (
  id INTEGER PRIMARY KEY, fault INTEGER NOT NULL, call TEXT NOT NULL, type TEXT NOT NULL, seen INTEGER NOT NULL,
  about TEXT NOT NULL, at REAL NOT NULL
);
ALTER TABLE jobs ADD COLUMN fate TEXT;
"""

_STORAGE_TABLES: Final = """
CREATE TABLE buckets (
  name TEXT PRIMARY KEY, location TEXT NOT NULL, metageneration INTEGER NOT NULL DEFAULT 1, created_at REAL NOT NULL,
  updated_at REAL NOT NULL, versioning INTEGER NOT NULL DEFAULT 0, labels TEXT NOT NULL, storage_class TEXT NOT NULL
);
CREATE TABLE objects (
  bucket TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, metageneration INTEGER NOT NULL DEFAULT 1,
  size INTEGER NOT NULL, crc32c TEXT NOT NULL, md5 TEXT, components INTEGER, attributes TEXT NOT NULL,
  content TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, deleted_at REAL,
  PRIMARY KEY (bucket, name, generation)
) WITHOUT ROWID;
CREATE UNIQUE INDEX live_objects ON objects (bucket, name) WHERE deleted_at IS NULL;
CREATE TABLE last_generation (generation INTEGER NOT NULL);
INSERT INTO last_generation VALUES (0);
CREATE TABLE object_uploads (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, bucket TEXT NOT NULL, name TEXT NOT NULL, attributes TEXT NOT NULL,
  conditions TEXT NOT NULL, crc32c TEXT, md5 TEXT, declared INTEGER, result TEXT, started_at REAL NOT NULL
);
"""

_VERTEX: Final = """
ALTER TABLE jobs ADD COLUMN vertex TEXT;
CREATE TABLE vertex_stamp (seconds REAL NOT NULL);
INSERT INTO vertex_stamp VALUES (0);
"""

_CACHES: Final = """
CREATE TABLE caches (
  account TEXT NOT NULL, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL, display_name TEXT, content TEXT NOT NULL,
  tokens INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, expires_at REAL NOT NULL, dropped_at REAL
);
"""

_STEPS: Final = (_TABLES, _FAULT_TABLES, _STORAGE_TABLES, _VERTEX, _CACHES)
"""What each format has more than the one before."""


class Store(Database):
    """State under one folder. `close` it; it is safe to use from several threads."""

    def __init__(self, state_dir: Path, clock: Now) -> None:
        self._clock = clock
        self.closing = threading.Event()  # set when long work should come to an end
        self.root = state_dir
        self._closers: list[Callable[[], None]] = []
        self.uploads = state_dir / "uploads"
        self.files = state_dir / "files"
        self.jobs = state_dir / "jobs"
        self.objects = state_dir / "objects"
        self.incoming = state_dir / "incoming"
        try:
            for folder in (state_dir, self.uploads, self.files, self.jobs, self.objects, self.incoming):
                folder.mkdir(parents=True, exist_ok=True)
            super().__init__(state_dir / "emulator.sqlite", self._lay_out)
        except (OSError, sqlite3.Error) as e:
            raise BatchformError(
                f"The emulator cannot keep its state in {state_dir}: {e}.",
                hint="Name a folder that can be written, or remove this one to start afresh.",
            ) from e

    def at_close(self, closer: Callable[[], None]) -> None:
        """Call this before the connections are closed."""
        self._closers.append(closer)

    def close(self) -> None:
        """Close all connections, and what else belongs to this state."""
        while self._closers:
            self._closers.pop()()
        super().close()

    def now(self) -> float:
        """The emulator's time, in seconds since 1970."""
        return self._clock.now().timestamp() + self.offset()

    def offset(self) -> float:
        """Seconds by which the emulator is ahead of its clock."""
        with self.reading() as db:
            return float(db.execute("SELECT seconds FROM offset").fetchone()[0])

    def advance(self, seconds: float) -> None:
        """Move the emulator's time forward, for everyone who shares this state."""
        with self.writing() as db:
            db.execute("UPDATE offset SET seconds = seconds + ?", (seconds,))

    def job_input(self, job: str) -> Path:
        """Where a job's own copy of its input lies until it has run."""
        return self.jobs / f"{job}.in.jsonl"

    def job_output(self, job: str) -> Path:
        """Where a job's results are written."""
        return self.jobs / f"{job}.out.jsonl"

    def _lay_out(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise BatchformError(
                f"The emulator's state {self._path} has format {found}; this batchform knows {FORMAT}.",
                hint="Use the newer batchform, or another state folder.",
            )
        for statement in ";\n".join(_STEPS[found:]).split(";\n"):
            db.execute(statement)
        if found < FORMAT:
            db.execute(f"PRAGMA user_version = {FORMAT}")


def new_id(length: int = 12) -> str:
    """Random lower-case hex digits."""
    return secrets.token_hex((length + 1) // 2)[:length]


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same bytes, so that deleting the first does not take them away."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
