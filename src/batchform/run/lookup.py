"""Looking for jobs of intents in the service's list, and how far the list is to be believed.

A job that is listed exists. A job that is not listed may exist all the same: the list may lag, be cut, or leave out a
page. So absence is believed only when the settle window has passed and the list shows what else is known to exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct, field

from batchform.errors import NotFound
from batchform.ledger.records import JobRecord
from batchform.ports import Backend, RemoteJob
from batchform.run.context import RunContext, parse_stamp
from batchform.run.settle import could_be_of

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_SKEW: Final = timedelta(hours=1)  # wide: what may be the job keeps its rows from being sent again
_WITNESSES: Final = 5


class Listing(Struct, frozen=True):
    """What the list holds. found: jobs of the sought intents by tag, oldest first; doubles: jobs beside the known one
    of a tag; nameless: jobs that nobody knows and that name neither tag nor input; names: of all listed jobs."""

    found: dict[str, list[RemoteJob]] = field(default_factory=dict)
    doubles: dict[str, list[RemoteJob]] = field(default_factory=dict)
    nameless: list[RemoteJob] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def look_through(backend: Backend, sought: Iterable[JobRecord], known: Mapping[str, JobRecord]) -> Listing:
    """One pass over the service's whole list. Raises BackendError when it breaks off: then nothing is concluded.

    known: all jobs of the ledger, by tag. A job whose tag the service dropped is known by its input, whose name only
    shards of the same rows share.
    """
    tags, by_input = set(), {}
    for record in sought:
        tags.add(record.tag)
        if record.intent.input_name:
            by_input[record.intent.input_name] = record.tag
    owners = {r.job: r.tag for r in known.values() if r.job}
    listing = Listing()
    for job in backend.list_jobs():
        if job.name in listing.names:
            continue  # a page may come twice
        listing.names.add(job.name)
        if job.name in owners:
            continue
        tag = job.tag or by_input.get(job.input_name or "", "")
        if tag in tags:
            listing.found.setdefault(tag, []).append(job)
        elif tag in known and known[tag].job:
            listing.doubles.setdefault(tag, []).append(job)
        elif not tag and not job.input_name:
            listing.nameless.append(job)
    for jobs in listing.found.values():
        jobs.sort(key=lambda j: (j.created_at or _NEVER, j.name))
    return listing


def why_not_absent(ctx: RunContext, backend: Backend, listing: Listing, record: JobRecord) -> str:
    """Why the job of an old enough intent may exist although it is not listed under its tag; "" if nothing says so.

    Raises BackendError when the service cannot be asked.
    """
    likely = [j.name for j in listing.nameless if _may_be(ctx, record, j)]
    if likely:
        return f"job {likely[0]} has no name and may be it (`batchform jobs adopt {record.tag} {likely[0]}` if it is)"
    for witness in _missing(ctx, listing, record):
        assert witness.job is not None
        try:
            backend.get(witness.job)
        except NotFound:
            continue
        return f"the service's list is incomplete: it leaves out job {witness.job}, which exists"
    return ""


def _may_be(ctx: RunContext, record: JobRecord, job: RemoteJob) -> bool:
    """Whether a job without tag and input could be the one of this intent."""
    intent = record.intent
    if job.model and job.model != intent.model.removeprefix("models/"):
        return False
    if job.counts.get("total", intent.requests) != intent.requests:
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
