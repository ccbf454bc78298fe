"""Shards become jobs, in the one order that never pays twice.

Stage the input → commit the intent with its rows → create once → commit what came of it. Whatever interrupts this, the
ledger says what has to be looked up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.canon import short
from batchform.errors import BackendError, BatchformError, NotCreated, OutcomeUnknown
from batchform.ledger.records import CacheUse, Intent, JobRecord, Refreshed
from batchform.ledger.segments import timestamp
from batchform.ledger.store import RowsFile
from batchform.plan.model import Plan
from batchform.ports import Backend, RemoteJob, Staged
from batchform.run.attachments import sent_lines_path
from batchform.run.budget import refusal
from batchform.run.caches import cached_lines_path, named_from_now, still_there
from batchform.run.context import RunContext, commit_together, described, open_intents, parse_stamp
from batchform.run.inputs import archive_input, stage_input
from batchform.run.marks import mark_shards
from batchform.run.recover import adopt, record_created, recover
from batchform.run.resume import old_results
from batchform.run.room import Room, sentence
from batchform.run.row_states import queue_rows, refuse_changed
from batchform.run.settle import not_submitted, window_for_create
from batchform.run.strangers import already_there
from batchform.run.submission import Submission, Work
from batchform.run.track import Tracker
from batchform.spec.wording import counted

_LOOKUPS: Final = 3
_LATE_STARTS: Final = 5


class _Intended(Struct, frozen=True):
    """A shard whose input is staged and whose intent is recorded: its job may be created."""

    work: Work
    staged: Staged
    record: JobRecord


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
        self.own: set[int] = set()  # serials that this submitter committed, each for rows of one shard
        self._room = Room(ctx)
        self._there: dict[str, list[RemoteJob]] = {}  # tag → jobs that an older copy of this ledger did not know of
        self._late: Counter[str] = Counter()  # tag → creations that could not begin in time, or lacked their cache
        self._caches: dict[str, CacheUse | None] = {}  # tag → the context cache that its staged lines name
        self._most = ctx.ledger.joins  # shards whose intents are committed together
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
                works = self._next(queue)
                if not works:
                    if wait_for_room == "leave" or all(w.plan.backend in self._room.full for w in queue):
                        self._leave(queue)
                        break
                    self._wait()
                    continue
                for work in works:
                    queue.remove(work)
                queue.extend(self._submit(works))
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

    def _next(self, queue: Sequence[Work]) -> list[Work]:
        """The shards that are sent next, together; none if there is no room."""
        works: list[Work] = []
        for work in queue:
            if len(works) < self._most and self._has_room(work, beside=works):
                works.append(work)
        return works

    def _has_room(self, work: Work, *, beside: Sequence[Work] = ()) -> bool:
        """Whether the backend may be asked now, and takes another job of this size. beside: what will be there too."""
        name = work.plan.backend
        return self._room.takes(name, work.shard, beside=[w.shard for w in beside if w.plan.backend == name])

    def _wait(self) -> None:
        """Until a job ends, an open intent is settled, or the service may be asked again."""
        ctx = self._ctx
        self._on_full(self._tracker)
        self._room.clear()
        if open_intents(ctx):
            found = recover(ctx)
            self.done.adopted += found.adopted
            self.done.unknown = list(found.unknown)
        now, waits = ctx.clock.now(), self._room.waits()
        waits += [now + timedelta(seconds=ctx.settings(w.plan.backend).poll) for w in self._work]
        self._tracker.pause(min(waits))

    def _leave(self, queue: Sequence[Work]) -> None:
        """Record what is not sent as queued: surely not sent, to be sent by the next sync or apply."""
        ctx = self._ctx
        try:
            commit_together(
                ctx,
                [partial(self._queued, work) for work in queue],
                what="that shards are queued",
                hint="Run apply again.",
            )
        finally:
            for work in queue:
                self._states_of(work).unlink(missing_ok=True)
        rows_left = sum(w.shard.rows for w in queue)
        ctx.progress.note(
            f"{counted(len(queue), 'shard')} ({counted(rows_left, 'row')}) found no room and stay queued: "
            "`batchform sync` sends them when there is."
        )

    def _queued(self, work: Work) -> tuple[list[Refreshed], list[RowsFile]]:
        ctx, to = self._ctx, self._states_of(work)
        self._check_rows([work])
        with closing(ctx.connect()) as con:
            rows = queue_rows(con, ctx.ledger, work.plan.name, self._bundle / work.shard.rows_path, at=ctx.now(), to=to)
        queued = Refreshed(at=ctx.now(), by=ctx.who, spec=work.plan.name, rows={"queued": work.shard.rows})
        of = {"plan_digest": self._plan.digest, "wave_of": self._plan.wave_of}
        return [replace(queued, backend=work.plan.backend, **of)], [rows]

    def _states_of(self, work: Work) -> Path:
        return self._ctx.work_dir / f"{work.shard.tag}.queued.parquet"

    # --- shards ----------------------------------------------------------------------------------------------------

    def _submit(self, works: Sequence[Work]) -> list[Work]:
        """Send shards. Returns those that the service wants later."""
        ctx, staged, later = self._ctx, [], {w.shard.tag: w for w in works}
        for work in works:
            if not self._within_budget(work):
                del later[work.shard.tag]
                continue
            backend, lines = ctx.backend(work.plan.backend), self._bundle / work.shard.path
            input_ = old_results(ctx, backend, work.plan, work.shard, lines)
            if input_ is None:
                work = Work(work.plan, replace(work.shard, resumes=None))
                input_, self._caches[work.shard.tag] = stage_input(ctx, backend, work, self._bundle)
            asked = self._bundle / work.shard.rows_path if work.shard.rung else None
            archive_input(ctx.ledger, work.shard.tag, lines, ctx.work_dir, asked=asked)
            ctx.progress.staged(work.plan.name, work.shard)
            staged.append((work, input_))
        intended = self._intend(staged)
        again = {w.shard.tag for w in self._create(intended)}
        for work in works:
            sent_lines_path(ctx, work.shard.tag).unlink(missing_ok=True)
            cached_lines_path(ctx, work.shard.tag).unlink(missing_ok=True)
        sent = {i.work.shard.tag for i in intended} - again
        return [work for tag, work in later.items() if tag not in sent]

    def _create(self, intended: Sequence[_Intended]) -> list[Work]:
        """Create the jobs of recorded intents, one after the other. Returns the shards that the service wants later.

        What is left when this is stopped was surely not created, and is given back.
        """
        later: list[Work] = []
        made: list[tuple[_Intended, str]] = []
        left = deque(intended)
        try:
            while left:
                one = left.popleft()
                if self._room.refuses(one.work.plan.backend):
                    self._give_back([one], reason="the service had refused another job", how="stopped")
                    later.append(one.work)
                else:
                    later += self._create_one(one, made)
        except BaseException:
            with suppress(BatchformError):
                self._record(made)
                self._give_back(list(left), reason="sending was stopped before the job was created", how="stopped")
            raise
        self._record(made)
        return later

    def _create_one(self, one: _Intended, made: list[tuple[_Intended, str]]) -> list[Work]:
        """Create one job, once, and add it to those that are made. Whatever else comes of it is recorded after them."""
        work, deadline = one.work, parse_stamp(one.record.intent.deadline)
        if self._ctx.clock.now() > deadline:
            return self._too_late(one)
        backend = self._ctx.backend(work.plan.backend)
        if there := self._there.pop(work.shard.tag, None):
            self._record(made)
            self._take_over(backend, one.record, there)
            return []
        try:
            if not still_there(self._ctx, one.record.intent):
                return self._without_cache(one)
            job = backend.create(
                model=work.model, tag=work.shard.tag, staged=one.staged, before=deadline, labels=self._labels(work),
                task=self._ctx.task(work.plan.name),
            )  # fmt: skip
        except NotCreated as error:
            self._record(made)
            if self._ctx.clock.now() > deadline and not error.status:
                return self._too_late(one)
            return self._refused(one, error)
        except OutcomeUnknown as error:
            self._record(made)
            self._look_for(one.record, error)
            return []
        self._room.accepted(work.plan.backend)
        made.append((one, job))
        return []

    def _take_over(self, backend: Backend, record: JobRecord, jobs: Sequence[RemoteJob]) -> None:
        """These very rows were sent already, by a copy of this ledger that was newer: their job is theirs."""
        self._ctx.progress.note(f"{described(record.intent)} is at the service already, as {jobs[0].name}: taken over.")
        if adopt(self._ctx, backend, record, jobs):
            self.done.adopted.append(record.tag)

    def _record(self, made: list[tuple[_Intended, str]]) -> None:
        """Record the jobs that were created, together, and forget them here."""
        found = [(self._ctx.backend(one.work.plan.backend), one.record, job) for one, job in made]
        made.clear()
        record_created(self._ctx, found)
        self.done.created += [record.tag for _, record, _ in found]

    def _within_budget(self, work: Work) -> bool:
        """Whether every budget has room for a shard, by the newest ledger. If not, it is held for good."""
        self._ctx.ledger.refresh()
        held = refusal(self._ctx, self._plan, work.plan, work.shard)
        if held is not None:
            self.done.over_budget.append(held)
        return held is None

    def _intend(self, staged: Sequence[tuple[Work, Staged]]) -> list[_Intended]:
        """Commit the intents and their rows, each on top of a ledger in which these rows are as they were planned, and
        in which there is room for the job, and money. Those without are left out: another runner took it."""
        ctx = self._ctx
        made = commit_together(
            ctx,
            [partial(self._decided, work, one) for work, one in staged],
            what=", ".join(work.shard.tag for work, _ in staged),
            hint="Run apply again.",
        )
        if any(made):
            self.own.add(ctx.ledger.serial)
        jobs = ctx.ledger.control().jobs
        return [_Intended(w, one, jobs[w.shard.tag]) for (w, one), yes in zip(staged, made, strict=True) if yes]

    def _decided(self, work: Work, staged: Staged) -> tuple[list[Intent], list[RowsFile]] | None:
        self._check_rows([work])
        if not self._has_room(work) or refusal(self._ctx, self._plan, work.plan, work.shard):
            return None
        intent = self._intent(work, self._ctx.backend(work.plan.backend), staged)
        return [intent], [RowsFile(work.plan.name, self._bundle / work.shard.rows_path, work.shard.rows)]

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
            model=work.model,
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
            wave_of=self._plan.wave_of,
            edit=ctx.edit(work.plan.name),
            cache=named_from_now(ctx, work, self._caches.get(shard.tag)),
        )

    def _labels(self, work: Work) -> dict[str, str]:
        plan = short(self._plan.digest)
        return {"project": self._ctx.project.config.project, "spec": work.plan.name, "plan": plan}

    def _give_back(self, several: Sequence[_Intended], *, reason: str, how: str) -> None:
        """Record that surely no job came of intents; their shards may be sent again by this very run."""
        for one in several:
            if not_submitted(self._ctx, one.record, reason=reason, how=how):
                self._as_planned[one.work.shard.tag] = self._ctx.ledger.serial

    def _too_late(self, one: _Intended) -> list[Work]:
        """Another runner may soon take the job for lost, so it is not created under this intent any more."""
        name, tag = one.work.plan.backend, one.work.shard.tag
        self._give_back([one], reason="the deadline for creating the job had passed", how="too_late")
        self._most = max(1, self._most // 2)
        seconds = window_for_create(self._ctx, name).total_seconds()
        what = f"{tag} could not be begun within {seconds:g} s of its intent"
        return self._again(one, what, f"Raise `settle` of backend {name}.")

    def _without_cache(self, one: _Intended) -> list[Work]:
        """The cache that its lines name is gone: they are staged again, with another."""
        self._give_back([one], reason="the context cache that it names was gone", how="stopped")
        what = f"The context cache of {one.work.shard.tag} was gone before the job could be created"
        return self._again(one, what, "Look who drops it, or leave `cache` out of the spec.")

    def _again(self, one: _Intended, what: str, hint: str) -> list[Work]:
        """A few times a shard goes back into the queue."""
        self._late[one.work.shard.tag] += 1
        if self._late[one.work.shard.tag] == _LATE_STARTS:
            hint = f"{hint} Its rows were not sent and are not charged an attempt."
            raise BackendError(f"{what}, {_LATE_STARTS} times.", hint=hint)
        return [one.work]

    def _refused(self, one: _Intended, error: NotCreated) -> list[Work]:
        """Surely no job: the rows are given back. A quota refusal waits, anything else is the user's to mend."""
        name = one.work.plan.backend
        self._give_back([one], reason=error.message, how="refused")
        if error.status != 429:
            raise error
        self._room.refused(name, one.work.shard.tag, error)
        return [one.work]

    def _look_for(self, record: JobRecord, error: OutcomeUnknown) -> None:
        """A job may exist: look for it for a moment, else leave the intent open for the next run to settle."""
        ctx = self._ctx
        ctx.progress.note(f"{sentence(error)} Looking for the job.")
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

        Raises AuthError or BackendError when the service refuses the key or the model, UnknownJobs when it has jobs
        that this ledger forgot, StalePlan when rows of a shard changed since it was planned.
        """
        for name, model, task in dict.fromkeys(
            (w.plan.backend, w.model, self._ctx.task(w.plan.name)) for w in self._work
        ):
            self._ctx.backend(name).check_model(model, task=task)
        self._check_rows(self._work)
        for name in dict.fromkeys(w.plan.backend for w in self._work):
            self._there |= already_there(self._ctx, name, [w.shard.tag for w in self._work])

    def _check_rows(self, queue: Sequence[Work]) -> None:
        """Refuse shards with rows that someone else changed since they were planned. Raises StalePlan.

        Every commit of this run may have been laid on top of another runner's, so it is asked before each intent.
        """
        serial = self._ctx.ledger.serial
        for work in queue:
            tag, path = work.shard.tag, self._bundle / work.shard.rows_path
            refuse_changed(self._ctx, work.plan.name, path, since=self._as_planned[tag], own=self.own)
            self._as_planned[tag] = serial
