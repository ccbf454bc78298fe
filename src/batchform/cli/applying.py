"""What `apply` and `sync` do, for the command line and for Python alike. Nothing is printed or asked here: that is the
audience's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.cli.options import Asked, Reviewed
    from batchform.cli.wiring import Session
    from batchform.errors import BatchformError
    from batchform.plan.model import Plan
    from batchform.run.budget import Refused
    from batchform.run.context import Progress, RunContext
    from batchform.run.outcome import Left, Outcome
    from batchform.spec.resolved import ResolvedSpec


class Audience(Protocol):
    """Who a run talks to."""

    def progress(self) -> AbstractContextManager[Progress]:
        """Who is told while something goes on."""
        ...

    def planned(self, plan: Plan, *, moved: str) -> None:
        """What will be sent, before limits are looked at. moved: what changed since a saved plan was made, in words."""
        ...

    def agree(self, plan: Plan) -> None:
        """Called right before anything is sent of a plan that nobody has saved; raises to send nothing."""
        ...


class Applied(Struct, frozen=True):
    """What an apply did. held: rows that the plan did not send."""

    plan: Plan
    outcome: Outcome
    held: int


def apply_project(
    session: Session,
    audience: Audience,
    *,
    saved: str | None = None,
    reviewed: Reviewed | None = None,
    select: Sequence[str] = (),
    allow: Sequence[str] = (),
    reason: str = "",
    on_change: Sequence[str] = (),
    detach: bool = False,
) -> Applied:
    """Plan and send; or send exactly a saved plan (a folder, or gs://); or plan, and send inside what was reviewed.
    on_change: `SPEC=rerun|keep|canary:N` for answered rows after an edit. detach: do not wait for the jobs.

    Raises UsageError for what was reviewed with `select`, `allow` or `on_change`, LimitExceeded when a limit holds
    rows, StalePlan when what was reviewed is no longer what would run, and what stops a run.
    """
    from batchform.cli.plans import asked_of
    from batchform.cli.waves import Waves
    from batchform.errors import LedgerMoved, StalePlan, UsageError
    from batchform.plan.model import Action
    from batchform.plan.moving import as_moved
    from batchform.run.reconcile import apply_plan, fold_ledger

    if saved and reviewed:
        hint = f"Apply it, batchform apply {saved}, or what was approved."
        raise UsageError("a saved plan is what was reviewed already", hint=hint)
    if (saved or reviewed) and (select or allow or on_change):
        hint = f"A saved plan is applied whole: batchform apply {saved}" if saved else "What was approved says them."
        raise UsageError("--select, --allow and --on-change belong to planning", hint=hint)
    with audience.progress() as progress:
        bundle = Path(saved).resolve() if saved and not is_remote(saved) else session.scratch / "bundle"
        ctx = session.run_context(progress, bundle)
        if reviewed:
            chosen = _inside(session, ctx, reviewed, bundle)
        elif saved:
            chosen = _saved(session, ctx, saved, bundle)
        else:
            specs = session.select(select)
            chosen = _planned(session, ctx, specs, asked_of(specs, allow, on_change, reason=reason), bundle)
    audience.planned(chosen, moved=_tables_moved(session, chosen) if saved else "")
    if any(not v.ok for v in chosen.all_verdicts):
        raise _held(chosen)
    with as_moved(session.ledger, chosen, bundle):
        _check_destinations(session, chosen)
    if not (saved or reviewed):
        audience.agree(chosen)
    with audience.progress() as progress:
        ctx = session.run_context(progress, bundle)
        try:
            names = {s.name for s in chosen.specs}
            waves = None if chosen.purpose == "promote" else Waves(session, ctx, names)  # which sends nothing
            outcome = apply_plan(ctx, chosen, bundle, wait="submitted" if detach else "done", waves=waves)
        except StalePlan as exc:
            if saved:
                raise
            raise LedgerMoved(exc.message, hint="Another apply was at work. Run again: it plans anew.") from exc
        if not detach and not outcome.interrupted:
            _settle(session, ctx, outcome, chosen)
    fold_ledger(ctx)
    return Applied(chosen, outcome, sum(s.actions.get(Action.HELD, 0) for s in chosen.specs))


def sync_project(
    session: Session,
    audience: Audience,
    *,
    select: Sequence[str] = (),
    wait: bool = False,
    at_most: float | None = None,
) -> Outcome:
    """Bring what was applied a step further; with `wait` until it is done, or for `at_most` seconds."""
    from batchform.cli.waves import Waves
    from batchform.run.reconcile import fold_ledger, sync

    specs = session.select(select)
    with audience.progress() as progress:
        ctx = session.run_context(progress)
        held: list[Refused] = []
        left: list[Left] = []
        retry = partial(_retries, session, ctx, specs, held, left)
        waves = Waves(session, ctx, {s.name for s in specs})
        outcome = sync(ctx, specs, wait="done" if wait else "no", at_most=at_most, retry=retry, waves=waves)
        outcome.refused += held
        outcome.left = left[-1] if left else None
    fold_ledger(ctx)
    return outcome


def error_of(session: Session, outcome: Outcome, *, detached: bool) -> BatchformError | None:
    """What the exit code says of a run; None if it went well."""
    return outcome.error({s.name: s.spec.tolerate_failed for s in session.project.specs}, detached=detached)


# --- plans ---------------------------------------------------------------------------------------------------------


def _inside(session: Session, ctx: RunContext, reviewed: Reviewed, bundle: Path) -> Plan:
    """A fresh plan of what was approved. Raises StalePlan when it lies outside."""
    from batchform.cli.approved import asked_by, find_envelope, held_inside, specs_of

    envelope = find_envelope(session.root, reviewed.digest, reviewed.where)
    specs = specs_of(session, envelope)
    plan = _planned(session, ctx, specs, asked_by(envelope), bundle)
    return held_inside(session, envelope, plan, specs, reviewed.approver)


def _planned(session: Session, ctx: RunContext, specs: Sequence[ResolvedSpec], asked: Asked, bundle: Path) -> Plan:
    """A fresh plan with its shards, made after open submissions are settled, so that it sees what became of them."""
    from batchform.cli.plans import make_plan
    from batchform.run.rebuild import rebuild_answers
    from batchform.run.reconcile import settle_past

    settle_past(ctx)
    from batchform.spec.chains import with_upstreams

    rebuild_answers(ctx, with_upstreams(specs, session.project.specs))
    return make_plan(session, specs, asked=asked, folder=bundle)


def _tables_moved(session: Session, plan: Plan) -> str:
    """That prices or models are others than those of the plan, in words; "" if they are not."""
    now, then = session.registry, (("prices", plan.prices_dated), ("models", plan.models_dated))
    moved = [
        f"{what} of {was}, now of {new}" for what, was in then if was and was != (new := getattr(now, f"{what}_dated"))
    ]
    if not moved:
        return ""
    return f"The tables moved since the plan was made ({'; '.join(moved)}): budgets are held to what the plan says."


def _saved(session: Session, ctx: RunContext, plan: str, bundle: Path) -> Plan:
    """The saved plan, refused when it or anything that it was made from has changed."""
    if not is_remote(plan):
        return _checked(session, ctx, bundle)
    remote = session.remote_bundle(plan)
    remote.download(bundle)
    with remote.named(bundle):
        return _checked(session, ctx, bundle)


def _checked(session: Session, ctx: RunContext, bundle: Path) -> Plan:
    from batchform.plan.bundle import check_files, check_fresh, load_bundle
    from batchform.run.rebuild import rebuild_answers

    manifest = load_bundle(bundle)
    names = {s.name for s in manifest.plan.specs}
    specs = [s for s in session.project.specs if s.name in names]
    con = session.connect(bundle)
    try:
        check_files(bundle, manifest, con)
    finally:
        con.close()
    from batchform.spec.chains import with_upstreams

    rebuild_answers(ctx, with_upstreams(specs, session.project.specs))
    check_fresh(manifest, session.project, session.ledger, _source_digests(session, specs))
    return manifest.plan


def _source_digests(session: Session, specs: Sequence[ResolvedSpec]) -> dict[str, str]:
    """What each source holds now, as a digest."""
    from contextlib import closing

    from batchform.ports import Identified
    from batchform.rows.keyed import source_digest

    found = {}
    for spec in specs:
        source = session.rows(spec)
        if isinstance(source, Identified):
            found[spec.name] = source_digest((), source.identity())
            continue
        with closing(session.connect()) as con:
            relation = source.open(con)
            found[spec.name] = source_digest(relation.paths, relation.identity)
    return found


def _retries(
    session: Session, ctx: RunContext, specs: Sequence[ResolvedSpec], refused: list[Refused], left: list[Left]
) -> tuple[Plan, Path] | None:
    """A plan that sends failed rows again, as far as `retry` allows; None when there is nothing to send or settle, or
    a limit holds them: that is added to `refused`. What it leaves alone is added to `left`."""
    from batchform.cli.plans import make_plan
    from batchform.errors import SourceError
    from batchform.run.budget import Refused
    from batchform.run.left import left_by_ledger, left_by_plan
    from batchform.run.outcome import Left

    unsettled = {s.name: _unsettled(session, s.name) for s in specs}
    waiting = [s for s in specs if s.spec.idempotency.reuse_identical or unsettled[s.name]]
    unplanned = left_by_ledger(ctx, [s for s in specs if s not in waiting])
    left.append(unplanned)
    if not waiting:
        return None
    bundle = session.scratch / f"retry-{session.ledger.serial}"
    try:
        plan = make_plan(session, waiting, folder=bundle, purpose="retry")
    except SourceError as exc:
        ctx.progress.note(f"failed rows were not looked at again: {exc.message}")
        left[-1] = Left(unplanned.failed, unplanned.for_apply + sum(unsettled.values()))
        return None
    held = tuple(v for v in plan.all_verdicts if not v.ok)
    if rows := sum(n for s in plan.specs for why, n in s.held_by.items() if why.startswith("limit ")):
        refused.append(Refused(rows, held))
    idle = plan.rows_to_send == 0 and not any(s.bookkeeping for s in plan.specs)
    left[-1] = left_by_plan(plan, unplanned, reads="no" if held or idle else "yes")
    return None if held or idle else (plan, bundle)


def _unsettled(session: Session, name: str) -> int:
    """Rows that failed or are queued."""
    if name not in session.ledger.specs():
        return 0
    con = session.connect()
    try:
        rows = session.ledger.rows_relation(con, name)
        found = con.execute(f"SELECT count(*) FROM {rows} WHERE status IN ('failed', 'pending')").fetchall()
        return int(found[0][0])
    finally:
        con.close()


def _settle(session: Session, ctx: RunContext, outcome: Outcome, plan: Plan) -> None:
    """Give rows that share a request the answer that has just come for another of them, and deliver it."""
    from batchform.cli.plans import make_plan
    from batchform.run.reconcile import apply_plan

    names = [s.name for s in plan.specs if s.waiting]
    if not names or outcome.running:
        return
    bundle = session.scratch / "settle"
    settled = make_plan(session, [session.spec(n) for n in names], folder=bundle, purpose="settle")
    outcome.delivered.update(apply_plan(ctx, settled, bundle).delivered)


def _held(plan: Plan) -> Exception:
    from batchform.errors import LimitExceeded

    failed = [v for v in plan.all_verdicts if not v.ok]
    names = "; ".join(f"{v.scope}: {v.message}" for v in failed)
    return LimitExceeded(f"nothing was sent: {names}", hint="Or raise the limit in the file that sets it.")


def _check_destinations(session: Session, plan: Plan) -> None:
    """Refuse before anything is paid for if the answers could not be written. Raises DestinationError."""
    from batchform.plan.recorded import check_destination

    for planned in plan.specs:
        if planned.delivers:
            spec = session.spec(planned.name)
            check_destination(session.ledger.control(), spec, session.destination(spec))
