"""`plan` and `show`: what would be sent, why, and for how much."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, allowances, changes, common, counting, selection
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.model import Plan
    from batchform.view.events import Events

FORMATS = ("text", "markdown", "json")


@click.command("plan", short_help="Say what would be sent, why, and for how much.")
@selection
@allowances
@changes
@counting
@click.option("--out", metavar="DIR", help="Save the plan with the exact bytes to send: `apply DIR` sends those.")
@click.option("--format", "output", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--steps", is_flag=True, help="Print what apply would do, step by step, from the list that it walks.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there is anything to do, or to decide.")
@click.option("--events", is_flag=True, help="Print the plan as JSON, one object a line.")
@common
def plan_command(
    common: Common,
    select: Sequence[str],
    allow: Sequence[str],
    reason: str,
    on_change: Sequence[str],
    count: int,
    out: str | None,
    output: str,
    steps: bool,
    detailed_exitcode: bool,
    events: bool,
) -> int:
    """Compare every row with what the ledger recorded. Reads only: sends nothing, changes nothing.

    Exit code 0: planned; 2: there is something to do or decide (with --detailed-exitcode); 3: a limit holds rows.
    """
    from batchform.cli.plans import asked_of, make_plan, plan_into
    from batchform.cli.wiring import open_session
    from batchform.errors import UsageError

    if events and (steps or output != "text"):
        raise UsageError("--events, --steps and --format are ways to tell a plan", hint="Choose one of them.")
    common, stream = streamed(common, "plan", events=events)
    with told(stream), open_session(common) as session:
        note_warnings(session, common)
        session.count = count
        specs = session.select(select)
        asked = asked_of(specs, allow, on_change, reason=reason)
        if out:
            plan = plan_into(session, specs, out, asked)
        else:
            plan = make_plan(session, specs, asked=asked, folder=session.scratch / "steps" if steps else None)
        if stream:
            stream.whole_plan(plan, exit_code=plan_exit_code(plan, detailed_exitcode))
            return plan_exit_code(plan, detailed_exitcode)
        if steps:
            echo_steps(plan, as_json=common.as_json or output == "json")
            return plan_exit_code(plan, detailed_exitcode)
        echo_plan(plan, "json" if common.as_json else output)
        if out and not common.quiet and output == "text" and not common.as_json:
            from batchform.view.approval import in_environment

            command = f"batchform apply {out}{in_environment(plan.environment)}"
            click.echo(f"Saved {out} (private: it holds prompts). Apply it with: {command}")
            _echo_approval(plan)
    return plan_exit_code(plan, detailed_exitcode)


@click.command("show", short_help="Show a saved plan, also a stale one.")
@click.argument("plan", metavar="PLAN")
@click.option("--format", "output", type=click.Choice(FORMATS), default="text", show_default=True)
@common
def show_command(common: Common, plan: str, output: str) -> int:
    """Show a saved plan: its folder PLAN, or its summary alone, a plan.json that was passed on without the rest."""
    from batchform.plan.bundle import load_bundle

    output = "json" if common.as_json else output
    if not is_remote(plan):
        echo_plan(kept_plan(Path(plan)), output)
        return 0
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        remote, folder = session.remote_bundle(plan), session.scratch / "shown"
        remote.download(folder)
        with remote.named(folder):
            echo_plan(load_bundle(folder).plan, output)
    return 0


def kept_plan(path: Path) -> Plan:
    """The plan of a bundle; of its summary where there is no bundle that this version can read. Raises UsageError."""
    from batchform.errors import StalePlan
    from batchform.plan.bundle import MANIFEST, load_bundle
    from batchform.view.summary_file import SUMMARY, load_summary

    if path.is_file():
        return load_summary(path)
    summary = path / SUMMARY
    if summary.is_file() and not (path / MANIFEST).is_file():
        return load_summary(summary)
    try:
        return load_bundle(path).plan
    except StalePlan:
        if not summary.is_file():
            raise
        return load_summary(summary)


def streamed(common: Common, command: str, *, events: bool) -> tuple[Common, Events | None]:
    """The stream of events if it was asked for, and nothing else on standard output then."""
    from msgspec.structs import replace

    from batchform.errors import UsageError

    if not events:
        return common, None
    if common.as_json:
        raise UsageError("--events and --json both speak for the run", hint="The last event has what --json prints.")
    from batchform.view.events import Events

    return replace(common, quiet=True), Events(sys.stdout, command)


@contextmanager
def told(events: Events | None) -> Iterator[None]:
    """An error that ends a run is an event, too."""
    from batchform.errors import BatchformError, Interrupted

    try:
        yield
    except (BatchformError, KeyboardInterrupt) as error:
        if events:
            events.failed(error if isinstance(error, BatchformError) else Interrupted("interrupted"))
        raise


def _echo_approval(plan: Plan) -> None:
    """What somebody may approve instead, where rows may move before it is applied."""
    if plan.envelope is None or not plan.has_changes:
        return
    from batchform.view.approval import approval_command, approval_title

    click.echo(f"{approval_title(plan.envelope)}, with: {approval_command(plan.envelope)}")


def note_warnings(session: Session, common: Common) -> None:
    """Say that there are warnings about the project's files, and which; to stderr, so that a plan stays a plan."""
    codes = sorted({f"{w.code} {w.rule}" for w in session.project.warnings})
    if codes and not common.as_json and not common.quiet:
        many = len(session.project.warnings)
        plural = "s" if many != 1 else ""
        click.echo(
            f"{many} warning{plural} ({', '.join(codes)}): `batchform validate` shows {'them' if plural else 'it'}.",
            err=True,
        )


def echo_steps(plan: Plan, *, as_json: bool) -> None:
    """Print the steps that apply would take."""
    from batchform.run.steps import steps_of

    steps = steps_of(plan)
    if as_json:
        import json

        import msgspec

        click.echo(json.dumps({"digest": plan.digest, "steps": msgspec.to_builtins(steps)}, ensure_ascii=False))
        return
    from batchform.view.text import safe

    if held := [v.name for v in plan.all_verdicts if not v.ok]:
        click.echo(f"Nothing would be done: held by {', '.join(dict.fromkeys(held))}. Without that:")
    for number, step in enumerate(steps, 1):
        click.echo(f"{number:>3}  {safe(step.words)}")
        for detail in step.details:
            click.echo(f"       {safe(detail)}")


def echo_plan(plan: Plan, output: str) -> None:
    """Print a plan in one of FORMATS."""
    if output == "json":
        from batchform.view.json import plan_json_text

        click.echo(plan_json_text(plan), nl=False)
    elif output == "markdown":
        from batchform.view.markdown import plan_markdown

        click.echo(plan_markdown(plan))
    else:
        _print_text(plan)


def _print_text(plan: Plan) -> None:
    """Print a plan for people. One with nothing to do is a line, and does not wait for rich to be imported."""
    from batchform.view.summary import partial_line, quiet_line

    quiet = quiet_line(plan)
    if quiet and not any(s.notes for s in plan.specs):
        if part := partial_line(plan):
            click.secho(part, fg="yellow", bold=True)
        click.secho(quiet, bold=True)
        return
    from batchform.view.terminal import print_plan

    print_plan(plan)


def plan_exit_code(plan: Plan, detailed: bool) -> int:
    """3 when a limit holds rows, 2 when there is something to do or to decide and that was asked for, else 0."""
    if any(not v.ok for v in plan.all_verdicts):
        return 3
    return 2 if detailed and (plan.has_changes or plan.waits) else 0
