"""Going on with a job that was cut short: its results as an input, and what comes back held against what it answered.

A resumed job hands on the answers that were there. They were paid for, priced and delivered before: they are set apart,
each is compared with what was archived, and only the rows that this job had to run are read as its results.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from batchform.canon import canonical_json, digest
from batchform.errors import BackendError
from batchform.ledger.raw import Raw, open_lines, reading_results, results_missing
from batchform.ledger.records import JobRecord
from batchform.plan.model import Resumed, Shard, SpecPlan
from batchform.plan.resume import RUN_AGAIN, outputs
from batchform.ports import Backend, Staged
from batchform.rows.sql import literal
from batchform.run.context import RunContext, call_again
from batchform.spec.realm import resumes

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


NOT_HANDED_ON: Final = "not_handed_on"
"""Anomaly of a resumed job: answers that were there before are not among its results."""


def old_results(ctx: RunContext, backend: Backend, planned: SpecPlan, shard: Shard, lines: Path) -> Staged | None:
    """The results of the job that a shard goes on with, as its input. None, and told, if that cannot be done: its lines
    are then uploaded, which asks for the same rows at the same price."""
    if shard.resumes is None:
        return None
    why, folder = "", ctx.work_dir / f"resume-{shard.tag}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        staged = _staged(ctx, backend, planned, shard.resumes, lines, folder)
    except BackendError as error:
        staged, why = None, f" ({error.message.rstrip('.')})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if staged is None:
        ctx.progress.note(
            f"Job {shard.resumes.tag} cannot be resumed{why}: its rows without an answer are uploaded as {shard.tag}."
        )
    return staged


def _staged(
    ctx: RunContext, backend: Backend, planned: SpecPlan, resumed: Resumed, lines: Path, folder: Path
) -> Staged | None:
    record = ctx.ledger.control().jobs.get(resumed.tag)
    if record is None or record.job != resumed.job or not resumes(ctx.settings(planned.backend)):
        return None
    if (record.intent.fingerprint, record.intent.place) != (backend.fingerprint, backend.place):
        return None
    if results_missing(ctx.ledger, resumed.tag):
        return None
    raw = folder / "results.jsonl"
    with (
        reading_results(ctx.ledger, resumed.tag) as results,
        open_lines(results) as source,
        raw.open("wb") as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
    remote = call_again(ctx, lambda: backend.get(resumed.job))
    return backend.stage_results(remote, results=raw, lines=lines)


class Apart(Struct, frozen=True):
    """The results of a resumed job, set apart. own: Parquet of the readings of the rows that it had to run; again: of
    answers that were there before and came back otherwise, so that their rows were run again; anomalies: how many of
    those there are, and of answers that did not come back."""

    own: Path
    again: Path | None
    anomalies: Mapping[str, int]


def set_apart(
    ctx: RunContext, con: DuckDBPyConnection, record: JobRecord, raw: Raw, readings: Path, requests: str
) -> Apart:
    """Take what a resumed job handed on out of its readings, and hold it against what was archived.

    raw: its results; requests: FROM-able key_hash of what it had to run. May be done again.
    """
    before = _answers_before(ctx, record)
    if before is None:
        return Apart(only_own(con, readings, requests), None, {})
    lines: list[int] = []  # of rows that were answered before
    other: list[int] = []  # those of them that are not the answer that was there
    came: set[bytes] = set()
    changed: set[bytes] = set()
    for output in outputs(raw):
        if output.key is None or (known := before.get(output.key)) is None:
            continue
        lines.append(output.line)
        came.add(output.key)
        if not output.response or _digest(output.response) != known:
            other.append(output.line)
            changed.add(output.key)
    own = _of_lines(con, readings, lines, how="ANTI", to=readings.with_suffix(".own"))
    again = _of_lines(con, readings, other, how="SEMI", to=readings.with_suffix(".again")) if other else None
    return Apart(own, again, {RUN_AGAIN: len(changed), NOT_HANDED_ON: len(before) - len(came)})


def _of_lines(con: DuckDBPyConnection, readings: Path, lines: list[int], *, how: str, to: Path) -> Path:
    import pyarrow as pa

    con.register("bf_lines", pa.table({"line": pa.array(lines, pa.int64())}))
    _copy(con, f"read_parquet({literal(str(readings))}) a {how} JOIN bf_lines l ON a.line = l.line", to)
    con.unregister("bf_lines")
    return to


def only_own(con: DuckDBPyConnection, readings: Path, requests: str) -> Path:
    """A Parquet of the readings of a resumed job that are of the rows that it had to run.

    requests: FROM-able key_hash of those.
    """
    lines = f"read_parquet({literal(str(readings))}) a"
    return _copy(con, f"{lines} SEMI JOIN {requests} q ON a.key_hash = q.key_hash", readings.with_suffix(".own"))


def _copy(con: DuckDBPyConnection, source: str, to: Path) -> Path:
    con.execute(f"COPY (SELECT a.* FROM {source}) TO {literal(str(to))} (FORMAT parquet)")
    return to


def _answers_before(ctx: RunContext, record: JobRecord) -> dict[bytes, str] | None:
    """Key hash → digest of the response, of all answers that the results had which a job went on with; None if those
    are archived no longer."""
    if results_missing(ctx.ledger, record.intent.resumes):
        ctx.progress.note(
            f"What {record.tag} hands on cannot be compared: the results of {record.intent.resumes} are gone from the "
            "archive."
        )
        return None
    with reading_results(ctx.ledger, record.intent.resumes) as results:
        return {o.key: _digest(o.response) for o in outputs(results) if o.key is not None and o.response}


def _digest(response: bytes) -> str:
    """Of a response, whatever the order of its fields and the nulls in it."""
    import msgspec

    return digest(canonical_json(_without_nulls(msgspec.json.decode(response))))


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
