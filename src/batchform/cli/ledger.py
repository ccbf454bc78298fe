"""`batchform ledger`: look after the recorded state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchform.cli.ledger_files import forget_command, mv_command
from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.ledger.findings import Finding
    from batchform.ledger.store import Ledger


@click.group("ledger", short_help="Look after the recorded state: list, verify, repair, export, compact.")
def ledger_command() -> None:
    """The ledger is what makes a second run free. It is documented in docs/ledger.md; anyone can read it."""


@ledger_command.command("list")
@common
def list_segments(common: Common) -> None:
    """List the live segments of the ledger."""
    import msgspec

    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        head = session.ledger.head
        if common.as_json:
            click.echo(msgspec.json.encode(head).decode())
            return
        if head is None:
            click.echo(f"{session.project.config.ledger}: nothing is recorded yet")
            return
        from batchform.view.segments import print_segments

        print_segments(session.project.config.ledger, head)


@ledger_command.command("verify", short_help="Check that all parts agree with each other.")
@click.option("--deep", is_flag=True, help="Also ask the services for jobs that the ledger should know.")
@common
def verify_command(common: Common, *, deep: bool) -> int:
    """Check that head, segments, archives, row states and destinations agree. Changes nothing, and waits for nobody.

    Each finding names the command that mends it. Exit code 1 if there is an error among them.
    """
    import json

    from batchform.cli.wiring import open_session
    from batchform.ledger.findings import worst_first
    from batchform.ledger.store import Ledger
    from batchform.ledger.verify import verify
    from batchform.spec.wording import counted

    with open_session(common) as session:
        ledger = Ledger(session.blobs, clock=session.clock, who=session.who)
        ledger.stores = session.stores
        con = session.connect()
        try:
            findings = verify(ledger, con)
        finally:
            con.close()
        if not any(f.severity == "error" for f in findings):
            findings = worst_first([*findings, *_beside(session, ledger, services=deep)])
    errors = [f for f in findings if f.severity == "error"]
    if common.as_json:
        click.echo(json.dumps({"ok": not errors, "findings": [_shown(f) for f in findings]}))
    else:
        for finding in findings:
            click.echo(_text(finding))
        if not common.quiet:
            click.echo("The ledger holds together." if not errors else f"{counted(len(errors), 'error')}.")
    return 1 if errors else 0


def _beside(session: Session, ledger: Ledger, *, services: bool) -> list[Finding]:
    """What the ledger alone cannot know: destinations as they are, and jobs as the services list them."""
    from functools import partial

    from batchform.run.audit import check_destination, check_services

    found = list(check_services(ledger, session.project, session.backends)) if services else []
    for spec in session.project.specs:
        if spec.name in ledger.specs():
            found += check_destination(
                ledger,
                spec,
                session.destination(spec),
                session.delivered(spec),
                connect=session.connect,
                scratch=session.scratch,
                source_rows=partial(session.source_rows, spec=spec),
            )
    return found


ledger_command.add_command(mv_command)
ledger_command.add_command(forget_command)


def _shown(finding: Finding) -> dict[str, str]:
    from msgspec.structs import asdict

    return asdict(finding)


def _text(finding: Finding) -> str:
    lines = [f"{finding.severity}: {finding.message}"]
    lines += [finding.hint] if finding.hint else []
    lines += [f"mend: {finding.repair}"] if finding.repair else []
    return "\n  ".join(lines)


@ledger_command.command("repair", short_help="Mend what can be mended without a guess.")
@click.option("--from", "backup", metavar="DIR", help="A copy of the ledger's folder to take lost files from.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@common
def repair_command(common: Common, *, backup: str | None, dry_run: bool) -> int:
    """Mend what can be mended without a guess: the head from its newest copy, files from a backup, answers set aside.

    What is replaced is kept in the ledger's folder under damaged/. Exit code 1 if something could not be mended.
    """
    import json

    from batchform.cli.wiring import open_session
    from batchform.ledger.repair import repair

    with open_session(common) as session:
        copy = session.copy_of_ledger(backup) if backup else None
        report = repair(session.blobs, clock=session.clock, backup=copy, dry_run=dry_run, stores=session.stores)
    if common.as_json:
        click.echo(json.dumps({"done": report.done, "refused": [_shown(f) for f in report.refused]}))
        return 1 if report.refused else 0
    for line in report.done:
        click.echo(f"would be mended: {line}" if dry_run else f"mended: {line}")
    for finding in report.refused:
        click.echo(_text(finding))
    if not common.quiet:
        if not report.done and not report.refused:
            click.echo("Nothing to mend.")
        elif report.done and not dry_run:
            click.echo("What was replaced is kept under damaged/. Next: batchform sync, batchform ledger verify")
    return 1 if report.refused else 0


@ledger_command.command("export")
@click.argument("to", metavar="DIR")
@click.option(
    "--format", "output", type=click.Choice(["parquet", "jsonl", "csv"]), default="parquet", show_default=True
)
@common
def export_command(common: Common, to: str, output: str) -> None:
    """Write the state of all rows and jobs into DIR, for other tools."""
    from batchform.cli.wiring import open_session
    from batchform.ledger.export import export

    folder = Path(to).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with open_session(common) as session:
        con = session.connect(folder)
        try:
            export(session.ledger, con, folder, format=output)
        finally:
            con.close()
        if not common.quiet:
            click.echo(f"Exported to {to}: {', '.join(sorted(p.name for p in folder.iterdir()))}")


@ledger_command.command("compact")
@click.option(
    "--keep",
    default="1h",
    metavar="TIME",
    show_default=True,
    help="How long replaced files stay: 1h, 30d. Events stay.",
)
@common
def compact_command(common: Common, *, keep: str) -> None:
    """Fold many segments into few, so that plans read less. Safe to interrupt."""
    from datetime import timedelta

    from batchform.cli.wiring import open_session
    from batchform.errors import UsageError
    from batchform.ledger.compact import compact
    from batchform.spec.fields import parse_duration

    try:
        kept = timedelta(seconds=parse_duration(keep))
    except ValueError as error:
        raise UsageError(f"--keep {keep}: {error}", hint="Such as 1h or 30d.") from None
    with open_session(common) as session:
        report = compact(session.ledger, session.connect, scratch=session.scratch, keep_history=kept)
        if not common.quiet:
            folded, rows = report.folded, sum(report.rows.values())
            click.echo(f"Folded {folded} segments ({rows:,} rows); removed {report.removed}. Serial {report.serial}.")
