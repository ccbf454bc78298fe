"""The loops: apply a plan, or take one step towards what was applied before. Each returns what happened.

Every step is durable before the next begins, so an interrupt at any point loses nothing and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from batchform.errors import BackendError, BatchformError, DestinationError
from batchform.ledger.compact import compact
from batchform.ledger.records import Allowed, ChangeDecided, Refreshed
from batchform.ledger.store import RowsFile
from batchform.plan.changes import own_words
from batchform.plan.model import Action, Plan, SpecPlan
from batchform.rows.sql import literal
from batchform.run.answers import OUTCOME, UNREAD
from batchform.run.approvals import record_approvals
from batchform.run.budget import check_budgets
from batchform.run.caches import prolong_caches
from batchform.run.collect import Finished, collect_together
from batchform.run.context import RunContext, open_intents, open_jobs, state_seen
from batchform.run.freed import give_back
from batchform.run.kept_inputs import clean_up
from batchform.run.moves import record_moves
from batchform.run.outcome import Outcome
from batchform.run.rebuild import deliver_mended, rebuild_answers
from batchform.run.recover import Recovered, next_settled, recover
from batchform.run.reparse import reparse
from batchform.run.rollouts import record_stages
from batchform.run.row_states import refuse_changed
from batchform.run.steps import (
    APPROVE,
    CHECK,
    DECIDE,
    FINISH,
    FREE,
    GO_ON,
    JUDGE,
    MOVE,
    RELEASE,
    SEND,
    SETTLE,
    STAGE,
    WAIT,
    Step,
    carried_out,
    steps_of,
)
from batchform.run.submission import Submission
from batchform.run.submit import Submitter
from batchform.run.track import Tracker, look_again
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

_LEASE_SECONDS: Final = 300.0

Retry = Callable[[], tuple[Plan, Path] | None]
"""Makes a plan of purpose "retry" and its bundle; None when no failed row is worth another attempt."""


def apply_plan(
    ctx: RunContext,
    plan: Plan,
    bundle: Path,
    *,
    wait: str = "done",
    waves: Callable[[Outcome], tuple[Plan, Path] | None] | None = None,
) -> Outcome:
    """Do what a plan says. wait: "done" tracks, collects and delivers; "submitted" detaches once jobs are created.
    waves: makes a plan of what has become known of chains, and its bundle; None when there is nothing more now.

    Raises LimitExceeded when the plan has passed a budget since it was made, and what stops a run; what was created
    before is recorded. Ctrl-C returns an Outcome that says interrupted.
    """
    outcome = Outcome()
    give_back()  # what the plan was made with

    names = [s.name for s in plan.specs]
    doing: dict[str, Callable[[], object]] = {
        SETTLE: lambda: settle_past(ctx, outcome),
        JUDGE: lambda: check_budgets(ctx, plan),
        CHECK: lambda: _carry_out(ctx, outcome, plan, bundle, leave=wait == "submitted"),  # and all that is CARRIED
        WAIT: lambda: _wait_for_jobs(ctx, outcome, Tracker(ctx)),
        GO_ON: lambda: _go_on(ctx, outcome, names, waves),
        FINISH: lambda: _finish(ctx, outcome, names),
    }

    def steps() -> None:
        for step in steps_of(plan, wait=wait):
            if step.kind in doing and not (outcome.stopped and step.kind in (WAIT, GO_ON)):
                doing[step.kind]()

    return _run(ctx, outcome, steps)


def sync(
    ctx: RunContext,
    specs: Sequence[ResolvedSpec],
    *,
    wait: str = "no",
    at_most: float | None = None,
    retry: Retry | None = None,
    waves: Callable[[Outcome], tuple[Plan, Path] | None] | None = None,
) -> Outcome:
    """One step: recover, look, collect, retry, deliver. wait: "no" looks once; "done" goes on until no job is open and
    every submission of unknown outcome that can be settled here is settled; at_most: seconds after which that ends."""
    outcome = Outcome()
    names = [s.name for s in specs]
    until = None if at_most is None else ctx.clock.now() + timedelta(seconds=at_most)

    def steps() -> None:
        settle_past(ctx, outcome)
        rebuild_answers(ctx, specs)
        tracker = Tracker(ctx)
        _round(ctx, outcome, tracker)
        while True:
            if wait == "done":
                _wait_for_jobs(ctx, outcome, tracker, settles=partial(next_settled, ctx), until=until)
            if until and ctx.clock.now() >= until:
                break
            makers = [retry, partial(waves, outcome) if waves else None]
            if not _send_more(ctx, outcome, makers, wait=wait) or wait != "done" or outcome.refused:
                break
        _finish(ctx, outcome, names)

    return _run(ctx, outcome, steps)


def _send_more(ctx: RunContext, outcome: Outcome, makers: Sequence[Retry | None], *, wait: str) -> bool:
    """Carry out what the makers plan: the first that plans anything, or each once if nothing is waited for. Whether
    there was anything."""
    sent = False
    for make in makers:
        if make is None or outcome.stopped or outcome.not_sent or (again := make()) is None:
            continue
        _carry_out(ctx, outcome, *again, leave=wait != "done")
        sent = True
        if wait == "done":
            break
    return sent


def _go_on(
    ctx: RunContext,
    outcome: Outcome,
    names: Sequence[str],
    waves: Callable[[Outcome], tuple[Plan, Path] | None] | None,
) -> None:
    """The waves of chains, each when the answers of the one before are there. What is there is delivered first."""
    while waves is not None and outcome.stopped is None and not outcome.not_sent:
        again = waves(outcome)
        if again is None:
            return
        _finish(ctx, outcome, names)
        _carry_out(ctx, outcome, *again, leave=False)
        _wait_for_jobs(ctx, outcome, Tracker(ctx))


def _run(ctx: RunContext, outcome: Outcome, steps: Callable[[], None]) -> Outcome:
    try:
        steps()
    except KeyboardInterrupt:
        outcome.interrupted = True
        ctx.ledger.refresh()
    outcome.failures = _failures(ctx, outcome)
    outcome.running = [r.tag for r in open_jobs(ctx)]
    outcome.unknown = [r.tag for r in open_intents(ctx)]
    return outcome


def settle_past(ctx: RunContext, outcome: Outcome | None = None) -> None:
    """What every command does first that may send rows: settle open intents, and look again at what was given up on."""
    outcome = outcome or Outcome()
    _note_recovered(outcome, recover(ctx))
    outcome.reopened += look_again(ctx)


def _failures(ctx: RunContext, outcome: Outcome) -> dict[str, Counter[str]]:
    """The collected rows that are failed now, by spec and class."""
    failures: dict[str, Counter[str]] = {}
    tags = ", ".join(map(literal, outcome.collected))
    for spec in (s for s, classes in outcome.rows.items() if classes.total() > classes["answered"]):
        with closing(ctx.connect()) as con:
            found = con.execute(
                f"SELECT failure, count(*) FROM {ctx.ledger.rows_relation(con, spec)} "
                f"WHERE status = 'failed' AND tag IN ({tags}) AND {OUTCOME} <> '{UNREAD}' GROUP BY failure ORDER BY 1"
            ).fetchall()
        failures[spec] = Counter({str(name): int(n) for name, n in found})
    return failures


# --- steps -------------------------------------------------------------------------------------------------------


def _carry_out(ctx: RunContext, outcome: Outcome, plan: Plan, bundle: Path, *, leave: bool) -> None:
    """Record what is free, send what is not. The lease says who is at it, so that another apply stops early and
    politely; nothing depends on it, and it is not held while jobs are waited for.

    What a service refuses stops the sending, and nothing else: what was sent before is collected and delivered.
    """
    with ctx.ledger.lease(_LEASE_SECONDS) as lease:
        if lease.takeover:
            ctx.progress.note(lease.takeover)

        def on_full(tracker: Tracker) -> None:
            lease.renew()
            _round(ctx, outcome, tracker)

        submitter = Submitter(ctx, plan, bundle, on_full=on_full)
        named = {s.name: s for s in plan.specs}
        doing: dict[str, Callable[[Step], object]] = {
            CHECK: lambda _: submitter.check(),
            RELEASE: lambda _: _record_allowed(ctx, plan),
            DECIDE: lambda _: _record_decided(ctx, plan),
            STAGE: lambda _: record_stages(ctx, plan),
            APPROVE: lambda _: record_approvals(ctx, plan),
            MOVE: lambda _: submitter.own.update(record_moves(ctx, plan, bundle)),
            FREE: lambda step: _apply_free(ctx, outcome, plan, named[step.spec], bundle, own=submitter.own),
            SEND: lambda _: submitter.run(wait_for_room="leave" if leave else "wait"),
        }
        try:
            for step in carried_out(plan):
                doing[step.kind](step)
        except BackendError as error:
            outcome.stopped = error
            if at_work := open_jobs(ctx):
                ctx.progress.note(f"{counted(len(at_work), 'job')} sent before go on: `batchform sync` collects them.")
        finally:
            _note_submitted(outcome, submitter.done)


def _record_allowed(ctx: RunContext, plan: Plan) -> None:
    """Which limits somebody released for this plan: of a run that can begin, not of one that is refused."""
    released = [
        Allowed(
            at=ctx.now(),
            by=ctx.who,
            limit=f"{v.scope}.{v.name}",
            plan_digest=plan.digest,
            message=v.message,
            reason=plan.reason,
        )
        for v in plan.all_verdicts
        if v.allowed
    ]
    if released:
        ctx.ledger.commit(released)


def _record_decided(ctx: RunContext, plan: Plan) -> None:
    """What the command line said becomes of answered rows that an edit would send again: later plans keep to it."""
    events = []
    for planned in plan.specs:
        change, spec = planned.change, ctx.spec(planned.name)
        if change is None or change.source != "command" or spec is None:
            continue
        events.append(
            ChangeDecided(
                at=ctx.now(), by=ctx.who, spec=spec.name, components=change.components, decision=change.decision,
                rows=change.canary, own=own_words(spec), plan_digest=plan.digest,
            )
        )  # fmt: skip
    if events:
        ctx.ledger.commit(events)


def _apply_free(
    ctx: RunContext, outcome: Outcome, plan: Plan, planned: SpecPlan, bundle: Path, *, own: Collection[int]
) -> None:
    """What costs nothing: row states that the plan worked out, and archived answers read anew. own: serials of commits
    that are part of the plan."""
    if planned.bookkeeping is not None:
        path = bundle / planned.bookkeeping
        kinds = (Action.KEEP, Action.REUSE, Action.FORGET, Action.REMOVE)
        counts = {a.value: planned.actions[a] for a in kinds if planned.actions.get(a)}
        event = Refreshed(at=ctx.now(), by=ctx.who, spec=planned.name, rows=counts, plan_digest=plan.digest)
        rows = RowsFile(planned.name, path, _rows_in(path))
        refuse_changed(ctx, planned.name, path, since=plan.serial, own=own)
        ctx.ledger.commit([event], [rows], expect=ctx.ledger.serial)
    spec = ctx.spec(planned.name)
    if spec is None or planned.reread is None:
        return
    if (reread := reparse(ctx, spec, keys=bundle / planned.reread)) and reread.rows:
        outcome.reread.setdefault(planned.name, Counter()).update(reread.rows)


def _rows_in(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _round(ctx: RunContext, outcome: Outcome, tracker: Tracker) -> None:
    """Look at the open jobs and collect those that ended. A collection that fails now is tried again later."""

    def failed(finished: Finished, error: BackendError) -> None:
        tracker.put_off(finished, error)
        if finished.remote and (seen := state_seen(ctx, finished.record, finished.remote)):
            ctx.ledger.commit(seen)  # from here on `status` knows how long its results are kept

    prolong_caches(ctx)
    ended = tracker.round()
    for first in range(0, len(ended), ctx.ledger.joins):
        several = ended[first : first + ctx.ledger.joins]
        collected = collect_together(ctx, several, failed=failed)
        for record in (f.record for f in several if f.record.tag in collected):
            outcome.collected.append(record.tag)
            outcome.rows.setdefault(record.intent.spec, Counter()).update(collected[record.tag].rows)
            outcome.usd += collected[record.tag].usd
        give_back()
    outcome.unseen |= tracker.unseen


def _wait_for_jobs(
    ctx: RunContext,
    outcome: Outcome,
    tracker: Tracker,
    *,
    settles: Callable[[], datetime | None] = lambda: None,
    until: datetime | None = None,
) -> None:
    """Track and collect until no job is open that can be asked for. Open intents are looked for meanwhile.

    settles: when the next of them can be settled, which is waited for too; until: when the wait ends, whatever is open.
    """
    while True:
        _round(ctx, outcome, tracker)
        if open_intents(ctx):
            _note_recovered(outcome, recover(ctx))
        settled_at = settles()
        if not tracker.open() and settled_at is None:
            return
        if until is not None and ctx.clock.now() >= until:
            return
        tracker.pause(min((at for at in (settled_at, until) if at is not None), default=None))


def _finish(ctx: RunContext, outcome: Outcome, names: Sequence[str]) -> None:
    """Clean up what is settled, deliver what is new. One destination that fails does not hold up the others."""
    clean_up(ctx)
    fold_ledger(ctx)  # first: what is delivered is read from the folded rows as they lie, without comparing any
    failed: list[BatchformError] = []
    for name in dict.fromkeys((*names, *outcome.rows)):
        spec = ctx.spec(name)
        try:
            delivered = deliver_mended(ctx, spec) if spec is not None else None
        except DestinationError as error:
            failed.append(error)
            continue
        if delivered is not None:
            outcome.delivered[name] = delivered
            ctx.progress.delivered(name, delivered)
    for other in failed[1:]:
        ctx.progress.note(other.render())
    if failed:
        raise failed[0]


def fold_ledger(ctx: RunContext) -> None:
    """Compact the rows of specs where reading pays for it."""
    give_back()
    for name in ctx.ledger.specs():
        if ctx.ledger.should_compact(name):
            compact(ctx.ledger, ctx.connect, spec=name, scratch=ctx.work_dir)
            give_back()


def _note_recovered(outcome: Outcome, found: Recovered) -> None:
    outcome.adopted += found.adopted
    outcome.returned += found.returned


def _note_submitted(outcome: Outcome, done: Submission) -> None:
    outcome.created += done.created
    outcome.adopted += done.adopted
    outcome.not_sent += done.held
    outcome.refused += done.over_budget
