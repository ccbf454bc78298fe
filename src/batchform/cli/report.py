"""`report`: one page for people who would rather look."""

from __future__ import annotations

from collections.abc import Sequence

import click

from batchform.cli.options import Common, common, selection


@click.command("report", short_help="One self-contained HTML page: spend, rows, jobs, failures, samples.")
@selection
@click.option("--out", required=True, metavar="DIR", help="Write index.html there.")
@click.option(
    "--samples", default=3, show_default=True, type=click.IntRange(0, 20), metavar="N",
    help="Answers shown of each spec that says `preview: public`.",
)  # fmt: skip
@common
def report_command(common: Common, select: Sequence[str], out: str, samples: int) -> None:
    """Write DIR/index.html: what the ledger knows, readable without a network. Asks no service, changes nothing.

    Row text is on it only where a spec says `preview: public`.
    """
    import json

    from batchform.cli.reporting import write_report
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        made = write_report(session, out, select=select, samples=samples)
    if common.as_json:
        click.echo(json.dumps({"report": str(made), "bytes": made.stat().st_size}))
    elif not common.quiet:
        click.echo(f"Wrote {made}.")
