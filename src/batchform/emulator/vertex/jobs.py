"""Batch prediction jobs: made, looked at, cancelled, deleted. They are kept and run as the Gemini API's are.

A job's account is its place, `projects/p/locations/l`: nobody sees a job from another.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from batchform.emulator import execute
from batchform.emulator.clock import rfc3339
from batchform.emulator.fate import NEVER, ORDINARY, Fate
from batchform.emulator.models import Model
from batchform.emulator.refusal import Refusal, bad_field
from batchform.emulator.store import Store
from batchform.emulator.vertex import inputs, outputs
from batchform.emulator.vertex.filters import Test
from batchform.emulator.vertex.plan import Plan
from batchform.emulator.vertex.stores import Stores

QUEUE_SECONDS: Final = 72 * 3600.0
RUN_SECONDS: Final = 24 * 3600.0
ENDED: Final = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")
_PENDING_SHARE: Final = 0.25  # of a job's time, before it runs
_CANCEL_SHARE: Final = 0.05  # of a job's time, that it takes to stop
_CANCEL_SECONDS: Final = 60.0  # at most
_CHUNK: Final = 200
_ERRORS: Final = {
    "CANCELLED": (1, "The job was cancelled."),
    "EXPIRED": (4, "The job took longer than it may; see the rows that have a response."),
    "FAILED": (13, "INTERNAL"),
}


def create(
    store: Store, parent: str, model: Model, body: dict[str, Any], *, seconds: float, fate: Fate = ORDINARY
) -> sqlite3.Row:
    """Make a job of a checked body. What is wrong with its input fails it later. seconds: how long it takes."""
    job = str(secrets.randbelow(9 * 10**18) + 10**18)
    path, location, now = store.job_input(job), parent.rpartition("/")[2], store.now()
    stores = Stores(store)
    found, failed = inputs.Found(), None
    try:
        target = outputs.target(store, body["outputConfig"], location, stores, now)
        found = inputs.take_in(body["inputConfig"], location, path, stores)
    except inputs.Failed as e:
        failed, found = e, inputs.Found()
        target = outputs.unchecked(store, body["outputConfig"], now)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if fate is not ORDINARY:
        fate = fate.begun(now, path)
    fate, starts_at, ends_at = _timeline(fate, now, seconds, failed)
    plan = Plan(
        body=body,
        starts_at=starts_at,
        folder=target.folder,
        table=target.table,
        request=found.request,
        looks=found.looks,
        passed=found.passed,
        request_kind=found.request_kind,
        table_input="bigquerySource" in body["inputConfig"],
        imported=failed is None,
        writes=failed is None and starts_at <= ends_at,
    )
    _insert(store, job, parent, model, plan, found, fate, now, ends_at)
    row = _row(store, parent, job)
    assert row is not None  # it was made just now, and nobody else knows its name
    return row


def _timeline(fate: Fate, now: float, seconds: float, failed: inputs.Failed | None) -> tuple[Fate, float, float]:
    """What becomes of the job, when it begins to run, and when it ends: 72 h in the queue, 24 h at work."""
    takes = seconds if fate.seconds is None else fate.seconds
    starts_at, ends_at = now + _PENDING_SHARE * takes, now + takes
    if starts_at - now > QUEUE_SECONDS:
        return msgspec.structs.replace(fate, state="EXPIRED", share=0.0), NEVER, now + QUEUE_SECONDS
    if failed is not None:
        changed = msgspec.structs.replace(fate, state="FAILED", share=0.0, code=failed.code, message=failed.message)
        return changed, starts_at, starts_at
    if ends_at - starts_at > RUN_SECONDS:
        share = fate.share * RUN_SECONDS / (ends_at - starts_at)
        if fate.state == "SUCCEEDED":
            fate = msgspec.structs.replace(fate, state="EXPIRED", share=share)
        ends_at = starts_at + RUN_SECONDS
    return fate, starts_at, ends_at


def _insert(
    store: Store,
    job: str,
    parent: str,
    model: Model,
    plan: Plan,
    found: inputs.Found,
    fate: Fate,
    now: float,
    ends_at: float,
) -> None:
    source = plan.body["inputConfig"]
    uri = source["gcsSource"]["uris"][0] if "gcsSource" in source else source["bigquerySource"]["inputUri"]
    blocks = len(found.offsets) if plan.writes else 1  # the last step is the export
    with store.writing() as db:
        db.execute(
            "INSERT INTO jobs (id, account, model, display_name, input_name, created_at, ends_at, lines, offsets,"
            " blocks, result_id, fate, vertex) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?)",
            (
                *(job, parent, model.id, plan.body["displayName"], uri, now, ends_at, found.lines),
                *(found.offsets.tobytes(), blocks, fate.stored(), plan.stored()),
            ),
        )


def find(store: Store, parent: str, job: str) -> sqlite3.Row:
    """The job, brought up to date. Raises Refusal 404."""
    row = _find(store, parent, job)
    if not _is_due(row, store.now()):
        return row
    execute.settle(store, [job])
    return _row(store, parent, job) or row


def _find(store: Store, parent: str, job: str) -> sqlite3.Row:
    row = _row(store, parent, job)
    if row is None or Fate.of(row).got_at > store.now():
        raise Refusal(404, f"The BatchPredictionJob does not exist: {parent}/batchPredictionJobs/{job}")
    return row


def _row(store: Store, parent: str, job: str) -> sqlite3.Row | None:
    with store.reading() as db:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM jobs WHERE id = ? AND account = ? AND vertex IS NOT NULL AND NOT deleted", (job, parent)
        ).fetchone()
    return row


def page(store: Store, parent: str, test: Test, *, size: int, token: str) -> tuple[list[dict[str, Any]], str]:
    """Jobs that pass a test, newest first, as the API shows them; the token of the next page ("" at the end)."""
    if token and not token.isdecimal():
        raise bad_field("Invalid page token.", "page_token")
    shown: list[dict[str, Any]] = []
    for row in _newest_first(store, parent, int(token) if token else 2**62):
        job = resource(row, store.now())
        if not test(job):
            continue
        if len(shown) == size:
            return shown, token
        shown.append(job)
        token = str(row["seq"])
    return shown, ""


def _newest_first(store: Store, parent: str, before: int) -> Iterator[sqlite3.Row]:
    query = (
        "SELECT * FROM jobs WHERE account = ? AND vertex IS NOT NULL AND NOT deleted AND seq < ?"
        " AND coalesce(json_extract(fate, '$.listed_at'), 0) <= ? ORDER BY seq DESC LIMIT ?"
    )
    while True:
        args = (parent, before, store.now(), _CHUNK)
        with store.reading() as db:
            rows = db.execute(query, args).fetchall()
        due = [row["id"] for row in rows if _is_due(row, store.now())]
        if due:
            execute.settle(store, due)
            with store.reading() as db:
                rows = db.execute(query, args).fetchall()
        yield from rows
        if len(rows) < _CHUNK:
            return
        before = rows[-1]["seq"]


def cancel(store: Store, parent: str, job: str, *, share: float | None = None) -> None:
    """Ask a job to stop; it may still end by itself before it has. share: of its rows that count as done.

    Raises Refusal 400 for a job that has ended.
    """
    row = find(store, parent, job)
    now, plan, fate = store.now(), Plan.of(row), Fate.of(row)
    current = state(row, now)
    if current in ENDED:
        raise _precondition(f"The job is in state JOB_STATE_{current} and cannot be cancelled.")
    if row["cancelled_at"] is not None:
        return
    lasts = row["ends_at"] - row["created_at"]
    stops_at = now + min(_CANCEL_SHARE * lasts, _CANCEL_SECONDS)
    if share is None:
        share = fate.share * max(0.0, now - plan.starts_at) / max(row["ends_at"] - plan.starts_at, 1e-6)
    if now < plan.starts_at:  # it has not begun, and will not, unless a fault says that it had
        plan = msgspec.structs.replace(plan, starts_at=now if share else plan.starts_at, writes=share > 0)
    stopped = msgspec.structs.replace(fate, state="CANCELLED", share=share, code=0, message="")
    with store.writing() as db:
        if stops_at < row["ends_at"]:
            db.execute(
                "UPDATE jobs SET cancelled_at = ?, ends_at = ?, fate = ?, vertex = ? WHERE id = ? AND next_block = 0",
                (now, stops_at, stopped.stored(), plan.stored(), job),
            )
        else:
            db.execute("UPDATE jobs SET cancelled_at = ? WHERE id = ?", (now, job))


def delete(store: Store, parent: str, job: str) -> None:
    """Forget a job that has ended; what it wrote stays. Raises Refusal 400 for one that has not."""
    row = find(store, parent, job)
    current = state(row, store.now())
    if current not in ENDED:
        raise _precondition(f"The job is in state JOB_STATE_{current}; only a job that has ended can be deleted.")
    with store.writing() as db:
        db.execute("UPDATE jobs SET deleted = 1 WHERE id = ?", (job,))


def _precondition(message: str) -> Refusal:
    return Refusal(400, message, word="FAILED_PRECONDITION")


def state(job: sqlite3.Row, now: float) -> str:
    """PENDING, RUNNING, CANCELLING, or its last state. Due work that nobody has looked at yet is RUNNING."""
    if job["next_block"] == job["blocks"]:
        return Fate.of(job).state
    if job["cancelled_at"] is not None:
        return "CANCELLING"
    return "RUNNING" if now >= min(Plan.of(job).starts_at, job["ends_at"]) else "PENDING"


def _is_due(job: sqlite3.Row, now: float) -> bool:
    return bool(job["next_block"] < job["blocks"] and now >= job["ends_at"])


def resource(job: sqlite3.Row, now: float) -> dict[str, Any]:
    """The job as the API shows it."""
    plan, fate, current = Plan.of(job), Fate.of(job), state(job, now)
    ended = current in ENDED
    begun = now >= plan.starts_at and (plan.writes or not plan.imported)
    shown: dict[str, Any] = {
        **plan.body,
        "name": f"{job['account']}/batchPredictionJobs/{job['id']}",
        "state": f"JOB_STATE_{current}",
        "createTime": rfc3339(job["created_at"]),
        "updateTime": rfc3339(max(job["created_at"], min(now, job["ends_at"]))),
        "modelVersionId": "1",
    }
    if begun:
        shown["startTime"] = rfc3339(plan.starts_at)
        shown["outputInfo"] = outputs.shown(plan)
        shown["completionStats"] = _stats(job, plan, ended=ended)
    if ended:
        shown["endTime"] = shown["updateTime"]
    if ended and current in _ERRORS:
        code, message = _ERRORS[current]
        shown["error"] = {"code": fate.code or code, "message": fate.message or message}
    if current == "PARTIALLY_SUCCEEDED":
        shown["partialFailures"] = [{"code": fate.code or 13, "message": fate.message or "Some rows did not run."}]
    return shown


def _stats(job: sqlite3.Row, plan: Plan, *, ended: bool) -> dict[str, str]:
    """Counts as strings, a count of nothing left out; -1 stands for what is not known."""
    left = job["lines"] - job["succeeded"] - job["failed"] if ended and plan.imported else -1
    counts = {"successfulCount": job["succeeded"], "failedCount": job["failed"], "incompleteCount": left}
    return {name: str(n) for name, n in counts.items() if n}
