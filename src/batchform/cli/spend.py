"""`spend`: what was paid for, by spec, model, day or approver."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common, selection

if TYPE_CHECKING:
    import datetime as dt

    from batchform.plan.spend_report import SpendRow

_GROUPS = ("spec", "model", "day", "approver", "realm")


@click.command("spend", short_help="What was spent, by spec, model, day or approver; as a table or CSV.")
@selection
@click.option(
    "--by", multiple=True, type=click.Choice(_GROUPS), help="Group by this; repeat for several. Default: spec."
)
@click.option("--since", metavar="DATE", help="Only jobs begun on that day (UTC) or later, such as 2026-11-01.")
@click.option("--csv", "csv_to", metavar="FILE", help="Write CSV there; - for standard output.")
@common
def spend_command(
    common: Common, select: Sequence[str], by: Sequence[str], since: str | None, csv_to: str | None
) -> None:
    """What the ledger has recorded: jobs, rows, the estimate that was approved, what it cost, and what is in flight.

    Money of the emulator is what the model would have cost.
    """
    import json

    import msgspec

    from batchform.cli.wiring import open_session
    from batchform.plan.spend_report import spend_report

    groups, first = tuple(dict.fromkeys(by)) or ("spec",), _date(since)
    with open_session(common) as session:
        names = {s.name for s in session.select(select)}
        keep = (lambda name: name in names) if select else (lambda _: True)
        rows = spend_report(session.ledger.control(), by=groups, since=first, keep=keep)
    if csv_to is not None:
        _write_csv(groups, rows, csv_to)
    elif common.as_json:
        told = [{**dict(zip(groups, r.group, strict=True)), **_figures(r)} for r in rows]
        click.echo(json.dumps(msgspec.to_builtins(told), ensure_ascii=False))
    else:
        from batchform.view.spend import print_spend

        print_spend(groups, rows)


def _date(text: str | None) -> dt.date | None:
    """Raises UsageError."""
    if text is None:
        return None
    import datetime as dt

    from batchform.errors import UsageError

    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since {text} is no date", hint="Such as --since 2026-11-01.") from None


def _figures(row: SpendRow) -> dict[str, float]:
    return {
        "jobs": row.jobs, "rows": row.rows, "estimated_usd": round(row.estimated, 6), "usd": round(row.usd, 6),
        "in_flight_usd": round(row.in_flight, 6), "prompt_tokens": row.prompt_tokens,
        "output_tokens": row.output_tokens,
    }  # fmt: skip


def _write_csv(groups: Sequence[str], rows: Sequence[SpendRow], to: str) -> None:
    """A file that a spreadsheet opens as it is meant: text that it would take for a formula is quoted."""
    import csv
    from contextlib import nullcontext

    target = nullcontext(sys.stdout) if to == "-" else Path(to).open("w", newline="", encoding="utf-8")  # noqa: SIM115
    with target as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ("jobs", "rows", "estimated_usd", "usd", "in_flight_usd", "prompt_tokens", "output_tokens")
        writer.writerow([*groups, *names])
        for row in rows:
            figures = _figures(row)
            writer.writerow([*(_harmless(v) for v in row.group), *(figures[n] for n in names)])


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
