"""`batchform doctor`: whether what a project needs is there, reachable and allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.run.doctor import Finding


@click.command("doctor", short_help="Check credentials, permissions, places and models. Changes nothing.")
@click.option("--all", "everything", is_flag=True, help="Also backends that no spec uses.")
@click.option(
    "--for", "purpose", type=click.Choice(["plan", "apply"]), default="apply", show_default=True,
    help="What is going to be run: `plan` only reads, and asks no service that takes jobs.",
)  # fmt: skip
@common
def doctor_command(common: Common, everything: bool, purpose: str) -> int:
    """Look at all that the chosen environment needs: ledger, backends, buckets, datasets, databases, destinations.

    Only reads: nothing is created, and nothing is paid for. Each failure comes with what mends it. Exit code 1 if
    anything failed; what could not be looked at is `unknown`, and no failure.
    """
    import json

    from msgspec.structs import asdict

    from batchform.cli.wiring import open_session
    from batchform.view.doctor import summary

    with open_session(common) as session, ExitStack() as opened:
        findings = list(_findings(session, opened, everything=everything, writes=purpose == "apply"))
    failed = any(f.status == "failure" for f in findings)
    if common.as_json:
        shown = {"ok": not failed, "environment": common.environment or "", "findings": [asdict(f) for f in findings]}
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        from batchform.view.console import make_console
        from batchform.view.doctor import print_findings

        print_findings(make_console(), findings, only_wrong=common.quiet)
        click.echo(summary(findings))
    return 1 if failed else 0


def _findings(session: Session, opened: ExitStack, *, everything: bool, writes: bool) -> Iterator[Finding]:
    from batchform.cli.examine import Examination

    examination = Examination(session, writes=writes)
    opened.enter_context(closing(examination))
    yield from examination.ledger()
    for name in examination.backends(everything=everything):
        yield from examination.backend(name)
    yield from examination.unused(everything=everything)
    yield from examination.google_cloud()
    yield from examination.databases()
    yield from examination.specs()
