"""Looking at open jobs until they end. Reads only, but for the states it records."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchform.errors import AuthError, BackendError, NotFound
from batchform.ledger.records import JobRecord
from batchform.ports import TERMINAL_STATES, Backend, RemoteJob
from batchform.run.collect import Finished
from batchform.run.context import RunContext, described, open_jobs, parse_stamp, state_seen

_ORDINARY = TERMINAL_STATES | {"PENDING", "QUEUED", "RUNNING", "CANCELLING", "UPDATING"}
_JITTER = 0.2
_WITH_RESULTS = ("SUCCEEDED", "PARTIALLY_SUCCEEDED")


class Tracker:
    """Looks at each open job every `poll` seconds, give or take a fifth. No timer ever cancels a job."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._due: dict[str, datetime] = {}
        self._asked: set[str] = set()

    def round(self) -> list[Finished]:
        """Look at all jobs that are due; record what changed; the jobs that ended. Raises AuthError, and BackendError
        when a job was sent with another credential and this one does not see it."""
        ctx = self._ctx
        finished, seen = [], []
        for record in open_jobs(ctx):
            if self._due.get(record.tag, ctx.clock.now()) > ctx.clock.now():
                continue
            self._due[record.tag] = self._next(record)
            found = self._look(record)
            if isinstance(found, Finished):
                finished.append(found)
            elif found is not None:
                seen.extend(state_seen(ctx, record, found))
                ctx.progress.state(record, found)
        if seen:
            ctx.ledger.commit(seen)
        return finished

    def pause(self, until: datetime | None = None) -> None:
        """Sleep until a job is due, or until the given time if that is earlier."""
        ctx = self._ctx
        times = [self._due.get(r.tag, ctx.clock.now()) for r in open_jobs(ctx)]
        times += [until] if until is not None else []
        if times:
            ctx.clock.sleep(max(0.0, (min(times) - ctx.clock.now()).total_seconds()))

    def _next(self, record: JobRecord) -> datetime:
        """When to look next."""
        poll = self._ctx.settings(record.intent.backend).poll
        spread = 1 + _JITTER * (2 * self._ctx.rng.random() - 1)
        return self._ctx.clock.now() + timedelta(seconds=poll * spread)

    def _look(self, record: JobRecord) -> Finished | RemoteJob | None:
        ctx = self._ctx
        backend = ctx.backend(record.intent.backend)
        assert record.job is not None
        try:
            remote = backend.get(record.job)
        except NotFound as error:
            return self._vanished(record, backend, error)
        except AuthError:
            raise
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

    def _vanished(self, record: JobRecord, backend: Backend, error: NotFound) -> Finished | None:
        """A job that the service does not have. Only the credential that made it can say so, and not in its first
        moments, when the service may not show it yet."""
        ctx = self._ctx
        if record.intent.fingerprint != backend.fingerprint:
            raise BackendError(
                f"Job {record.job} of {described(record.intent)} was made with another credential or endpoint of "
                f"backend {record.intent.backend}; this one does not see it.",
                hint="Run again with the credential it was made with. No row was changed.",
            )
        settle = timedelta(seconds=ctx.settings(record.intent.backend).settle)
        if ctx.clock.now() <= parse_stamp(record.submitted_at or record.intent.at) + settle:
            return None
        return Finished(record, None, str(error))

    def _results_are_late(self, record: JobRecord, remote: RemoteJob) -> bool:
        """Whether a job that succeeded does not show its results yet, and it is too early to call them missing."""
        if remote.results is not None or remote.state not in _WITH_RESULTS:
            return False
        ctx = self._ctx
        settle = timedelta(seconds=ctx.settings(record.intent.backend).settle)
        ended = remote.ended_at
        if ended is None:
            if record.state != remote.state or record.state_at is None:
                return True
            ended = parse_stamp(record.state_at)
        return ctx.clock.now() <= ended + settle
