"""Intents without a job: looked up by tag, adopted, given back, or left unknown.

`create` may have made a job without our knowing. Nothing is sent again before that is settled, since it would be paid
for twice. And what was given up on is looked at again, since a late answer is an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from batchform.errors import BackendError, BatchformError, LedgerCorrupt, LedgerMoved
from batchform.ledger.records import JobRecord
from batchform.ledger.segments import timestamp
from batchform.ports import Backend, RemoteJob
from batchform.run.context import STILL_LOOKED_FOR, RunContext, call_again, described, open_intents, parse_stamp
from batchform.run.lookup import Listing, look_through, why_not_absent
from batchform.run.marks import is_ours
from batchform.run.row_states import waiting_rows
from batchform.run.settle import (
    is_settled,
    not_submitted,
    same_intent,
    settles_at,
    submitted,
    submitted_together,
    surely_none,
)
from batchform.spec.wording import counted


class Recovered(Struct, frozen=True):
    """Tags by what became of them. foreign: those of `unknown` that only another credential can settle."""

    adopted: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(
            self.adopted + other.adopted,
            self.returned + other.returned,
            self.unknown + other.unknown,
            self.foreign + other.foreign,
        )


def recover(ctx: RunContext, *, tags: Iterable[str] | None = None) -> Recovered:
    """Settle the open intents (or those of `tags` only), and find late jobs of intents that were given up.

    A backend that cannot be asked now is told; its intents stay unknown. Nothing is concluded from a list that broke
    off.
    """
    ctx.ledger.catch_up()
    chosen = set(tags) if tags is not None else None
    records = [r for r in open_intents(ctx) if chosen is None or r.tag in chosen]
    late = [r for r in ctx.ledger.control().jobs.values() if chosen is None and _may_come_late(ctx, r)]
    total = Recovered()
    for name, place in dict.fromkeys(_where(r) for r in (*records, *late)):
        mine = [r for r in records if _where(r) == (name, place)]
        rest = [r for r in late if _where(r) == (name, place)]
        try:
            total += _recover_at(ctx, ctx.backend(name).at(place), mine, rest)
        except (LedgerMoved, LedgerCorrupt):
            raise
        except BatchformError as error:
            ctx.tell_once(f"Backend {name} could not be asked for submissions of unknown outcome: {error.message}")
            still = {r.tag for r in open_intents(ctx)}
            total += Recovered(unknown=tuple(r.tag for r in mine if r.tag in still))
    return total


def next_settled(ctx: RunContext) -> datetime | None:
    """When the next open intent is so old that its job would be listed; None if none is waited for that can be settled
    here: what only another credential or backend can tell, or is doubted after its window, is left to a person."""
    ends = []
    for record in open_intents(ctx):
        try:
            backend, settle = ctx.backend_of(record.intent), ctx.settings(record.intent.backend).settle
        except BatchformError:
            continue  # `recover` told of it
        if record.intent.fingerprint == backend.fingerprint and not is_settled(ctx, record):
            ends.append(settles_at(record.intent, settle) + timedelta(seconds=1))
    if not ends:
        return None
    ctx.tell_once(f"{counted(len(ends), 'submission')} of unknown outcome: settled by {timestamp(max(ends))}.")
    return min(ends)


def _where(record: JobRecord) -> tuple[str, str]:
    return record.intent.backend, record.intent.place


def _may_come_late(ctx: RunContext, record: JobRecord) -> bool:
    """Whether an intent was given up without the service having said no, and not long ago."""
    if record.status != "not_submitted" or surely_none(record):
        return False
    return ctx.clock.now() < parse_stamp(record.intent.at) + STILL_LOOKED_FOR


def _recover_at(
    ctx: RunContext, backend: Backend, records: Sequence[JobRecord], late: Sequence[JobRecord]
) -> Recovered:
    listing = look_through(ctx, backend, [*late, *records])
    adopted, returned, unknown, foreign = [], [], [], []
    for record in (*records, *late):
        jobs = listing.found.get(record.tag, [])
        if jobs:
            if adopt(ctx, backend, record, jobs):
                adopted.append(record.tag)
        elif record.status != "intent":
            continue
        elif record.intent.fingerprint != backend.fingerprint:
            unknown.append(record.tag)
            foreign.append(record.tag)
        elif not is_settled(ctx, record) or _doubted(ctx, backend, listing, record):
            unknown.append(record.tag)
        elif not_submitted(ctx, record, reason="no job of this tag is listed", how="unlisted"):
            ctx.progress.note(f"No job came of {described(record.intent)}: its rows may be sent again.")
            returned.append(record.tag)
    _end_doubles(ctx, backend, listing)
    if foreign:
        ctx.tell_once(_another_credential(foreign, records[0].intent.backend))
    return Recovered(tuple(adopted), tuple(returned), tuple(unknown), tuple(foreign))


def _doubted(ctx: RunContext, backend: Backend, listing: Listing, record: JobRecord) -> bool:
    why = why_not_absent(ctx, backend, listing, record)
    if why:
        ctx.tell_once(f"{record.tag} is not listed, and yet not sent again: {why}.")
    return bool(why)


def adopt(
    ctx: RunContext, backend: Backend, record: JobRecord, jobs: Sequence[RemoteJob], *, how: str = "adopted"
) -> bool:
    """Take the oldest job as the intent's own; cancel the others, which would be paid for beside it. False if another
    runner was faster."""
    kept, others = jobs[0], jobs[1:]
    if not submitted(ctx, record, kept.name, how=how):
        return False
    ctx.progress.submitted(ctx.ledger.control().jobs[record.tag], how)
    for job in others:
        end_double(ctx, backend, record, job, beside=kept.name)
    if record.status == "not_submitted" and not waiting_rows(ctx, record.intent.spec, record.tag):
        _tell_late(ctx, backend, record, kept)
    return True


def record_created(ctx: RunContext, several: Sequence[tuple[Backend, JobRecord, str]]) -> None:
    """Record jobs that were just created for intents, in one commit."""
    recorded = submitted_together(ctx, [(record, job) for _, record, job in several])
    for (backend, record, job), done in zip(several, recorded, strict=True):
        if done:
            ctx.progress.submitted(ctx.ledger.control().jobs[record.tag], "created")
        else:
            _record_late(ctx, backend, record, job)


def _record_late(ctx: RunContext, backend: Backend, record: JobRecord, job: str) -> None:
    """Record a job whose creation took so long that another runner gave its intent up or found another job of it: it
    is late, or a double."""
    intent = record.intent
    made = RemoteJob(
        name=job, tag=record.tag, state="PENDING", created_at=parse_stamp(intent.at), input_name=intent.input_name
    )
    while not adopt(ctx, backend, record, [made], how="created"):
        now = ctx.ledger.control().jobs.get(record.tag)
        if now is None or not same_intent(now, record) or now.status not in ("intent", "not_submitted"):
            if now is None or now.job != job:
                end_double(ctx, backend, record, made, beside=(now.job if now else "") or "another one")
            return
        record = now


def _tell_late(ctx: RunContext, backend: Backend, record: JobRecord, job: RemoteJob) -> None:
    """A job turned up whose rows are all in other jobs by now. Its answers are kept, if it has any."""
    what = f"Job {job.name} of {described(record.intent)} turned up after its rows were sent again"
    if job.terminal:
        ctx.progress.note(f"{what}: what it answered is paid for beside them, and kept in the archive.")
        return
    end_double(ctx, backend, record, job, beside="the jobs that have its rows now")


def _end_doubles(ctx: RunContext, backend: Backend, listing: Listing) -> None:
    """Cancel jobs beside the one that the ledger has under their tag. Not if the service does not show that one: it
    may never have been (a person may be wrong), and then one of these is the job."""
    for tag, jobs in listing.doubles.items():
        record = ctx.ledger.control().jobs[tag]
        if not _is_there(backend, record):
            continue
        for job in jobs:
            end_double(ctx, backend, record, job, beside=record.job or "")


def _is_there(backend: Backend, record: JobRecord) -> bool:
    try:
        backend.get(record.job or "")
    except BackendError:
        return False
    return True


def end_double(ctx: RunContext, backend: Backend, record: JobRecord, job: RemoteJob, *, beside: str) -> None:
    """Cancel a job that would be paid for beside another one. Told; what cannot be cancelled is told, too.

    Only a job that is surely of this ledger: another one may send the same rows with the same credential.
    """
    if job.terminal:
        return
    if not is_ours(ctx.ledger.lineage, record.intent, job):
        ctx.tell_once(f"Job {job.name} has the name of {beside}, but another ledger may have made it: left alone.")
        return
    try:
        call_again(ctx, lambda: backend.cancel(job.name))
    except BackendError as error:
        mine = ctx.ledger.control().jobs[record.tag].job == job.name
        way_out = f" (`batchform jobs cancel {record.tag}` tries again)" if mine else ""
        ctx.tell_once(f"Job {job.name} is a double of {beside} and could not be cancelled{way_out}: {error}")
    else:
        ctx.progress.note(f"Job {job.name} was a double of {beside} and was cancelled.")


def _another_credential(tags: Sequence[str], backend: str) -> str:
    named = ", ".join(tags[:5]) + (" …" if len(tags) > 5 else "")
    return (
        f"Of unknown outcome, and made with another credential or endpoint of backend {backend}: {named}. This one "
        "cannot tell whether their jobs exist, so no row was changed. Run `batchform sync` with that credential; if it "
        "is gone for good, settle each with `batchform jobs adopt` or `batchform jobs not-submitted`."
    )
