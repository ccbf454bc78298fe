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

import pytest
import yaml
from crash_world import Command, Ran, SharedClock
from google_patience import patience_in
from msgspec.structs import replace
from vertex_results import written

from batchform.adapters.gemini_http import RawReader
from batchform.adapters.vertex_wire import table_name
from batchform.cli import run, wiring
from batchform.emulator import EmulatorServer

SETTLE: Final = 900.0
JOB_SECONDS: Final = 30.0
POLL: Final = 20.0
SHARDS: Final = 3
ROWS: Final = 6
BUCKET: Final = "fault-batches"
DATASET: Final = "fault_batches"
PLACE: Final = f"emulated-project.{DATASET}"
_KEPT: Final = (
    "fault_schedule",
    "offset",
    "vertex_stamp",
    "last_generation",
)  # tables of the emulator's state that a reset leaves alone
_BYTES: Final = ("uploads", "files", "jobs", "objects", "warehouse/data", "warehouse/uploads")  # its folders
_EMULATOR: Final = "emulator.sqlite"
_CATALOG: Final = "warehouse/catalog.sqlite"
_AS_TEXT: Final = {
    "generation_config": {"temperature": 0, "max_output_tokens": 64, "response_mime_type": "application/json"},
    "output": {"format": "text"},
}
"""Answers that can be read in two ways."""
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
        """A new project, a service that knows nothing, and the first day again. cloud: gemini; vertex, with inputs in
        Cloud Storage; staying: the same, and raw results stay there; or tables: Vertex AI with inputs in BigQuery."""
        self._empty_service()
        self._cloud = cloud
        if cloud in ("vertex", "staying"):
            self.server.provide("us-central1", bucket=BUCKET)
            backend |= {"cloud": "vertex", "staging": f"gs://{BUCKET}/staging"}
        if cloud == "staying":
            backend |= {"raw_results": "bucket"}
        if cloud == "tables":
            self.server.provide("us-central1", dataset=PLACE)
            backend |= {"cloud": "vertex", "via": "bigquery", "dataset": DATASET}
        self.clock.seconds = 0.0
        for folder in (self.project, self.folder / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        rows = ROWS * shards // SHARDS
        self._write("batchform.yaml", yaml.safe_dump(_project(self.server.url, **backend)))
        self._write("specs/triage.yaml", yaml.safe_dump(_spec(submit) | (_AS_TEXT if cloud == "staying" else {})))
        self._write("data/tickets.csv", "id,title\n" + "".join(f"T{n},ticket {n}\n" for n in range(1, rows + 1)))

    def read_otherwise(self) -> None:
        """From now on the answers, which are JSON and were read as text, are read as JSON: all of them anew."""
        path = self.project / "specs/triage.yaml"
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(spec | {"output": {"format": "json"}}), encoding="utf-8")

    def _write(self, name: str, text: str) -> None:
        path = self.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _empty_service(self) -> None:
        """Empty the service's tables and folders, under its feet."""
        self.server.set_faults(())
        for name in self._databases():
            with self._tables(name) as db:
                tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for table in tables:
                    if table not in _KEPT and not table.startswith("sqlite_"):
                        db.execute(f"DELETE FROM {table}")
        for path in (p for part in self._folders() for p in (self._state / part).iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def store(self, template: Path) -> None:
        """Keep a copy of the world as it is now."""
        shutil.rmtree(template, ignore_errors=True)
        shutil.copytree(self.project, template / "project")
        for part in self._folders():
            shutil.copytree(self._state / part, template / part)
        for name in self._databases():
            kept = template / f"kept-{Path(name).name}"
            with self._tables(name) as db, contextlib.closing(sqlite3.connect(kept)) as copy:
                db.backup(copy)
        (template / "seconds").write_text(str(self.clock.seconds))

    def restore(self, template: Path) -> None:
        """Be as it was when this copy was made."""
        self.reset(cloud=self._cloud)
        shutil.rmtree(self.project)
        shutil.copytree(template / "project", self.project)
        for part in (p for p in self._folders() if (template / p).exists()):
            shutil.copytree(template / part, self._state / part, dirs_exist_ok=True)
        with self._tables() as db:
            (version,) = db.execute("SELECT version FROM fault_schedule").fetchone()
        for name in self._databases():
            kept = template / f"kept-{Path(name).name}"
            if kept.exists():
                with self._tables(name) as db, contextlib.closing(sqlite3.connect(kept)) as copy:
                    copy.backup(db)
        with self._tables() as db:
            db.execute("UPDATE fault_schedule SET version = ?", (version + 1,))  # the server remembers what it read
        self.server.set_faults(())
        self.clock.seconds = float((template / "seconds").read_text())

    @property
    def _state(self) -> Path:
        return self.folder / "emulator"

    def _databases(self) -> list[str]:
        """Where its tables are; BigQuery's only from when it was first asked."""
        return [name for name in (_EMULATOR, _CATALOG) if (self._state / name).exists()]

    def _folders(self) -> list[str]:
        return [part for part in _BYTES if (self._state / part).exists()]

    @contextlib.contextmanager
    def _tables(self, name: str = _EMULATOR) -> Iterator[sqlite3.Connection]:
        """The service's tables, to be changed."""
        with contextlib.closing(sqlite3.connect(self._state / name)) as db, db:
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
        tables = [name for name in self._table_names() if name.startswith("bf_in_")]
        return kept + [row["name"] for row in objects] + tables

    def strays(self) -> list[str]:
        """Results that belong to no job."""
        objects = self.query("SELECT name FROM objects WHERE deleted_at IS NULL AND name LIKE 'staging/results/%'")
        found = [row["name"].split("/")[2] for row in objects]
        found += [name for name in self._table_names() if name.startswith("bf_out_")]
        tags = {job["display_name"] for job in self.jobs()}
        return [name for name in found if name not in tags | {table_name("bf_out", tag) for tag in tags}]

    def _table_names(self) -> list[str]:
        there = _CATALOG in self._databases()
        return [row["id"] for row in self.query("SELECT id FROM tables", _CATALOG)] if there else []

    def results(self, tag: str) -> bytes:
        """What the jobs of a tag have written into the bucket or into a table, as lines."""
        return written(self.server, tag, bucket=BUCKET, dataset=PLACE if self._cloud == "tables" else "")

    def query(self, sql: str, name: str = _EMULATOR) -> list[sqlite3.Row]:
        """Rows of the service's tables."""
        with self._tables(name) as db:
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

    def run_context(self: wiring.Session, *args: Any) -> Any:
        return replace(real_context(self, *args), rng=Random(7))

    def init(self: RawReader, *args: Any, **kwargs: Any) -> None:
        real_init(self, *args, **{"rng": Random(7), **kwargs})

    real_context, real_init = wiring.Session.run_context, RawReader.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "SystemClock", lambda: clock)
        patch.setattr(wiring.Session, "run_context", run_context)
        patch.setattr(RawReader, "__init__", init)
        patience_in(patch, lambda: clock.seconds, clock.sleep)
        yield


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
