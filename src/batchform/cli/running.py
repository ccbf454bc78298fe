"""`apply` and `sync`: send what was planned, track it, collect and deliver it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, allowances, common, selection
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.model import Plan
    from batchform.run.budget import Refused
    from batchform.run.context import RunContext
    from batchform.run.outcome import Left, Outcome
    from batchform.spec.resolved import ResolvedSpec
    from batchform.view.progress import BarProgress, LineProgress


@click.command("apply", short_help="Send what a plan says, wait, and deliver.")
@click.argument("plan", required=False, metavar="[PLAN]")
@selection
@allowances
@click.option("--detach", is_flag=True, help="Return once the jobs are created; `sync` goes on.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before sending rows that cost money.")
@common
def apply_command(
    common: Common, plan: str | None, select: Sequence[str], allow: Sequence[str], detach: bool, yes: bool
) -> int:
    """Plan and send, or send exactly the saved PLAN. Waits for the jobs and delivers their answers.

    Ctrl-C detaches: everything is recorded, the jobs go on, `batchform sync --wait` comes back to them.
    """
    from batchform.cli.planning import note_warnings
    from batchform.cli.waves import Waves
    from batchform.cli.wiring import RUNNING_MEMORY, open_session
    from batchform.errors import LedgerMoved, StalePlan, UsageError
    from batchform.plan.model import Action
    from batchform.run.reconcile import apply_plan, fold_ledger

    if plan and (select or allow):
        raise UsageError(
            "--select and --allow belong to planning", hint=f"A saved plan is applied whole: batchform apply {plan}"
        )
    with open_session(common, memory=RUNNING_MEMORY, saved=plan) as session:
        note_warnings(session, common)
        with make_progress_for(common) as progress:
            bundle = Path(plan).resolve() if plan and not is_remote(plan) else session.scratch / "bundle"
            ctx = session.run_context(progress, bundle)
            chosen = _saved(session, ctx, plan, bundle) if plan else _planned(session, ctx, select, allow, bundle)
        if plan and (moved := _tables_moved(session, chosen)) and not common.quiet:
            click.echo(moved, err=True)
        if not common.as_json and not plan:
            _show(chosen, common)
        if any(not v.ok for v in chosen.all_verdicts):
            raise _held(chosen)
        _check_destinations(session, chosen)
        if not plan:
            _confirm(chosen, yes)
        with make_progress_for(common) as progress:
            ctx = session.run_context(progress, bundle)
            try:
                waves = Waves(session, ctx, {s.name for s in chosen.specs})
                outcome = apply_plan(ctx, chosen, bundle, wait="submitted" if detach else "done", waves=waves)
            except StalePlan as exc:
                if plan:
                    raise
                raise LedgerMoved(exc.message, hint="Another apply was at work. Run again: it plans anew.") from exc
            if not detach and not outcome.interrupted:
                _settle(session, ctx, outcome, chosen)
        fold_ledger(ctx)
        held = sum(s.actions.get(Action.HELD, 0) for s in chosen.specs)
        return _finish(session, outcome, common, detached=detach, held=held)


@click.command("sync", short_help="One step: recover, look at jobs, collect, retry, deliver.")
@selection
@click.option("--wait", is_flag=True, help="Go on until no job is open, and no submission of unknown outcome.")
@click.option("--at-most", metavar="DURATION", help="Such as 10m: how long --wait goes on. Exit code 7 or 8 then.")
@common
def sync_command(common: Common, select: Sequence[str], wait: bool, at_most: str | None) -> int:
    """Bring what was applied a step further: for cron, or with --wait until it is done.

    Queued rows are sent, and failed ones as far as the spec's `retry` allows, if they still ask what was applied;
    nothing else is sent.
    """
    from batchform.cli.waves import Waves
    from batchform.cli.wiring import RUNNING_MEMORY, open_session
    from batchform.run.reconcile import fold_ledger, sync

    seconds = _seconds(at_most, wait=wait)
    with open_session(common, memory=RUNNING_MEMORY) as session:
        specs = session.select(select)
        with make_progress_for(common) as progress:
            ctx = session.run_context(progress)
            held: list[Refused] = []
            left: list[Left] = []
            retry = partial(_retries, session, ctx, specs, held, left)
            waves = Waves(session, ctx, {s.name for s in specs})
            outcome = sync(ctx, specs, wait="done" if wait else "no", at_most=seconds, retry=retry, waves=waves)
            outcome.refused += held
            outcome.left = left[-1] if left else None
        fold_ledger(ctx)
        return _finish(session, outcome, common, detached=not wait)


def _seconds(at_most: str | None, *, wait: bool) -> float | None:
    """Of `--at-most`. Raises UsageError."""
    from batchform.errors import UsageError
    from batchform.spec.fields import parse_duration

    if at_most is None:
        return None
    if not wait:
        raise UsageError("--at-most says how long --wait goes on", hint="Add --wait.")
    try:
        return parse_duration(at_most)
    except ValueError as error:
        raise UsageError(f"--at-most {at_most}: {error}", hint="Such as 10m or 2h.") from None


# --- plans ---------------------------------------------------------------------------------------------------------


def _planned(session: Session, ctx: RunContext, select: Sequence[str], allow: Sequence[str], bundle: Path) -> Plan:
    """A fresh plan with its shards, made after open submissions are settled, so that it sees what became of them."""
    from batchform.cli.planning import make_plan
    from batchform.run.rebuild import rebuild_answers
    from batchform.run.reconcile import settle_past

    specs = session.select(select)
    settle_past(ctx)
    from batchform.spec.chains import with_upstreams

    rebuild_answers(ctx, with_upstreams(specs, session.project.specs))
    return make_plan(session, specs, allow=allow, folder=bundle)


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
    from batchform.cli.planning import make_plan
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
    from batchform.cli.planning import make_plan
    from batchform.run.reconcile import apply_plan

    names = [s.name for s in plan.specs if s.waiting]
    if not names or outcome.running:
        return
    bundle = session.scratch / "settle"
    settled = make_plan(session, [session.spec(n) for n in names], folder=bundle, purpose="settle")
    outcome.delivered.update(apply_plan(ctx, settled, bundle).delivered)


# --- asking and telling ----------------------------------------------------------------------------------------------


def make_progress_for(common: Common) -> LineProgress | BarProgress:
    """Progress on standard error, so that standard output holds results only; nowhere when nobody wants it."""
    from io import StringIO

    from batchform.view.progress import make_progress

    return make_progress(StringIO() if common.quiet or common.as_json else sys.stderr)


def _show(plan: Plan, common: Common) -> None:
    from batchform.cli.planning import echo_plan

    if not common.quiet:
        echo_plan(plan, "text")


def _held(plan: Plan) -> Exception:
    from batchform.errors import LimitExceeded

    failed = [v for v in plan.all_verdicts if not v.ok]
    names = "; ".join(f"{v.scope}: {v.message}" for v in failed)
    return LimitExceeded(f"nothing was sent: {names}", hint="Or raise the limit in the file that sets it.")


def _confirm(plan: Plan, yes: bool) -> None:
    """Ask before rows are paid for. Without a terminal --yes, or a saved plan, must say it."""
    from batchform.cli.wiring import is_terminal
    from batchform.errors import UsageError
    from batchform.spec.wording import counted, money
    from batchform.view.summary import after_words

    if yes or plan.rows_to_send + plan.rows_after == 0:
        return
    later = f", and {after_words(plan.rows_after, plan.cost_after)}" if plan.rows_after else ""
    if not is_terminal():
        raise UsageError(
            f"{counted(plan.rows_to_send, 'row')} would be sent{later} and there is no terminal to ask",
            hint="Add --yes, or review a saved plan and apply it: batchform plan --out DIR && batchform apply DIR",
        )
    click.confirm(f"Send {counted(plan.rows_to_send, 'row')} for about {money(plan.cost.expected)}{later}?", abort=True)


def _check_destinations(session: Session, plan: Plan) -> None:
    """Refuse before anything is paid for if the answers could not be written. Raises DestinationError."""
    from batchform.plan.recorded import check_destination

    for planned in plan.specs:
        if planned.delivers:
            spec = session.spec(planned.name)
            check_destination(session.ledger.control(), spec, session.destination(spec))


def _finish(session: Session, outcome: Outcome, common: Common, *, detached: bool, held: int = 0) -> int:
    """Say what was done; the exit code comes from the outcome's error, if it has one."""
    import json

    from batchform.view.outcome import outcome_json, outcome_lines

    held += sum(r.rows for r in outcome.refused)
    error = outcome.error({s.name: s.spec.tolerate_failed for s in session.project.specs}, detached=detached)
    if common.as_json:
        click.echo(json.dumps(outcome_json(outcome, error)))
        return error.exit_code if error else 0
    if not common.quiet:
        for line in outcome_lines(outcome, detached=detached, held=held):
            click.echo(line)
    if error:
        print(f"error: {error.render()}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0
