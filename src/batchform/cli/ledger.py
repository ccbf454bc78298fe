"""`batchform ledger`: look after the recorded state."""

from __future__ import annotations

from pathlib import Path

import click

from batchform.cli.options import Common, common


@click.group("ledger", short_help="Look after the recorded state: list, verify, export, compact.")
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
        click.echo(f"{session.project.config.ledger}: lineage {head.lineage}, serial {head.serial}, {head.written_at}")
        for segment in head.segments:
            about = f"{segment.spec}, {segment.rows:,} rows" if segment.kind == "rows" else "events"
            base = ", base" if segment.base else ""
            click.echo(f"  {segment.name}  {segment.bytes:,} bytes  serial {segment.serial}  {about}{base}")


@ledger_command.command("verify")
@common
def verify_command(common: Common) -> int:
    """Check that head, segments, archives and row states hold together. Changes nothing."""
    import json

    from batchform.cli.wiring import open_session
    from batchform.ledger.verify import verify
    from batchform.spec.wording import counted

    with open_session(common) as session:
        con = session.connect()
        try:
            findings = verify(session.ledger, con)
        finally:
            con.close()
        errors = [f for f in findings if f.severity == "error"]
        if common.as_json:
            shown = [{"severity": f.severity, "message": f.message, "hint": f.hint} for f in findings]
            click.echo(json.dumps({"ok": not errors, "findings": shown}))
        else:
            for finding in findings:
                click.echo(f"{finding.severity}: {finding.message}" + (f"\n  {finding.hint}" if finding.hint else ""))
            if not common.quiet:
                click.echo("The ledger holds together." if not errors else f"{counted(len(errors), 'error')}.")
    return 1 if errors else 0


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
@common
def compact_command(common: Common) -> None:
    """Fold many segments into few, so that plans read less. Safe to interrupt."""
    from batchform.cli.wiring import open_session
    from batchform.ledger.compact import compact

    with open_session(common) as session:
        report = compact(session.ledger, session.connect, scratch=session.scratch)
        if not common.quiet:
            folded, rows = report.folded, sum(report.rows.values())
            click.echo(f"Folded {folded} segments ({rows:,} rows); removed {report.removed}. Serial {report.serial}.")
