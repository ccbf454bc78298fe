"""Jobs that this very ledger sent and does not know: it is an older copy of itself, or one of two copies.

A folder that was put back from a backup or from the cache of a CI, and a project that was copied with its ledger, are
whole in themselves. What was sent since would be paid for again. But each job bears its ledger's mark, so a look at the
newest jobs of the service, before anything is sent, tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final

from batchform.errors import BackendError, UnknownJobs, UsageError
from batchform.ledger.records import Disowned, bears_mark
from batchform.ledger.segments import timestamp
from batchform.plan.importing import IMPORTED
from batchform.ports import Backend, RemoteJob
from batchform.run.context import RunContext, parse_stamp
from batchform.spec.wording import counted

_LEAST: Final = 100
_MOST: Final = 1000
_SHOWN: Final = 3


def strangers(ctx: RunContext, backend: Backend, settle: float) -> list[RemoteJob]:
    """The newest jobs of a service that bear this ledger's mark, and that it neither knows nor disowned.

    settle: of the backend, in seconds. Raises BackendError when the list breaks off.
    """
    if not ctx.ledger.lineage:
        return []
    listed = list(_newest(ctx, backend, timedelta(seconds=settle)))
    ctx.ledger.refresh()  # an intent is recorded before its job is made: now each job of this ledger has its own
    view = ctx.ledger.control()
    ours = {job.name: job for job in listed if bears_mark(job.tag, ctx.ledger.lineage)}  # a page may come twice
    known = view.disowned.union(r.job for r in view.jobs.values() if r.job)  # one that was imported has another tag
    return [job for job in ours.values() if job.tag not in view.jobs and job.name not in known]


def _newest(ctx: RunContext, backend: Backend, settle: timedelta) -> Iterator[RemoteJob]:
    """The jobs that are listed before one that is known for so long that those before it were looked at since."""
    before = ctx.clock.now() - settle
    jobs = ctx.ledger.control().jobs.values()  # before one that was imported nobody has looked
    known = {r.job for r in jobs if r.job and r.how != IMPORTED and parse_stamp(r.intent.at) < before}
    old = False
    for count, job in enumerate(backend.list_jobs(), start=1):
        yield job
        old = old or job.name in known
        if (old and count >= _LEAST) or count >= _MOST:
            return


def already_there(ctx: RunContext, backend: str, tags: Iterable[str]) -> dict[str, list[RemoteJob]]:
    """Those of the tags that are about to be sent whose jobs are at the service already, oldest first: they are taken
    over. Raises UnknownJobs if there are others.

    A list that cannot be read is told, and hinders nobody: it is a look for an accident that seldom happens.
    """
    found: dict[str, list[RemoteJob]] = {tag: [] for tag in tags}
    try:
        others = strangers(ctx, ctx.backend(backend), ctx.settings(backend).settle)
    except BackendError as error:
        ctx.tell_once(f"Whether backend {backend} has jobs that this ledger forgot could not be looked at: {error}")
        return {}
    unknown: list[RemoteJob] = []
    for job in reversed(others):
        found.get(job.tag, unknown).append(job)
    if unknown:
        raise _refused(backend, unknown)
    return {tag: jobs for tag, jobs in found.items() if jobs}


def _refused(backend: str, jobs: Sequence[RemoteJob]) -> UnknownJobs:
    named = ", ".join(f"{job.name} ({job.tag}, {job.state})" for job in jobs[:_SHOWN])
    more = f" and {len(jobs) - _SHOWN} more" if len(jobs) > _SHOWN else ""
    return UnknownJobs(
        f"This ledger sent {counted(len(jobs), 'job')} at backend {backend} that it does not know: {named}{more}. It "
        "is an older copy of itself, or one of two copies; nothing was sent, since these rows could be paid for twice.",
        hint="Put the newest copy of the ledger's folder back. If it is gone for good, `batchform jobs disown JOB` "
        "leaves such a job to itself: its answers are lost, and its rows are paid for again.",
    )


def disown(ctx: RunContext, job: str) -> Disowned:
    """The event that leaves a job to itself, of which this ledger knows nothing but its mark. Not committed yet.

    Raises UsageError if the service lists no such job.
    """
    known = next((r for r in ctx.ledger.control().jobs.values() if job in (r.job, r.tag)), None)
    if known is not None:
        raise UsageError(f"{job} is known to this ledger as {known.tag}", hint=f"batchform jobs show {known.tag}")
    for name in dict.fromkeys(s.backend_name for s in ctx.project.specs):
        for found in strangers(ctx, ctx.backend(name), ctx.settings(name).settle):
            if job in (found.name, found.tag):
                return Disowned(at=timestamp(ctx.clock.now()), by=ctx.who, job=found.name, tag=found.tag)
    raise UsageError(
        f"no backend of this project lists {job} as a job of this ledger that it does not know",
        hint="`batchform apply` and `batchform ledger verify --deep` name such jobs.",
    )
