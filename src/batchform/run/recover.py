"""Intents without a job: looked up by tag, adopted, given back, or left unknown while they are young.

`create` may have made a job without our knowing. Nothing is sent again before that is settled, since it would be paid
for twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from batchform.errors import BackendError, LedgerMoved
from batchform.ledger.records import AnyEvent, JobRecord, NotSubmitted, Submitted
from batchform.ledger.store import RowsFile
from batchform.ports import Backend, RemoteJob
from batchform.run.context import RunContext, described, open_intents, parse_stamp
from batchform.run.row_states import give_back, take_back

COMMIT_ATTEMPTS = 20
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Recovered:
    """Tags by what became of them."""

    adopted: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(self.adopted + other.adopted, self.returned + other.returned, self.unknown + other.unknown)


def recover(ctx: RunContext, *, tags: Iterable[str] | None = None) -> Recovered:
    """Settle the open intents (or those of `tags`). Raises BackendError when a backend cannot be asked, or was asked
    under another credential than the one that sent them."""
    ctx.ledger.refresh()
    chosen = set(tags) if tags is not None else None
    records = [r for r in open_intents(ctx) if chosen is None or r.tag in chosen]
    records.sort(key=lambda r: r.intent.backend)
    total = Recovered()
    for name, group in groupby(records, key=lambda r: r.intent.backend):
        total += _recover_at(ctx, ctx.backend(name), list(group))
    return total


def _recover_at(ctx: RunContext, backend: Backend, records: Sequence[JobRecord]) -> Recovered:
    given_up = [r for r in ctx.ledger.control().jobs.values() if _given_up_at(r, records[0].intent.backend)]
    found = find_jobs(backend, [*records, *given_up])
    adopted, returned, unknown, foreign = [], [], [], []
    for record in (*records, *(r for r in given_up if r.tag in found)):
        jobs = found.get(record.tag, [])
        if jobs:
            adopt(ctx, backend, record, jobs)
            adopted.append(record.tag)
        elif record.intent.fingerprint != backend.fingerprint:
            foreign.append(record)
        elif not is_settled(ctx, record):
            unknown.append(record.tag)
        else:
            _return_rows(ctx, record)
            returned.append(record.tag)
    if foreign:
        raise _another_credential(foreign)
    return Recovered(tuple(adopted), tuple(returned), tuple(unknown))


def _given_up_at(record: JobRecord, backend: str) -> bool:
    """Whether a job of this backend was taken for not created. It may turn up all the same: late truth wins."""
    return record.status == "not_submitted" and record.intent.backend == backend


def find_jobs(backend: Backend, records: Iterable[JobRecord]) -> Mapping[str, list[RemoteJob]]:
    """The service's jobs of these intents, by tag, oldest first. One pass over its list.

    A job whose name the service dropped is known by its input, whose name only shards of the same rows share.
    """
    tags = {r.tag for r in records}
    by_input = {r.intent.input_name: r.tag for r in records if r.intent.input_name}
    found: dict[str, list[RemoteJob]] = {}
    for job in backend.list_jobs():
        tag = job.tag or by_input.get(job.input_name or "", "")
        if tag in tags:
            found.setdefault(tag, []).append(job)
    for jobs in found.values():
        jobs.sort(key=lambda j: (j.created_at or _NEVER, j.name))
    return found


def adopt(ctx: RunContext, backend: Backend, record: JobRecord, jobs: Sequence[RemoteJob]) -> None:
    """Take the oldest job as the intent's own; cancel the others, which would be paid for beside it."""
    kept, others = jobs[0], jobs[1:]
    event = Submitted(at=ctx.now(), by=ctx.who, tag=record.tag, job=kept.name, how="adopted")
    if record.status == "not_submitted":
        _commit_rows(ctx, record, event, take_back)
    else:
        ctx.ledger.commit([event])
    ctx.progress.submitted(ctx.ledger.control().jobs[record.tag], "adopted")
    for job in others:
        if job.terminal:
            continue
        try:
            backend.cancel(job.name)
        except BackendError as error:
            ctx.progress.note(f"Job {job.name} is a double of {kept.name} and could not be cancelled: {error}")
        else:
            ctx.progress.note(f"Job {job.name} was a double of {kept.name} and was cancelled.")


def is_settled(ctx: RunContext, record: JobRecord) -> bool:
    """Whether an intent is old enough that its job, if there were one, would be listed."""
    settle = timedelta(seconds=ctx.settings(record.intent.backend).settle)
    return ctx.clock.now() > parse_stamp(record.intent.at) + settle


def not_submitted(ctx: RunContext, record: JobRecord, *, reason: str) -> None:
    """Record that there surely is no job; its rows may be sent again and are not charged an attempt."""
    event = NotSubmitted(at=ctx.now(), by=ctx.who, tag=record.tag, reason=reason)
    _commit_rows(ctx, record, event, give_back)


def _commit_rows(ctx: RunContext, record: JobRecord, event: AnyEvent, make_rows: Callable[..., RowsFile]) -> None:
    """Commit an event with row states made from the very ledger that it goes on top of. If another runner settles
    the record in the meantime, its word stands."""
    to = ctx.work_dir / f"{record.tag}.settled.parquet"
    for _ in range(COMMIT_ATTEMPTS):
        try:
            with closing(ctx.connect()) as con:
                rows = make_rows(con, ctx.ledger, record.intent.spec, record.tag, at=ctx.now(), to=to)
            ctx.ledger.commit([event], [rows], expect=ctx.ledger.serial)
            break
        except LedgerMoved:
            ctx.ledger.refresh()
            now = ctx.ledger.control().jobs.get(record.tag)
            if now is None or now.status != record.status:
                break
        finally:
            to.unlink(missing_ok=True)
    else:
        raise LedgerMoved(
            f"{ctx.ledger.place} is too busy to record what became of {record.tag}.",
            hint="Run `batchform sync`: it looks for the job and settles this.",
        )


def _return_rows(ctx: RunContext, record: JobRecord) -> None:
    not_submitted(ctx, record, reason="no job of this tag was listed within the settle window")
    ctx.progress.note(f"No job came of {described(record.intent)}: its rows may be sent again.")


def _another_credential(records: Sequence[JobRecord]) -> BackendError:
    named = ", ".join(r.tag for r in records[:5]) + (" …" if len(records) > 5 else "")
    count = f"{len(records)} submission{'s' if len(records) != 1 else ''}"
    return BackendError(
        f"{count} of unknown outcome ({named}) on backend {records[0].intent.backend} were made with another "
        "credential or endpoint: this one cannot tell whether their jobs exist.",
        hint="Run again with the credential they were made with. No row was changed.",
    )
