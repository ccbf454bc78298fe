"""Shards become jobs, in the one order that never pays twice.

Stage the input → commit the intent with its rows → create once → commit what came of it. Whatever interrupts this, the
ledger says what has to be looked up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from batchform.canon import digest_of, short
from batchform.errors import BackendError, NotCreated, OutcomeUnknown
from batchform.ledger.records import Intent, JobRecord, Refreshed
from batchform.ledger.segments import timestamp
from batchform.ledger.store import RowsFile
from batchform.plan.model import Plan, Shard, SpecPlan
from batchform.ports import Backend, Staged
from batchform.run.budget import Refused, refusal
from batchform.run.context import PASSING, RunContext, call_again, commit_decided, open_intents, parse_stamp
from batchform.run.inputs import archive_input
from batchform.run.marks import mark_shards
from batchform.run.recover import record_created, recover
from batchform.run.resume import old_results
from batchform.run.row_states import queue_rows, refuse_changed
from batchform.run.settle import not_submitted, window_for_create
from batchform.run.track import Tracker
from batchform.spec.wording import counted

_LOOKUPS: Final = 3
_LATE_STARTS: Final = 5
_QUOTA_WAITS: Final = 8
_QUOTA_FIRST_WAIT: Final = 30.0
_QUOTA_LONGEST_WAIT: Final = 900.0
_UPLOAD_AGAIN: Final = PASSING | {404, 410}
"""404 and 410: the service has forgotten how far an upload had got."""


class Work(Struct, frozen=True):
    """One shard to be sent."""

    plan: SpecPlan
    shard: Shard


class Submission(Struct):
    """What submitting did. Tags by outcome; `held` shards were not sent: there was no room, or it was stopped. Those of
    `over_budget` were not, because a budget had no room."""

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
        self._as_planned = {w.shard.tag: plan.serial for w in self._work}  # tag → serial that still had its rows so
        self._own: set[int] = set()  # serials that this submitter committed, each for rows of one shard
        self._quota: dict[str, tuple[datetime, int]] = {}  # backend → not before, refusals in a row
        self._full: set[str] = set()  # backends that refused too often to be asked again in this run
        self._late: Counter[str] = Counter()  # tag → creations that could not begin in time
        self.done = Submission()

    def run(self, *, wait_for_room: str = "wait") -> Submission:
        """Submit all shards. wait_for_room: "wait", or "leave": what finds no room is recorded as queued, for a later
        sync or apply; so is what a backend refuses again and again for its quota.

        Raises BackendError when the service refuses. `check` comes first.
        """
        self._mark()
        queue = deque(self._work)
        try:
            while queue:
                work = next((w for w in queue if self._has_room(w)), None)
                if work is None:
                    if wait_for_room == "leave" or all(w.plan.backend in self._full for w in queue):
                        self._leave(queue)
                        break
                    self._wait()
                    continue
                queue.remove(work)
                if not self._submit(work):
                    queue.append(work)
        finally:
            self.done.held = len(queue)
        return self.done

    def _mark(self) -> None:
        """Give the tags of a plan that was made without a ledger the mark of this one, before any job bears them."""
        planned, self._plan = self._work, mark_shards(self._ctx, self._plan, self._bundle)
        self._work = [Work(s, shard) for s in self._plan.specs for shard in s.shards]
        known = [self._as_planned[w.shard.tag] for w in planned]
        self._as_planned = {w.shard.tag: serial for w, serial in zip(self._work, known, strict=True)}

    # --- room ------------------------------------------------------------------------------------------------------

    def _has_room(self, work: Work) -> bool:
        """Whether the backend may be asked now, and takes another job of this size."""
        name = work.plan.backend
        if name in self._full or (name in self._quota and self._ctx.clock.now() < self._quota[name][0]):
            return False
        return has_room(self._ctx, name, work.shard.input_tokens)

    def _wait(self) -> None:
        """Until a job ends, an open intent is settled, or the service may be asked again."""
        ctx = self._ctx
        self._on_full(self._tracker)
        if open_intents(ctx):
            found = recover(ctx)
            self.done.adopted += found.adopted
            self.done.unknown = list(found.unknown)
        now = ctx.clock.now()
        waits = [until for until, _ in self._quota.values() if until > now]
        waits += [now + timedelta(seconds=ctx.settings(w.plan.backend).poll) for w in self._work]
        self._tracker.pause(min(waits))

    def _leave(self, queue: Sequence[Work]) -> None:
        """Record what is not sent as queued: surely not sent, to be sent by the next sync or apply."""
        ctx = self._ctx
        for work in queue:
            self._queue(work)
        rows_left = sum(w.shard.rows for w in queue)
        ctx.progress.note(
            f"{counted(len(queue), 'shard')} ({counted(rows_left, 'row')}) found no room and stay queued: "
            "`batchform sync` sends them when there is."
        )

    def _queue(self, work: Work) -> None:
        ctx, to = self._ctx, self._ctx.work_dir / f"{work.shard.tag}.queued.parquet"

        def decide() -> tuple[Refreshed, list[RowsFile]]:
            self._check_rows([work])
            rows_path = self._bundle / work.shard.rows_path
            with closing(ctx.connect()) as con:
                rows = queue_rows(con, ctx.ledger, work.plan.name, rows_path, at=ctx.now(), to=to)
            event = Refreshed(at=ctx.now(), by=ctx.who, spec=work.plan.name, rows={"queued": work.shard.rows})
            return event, [rows]

        try:
            commit_decided(ctx, decide, what=f"that {work.shard.tag} is queued", hint="Run apply again.")
            self._own.add(ctx.ledger.serial)
        finally:
            to.unlink(missing_ok=True)

    # --- one shard -------------------------------------------------------------------------------------------------

    def _submit(self, work: Work) -> bool:
        """Send one shard. False when the service wants it later."""
        ctx, shard = self._ctx, work.shard
        if not self._within_budget(work):
            return True
        backend = ctx.backend(work.plan.backend)
        staged = old_results(ctx, backend, work.plan, shard, self._bundle / shard.path)
        if staged is None:
            work = Work(work.plan, replace(shard, resumes=None))
            staged = self._stage(backend, shard)
        archive_input(ctx.ledger, shard.tag, self._bundle / shard.path, ctx.work_dir)
        ctx.progress.staged(work.plan.name, work.shard)
        record = self._intend(work, backend, staged)
        if record is None:
            return False
        deadline = parse_stamp(record.intent.deadline)
        if ctx.clock.now() > deadline:
            return self._too_late(work, record)
        try:
            job = backend.create(
                model=work.plan.model, tag=shard.tag, staged=staged, before=deadline, labels=self._labels(work)
            )
        except NotCreated as error:
            if ctx.clock.now() > deadline and not error.status:
                return self._too_late(work, record)
            return self._refused(work, record, error)
        except OutcomeUnknown as error:
            self._look_for(record, error)
            return True
        self._quota.pop(work.plan.backend, None)
        record_created(ctx, backend, record, job)
        self.done.created.append(shard.tag)
        return True

    def _stage(self, backend: Backend, shard: Shard) -> Staged:
        """Upload the input; safe to repeat, since its name comes from its digest."""
        # Two ledgers may send the same rows with the same credential. Neither may delete the other's input.
        name = digest_of("input", [self._ctx.ledger.lineage, shard.digest])
        return call_again(
            self._ctx,
            lambda: backend.stage(self._bundle / shard.path, digest=name, tag=shard.tag, mode=shard.mode),
            while_=_UPLOAD_AGAIN,
            told=lambda error: f"Uploading {shard.tag} failed; it is tried again: {error}",
        )

    def _within_budget(self, work: Work) -> bool:
        """Whether every budget has room for a shard, by the newest ledger. If not, it is held for good."""
        self._ctx.ledger.refresh()
        held = refusal(self._ctx, self._plan, work.plan, work.shard)
        if held is not None:
            self.done.over_budget.append(held)
        return held is None

    def _intend(self, work: Work, backend: Backend, staged: Staged) -> JobRecord | None:
        """Commit the intent and its rows on top of a ledger in which these rows are as they were planned, and in which
        there is room for the job, and money. None if there is none any more: another runner took it."""
        ctx, shard = self._ctx, work.shard
        rows = RowsFile(work.plan.name, self._bundle / shard.rows_path, shard.rows)

        def decide() -> tuple[Intent, list[RowsFile]] | None:
            self._check_rows([work])
            if not self._has_room(work) or refusal(ctx, self._plan, work.plan, shard):
                return None
            return self._intent(work, backend, staged), [rows]

        if commit_decided(ctx, decide, what=shard.tag, hint="Run apply again.") is None:
            return None
        self._own.add(ctx.ledger.serial)
        return ctx.ledger.control().jobs[shard.tag]

    def _intent(self, work: Work, backend: Backend, staged: Staged) -> Intent:
        ctx, shard = self._ctx, work.shard
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
            deadline=timestamp(ctx.clock.now() + window_for_create(ctx, work.plan.backend)),
            est_input_tokens=shard.input_tokens,
            est_usd=shard.usd.expected,
            est_usd_high=shard.usd.high,
            key_columns=work.plan.key_columns,
            plan_digest=self._plan.digest,
            place=backend.place,
            resumes=shard.resumes.tag if shard.resumes else "",
            results=shard.resumes.results if shard.resumes else 0,
        )

    def _labels(self, work: Work) -> dict[str, str]:
        plan = short(self._plan.digest)
        return {"project": self._ctx.project.config.project, "spec": work.plan.name, "plan": plan}

    def _give_back(self, work: Work, record: JobRecord, *, reason: str, how: str) -> None:
        """Record that surely no job came of an intent; the shard may be sent again by this very run."""
        if not_submitted(self._ctx, record, reason=reason, how=how):
            self._as_planned[work.shard.tag] = self._ctx.ledger.serial

    def _too_late(self, work: Work, record: JobRecord) -> bool:
        """Another runner may soon take the job for lost, so it is not created under this intent any more."""
        name = work.plan.backend
        self._give_back(work, record, reason="the deadline for creating the job had passed", how="too_late")
        self._late[work.shard.tag] += 1
        if self._late[work.shard.tag] == _LATE_STARTS:
            seconds = window_for_create(self._ctx, name).total_seconds()
            raise BackendError(
                f"{work.shard.tag} could not be begun within {seconds:g} s of its intent, {_LATE_STARTS} times.",
                hint=f"Raise `settle` of backend {name}. Its rows were not sent and are not charged an attempt.",
            )
        return False

    def _refused(self, work: Work, record: JobRecord, error: NotCreated) -> bool:
        """Surely no job: the rows are given back. A quota refusal waits, anything else is the user's to mend."""
        ctx, name = self._ctx, work.plan.backend
        self._give_back(work, record, reason=error.message, how="refused")
        if error.status != 429:
            raise error
        refusals = self._quota.get(name, (None, 0))[1] + 1
        if refusals > _QUOTA_WAITS:
            self._full.add(name)
            ctx.progress.note(f"{_sentence(error)} Backend {name} refused {refusals} times in a row and is left alone.")
            return False
        wait = min(_QUOTA_LONGEST_WAIT, _QUOTA_FIRST_WAIT * 2 ** (refusals - 1)) * (0.8 + 0.4 * ctx.rng.random())
        wait = max(wait, error.retry_after or 0.0)
        self._quota[name] = (ctx.clock.now() + timedelta(seconds=wait), refusals)
        ctx.progress.note(f"{_sentence(error)} {work.shard.tag} stays queued for at least {wait:.0f} s.")
        return False

    def _look_for(self, record: JobRecord, error: OutcomeUnknown) -> None:
        """A job may exist: look for it for a moment, else leave the intent open for the next run to settle."""
        ctx = self._ctx
        ctx.progress.note(f"{_sentence(error)} Looking for the job.")
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

    def _check_rows(self, queue: Sequence[Work]) -> None:
        """Refuse shards with rows that someone else changed since they were planned. Raises StalePlan.

        Every commit of this run may have been laid on top of another runner's, so it is asked before each intent.
        """
        serial = self._ctx.ledger.serial
        for work in queue:
            tag, path = work.shard.tag, self._bundle / work.shard.rows_path
            refuse_changed(self._ctx, work.plan.name, path, since=self._as_planned[tag], own=self._own)
            self._as_planned[tag] = serial


def _sentence(error: BackendError) -> str:
    """An error's message with one full stop, whatever the client library ended it with."""
    return f"{error.message.rstrip('.')}."


def has_room(ctx: RunContext, backend: str, tokens: int) -> bool:
    """Whether a backend may have another job of this many input tokens at work, by what all runners recorded.

    A job is at work until its end was seen. A job too large for the budget goes alone. Jobs of another credential are
    not counted: their quota is another, and they may never be seen again.
    """
    settings, fingerprint = ctx.settings(backend), ctx.backend(backend).fingerprint
    at_work = [
        r.intent
        for r in ctx.ledger.control().jobs.values()
        if r.open and r.intent.backend == backend and r.intent.fingerprint == fingerprint
    ]
    if len(at_work) >= settings.max_jobs_in_flight:
        return False
    if settings.max_enqueued_tokens is None or not at_work:
        return True
    return sum(i.est_input_tokens for i in at_work) + tokens <= settings.max_enqueued_tokens
