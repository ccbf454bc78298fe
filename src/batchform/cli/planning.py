"""`plan` and `show`: what would be sent, why, and for how much."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, allowances, common, selection
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.model import Plan
    from batchform.spec.resolved import ResolvedSpec

FORMATS = ("text", "markdown", "json")


@click.command("plan", short_help="Say what would be sent, why, and for how much.")
@selection
@allowances
@click.option("--out", metavar="DIR", help="Save the plan with the exact bytes to send: `apply DIR` sends those.")
@click.option("--format", "output", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there is anything to do.")
@common
def plan_command(
    common: Common,
    select: Sequence[str],
    allow: Sequence[str],
    out: str | None,
    output: str,
    detailed_exitcode: bool,
) -> int:
    """Compare every row with what the ledger recorded. Reads only: sends nothing, changes nothing.

    Exit code 0: planned; 2: there is something to do (with --detailed-exitcode); 3: a limit holds rows.
    """
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        note_warnings(session, common)
        specs = session.select(select)
        plan = _saved(session, specs, out, allow) if out else make_plan(session, specs, allow=allow)
        echo_plan(plan, "json" if common.as_json else output)
        if out and not common.quiet and output == "text" and not common.as_json:
            click.echo(f"Saved {out} (private: it holds prompts). Apply it with: batchform apply {out}")
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
        echo_plan(_kept(Path(plan)), output)
        return 0
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        remote, folder = session.remote_bundle(plan), session.scratch / "shown"
        remote.download(folder)
        with remote.named(folder):
            echo_plan(load_bundle(folder).plan, output)
    return 0


def _kept(path: Path) -> Plan:
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


def _saved(session: Session, specs: Sequence[ResolvedSpec], out: str, allow: Sequence[str]) -> Plan:
    """The plan, saved in a local folder or at gs://."""
    if not is_remote(out):
        return save_plan(session, specs, Path(out), allow)
    remote = session.remote_bundle(out)
    remote.check()  # before the work is done
    folder = session.scratch / "saved"
    plan = save_plan(session, specs, folder, allow)
    remote.upload(folder)
    return plan


def make_plan(
    session: Session,
    specs: Sequence[ResolvedSpec],
    *,
    allow: Sequence[str] = (),
    folder: Path | None = None,
    purpose: str = "apply",
    wave_of: str = "",
    saved: bool = False,
) -> Plan:
    """The plan of these specs. With a folder, shards and row states are written there, ready to be applied.

    saved: whether the plan will be applied later, and so must know its source again.
    """
    from batchform.plan.build import build_plan
    from batchform.plan.work import Saving

    where = folder or session.scratch / "plan"
    where.mkdir(parents=True, exist_ok=True)
    try:
        return build_plan(
            session.project,
            session.work(specs, where.resolve()),
            session.ledger,
            session.settings(specs, allow=allow, purpose=purpose, wave_of=wave_of),
            folder=where.resolve(),
            save=Saving(shards=folder is not None, source=saved),
        )
    except OSError as exc:
        exc.filename = exc.filename or str(where)  # a write does not say to which file
        raise


def save_plan(session: Session, specs: Sequence[ResolvedSpec], folder: Path, allow: Sequence[str]) -> Plan:
    """Plan into a bundle, with its summaries beside it. On any error the folder is removed: no half plan is left."""
    from batchform.plan.bundle import prepare_folder, save_bundle
    from batchform.view.json import plan_json_text
    from batchform.view.markdown import plan_markdown

    prepare_folder(folder)
    try:
        plan = make_plan(session, specs, allow=allow, folder=folder, saved=True)
        (folder / "plan.json").write_text(plan_json_text(plan), encoding="utf-8")
        (folder / "plan.md").write_text(plan_markdown(plan), encoding="utf-8")
        save_bundle(folder, plan, schemas={name: schema for s in specs for name, schema in s.classes.items()})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return plan


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
    from batchform.view.summary import quiet_line

    quiet = quiet_line(plan)
    if quiet and not any(s.notes for s in plan.specs):
        click.secho(quiet, bold=True)
        return
    from batchform.view.terminal import print_plan

    print_plan(plan)


def plan_exit_code(plan: Plan, detailed: bool) -> int:
    """3 when a limit holds rows, 2 when there is something to do and that was asked for, else 0."""
    if any(not v.ok for v in plan.all_verdicts):
        return 3
    return 2 if detailed and plan.has_changes else 0
