"""Looking at open jobs until they end. Reads only, but for the states it records."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchform.errors import AuthError, BackendError, BatchformError, NotFound
from batchform.ledger.records import JobRecord
from batchform.ports import TERMINAL_STATES, RemoteJob
from batchform.run.archive import archive
from batchform.run.collect import Finished, scratch_folder
from batchform.run.context import (
    NOT_FOUND,
    PASSING,
    STILL_LOOKED_FOR,
    RunContext,
    described,
    missing_for_long,
    open_jobs,
    parse_stamp,
    results_may_come,
    state_seen,
)
from batchform.run.fetch import ShortResults
from batchform.run.lookup import look_through
from batchform.run.settle import reopened, submitted

_ORDINARY = TERMINAL_STATES | {"PENDING", "QUEUED", "RUNNING", "CANCELLING", "UPDATING"}
_JITTER = 0.2
_WITH_RESULTS = ("SUCCEEDED", "PARTIALLY_SUCCEEDED")
_CUT_SHORT = ("CANCELLED", "EXPIRED")


class Tracker:
    """Looks at each open job every `poll` seconds, give or take a fifth. No timer ever cancels a job. Where commits are
    better joined, jobs that were looked at in one round are so again, and those that end meanwhile share a commit.

    unseen: tag → why, of jobs that cannot be asked for here: made with another credential, or their backend is gone.
    They are left alone.
    """

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._due: dict[str, datetime] = {}
        self._round: tuple[datetime, float] | None = None  # of one round: when it began, and how far polls are spread
        self.unseen: dict[str, str] = {}

    def round(self) -> list[Finished]:
        """Look at all jobs that are due; record what changed; the jobs that ended. Raises AuthError when the service
        refuses the very credential that made a job."""
        ctx = self._ctx
        ctx.ledger.refresh()
        self._round = (ctx.clock.now(), self._spread()) if ctx.ledger.joins > 1 else None
        finished, seen = [], []
        for record in self.open():
            if self._due.get(record.tag, ctx.clock.now()) > ctx.clock.now():
                continue
            found = self._look(record)
            if isinstance(found, Finished):
                finished.append(found)
            elif found is not None:
                seen.extend(state_seen(ctx, record, found))
                ctx.progress.state(record, found)
        if seen:
            ctx.ledger.commit(seen)
        return finished

    def open(self) -> list[JobRecord]:
        """The open jobs that can be asked for."""
        return [r for r in open_jobs(self._ctx) if r.tag not in self.unseen]

    def pause(self, until: datetime | None = None) -> None:
        """Sleep until a job is due, or until the given time if that is earlier."""
        ctx = self._ctx
        times = [self._due.get(r.tag, ctx.clock.now()) for r in self.open()]
        times += [until] if until is not None else []
        if times:
            ctx.clock.sleep(max(0.0, (min(times) - ctx.clock.now()).total_seconds()))

    def put_off(self, finished: Finished, error: BackendError) -> None:
        """Tell that a job could not be collected; it is due again. Results that are not whole yet are looked at when
        they have been so for twice as long, and when they have to be."""
        ctx, record, remote = self._ctx, finished.record, finished.remote
        if not isinstance(error, ShortResults):
            ctx.progress.note(f"Collecting {record.tag} failed; it is tried again: {error}")
            return
        ctx.progress.note(error.message)
        if remote is not None and remote.ended_at is not None:
            now, settle = ctx.clock.now(), timedelta(seconds=ctx.settings(record.intent.backend).settle)
            again = min(now + (now - remote.ended_at), remote.ended_at + settle)
            self._due[record.tag] = max(self._due.get(record.tag, now), again)

    def _next(self, record: JobRecord) -> datetime:
        """When to look next."""
        poll = self._ctx.settings(record.intent.backend).poll
        began, spread = self._round or (self._ctx.clock.now(), self._spread())
        return began + timedelta(seconds=poll * spread)

    def _spread(self) -> float:
        return 1 + _JITTER * (2 * self._ctx.rng.random() - 1)

    def _look(self, record: JobRecord) -> Finished | RemoteJob | None:
        ctx = self._ctx
        try:
            self._due[record.tag] = self._next(record)
            backend = ctx.backend_of(record.intent)
        except BatchformError as error:
            self.unseen[record.tag] = f"{described(record.intent)} cannot be looked at: {error.message.rstrip('.')}"
            return None
        assert record.job is not None
        try:
            remote = backend.get(record.job)
        except (NotFound, AuthError) as error:
            if record.intent.fingerprint != backend.fingerprint:
                self.unseen[record.tag] = another_credential(record)
                return None
            if isinstance(error, AuthError):
                raise
            return self._vanished(record, error)
        except BackendError as error:
            ctx.progress.note(f"Looking at {record.tag} failed; it is tried again: {error}")
            return None
        if remote.state not in _ORDINARY and remote.state != record.state:
            ctx.progress.note(
                f"Job {record.job} is in state {remote.state}, which batchform does not know; it goes on looking."
            )
        if remote.terminal and not self._results_are_late(record, remote):
            return Finished(record, remote)
        return remote

    def _vanished(self, record: JobRecord, error: NotFound) -> Finished | None:
        """A job that the service does not have, by the credential that made it. It is believed when it has been so for
        long: the service may not show a job in its first moments, and may err."""
        ctx = self._ctx
        if not missing_for_long(ctx, record, NOT_FOUND, str(error)):
            ctx.progress.note(f"The service does not find job {record.job} of {record.tag}; it is asked again: {error}")
            return None
        try:
            beside = look_through(ctx, ctx.backend_of(record.intent), []).doubles.get(record.tag)
        except BackendError as failed:
            if failed.status in PASSING:
                ctx.progress.note(f"Whether another job is that of {record.tag} could not be looked at: {failed}")
                return None
            beside = None
        if beside and submitted(ctx, record, beside[0].name, how="adopted"):
            ctx.progress.note(f"The job of {described(record.intent)} is {beside[0].name}: {record.job} is none.")
            return None
        ctx.progress.note(f"Job {record.job} of {described(record.intent)} is gone: its rows are given back.")
        return Finished(record, None, f"The service has job {record.job} no longer: {error}")

    def _results_are_late(self, record: JobRecord, remote: RemoteJob) -> bool:
        """Whether a job that ended does not show its results yet, and it is too early to call them missing.

        They are due when rows succeeded: then they have the settle window, and a second look. A job that was cut short
        and does not say how far it came gets a second look. Any other has none, and keeps nobody waiting.
        """
        if remote.results is not None:
            return False
        if remote.state not in _WITH_RESULTS and not remote.counts.get("succeeded"):
            return record.state != remote.state and remote.state in _CUT_SHORT and not remote.counts
        return results_may_come(self._ctx, record, remote)


def another_credential(record: JobRecord) -> str:
    """Why a job that is not seen is not dead."""
    return (
        f"Job {record.job} of {described(record.intent)} was made with another credential or endpoint of backend "
        f"{record.intent.backend}; this one does not see it"
    )


def look_again(ctx: RunContext) -> list[str]:
    """Late truth wins: jobs that were given up on without results are asked for once more. Those that are alive after
    all, or have results now, are open again, and their rows are not sent meanwhile. Returns their tags.

    Comes before rows are planned to be sent again.
    """
    found = []
    for record in list(ctx.ledger.control().jobs.values()):
        if given_up(ctx, record) and lives(ctx, record) and reopened(ctx, record):
            ctx.progress.note(
                f"Job {record.job} of {described(record.intent)} was given up on, and is there after all."
            )
            found.append(record.tag)
    return found


def given_up(ctx: RunContext, record: JobRecord) -> bool:
    """Whether a job was given up on without results, and not so long ago that nobody asks for it any more."""
    collected = record.collected
    if record.status != "collected" or collected is None or collected.archive is not None or not record.job:
        return False
    return ctx.clock.now() < parse_stamp(collected.at) + STILL_LOOKED_FOR


def lives(ctx: RunContext, record: JobRecord) -> bool:
    """Whether asking for the job again brings something: it is at work, or its results can be fetched now."""
    assert record.job is not None
    try:
        remote = ctx.backend_of(record.intent).get(record.job)
        if not remote.terminal:
            return True
        if remote.results is None:
            return False
        with scratch_folder(ctx, record.tag) as scratch:
            return archive(ctx, record, remote, scratch) is not None
    except ShortResults:
        return True
    except BatchformError:  # it cannot be asked, or its results cannot be had: it stays as it is
        return False
