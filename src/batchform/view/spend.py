"""What was spent, as a table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from batchform.plan.spend_report import SpendRow, total_of
from batchform.spec.wording import money
from batchform.view.console import line, make_console, plain_table
from batchform.view.text import count, safe, tokens


def print_spend(groups: Sequence[str], rows: Sequence[SpendRow], console: Console | None = None) -> None:
    """A row for each group, and their sum. Tokens are left out where there is no room for them."""
    console = console or make_console()
    if not rows:
        console.print(line("Nothing was spent."))
        return
    wide = console.width >= 110
    table = plain_table()
    figures = [_cells(row, wide=wide) for row in (*rows, total_of(rows))]
    names = ("jobs", "rows", "estimated", "cost", "in flight", *(("input", "output") if wide else ()))
    widths = [max(len(name), *(len(cells[i]) for cells in figures)) for i, name in enumerate(names)]
    left = console.width - sum(width + 2 for width in widths)
    for name in groups:
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=max(left // len(groups) - 2, 6))
    for name, width in zip(names, widths, strict=True):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for row, cells in zip(rows, figures, strict=False):
        table.add_row(*(Text(safe(value)) for value in row.group), *cells)
    if len(rows) > 1:
        whole = ["all", *[""] * (len(groups) - 1)]
        table.add_row(*(Text(w, "bold") for w in (*whole, *figures[-1])))
    console.print(table)


def _cells(row: SpendRow, *, wide: bool) -> list[str]:
    told = [count(row.jobs), count(row.rows), money(row.estimated), money(row.usd)]
    told.append(money(row.in_flight) if row.in_flight else "")
    return [*told, *((tokens(row.prompt_tokens), tokens(row.output_tokens)) if wide else ())]
