"""Why all rows of a spec have their actions, group by group, in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from batchform.canon import short
from batchform.plan.explain_groups import Group, SpecExplanation
from batchform.plan.model import Action
from batchform.spec.wording import counted
from batchform.view.console import Grid, line, make_console
from batchform.view.text import clipped, count, safe


def print_groups(name: str, found: SpecExplanation, console: Console | None = None) -> None:
    """Actions with their rows, why rows are held, then each group: its rows, what differs, and a few keys."""
    console = console or make_console()
    console.print(line((name, "bold")))
    rows = [(Text(f"{a.symbol} {a.value.replace('_', ' ')}"), Text(count(n)), Text()) for a, n in found.actions.items()]
    if rows:
        console.print(Grid(rows, right=(1,)))
    reasons = ", ".join(f"{reason.value} {count(n)}" for reason, n in found.reasons.items())
    if reasons:
        console.print(line((f"because: {reasons}", "dim"), indent=4))
    for why, held in found.held.items():
        console.print(line(f"{Action.HELD.symbol} {count(held)} held: {safe(why)}", indent=4))
    for group in found.groups:
        console.print()
        _print_group(group, console)
    if found.groups:
        console.print()
        console.print(
            line((f"batchform explain {name} KEY tells of one row, with its request before and after", "dim"))
        )


def _print_group(group: Group, console: Console) -> None:
    console.print(line((counted(group.rows, "row"), "bold"), f"  {safe(group.words)}", indent=2))
    cells = []
    for name, before, after in group.components:
        if before is None and after is None:
            cells.append((Text(name), Text("each row its own", "yellow")))
        else:
            cells.append((Text(name), Text(f"{_shown(before)} → {_shown(after)}", "yellow")))
    if cells:
        console.print(Grid(cells))
    keys = ", ".join(clipped(safe(key), 60) for key in group.keys)
    console.print(line((f"such as {keys}", "dim"), indent=4))


def _shown(value: str | None) -> str:
    """A digest, short; a model as it is."""
    if value is None:
        return "none"
    return short(value, 7) if ":" in value else safe(value)
