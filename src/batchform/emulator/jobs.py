"""Batch jobs: made, looked at, cancelled, deleted. A job's state is worked out from its times when somebody looks."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.emulator import execute, files
from batchform.emulator.clock import rfc3339
from batchform.emulator.fate import ORDINARY, Fate
from batchform.emulator.models import MODELS, Model
from batchform.emulator.refusal import Refusal, bad_field
from batchform.emulator.rows import line_kind
from batchform.emulator.store import Store, new_id

MAX_ACTIVE: Final = 100
EXPIRY_SECONDS: Final = files.UPLOADED_SECONDS  # 48 h pending or running, then no results
_PENDING_SHARE: Final = 0.25  # of a job's time, before it is shown as running
_PIECE: Final = 256 * 1024
_TYPE: Final = "type.googleapis.com/google.ai.generativelanguage.v1main"
_ENDED: Final = ("SUCCEEDED", "CANCELLED", "EXPIRED", "FAILED", "PARTIALLY_SUCCEEDED")
_ERRORS: Final = {
    "CANCELLED": (1, "The batch was cancelled."),
    "EXPIRED": (4, "The batch expired after 48 hours."),
    "FAILED": (13, "The batch failed."),
}


def create(
    store: Store,
    account: str,
    model: Model,
    batch: dict[str, Any],
    *,
    write_input: Callable[[Path], None],
    seconds: float,
    fate: Fate = ORDINARY,
) -> sqlite3.Row:
    """Check the input line by line and make the job. batch: normalised; seconds: how long it takes unless fate says."""
    job = new_id(16)
    path = store.job_input(job)
    try:
        write_input(path)
        found = execute.scan(path, model, kind=line_kind(model, file=_input_name(batch) is not None))
        if not found.lines:
            raise Refusal(400, "The batch has no requests.")
        _insert(store, job, account, model, batch, found, seconds, fate)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    row = _row(store, account, job)
    assert row is not None  # it was made just now, and nobody else knows its name
    return _up_to_date(store, row)


def _insert(
    store: Store,
    job: str,
    account: str,
    model: Model,
    batch: dict[str, Any],
    found: execute.Scan,
    seconds: float,
    fate: Fate,
) -> None:
    now = store.now()
    if fate is not ORDINARY:
        fate = fate.begun(now, store.job_input(job))
    with store.writing() as db:
        rows = db.execute("SELECT * FROM jobs WHERE account = ? AND NOT deleted", (account,))
        if sum(state(row, now) not in _ENDED for row in rows) >= MAX_ACTIVE:
            raise Refusal(429, f"Too many concurrent batch jobs: at most {MAX_ACTIVE} may be pending or running.")
        priority = batch.get("priority")
        db.execute(
            "INSERT INTO jobs (id, account, model, display_name, priority, input_name, created_at, ends_at, lines,"
            " offsets, blocks, result_id, fate) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                job,
                account,
                model.id,
                batch.get("displayName"),
                None if priority is None else str(priority),
                _input_name(batch),
                now,
                now + (seconds if fate.seconds is None else fate.seconds),
                found.lines,
                found.offsets.tobytes(),
                len(found.offsets) - 1,
                f"batch-{uuid.uuid4()}",
                fate.stored(),
            ),
        )


def _input_name(batch: dict[str, Any]) -> str | None:
    name: str | None = batch.get("inputConfig", {}).get("fileName")
    return name


def find(store: Store, account: str, job: str) -> sqlite3.Row:
    """The job, brought up to date. Raises Refusal 404."""
    return _up_to_date(store, _find(store, account, job))


def _up_to_date(store: Store, job: sqlite3.Row) -> sqlite3.Row:
    if not _is_due(job, store.now()):
        return job
    execute.settle(store, [job["id"]])
    return _row(store, job["account"], job["id"]) or job


def _find(store: Store, account: str, job: str) -> sqlite3.Row:
    row = _row(store, account, job)
    if row is None or Fate.of(row).got_at > store.now():
        raise Refusal(404, "Requested entity was not found.")
    return row


def _row(store: Store, account: str, job: str) -> sqlite3.Row | None:
    with store.reading() as db:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM jobs WHERE id = ? AND account = ? AND NOT deleted", (job, account)
        ).fetchone()
    return row


def page(store: Store, account: str, *, size: int, token: str) -> tuple[list[sqlite3.Row], str]:
    """Jobs, newest first and brought up to date, and the token of the next page ("" at the end)."""
    if token and not token.isdecimal():
        raise bad_field("Invalid page token.", "page_token")
    now = store.now()
    query = (
        "SELECT * FROM jobs WHERE account = ? AND NOT deleted AND seq < ?"
        " AND coalesce(json_extract(fate, '$.listed_at'), 0) <= ? ORDER BY seq DESC LIMIT ?"
    )
    args = (account, int(token) if token else 2**62, now, size + 1)
    with store.reading() as db:
        rows = db.execute(query, args).fetchall()
    due = [row["id"] for row in rows[:size] if _is_due(row, now)]
    if due:
        execute.settle(store, due)
        with store.reading() as db:
            rows = db.execute(query, args).fetchall()
    return rows[:size], str(rows[size - 1]["seq"]) if len(rows) > size else ""


def cancel(store: Store, account: str, job: str) -> None:
    """Stop a job that has not ended; on one that has, this does nothing."""
    _find(store, account, job)
    _stop(store, job)


def cut_short(store: Store, account: str, job: str, fate: Fate) -> bool:
    """End a job now as its new fate says. False, and nothing done, if it has ended."""
    row = _find(store, account, job)
    now = store.now()
    if state(row, now) not in ("PENDING", "RUNNING"):
        return False
    with store.writing() as db:
        db.execute("UPDATE jobs SET ends_at = ?, fate = ? WHERE id = ?", (now, fate.stored(), job))
    return True


def delete(store: Store, account: str, job: str) -> None:
    """Forget a job. One that has not ended is stopped; one that has is still charged for."""
    _find(store, account, job)
    _stop(store, job)
    with store.writing() as db:
        db.execute("UPDATE jobs SET deleted = 1 WHERE id = ?", (job,))


def _stop(store: Store, job: str) -> None:
    now = store.now()
    with store.writing() as db:
        stopped = db.execute(
            "UPDATE jobs SET cancelled_at = :now WHERE id = :id AND cancelled_at IS NULL"
            " AND min(ends_at, created_at + :expiry) > :now",
            {"now": now, "id": job, "expiry": EXPIRY_SECONDS},
        ).rowcount
    if stopped:
        store.job_input(job).unlink(missing_ok=True)


def state(job: sqlite3.Row, now: float) -> str:
    """PENDING, RUNNING, or its last state. Due work that nobody has looked at yet is RUNNING."""
    if job["cancelled_at"] is not None:
        return "CANCELLED"
    if job["next_block"] == job["blocks"]:
        return Fate.of(job).state
    if now >= job["created_at"] + EXPIRY_SECONDS <= job["ends_at"]:
        return "EXPIRED"
    running_since = job["created_at"] + _PENDING_SHARE * (job["ends_at"] - job["created_at"])
    return "RUNNING" if now >= running_since else "PENDING"


def _is_due(job: sqlite3.Row, now: float) -> bool:
    return state(job, now) in ("PENDING", "RUNNING") and now >= job["ends_at"]


def operation(store: Store, job: sqlite3.Row) -> Iterator[bytes]:
    """The job as the API shows it, in pieces: inline results are streamed, twice, as the service sends them."""
    results_here = f"results of {uuid.uuid4()}"
    shown = msgspec.json.encode(_operation(job, store.now(), results_here))
    first, *rest = shown.split(msgspec.json.encode(results_here))
    yield first
    for piece in rest:
        yield from _inline_results(store.job_output(job["id"]))
        yield piece


def _operation(job: sqlite3.Row, now: float, results_here: str) -> dict[str, Any]:
    current, embeds = state(job, now), MODELS[job["model"]].embeds
    kind = f"{_TYPE}.{'EmbedContentBatch' if embeds else 'GenerateContentBatch'}"
    metadata: dict[str, Any] = {
        "@type": kind,
        "model": f"models/{job['model']}",
        "displayName": job["display_name"],
        "inputConfig": {"fileName": job["input_name"]} if job["input_name"] else None,
        "createTime": rfc3339(job["created_at"]),
        "endTime": None,
        "updateTime": rfc3339(max(job["created_at"], min(now, job["ends_at"]))),
        "batchStats": _stats(job, current),
        "state": f"BATCH_STATE_{current}",
        "priority": job["priority"],
        "name": f"batches/{job['id']}",
    }
    shown: dict[str, Any] = {"name": f"batches/{job['id']}", "metadata": metadata}
    fate, ran = Fate.of(job), job["next_block"] == job["blocks"]
    if current in _ENDED:
        stopped = job["cancelled_at"] if current == "CANCELLED" else job["created_at"] + EXPIRY_SECONDS
        metadata["endTime"] = metadata["updateTime"] = rfc3339(job["ends_at"] if ran else stopped)
        shown["done"] = True
    if ran and fate.has_results:
        output: dict[str, Any] = {"responsesFile": f"files/{job['result_id']}"}
        if job["input_name"] is None:
            name = "inlinedEmbedContentResponses" if embeds else "inlinedResponses"
            output = {name: {"inlinedResponses": results_here}}
        metadata["output"] = output
        shown["response"] = {"@type": f"{kind}Output", **output}
    if current in _ERRORS:
        code, message = _ERRORS[current]
        shown["error"] = {"code": fate.code or code, "message": fate.message or message}
    shown["metadata"] = {name: value for name, value in metadata.items() if value is not None}
    return shown


def _stats(job: sqlite3.Row, current: str) -> dict[str, str]:
    """Counts as strings; a count of nothing is left out, as proto JSON does."""
    counts = {
        "requestCount": job["lines"],
        "successfulRequestCount": job["succeeded"],
        "failedRequestCount": job["failed"],
        "pendingRequestCount": 0 if current in _ENDED else job["lines"] - job["succeeded"] - job["failed"],
    }
    return {name: str(n) for name, n in counts.items() if n}


def _inline_results(path: Path) -> Iterator[bytes]:
    """The lines of a results file as one JSON array."""
    yield b"["
    separator, pending, size = b"", [], 0
    with path.open("rb") as f:
        for line in f:
            pending.append(separator + line.rstrip(b"\n"))
            separator, size = b",", size + len(line)
            if size >= _PIECE:
                yield b"".join(pending)
                pending, size = [], 0
    yield b"".join(pending) + b"]"
