"""Looking for jobs of intents in the service's list, and how far the list is to be believed.

A job that is listed exists. A job that is not listed may exist all the same: the list may lag, be cut, or leave out a
page. So absence is believed only when the settle window has passed and the list shows what else is known to exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct, field

from batchform.errors import NotFound
from batchform.ledger.records import JobRecord
from batchform.ports import Backend, RemoteJob
from batchform.run.context import RunContext, parse_stamp
from batchform.run.marks import is_anothers, is_ours
from batchform.run.settle import could_be_of, surely_none

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_SKEW: Final = timedelta(hours=1)  # wide: what may be the job keeps its rows from being sent again
_WITNESSES: Final = 5


class Listing(Struct, frozen=True):
    """What the list holds. found: jobs of the sought intents by tag, oldest first; doubles: jobs beside the known one
    of a tag; unclear: jobs that nobody knows and that name no input, and no tag that tells whose they are; names: of
    all listed jobs."""

    found: dict[str, list[RemoteJob]] = field(default_factory=dict)
    doubles: dict[str, list[RemoteJob]] = field(default_factory=dict)
    unclear: list[RemoteJob] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def look_through(ctx: RunContext, backend: Backend, sought: Iterable[JobRecord]) -> Listing:
    """One pass over the service's whole list. Raises BackendError when it breaks off: then nothing is concluded.

    A job of another ledger is passed over, whatever its tag. A job whose tag the service dropped or altered is known by
    its input, whose name only jobs of the same rows share: it is then taken for the newest of them that lacks its job.
    """
    tags = {record.tag for record in sought}
    listed = list(backend.list_jobs())
    ctx.ledger.refresh()  # an intent is recorded before its job is made: now each listed job has its own
    known, lineage = ctx.ledger.control().jobs, ctx.ledger.lineage
    owners = {r.job for r in known.values() if r.job}
    by_input = {r.intent.input_name or "": r for r in known.values() if not r.job and not surely_none(r)}
    listing = Listing()
    for job in listed:
        if job.name in listing.names:
            continue  # a page may come twice
        listing.names.add(job.name)
        if job.name in owners:
            continue
        record = known.get(job.tag) or (by_input.get(job.input_name) if job.input_name else None)
        if record is None:
            if not job.input_name and any(tag.startswith(job.tag) for tag in tags):
                listing.unclear.append(job)  # without a name, or with one that was cut
        elif not is_ours(lineage, record.intent, job):
            if record.tag in tags and not is_anothers(lineage, record.intent, job):
                listing.unclear.append(job)
        elif record.job:
            listing.doubles.setdefault(record.tag, []).append(job)
        elif record.tag in tags:
            listing.found.setdefault(record.tag, []).append(job)
    for jobs in listing.found.values():
        jobs.sort(key=lambda j: (j.created_at or _NEVER, j.name))
    return listing


def why_not_absent(ctx: RunContext, backend: Backend, listing: Listing, record: JobRecord) -> str:
    """Why the job of an old enough intent may exist although it is not listed under its tag; "" if nothing says so.

    Raises BackendError when the service cannot be asked.
    """
    likely = next((j for j in listing.unclear if _may_be(ctx, record, j)), None)
    if likely is not None:
        what = "has its name, but another ledger may have made it"
        if likely.tag != record.tag:
            what = f"has {'only a part of its name' if likely.tag else 'no name'} and may be it"
        return f"job {likely.name} {what} (`batchform jobs adopt {record.tag} {likely.name}` if it is its job)"
    for witness in _missing(ctx, listing, record):
        assert witness.job is not None
        try:
            backend.get(witness.job)
        except NotFound:
            continue
        return f"the service's list is incomplete: it leaves out job {witness.job}, which exists"
    return ""


def _may_be(ctx: RunContext, record: JobRecord, job: RemoteJob) -> bool:
    """Whether an unclear job could be the one of this intent."""
    intent = record.intent
    if not record.tag.startswith(job.tag):
        return False
    if job.model and job.model != intent.model.removeprefix("models/"):
        return False
    if not intent.may_hold(job.counts.get("total", intent.requests)):
        return False
    return job.created_at is None or could_be_of(ctx, intent, job.created_at, skew=_SKEW)


def _missing(ctx: RunContext, listing: Listing, record: JobRecord) -> list[JobRecord]:
    """Known jobs that a whole list would show: those newer than the intent and the last one before it. Not the newest,
    which the list may not show yet."""
    intent, settle = record.intent, timedelta(seconds=ctx.settings(record.intent.backend).settle)
    begun, latest = parse_stamp(intent.at), ctx.clock.now() - settle
    same = [
        r
        for r in ctx.ledger.control().jobs.values()
        if r.job and r.intent.backend == intent.backend and r.intent.fingerprint == intent.fingerprint
    ]
    older = [r for r in same if parse_stamp(r.intent.at) < begun][-1:]
    newer = [r for r in same if begun <= parse_stamp(r.intent.at) <= latest]
    return [r for r in (*older, *newer) if r.job not in listing.names][:_WITNESSES]
