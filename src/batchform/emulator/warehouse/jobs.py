"""Jobs: taken under an id that no other job has, run in a thread, done in the transaction of what they change.

A job whose process died before its end is run again by whoever asks for it: nothing of it was committed. Scripts are
the exception, since their statements commit one by one; such a job fails.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from batchform.emulator.refusal import Refusal
from batchform.emulator.store import new_id
from batchform.emulator.warehouse import work
from batchform.emulator.warehouse.declined import Declined, unforeseen
from batchform.emulator.warehouse.loads import FailedLoad
from batchform.emulator.warehouse.query import Outcome
from batchform.emulator.warehouse.warehouse import Warehouse, parts
from batchform.emulator.warehouse.workspace import Step

_THREADS: Final = 8
_STILL_MINE: Final = "WHERE number = ? AND owner = ? AND state != 'DONE'"
_MULTI_REGIONS: Final = ("US", "EU")


class Job(msgspec.Struct, frozen=True):
    """A job as it is kept. config: its `configuration`; times in seconds since 1970; errors: the first is the one."""

    number: int
    project: str
    location: str
    id: str
    config: dict[str, Any]
    state: str
    owner: str
    upload: str
    created: float
    started: float
    ended: float | None
    outcome: Outcome
    errors: list[dict[str, Any]]

    @property
    def done(self) -> bool:
        return self.state == "DONE"


class Superseded(Exception):
    """The job was cancelled, or another process has taken it over."""


class Jobs:
    """The jobs of a warehouse. One per process."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._pool = ThreadPoolExecutor(_THREADS, "warehouse-job")
        self._running: dict[int, Future[None]] = {}
        self._threads: dict[int, int] = {}
        self._lock = threading.Lock()
        self._owner, self._held = _claim_owner(warehouse.root / "owners")
        warehouse.closers.append(self._close)

    def _close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._held.close()

    def insert(
        self,
        project: str,
        config: dict[str, Any],
        reference: Mapping[str, Any],
        *,
        upload: str = "",
        request_id: str | None = None,
    ) -> Job:
        """Take a job and begin with it. Raises Declined 409 when its id is taken.

        request_id: asked for again, the job that was made for it is answered.
        """
        warehouse, job_id = self._warehouse, str(reference.get("jobId") or new_id(32))
        location = str(reference.get("location") or work.home(warehouse, project, config) or "US")
        now = warehouse.now()
        text = msgspec.json.encode(config).decode()
        row = (project, location, job_id, text, self._owner, upload, request_id, now, now)
        columns = "project, location, id, config, owner, upload, request_id, created, started, state"
        try:
            with warehouse.catalog.writing() as db:
                made = db.execute(f"INSERT INTO jobs ({columns}) VALUES (?,?,?,?,?,?,?,?,?,'RUNNING')", row)
                number = made.lastrowid or 0
        except sqlite3.IntegrityError:
            with warehouse.catalog.reading() as db:
                same = db.execute(
                    "SELECT * FROM jobs WHERE project = ? AND request_id = ?", (project, request_id)
                ).fetchone()
            if same is not None:
                return _job(same)
            raise Declined(409, f"Already Exists: Job {project}:{location}.{job_id}") from None
        self._begin(number)
        return self._load(number)

    def get(self, project: str, job_id: str, location: str = "") -> Job:
        """Without a location, a job of US or EU, as the service has it. Raises Declined 404."""
        with self._warehouse.catalog.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE project = ? AND id = ?", (project, job_id)).fetchone()
        if row is None or row["location"].upper() not in ([location.upper()] if location else _MULTI_REGIONS):
            where = f"{project}:{location}.{job_id}" if location else f"{project}:{job_id}"
            raise Declined(404, f"Not found: Job {where}")
        return self._adopted(_job(row))

    def newest(self, project: str, states: list[str], before: int, size: int, since: float, until: float) -> list[Job]:
        """The newest first, from below `before` on."""
        marks = f"AND state IN ({', '.join('?' * len(states))})" if states else ""
        with self._warehouse.catalog.reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs WHERE project = ? AND number < ? AND created BETWEEN ? AND ? {marks}"
                " ORDER BY number DESC LIMIT ?",
                (project, before, since, until, *states, size),
            ).fetchall()
        return [_job(row) for row in rows]

    def cancel(self, job: Job) -> Job:
        """Nothing that it has not committed will be."""
        error = [{"reason": "stopped", "message": "Job execution was cancelled: User requested cancellation"}]
        with self._warehouse.catalog.writing() as db:
            db.execute(
                "UPDATE jobs SET state = 'DONE', ended = ?, error = ? WHERE number = ? AND state != 'DONE'",
                (self._warehouse.now(), msgspec.json.encode(error).decode(), job.number),
            )
        with self._lock:
            if job.number in self._threads:
                self._warehouse.engine.interrupt(self._threads[job.number])
        return self._load(job.number)

    def delete(self, job: Job) -> None:
        """Forget that there was such a job."""
        with self._warehouse.catalog.writing() as db:
            db.execute("DELETE FROM jobs WHERE number = ?", (job.number,))

    def waited(self, job: Job, seconds: float) -> Job:
        """The job when it is done, or as it is after so long."""
        deadline, closing = time.monotonic() + seconds, self._warehouse.closing
        while not job.done and not closing.is_set() and (left := deadline - time.monotonic()) > 0:
            with self._lock:
                future = self._running.get(job.number)
            if future is not None:
                wait([future], min(left, 0.5))
            else:
                closing.wait(min(left, 0.05))  # another process runs it
            job = self._adopted(self._load(job.number))
        return job

    def _load(self, number: int) -> Job:
        with self._warehouse.catalog.reading() as db:
            return _job(db.execute("SELECT * FROM jobs WHERE number = ?", (number,)).fetchone())

    def _adopted(self, job: Job) -> Job:
        """A job that nobody runs any more is run here."""
        if job.done or job.owner == self._owner or not _is_dead(self._warehouse.root / "owners" / job.owner):
            return job
        with self._warehouse.catalog.writing() as db:
            mine = db.execute(
                "UPDATE jobs SET owner = ? WHERE number = ? AND owner = ? AND state != 'DONE'",
                (self._owner, job.number, job.owner),
            ).rowcount
        if mine and work.is_script(job.config):
            self._fail(job.number, Declined(400, "The emulator ended in the middle of this script.", reason="stopped"))
        elif mine:
            self._begin(job.number)
        return self._load(job.number)

    def _begin(self, number: int) -> None:
        with self._lock:
            self._running[number] = self._pool.submit(self._run, number)

    def _run(self, number: int) -> None:
        job = self._load(number)
        with self._lock:
            self._threads[number] = threading.get_ident()
        try:
            work.run(self._warehouse, job.project, job.location, job.config, job.upload, lambda o: self._finish(job, o))
        except Superseded:
            return
        except Refusal as e:
            if not self._warehouse.closing.is_set():
                self._fail(number, e)
        except Exception as e:  # noqa: BLE001 - a job must end, or its client waits for ever
            if not self._warehouse.closing.is_set():
                self._fail(number, unforeseen(e))
        finally:
            with self._lock:
                self._running.pop(number, None)
                self._threads.pop(number, None)

    def _finish(self, job: Job, outcome: Outcome) -> Step:
        text = msgspec.json.encode(outcome).decode()

        def step(db: sqlite3.Connection) -> None:
            row = (self._warehouse.now(), text, job.number, self._owner)  # not before what it has changed
            sql = "UPDATE jobs SET state = 'DONE', ended = ?, outcome = ?"
            if not db.execute(f"{sql} {_STILL_MINE}", row).rowcount:
                raise Superseded

        return step

    def _fail(self, number: int, error: Refusal) -> None:
        declined = error if isinstance(error, Declined) else Declined(error.status, error.message)
        details: list[dict[str, Any]] = declined.rows if isinstance(declined, FailedLoad) else []
        errors = [declined.result(), *details]
        with self._warehouse.catalog.writing() as db:
            db.execute(
                f"UPDATE jobs SET state = 'DONE', ended = ?, error = ? {_STILL_MINE}",
                (self._warehouse.now(), msgspec.json.encode(errors).decode(), number, self._owner),
            )


def of(warehouse: Warehouse) -> Jobs:
    """The jobs of a warehouse in this process."""
    return parts(warehouse, Jobs)


def _job(row: sqlite3.Row) -> Job:
    return Job(
        row["number"],
        row["project"],
        row["location"],
        row["id"],
        msgspec.json.decode(row["config"]),
        row["state"],
        row["owner"],
        row["upload"],
        row["created"],
        row["started"],
        row["ended"],
        msgspec.json.decode(row["outcome"], type=Outcome),
        msgspec.json.decode(row["error"]) if row["error"] else [],
    )


def _claim_owner(folder: Path) -> tuple[str, IO[str]]:
    """A name for this process, and a lock that ends with it."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if _is_dead(path):
            path.unlink(missing_ok=True)
    name = new_id(16)
    held = (folder / name).open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    return name, held


def _is_dead(path: Path) -> bool:
    try:
        with path.open("r+") as probe:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
