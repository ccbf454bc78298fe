"""A project of three shards, an emulator over real sockets in this process, and one virtual time for both.

A world is set back instead of made anew, so that a schedule costs what its commands cost.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml
from crash_world import Command, Ran, SharedClock
from msgspec.structs import replace

from batchform.adapters.gemini_http import RawReader
from batchform.cli import run, wiring
from batchform.emulator import EmulatorServer
from batchform.emulator.storage.objects import ObjectStore

SETTLE: Final = 900.0
JOB_SECONDS: Final = 30.0
POLL: Final = 20.0
SHARDS: Final = 3
ROWS: Final = 6
BUCKET: Final = "fault-batches"
_KEPT: Final = (
    "fault_schedule",
    "offset",
    "vertex_stamp",
    "last_generation",
)  # tables of the emulator's state that a reset leaves alone
_BYTES: Final = ("uploads", "files", "jobs", "objects")  # its folders
_ENVIRONMENT: Final = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV")


class World:
    """One folder with a project, and its service. Use in `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock = SharedClock(self.folder / "clock")
        self._stack.callback(self.clock.close)
        self._stack.enter_context(_virtual(self.clock))
        self._stack.enter_context(_one_thread())
        self._stack.enter_context(_environment(TMPDIR=str(self.folder / "tmp"), BATCHFORM_DEBUG="1"))
        self._stack.enter_context(contextlib.chdir(self.folder))
        self.server = self._stack.enter_context(
            EmulatorServer(self.folder / "emulator", job_seconds=JOB_SECONDS, clock=self.clock)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def reset(self, *, submit: str = "file", shards: int = SHARDS, cloud: str = "gemini", **backend: Any) -> None:
        """A new project, a service that knows nothing, and the first day again."""
        self._empty_service()
        if cloud == "vertex":
            self.server.provide("us-central1", bucket=BUCKET)
            backend |= {"cloud": "vertex", "staging": f"gs://{BUCKET}/staging"}
        self.clock.seconds = 0.0
        for folder in (self.project, self.folder / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        rows = ROWS * shards // SHARDS
        self._write("batchform.yaml", yaml.safe_dump(_project(self.server.url, **backend)))
        self._write("specs/triage.yaml", yaml.safe_dump(_spec(submit)))
        self._write("data/tickets.csv", "id,title\n" + "".join(f"T{n},ticket {n}\n" for n in range(1, rows + 1)))

    def _write(self, name: str, text: str) -> None:
        path = self.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _empty_service(self) -> None:
        """Empty the service's tables and folders, under its feet."""
        self.server.set_faults(())
        with self._tables() as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                if table not in _KEPT and not table.startswith("sqlite_"):
                    db.execute(f"DELETE FROM {table}")
        for path in (p for part in _BYTES for p in (self._state / part).iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def store(self, template: Path) -> None:
        """Keep a copy of the world as it is now."""
        shutil.rmtree(template, ignore_errors=True)
        shutil.copytree(self.project, template / "project")
        for part in _BYTES:
            shutil.copytree(self._state / part, template / part)
        with self._tables() as db, contextlib.closing(sqlite3.connect(template / "tables")) as kept:
            db.backup(kept)
        (template / "seconds").write_text(str(self.clock.seconds))

    def restore(self, template: Path) -> None:
        """Be as it was when this copy was made."""
        self.reset()
        shutil.rmtree(self.project)
        shutil.copytree(template / "project", self.project)
        for part in _BYTES:
            shutil.copytree(template / part, self._state / part, dirs_exist_ok=True)
        with self._tables() as db:
            (version,) = db.execute("SELECT version FROM fault_schedule").fetchone()
            with contextlib.closing(sqlite3.connect(template / "tables")) as kept:
                kept.backup(db)
            db.execute("UPDATE fault_schedule SET version = ?", (version + 1,))  # the server remembers what it read
        self.server.set_faults(())
        self.clock.seconds = float((template / "seconds").read_text())

    @property
    def _state(self) -> Path:
        return self.folder / "emulator"

    @contextlib.contextmanager
    def _tables(self) -> Iterator[sqlite3.Connection]:
        """The service's tables, to be changed."""
        with contextlib.closing(sqlite3.connect(self._state / "emulator.sqlite")) as db, db:
            yield db

    def pass_time(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    # --- commands ----------------------------------------------------------------------------------------------------

    def run(self, command: Command) -> Ran:
        """A command line in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.project), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(command)
        return Ran(code, out.getvalue(), err.getvalue(), [])

    def ask(self, *commands: Command) -> list[Ran]:
        return [self.run(command) for command in commands]

    # --- the service -------------------------------------------------------------------------------------------------

    def bill(self) -> Counter[str]:
        """Digests of the requests that were charged for, and how often."""
        return Counter(charge.digest for charge in self.server.bill())

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs at the service, oldest first, as its tables have them; `name` as the API has it."""
        return [{**dict(row), "name": _name(row)} for row in self.query("SELECT * FROM jobs ORDER BY seq")]

    def inputs(self) -> list[str]:
        """Names of the uploaded inputs that the service still holds, and will for a while."""
        rows = self.query("SELECT * FROM files WHERE source = 'UPLOADED'")
        kept = [row["id"] for row in rows if row["expires_at"] > self.clock.now().timestamp()]
        objects = self.query("SELECT name FROM objects WHERE deleted_at IS NULL AND name LIKE 'staging/inputs/%'")
        return kept + [row["name"] for row in objects]

    def results(self, tag: str) -> bytes:
        """What the jobs of a tag have written into the bucket."""
        store = ObjectStore(self.server._store)
        found = b""
        for info in store.list(BUCKET, prefix=f"staging/results/{tag}/"):
            with store.open_read(BUCKET, info.name) as lines:
                found += lines.read()
        return found

    def query(self, sql: str) -> list[sqlite3.Row]:
        """Rows of the service's tables."""
        with self._tables() as db:
            db.row_factory = sqlite3.Row
            return db.execute(sql).fetchall()

    def rows_of(self, database: str, table: str) -> list[Any]:
        raise NotImplementedError(f"no destination of these runs is a database: {database}, {table}")


def _name(job: sqlite3.Row) -> str:
    """As the API has it. On Vertex AI the account of a job is its place."""
    return f"{job['account']}/batchPredictionJobs/{job['id']}" if job["vertex"] else f"batches/{job['id']}"


def _project(url: str, **backend: Any) -> dict[str, Any]:
    local = {"type": "emulator", "url": url, "settle": SETTLE, "poll": POLL, "max_rows_per_job": ROWS // SHARDS}
    return {
        "version": 1, "project": "faults", "backends": {"local": local | backend}, "defaults": {"backend": "local"},
    }  # fmt: skip


def _spec(submit: str) -> dict[str, Any]:
    """Its answers are delivered without times and job names, so that two runs deliver the same bytes."""
    return {
        "name": "triage",
        "source": {"type": "csv", "path": "data/tickets.csv"},
        "prompt": {"user": {"text": "Title: {{ title }}"}},
        "model": "gemini-3.5-flash-lite",
        "submit": submit,
        "generation_config": {"temperature": 0, "max_output_tokens": 64},
        "destination": {
            "type": "jsonl",
            "path": "results/triage.jsonl",
            "columns": {"id": "id", "answer": "text", "out": "output_tokens"},
        },
        "idempotency": {"key": ["id"]},
    }


@contextlib.contextmanager
def _virtual(clock: SharedClock) -> Iterator[None]:
    """Every command of this process lives in the virtual time, and no dice are thrown."""
    kept = wiring.SystemClock, wiring.Session.run_context, RawReader.__init__

    def run_context(self: wiring.Session, *args: Any) -> Any:
        return replace(kept[1](self, *args), rng=Random(7))

    def init(self: RawReader, *args: Any, **kwargs: Any) -> None:
        kept[2](self, *args, **{"rng": Random(7), **kwargs})

    wiring.SystemClock = lambda: clock  # type: ignore[assignment,misc]
    wiring.Session.run_context = run_context  # type: ignore[method-assign]
    RawReader.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        wiring.SystemClock, wiring.Session.run_context, RawReader.__init__ = kept  # type: ignore[misc,method-assign]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """DuckDB's threads cost more than they bring for six rows, above all on a busy machine."""
    count, os.cpu_count = os.cpu_count, lambda: 1
    try:
        yield
    finally:
        os.cpu_count = count


@contextlib.contextmanager
def _environment(**changes: str) -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in (*_ENVIRONMENT, *changes)}
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)
    os.environ.update(changes)
    before, tempfile.tempdir = tempfile.tempdir, None
    try:
        yield
    finally:
        tempfile.tempdir = before
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
