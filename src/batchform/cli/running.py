"""`apply` and `sync`: send what was planned, track it, collect and deliver it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, Reviewed, allowances, changes, common, counting, selection
from batchform.cli.planning import streamed, told

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.model import Plan
    from batchform.run.outcome import Outcome
    from batchform.view.events import Events
    from batchform.view.progress import BarProgress, LineProgress


@click.command("apply", short_help="Send what a plan says, wait, and deliver.")
@click.argument("plan", required=False, metavar="[PLAN]")
@selection
@allowances
@changes
@counting
@click.option("--approved", metavar="DIGEST", help="Plan anew, and send only inside what was approved by this digest.")
@click.option("--envelope", metavar="FILE", help="The plan.json that was approved; default: one in approvals/.")
@click.option("--approver", default="", metavar="NAME", help="Who approved it, recorded in the ledger.")
@click.option("--detach", is_flag=True, help="Return once the jobs are created; `sync` goes on.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before sending rows that cost money.")
@click.option("--events", is_flag=True, help="Print what happens as JSON, one object a line, while it happens.")
@common
def apply_command(
    common: Common,
    plan: str | None,
    select: Sequence[str],
    allow: Sequence[str],
    reason: str,
    on_change: Sequence[str],
    count: int,
    approved: str | None,
    envelope: str | None,
    approver: str,
    detach: bool,
    yes: bool,
    events: bool,
) -> int:
    """Plan and send; or send exactly the saved PLAN; or, with --approved, plan and send inside what was approved.

    Waits for the jobs and delivers their answers.

    Ctrl-C detaches: everything is recorded, the jobs go on, `batchform sync --wait` comes back to them.
    """
    from batchform.cli.applying import apply_project
    from batchform.cli.planning import note_warnings
    from batchform.cli.wiring import RUNNING_MEMORY, open_session
    from batchform.errors import UsageError

    if (envelope or approver) and not approved:
        raise UsageError("--envelope and --approver belong to --approved", hint="Name what was approved by its digest.")
    if count and plan:
        raise UsageError("a saved plan says its tokens already", hint="Count when it is made: batchform plan --count")
    reviewed = Reviewed(approved, envelope, approver) if approved else None
    common, stream = streamed(common, "apply", events=events)
    with told(stream), open_session(common, memory=RUNNING_MEMORY, saved=plan) as session:
        note_warnings(session, common)
        session.count = count
        audience = _Person(common, saved=bool(plan), yes=yes, events=stream)
        done = apply_project(
            session, audience, saved=plan, reviewed=reviewed, select=select, allow=allow, reason=reason,
            on_change=on_change, detach=detach,
        )  # fmt: skip
        return _finish(session, done.outcome, common, detached=detach, held=done.held, events=stream)


@click.command("sync", short_help="One step: recover, look at jobs, collect, retry, deliver.")
@selection
@click.option("--wait", is_flag=True, help="Go on until no job is open, and no submission of unknown outcome.")
@click.option("--at-most", metavar="DURATION", help="Such as 10m: how long --wait goes on. Exit code 7 or 8 then.")
@click.option("--events", is_flag=True, help="Print what happens as JSON, one object a line, while it happens.")
@common
def sync_command(common: Common, select: Sequence[str], wait: bool, at_most: str | None, events: bool) -> int:
    """Bring what was applied a step further: for cron, or with --wait until it is done.

    Queued rows are sent, and failed ones as far as the spec's `retry` allows, if they still ask what was applied;
    nothing else is sent.
    """
    from batchform.cli.applying import sync_project
    from batchform.cli.wiring import RUNNING_MEMORY, open_session

    seconds = _seconds(at_most, wait=wait)
    common, stream = streamed(common, "sync", events=events)
    with told(stream), open_session(common, memory=RUNNING_MEMORY) as session:
        audience = _Person(common, saved=True, yes=True, events=stream)
        outcome = sync_project(session, audience, select=select, wait=wait, at_most=seconds)
        return _finish(session, outcome, common, detached=not wait, events=stream)


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


# --- asking and telling ----------------------------------------------------------------------------------------------


class _Person:
    """Who runs a command: sees progress and plans, and is asked before rows are paid for."""

    def __init__(self, common: Common, *, saved: bool, yes: bool, events: Events | None) -> None:
        self._common, self._saved, self._yes, self._events = common, saved, yes, events

    def progress(self) -> LineProgress | BarProgress:
        return self._events or make_progress_for(self._common)

    def planned(self, plan: Plan, *, moved: str) -> None:
        from batchform.cli.planning import echo_plan

        if self._events:
            self._events.planned(plan)
        if moved and not self._common.quiet:
            click.echo(moved, err=True)
        if not self._saved and not self._common.as_json and not self._common.quiet:
            echo_plan(plan, "text")

    def agree(self, plan: Plan) -> None:
        _confirm(plan, self._yes)


def make_progress_for(common: Common) -> LineProgress | BarProgress:
    """Progress on standard error, so that standard output holds results only; nowhere when nobody wants it."""
    from io import StringIO

    from batchform.view.progress import make_progress

    return make_progress(StringIO() if common.quiet or common.as_json else sys.stderr)


def _confirm(plan: Plan, yes: bool) -> None:
    """Ask before rows are paid for. Without a terminal --yes, or a saved plan, must say it."""
    from batchform.cli.wiring import is_terminal
    from batchform.errors import UsageError
    from batchform.spec.wording import counted, money
    from batchform.view.summary import later_words

    if yes or plan.rows_to_send + plan.rows_after == 0:
        return
    later = f", and {later_words(plan)}" if plan.rows_after else ""
    if not is_terminal():
        raise UsageError(
            f"{counted(plan.rows_to_send, 'row')} would be sent{later} and there is no terminal to ask",
            hint="Add --yes, or review a saved plan and apply it: batchform plan --out DIR && batchform apply DIR",
        )
    click.confirm(f"Send {counted(plan.rows_to_send, 'row')} for about {money(plan.cost.expected)}{later}?", abort=True)


def _finish(
    session: Session, outcome: Outcome, common: Common, *, detached: bool, held: int = 0, events: Events | None = None
) -> int:
    """Say what was done; the exit code comes from the outcome's error, if it has one."""
    import json

    from batchform.cli.applying import error_of
    from batchform.view.outcome import outcome_json, outcome_lines

    held += sum(r.rows for r in outcome.refused)
    error = error_of(session, outcome, detached=detached)
    if events:
        events.outcome(outcome, error, detached=detached, held=held)
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
