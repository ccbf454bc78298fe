"""Whether a backend takes another job now: by what all runners recorded, and by how it answered this one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from batchform.errors import BackendError, NotCreated
from batchform.ledger.records import Intent
from batchform.plan.model import Shard
from batchform.run.context import RunContext
from batchform.run.kept_inputs import clean_up, keeps_more

_QUOTA_WAITS: Final = 8
_QUOTA_FIRST_WAIT: Final = 30.0
_QUOTA_LONGEST_WAIT: Final = 900.0


class Room:
    """What the backends of one run take. Refusals for quota are waited for, longer each time, and not for ever."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._quota: dict[str, tuple[datetime, int]] = {}  # backend → not before, refusals in a row
        self.full: set[str] = set()
        """Backends that refused too often to be asked again in this run."""
        self._crowded = False  # whether inputs that lie at a service were in the way

    def refuses(self, backend: str) -> bool:
        """Whether a backend has just refused a job for its quota."""
        return backend in self.full or (backend in self._quota and self._ctx.clock.now() < self._quota[backend][0])

    def takes(self, backend: str, shard: Shard, *, beside: Sequence[Shard] = ()) -> bool:
        """Whether a job may be sent now. beside: those that will be there too."""
        if self.refuses(backend) or not has_room(self._ctx, backend, shard, beside=beside):
            return False
        self._crowded = not has_storage(self._ctx, backend, shard, beside=beside)
        return not self._crowded

    def clear(self) -> None:
        """Delete inputs that no job needs any more, if they are in the way."""
        if self._crowded:
            clean_up(self._ctx)

    def waits(self) -> list[datetime]:
        """When backends that refused may be asked again."""
        return [until for until, _ in self._quota.values() if until > self._ctx.clock.now()]

    def accepted(self, backend: str) -> None:
        """A job was created."""
        self._quota.pop(backend, None)

    def refused(self, backend: str, tag: str, error: NotCreated) -> None:
        """A job was refused for its quota: its shard stays queued for a while."""
        ctx, refusals = self._ctx, self._quota.get(backend, (None, 0))[1] + 1
        if refusals > _QUOTA_WAITS:
            self.full.add(backend)
            ctx.progress.note(
                f"{sentence(error)} Backend {backend} refused {refusals} times in a row and is left alone."
            )
            return
        wait = min(_QUOTA_LONGEST_WAIT, _QUOTA_FIRST_WAIT * 2 ** (refusals - 1)) * (0.8 + 0.4 * ctx.rng.random())
        wait = max(wait, error.retry_after or 0.0)
        self._quota[backend] = (ctx.clock.now() + timedelta(seconds=wait), refusals)
        ctx.progress.note(f"{sentence(error)} {tag} stays queued for at least {wait:.0f} s.")


def sentence(error: BackendError) -> str:
    """An error's message with one full stop, whatever the client library ended it with."""
    return f"{error.message.rstrip('.')}."


def has_room(ctx: RunContext, backend: str, shard: Shard, *, beside: Sequence[Shard] = ()) -> bool:
    """Whether a backend may have another job at work, by what all runners recorded. beside: jobs that are about to be
    there, too.

    A job is at work until its end was seen. A job too large for the budget goes alone. Jobs of another credential are
    not counted: their quota is another, and they may never be seen again.
    """
    settings = ctx.settings(backend)
    at_work = [intent.est_input_tokens for intent in _at_work(ctx, backend)]
    at_work += [other.input_tokens for other in beside]
    if len(at_work) >= settings.max_jobs_in_flight:
        return False
    if settings.max_enqueued_tokens is None or not at_work:
        return True
    return sum(at_work) + shard.input_tokens <= settings.max_enqueued_tokens


def has_storage(ctx: RunContext, backend: str, shard: Shard, *, beside: Sequence[Shard] = ()) -> bool:
    """Whether the service keeps the input of another job. One that finds no other job at work is sent: what lies there
    then does not go away by waiting, and the service has the last word."""
    uploads = [s.bytes for s in (shard, *beside) if s.mode == "file"]
    if shard.mode != "file" or not (beside or _at_work(ctx, backend)):
        return True
    return keeps_more(ctx, backend, sum(uploads))


def _at_work(ctx: RunContext, backend: str) -> list[Intent]:
    """Jobs of this credential whose ends were not seen."""
    fingerprint = ctx.backend(backend).fingerprint
    intents = [record.intent for record in ctx.ledger.control().jobs.values() if record.open]
    return [i for i in intents if i.backend == backend and i.fingerprint == fingerprint]
