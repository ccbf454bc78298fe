"""Shards become jobs, in the one order that never pays twice.

Stage the input → commit the intent with its rows → create once → commit what came of it. Whatever interrupts this, the
ledger says what has to be looked up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from batchform.errors import BackendError, LedgerMoved, NotCreated, OutcomeUnknown
from batchform.ledger.records import Intent, JobRecord, Submitted
from batchform.ledger.segments import timestamp
from batchform.ledger.store import RowsFile
from batchform.plan.model import Plan, Shard, SpecPlan
from batchform.ports import Backend, Staged
from batchform.run.budget import Refused, refusal
from batchform.run.context import RunContext, parse_stamp
from batchform.run.inputs import archive_input
from batchform.run.recover import COMMIT_ATTEMPTS, not_submitted, recover
from batchform.run.row_states import refuse_changed
from batchform.run.track import Tracker

# A create call must begin within this share of the settle window: the call itself and the service's list may take the
# rest. A runner that sleeps longer must not create, since another may have taken the job for lost.
_BEGIN_WITHIN: Final = 0.4
_BEGIN_AT_LEAST: Final = 5.0
_STAGE_ATTEMPTS: Final = 4
_LOOKUPS: Final = 3
_QUOTA_WAITS: Final = 8
_QUOTA_FIRST_WAIT: Final = 30.0
_QUOTA_LONGEST_WAIT: Final = 900.0
_TRANSIENT: Final = frozenset({0, 408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Work:
    """One shard to be sent."""

    plan: SpecPlan
    shard: Shard


@dataclass
class Submission:
    """What submitting did. Tags by outcome; `held` shards were not sent because the service had no room, those of
    `over_budget` because a budget had none."""

    created: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    held: int = 0
    over_budget: list[Refused] = field(default_factory=list)


class Submitter:
    """Submits the shards of one plan. `on_full` is called when there is no room: it tracks and collects one round."""

    def __init__(self, ctx: RunContext, plan: Plan, bundle: Path, *, on_full: Callable[[Tracker], None]) -> None:
        self._ctx = ctx
        self._plan = plan
        self._bundle = bundle
        self._on_full = on_full
        self._work = [Work(s, shard) for s in plan.specs for shard in s.shards]
        self._tracker = Tracker(ctx)
        self._quota: dict[str, tuple[datetime, int]] = {}  # backend → not before, refusals in a row
        self.done = Submission()

    def run(self, *, wait_for_room: str = "wait") -> Submission:
        """Submit all shards. wait_for_room: "wait", or "leave": shards that find no room are left for a later plan.

        Raises BackendError when the service refuses. `check` comes first.
        """
        queue = deque(self._work)
        while queue:
            work = next((w for w in queue if self._has_room(w)), None)
            if work is None:
                if wait_for_room == "leave":
                    self.done.held = len(queue)
                    break
                self._wait()
                continue
            queue.remove(work)
            if not self._submit(work):
                queue.append(work)
        return self.done

    # --- room ------------------------------------------------------------------------------------------------------

    def _has_room(self, work: Work) -> bool:
        """Whether the backend takes another job of this size now. A job too large for the budget goes alone."""
        name = work.plan.backend
        if name in self._quota and self._ctx.clock.now() < self._quota[name][0]:
            return False
        settings = self._ctx.settings(name)
        at_work = [r for r in self._ctx.ledger.control().jobs.values() if r.open and r.intent.backend == name]
        if len(at_work) >= settings.max_jobs_in_flight:
            return False
        if settings.max_enqueued_tokens is None or not at_work:
            return True
        enqueued = sum(r.intent.est_input_tokens for r in at_work)
        return enqueued + work.shard.input_tokens <= settings.max_enqueued_tokens

    def _wait(self) -> None:
        """Until a job ends or the service may be asked again."""
        self._on_full(self._tracker)
        now = self._ctx.clock.now()
        waits = [until for until, _ in self._quota.values() if until > now]
        self._settle_unknown()
        self._tracker.pause(min(waits) if waits else None)

    def _settle_unknown(self) -> None:
        """Intents of unknown outcome take room too: look for them again while waiting."""
        if self.done.unknown:
            found = recover(self._ctx, tags=self.done.unknown)
            self.done.adopted += found.adopted
            self.done.unknown = list(found.unknown)

    # --- one shard -------------------------------------------------------------------------------------------------

    def _submit(self, work: Work) -> bool:
        """Send one shard. False when the service wants it later."""
        ctx, shard = self._ctx, work.shard
        if not self._within_budget(work):
            return True
        backend = ctx.backend(work.plan.backend)
        staged = self._stage(backend, shard)
        archive_input(ctx.ledger, shard.tag, self._bundle / shard.path, ctx.work_dir)
        ctx.progress.staged(work.plan.name, shard)
        record = self._intend(work, backend, staged)
        if record is None:
            return False
        if ctx.clock.now() > parse_stamp(record.intent.deadline):
            not_submitted(ctx, record, reason="the deadline for creating the job had passed")
            return False
        try:
            job = backend.create(model=work.plan.model, tag=shard.tag, staged=staged)
        except NotCreated as error:
            return self._refused(work, record, error)
        except OutcomeUnknown as error:
            self._look_for(record, error)
            return True
        ctx.ledger.commit([Submitted(at=ctx.now(), by=ctx.who, tag=shard.tag, job=job)])
        self._quota.pop(work.plan.backend, None)
        self.done.created.append(shard.tag)
        ctx.progress.submitted(ctx.ledger.control().jobs[shard.tag], "created")
        return True

    def _stage(self, backend: Backend, shard: Shard) -> Staged:
        """Upload the input; safe to repeat, since its name comes from its digest."""
        for attempt in range(1, _STAGE_ATTEMPTS + 1):
            try:
                return backend.stage(self._bundle / shard.path, digest=shard.digest, tag=shard.tag, mode=shard.mode)
            except BackendError as error:
                if attempt == _STAGE_ATTEMPTS or error.status not in _TRANSIENT:
                    raise
                self._ctx.progress.note(f"Uploading {shard.tag} failed; it is tried again: {error}")
                self._ctx.clock.sleep(max(error.retry_after or 0.0, 2.0**attempt))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _within_budget(self, work: Work) -> bool:
        """Whether every budget has room for a shard, by the newest ledger. If not, it is held for good."""
        held = refusal(self._ctx, self._plan, work.plan, work.shard)
        if held is not None:
            self.done.over_budget.append(held)
        return held is None

    def _intend(self, work: Work, backend: Backend, staged: Staged) -> JobRecord | None:
        """Commit the intent and its rows on top of a ledger in which these rows are as they were planned, and in which
        every budget has room for them. None if one has not any more: another runner took it."""
        ctx, shard = self._ctx, work.shard
        rows = RowsFile(work.plan.name, self._bundle / shard.rows_path, shard.rows)
        for _ in range(COMMIT_ATTEMPTS):
            expect = ctx.ledger.serial
            if refusal(ctx, self._plan, work.plan, shard):
                return None
            try:
                ctx.ledger.commit([self._intent(work, backend, staged)], [rows], expect=expect)
                return ctx.ledger.control().jobs[shard.tag]
            except LedgerMoved:
                ctx.ledger.refresh()
                self._check_rows([work], since=expect)
        raise LedgerMoved(f"{ctx.ledger.place} is too busy to record {shard.tag}.", hint="Run apply again.")

    def _intent(self, work: Work, backend: Backend, staged: Staged) -> Intent:
        ctx, shard = self._ctx, work.shard
        settle = ctx.settings(work.plan.backend).settle
        within = timedelta(seconds=max(_BEGIN_AT_LEAST, settle * _BEGIN_WITHIN))
        return Intent(
            at=ctx.now(),
            by=ctx.who,
            tag=shard.tag,
            spec=work.plan.name,
            backend=work.plan.backend,
            fingerprint=backend.fingerprint,
            realm=backend.realm,
            model=work.plan.model,
            shard_digest=shard.digest,
            rows=shard.rows,
            requests=shard.requests,
            bytes=shard.bytes,
            input_name=staged.name,
            deadline=timestamp(ctx.clock.now() + within),
            est_input_tokens=shard.input_tokens,
            est_usd=shard.usd.expected,
            est_usd_high=shard.usd.high,
            key_columns=work.plan.key_columns,
            plan_digest=self._plan.digest,
        )

    def _refused(self, work: Work, record: JobRecord, error: NotCreated) -> bool:
        """Surely no job: the rows are given back. A quota refusal waits, anything else is the user's to mend."""
        ctx = self._ctx
        not_submitted(ctx, record, reason=error.message)
        if error.status != 429:
            raise error
        refusals = self._quota.get(work.plan.backend, (None, 0))[1] + 1
        if refusals > _QUOTA_WAITS:
            raise error
        wait = min(_QUOTA_LONGEST_WAIT, _QUOTA_FIRST_WAIT * 2 ** (refusals - 1)) * (0.8 + 0.4 * ctx.rng.random())
        wait = max(wait, error.retry_after or 0.0)
        self._quota[work.plan.backend] = (ctx.clock.now() + timedelta(seconds=wait), refusals)
        ctx.progress.note(f"{error.message}. {work.shard.tag} waits {wait:.0f} s before it is sent again.")
        return False

    def _look_for(self, record: JobRecord, error: OutcomeUnknown) -> None:
        """A job may exist: look for it for a moment, else leave the intent open for the next run to settle."""
        ctx = self._ctx
        ctx.progress.note(f"{error.message}. Looking for the job.")
        for lookup in range(_LOOKUPS):
            try:
                adopted = recover(ctx, tags=[record.tag]).adopted
                self.done.adopted += adopted
                if record.tag in adopted:
                    return
            except BackendError as failed:
                ctx.progress.note(f"Looking for {record.tag} failed: {failed}")
            ctx.clock.sleep(2.0**lookup)
        if record.tag in {r.tag for r in ctx.ledger.control().jobs.values() if r.status == "intent"}:
            self.done.unknown.append(record.tag)

    # --- checks ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Whether it can begin, asked before anything is recorded.

        Raises AuthError or BackendError when the service refuses the key or the model, StalePlan when rows of a shard
        changed since it was planned.
        """
        for name, model in dict.fromkeys((w.plan.backend, w.plan.model) for w in self._work):
            self._ctx.backend(name).check_model(model)
        self._check_rows(self._work)

    def _check_rows(self, queue: Sequence[Work], *, since: int | None = None) -> None:
        """Refuse shards with rows that someone else changed since the plan (or since a serial that we knew)."""
        base = self._plan.serial if since is None else since
        for work in queue:
            refuse_changed(self._ctx, work.plan.name, self._bundle / work.shard.rows_path, since=base)
