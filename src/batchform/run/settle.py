"""What becomes of an intent, recorded: its job is known, or there surely is none. And when that may be concluded.

The settle window of a submission begins with its intent. Within 30 % of it the create call must be on its way, and then
it may take at most 40 % (the adapter cuts it): what remains is for the service's list to show the job. Only after the
window is absence from the list believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from msgspec.structs import replace

from batchform.ledger.records import AnyEvent, Intent, JobRecord, NotSubmitted, Submitted
from batchform.ledger.store import RowsFile
from batchform.run.context import RunContext, commit_decided, commit_together, parse_stamp
from batchform.run.inputs import sent_requests
from batchform.run.row_states import give_back, wait_again

_CREATE_SHARE: Final = 0.3
_LOOKED_FOR: Final = "Run `batchform sync`: it looks for the job and settles this."


def window_for_create(ctx: RunContext, backend: str) -> timedelta:
    """How long after its intent a create call may still begin."""
    return timedelta(seconds=ctx.settings(backend).settle * _CREATE_SHARE)


def settles_at(intent: Intent, settle: float) -> datetime:
    """When an intent is old enough that its job, if there were one, would be listed.

    settle: of the backend now, in seconds. The deadline is the one that its runner kept to, whatever was set then.
    """
    return parse_stamp(intent.deadline) + timedelta(seconds=settle * (1 - _CREATE_SHARE))


def could_be_of(ctx: RunContext, intent: Intent, created_at: datetime, *, skew: timedelta) -> bool:
    """Whether a job of this time could have been made under an intent. skew: between our clock and the service's."""
    end = settles_at(intent, ctx.settings(intent.backend).settle)
    return parse_stamp(intent.at) - skew <= created_at <= end + skew


def is_settled(ctx: RunContext, record: JobRecord) -> bool:
    return ctx.clock.now() > settles_at(record.intent, ctx.settings(record.intent.backend).settle)


def surely_none(record: JobRecord) -> bool:
    """Whether it is known that no job came of an intent: the service said no, or was never asked."""
    return record.status == "not_submitted" and record.how in ("refused", "too_late", "stopped")


def submitted(ctx: RunContext, record: JobRecord, job: str, *, how: str) -> bool:
    """Record the job of an intent, also of one that was taken for not submitted: its rows that no other job has wait
    for it again. False if another runner settled it meanwhile: its word stands."""
    event = Submitted(at=ctx.now(), by=ctx.who, tag=record.tag, job=job, how=how)
    if record.status != "not_submitted":
        return _commit(ctx, record, event, None)
    return _taken_up(ctx, record, event, charge=1)  # it was not charged for, since it was given back


def submitted_together(ctx: RunContext, several: Sequence[tuple[JobRecord, str]]) -> list[bool]:
    """`submitted` of jobs that were just created for their intents, in one commit."""

    def decide(record: JobRecord, job: str) -> tuple[list[AnyEvent], list[RowsFile]] | None:
        if not _as_it_was(ctx, record):
            return None
        return [Submitted(at=ctx.now(), by=ctx.who, tag=record.tag, job=job, how="created")], []

    return commit_together(
        ctx,
        [partial(decide, record, job) for record, job in several],
        what=f"what became of {', '.join(record.tag for record, _ in several)}",
        hint=_LOOKED_FOR,
    )


def reopened(ctx: RunContext, record: JobRecord) -> bool:
    """Record that a job which was given up on without results is alive after all: its rows that no other job has wait
    for it again. False if another runner was faster."""
    event = Submitted(at=ctx.now(), by=ctx.who, tag=record.tag, job=record.job or "", how="reopened")
    return _taken_up(ctx, record, event, charge=0)


def _taken_up(ctx: RunContext, record: JobRecord, event: Submitted, *, charge: int) -> bool:
    """Commit that a job is there after all, with the rows that wait for it again."""
    sent = sent_requests(ctx.ledger, record.intent, ctx.work_dir)
    try:
        return _commit(ctx, record, event, partial(wait_again, sent=sent, charge=charge))
    finally:
        if sent is not None:
            sent.unlink(missing_ok=True)


def not_submitted(ctx: RunContext, record: JobRecord, *, reason: str, how: str) -> bool:
    """Record that there is no job; its rows may be sent again and are not charged an attempt.

    how: see NotSubmitted. False if another runner settled it meanwhile: its word stands.
    """
    event = NotSubmitted(at=ctx.now(), by=ctx.who, tag=record.tag, reason=reason, how=how)
    return _commit(ctx, record, event, give_back)


def _as_it_was(ctx: RunContext, record: JobRecord) -> bool:
    """Whether nobody settled an intent otherwise meanwhile."""
    now = ctx.ledger.control().jobs.get(record.tag)
    return now is not None and now.status == record.status and same_intent(now, record)


def same_intent(now: JobRecord, record: JobRecord) -> bool:
    """Whether these are one intent. Its spec may have been renamed in between."""
    return replace(now.intent, spec="") == replace(record.intent, spec="")


def _commit(ctx: RunContext, record: JobRecord, event: AnyEvent, make_rows: Callable[..., RowsFile] | None) -> bool:
    """Commit an event with row states made from the very ledger that it goes on top of."""
    to = ctx.work_dir / f"{record.tag}.settled.parquet"

    def decide() -> tuple[AnyEvent, list[RowsFile]] | None:
        if not _as_it_was(ctx, record):
            return None
        if make_rows is None:
            return event, []
        with closing(ctx.connect()) as con:
            spec = ctx.ledger.control().jobs[record.tag].intent.spec
            return event, [make_rows(con, ctx.ledger, spec, record.tag, at=ctx.now(), to=to)]

    try:
        return None is not commit_decided(
            ctx,
            decide,
            what=f"what became of {record.tag}",
            hint=_LOOKED_FOR,
        )
    finally:
        to.unlink(missing_ok=True)
