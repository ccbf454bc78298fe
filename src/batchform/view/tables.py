"""Status, jobs, results and explanations in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from batchform.canon import short
from batchform.run.budget import BudgetLine
from batchform.spec.wording import counted, money
from batchform.view.console import Grid, line, make_console, plain_table
from batchform.view.requests import request_diff, request_lines
from batchform.view.text import clipped, count, duration, safe
from batchform.view.values import Explanation, JobLine, ResultsTable, SpecLine, StatusView

CELL: Final = 40
NULL: Final = "∅"
_GAP: Final = 2
_WIDE: Final = 110
_NAME: Final = 20
"""What a heading and the end of a name at the service need."""
_URGENT: Final = 6 * 3600.0
_MARKS: Final = {"-": "red", "+": "green", "@": "dim", " ": ""}
_STATUS_WORDS: Final = {
    "answered": "answered",
    "in_flight": "in flight",
    "failed": "failed",
    "pending": "to be sent again",
    "absent": "left the source",
    "gone": "removed",
}


def print_status(status: StatusView, console: Console | None = None) -> None:
    """Per spec: rows, spend against estimate, deliveries.

    Per job: age, state, time left before files expire.
    """
    console = console or make_console()
    where = f" ({safe(status.environment)})" if status.environment else ""
    console.print(line((status.project, "bold"), where, (f"   ledger {safe(status.ledger)} #{status.serial}", "dim")))
    if not status.specs and not status.jobs:
        console.print(line("Nothing was applied yet.", indent=2))
    names = {spec.name for spec in status.specs}
    _print_budgets((b for b in status.budgets if b.scope not in names), console)
    for spec in status.specs:
        console.print()
        _print_spec(spec, console)
        _print_budgets((b for b in status.budgets if b.scope == spec.name), console)
    if status.jobs:
        console.print()
        print_jobs(status.jobs, console)
    for note in status.notes:
        console.print(line(("note: ", "yellow"), safe(note), indent=2))


def _print_spec(spec: SpecLine, console: Console) -> None:
    words = [f"{count(n)} {_STATUS_WORDS.get(s, s)}" for s, n in spec.rows.items() if n]
    console.print(line((spec.name, "bold"), "   ", ", ".join(words) or "no rows yet"))
    if spec.est_usd or spec.usd:
        console.print(line(f"spent {money(spec.usd)}, estimated {money(spec.est_usd)}", indent=2))
    if spec.delivered_age is not None:
        ago = f"delivered to {safe(spec.location)} {duration(spec.delivered_age)} ago"
        console.print(line(ago, indent=2))
    if spec.undelivered:
        waiting = counted(spec.undelivered, "answer")
        console.print(line((f"{waiting} not delivered yet: batchform sync", "yellow"), indent=2))


def _print_budgets(budgets: Iterable[BudgetLine], console: Console) -> None:
    for b in budgets:
        flying = f" + {money(b.in_flight)} in flight" if b.in_flight else ""
        realm = " (emulator)" if b.realm == "emulator" else ""
        used = b.settled + b.in_flight
        style = "bold red" if used > b.limit else ""
        words = f"{money(b.settled)} spent {b.window}{flying}, of {money(b.limit)}{realm}"
        console.print(line((f"{b.name}  ", "dim"), (words, style), indent=2))


def print_jobs(jobs: Sequence[JobLine], console: Console | None = None) -> None:
    """Jobs as a table; errors and times running out below it, since they need whole lines."""
    console = console or make_console()
    if not jobs:
        console.print(line("No jobs."))
        return
    columns = _job_columns(jobs, console.width)
    table = plain_table()
    for name in columns:
        right = name in ("rows", "done", "est.", "cost")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis", min_width=4)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console.print(table)
    for job in jobs:
        for words, style in _job_notes(job):
            console.print(line((f"{safe(job.tag)}: ", "dim"), (words, style), indent=2))


def _job_columns(jobs: Sequence[JobLine], width: int) -> dict[str, list[Text]]:
    """The columns that fit whole, by their headings. The job's name at the service gets what is left, from its end:
    those of Vertex AI are longer than a terminal."""
    columns = {
        "job": [Text(safe(j.tag)) for j in jobs],
        "state": [Text(safe(j.state), _state_style(j)) for j in jobs],
        "age": [Text(duration(j.age)) for j in jobs],
        "rows": [Text(count(j.rows)) for j in jobs],
        "done": [Text(f"{100 * j.done // j.total} %" if j.done is not None and j.total else "") for j in jobs],
        "est.": [Text(money(j.est_usd)) for j in jobs],
        "cost": [Text("" if j.usd is None else money(j.usd)) for j in jobs],
    }

    def left() -> int:
        return width - sum(max(4, len(n), *(c.cell_len for c in cells)) + _GAP for n, cells in columns.items()) + _GAP

    for name in ("done", "est.", "age"):
        if left() < 0 and not (name == "done" and any(c.plain for c in columns[name])):
            del columns[name]
    room = left() - _GAP
    if width >= _WIDE and room >= _NAME:
        columns["name at the service"] = [Text(_end_of(safe(j.job or ""), room)) for j in jobs]
    return columns


def _end_of(text: str, room: int) -> str:
    return text if len(text) <= room else "…" + text[1 - room :]


def _job_notes(job: JobLine) -> Iterable[tuple[str, str]]:
    if job.error:
        yield safe(clipped(job.error, 400)), "red"
    if (left := job.input_expires_in) is not None:
        yield "its input is gone from the service" if left <= 0 else f"input kept {duration(left)} more", _urgency(left)
    if (left := job.results_expire_in) is not None:
        words = "its results are gone from the service" if left <= 0 else f"results kept {duration(left)} more"
        yield f"{words}: batchform sync", _urgency(left)


def _urgency(seconds: float) -> str:
    return "bold red" if seconds < _URGENT else "dim"


def _state_style(job: JobLine) -> str:
    if job.state in ("FAILED", "EXPIRED") or job.error:
        return "red"
    return "blue" if job.open else "green"


def print_results(results: ResultsTable, console: Console | None = None) -> None:
    """The first rows. Columns that do not fit are named below, never squeezed to nothing."""
    console = console or make_console()
    if not results.rows:
        console.print(line(f"{results.spec} has no answers yet."))
        return
    cells = [[cell_text(value) for value in row] for row in results.rows]
    widths = [max(cell_len(safe(n)), *(cell_len(row[i]) for row in cells)) for i, n in enumerate(results.columns)]
    shown = _fitting(widths, console.width)
    table = plain_table()
    for i in range(shown):
        number = all(type(row[i]) in (int, float) for row in results.rows)
        header = Text(safe(results.columns[i]))
        table.add_column(
            header, justify="right" if number else "left", no_wrap=True, overflow="ellipsis", max_width=CELL
        )
    for row in cells:
        table.add_row(*(Text(cell, "dim" if cell == NULL else "") for cell in row[:shown]))
    console.print(table)
    place = f" in {safe(results.location)}" if results.location else ""
    more = f"{count(len(results.rows))} of {counted(results.total, 'answer')}{place}"
    if hidden := [safe(c) for c in results.columns[shown:]]:
        more += f"; not shown: {', '.join(hidden)}"
    console.print(line((more, "dim")))


def cell_text(value: Any) -> str:
    """One value on one line, safe to print: text as it is, other values as JSON, NULL as ∅."""
    if value is None:
        return NULL
    if isinstance(value, str):
        return safe(clipped(value, 4 * CELL))
    if isinstance(value, (dict, list, tuple, bytes, bool)):
        return safe(clipped(msgspec.json.encode(value).decode(), 4 * CELL))
    return safe(str(value))


def _fitting(widths: Sequence[int], width: int) -> int:
    """How many leading columns fit side by side; at least one."""
    used = 0
    for i, natural in enumerate(widths):
        used += min(natural, CELL) + 2
        if used - 2 > width:
            return max(i, 1)
    return len(widths)


def print_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """One row: its action and reason, which components changed, and the difference of the two requests."""
    e = explanation
    console = console or make_console()
    reason = f"  {e.reason}" if e.reason else ""
    console.print(
        line((safe(e.key), "bold"), f"  {e.symbol} {e.action.replace('_', ' ')}{reason}", (f"   {e.spec}", "dim"))
    )
    changed = [c for c in e.components if not c.same]
    rows = [(Text(c.name), Text(f"{_digest(c.before)} → {_digest(c.after)}", "yellow")) for c in changed]
    rows += [(Text(safe(name), "dim"), Text(safe(value))) for name, value in e.facts.items()]
    console.print(Grid(rows))
    if same := [c.name for c in e.components if c.same]:
        console.print(line((f"{', '.join(same)}: same as recorded", "dim"), indent=2))
    _print_request(e, console)
    for note in e.notes:
        console.print(line(("note: ", "dim"), safe(note), indent=2))


def _print_request(e: Explanation, console: Console) -> None:
    if e.after is None:
        return
    console.print()
    if e.before is None:
        title, lines = "rendered request", [(" ", text) for text in request_lines(e.after)]
    elif e.before == e.after:
        title, lines = "rendered request (unchanged)", [(" ", text) for text in request_lines(e.after)]
    else:
        title, lines = "rendered request, before and after", request_diff(e.before, e.after)
    console.print(line((title, "dim"), indent=2))
    console.print(
        Grid([(Text(mark.replace("@", " "), _MARKS[mark]), Text(text, _MARKS[mark])) for mark, text in lines])
    )


def _digest(digest: str | None) -> str:
    return "none" if digest is None else short(digest, 7) or "none"
