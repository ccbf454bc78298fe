"""A plan in a terminal. Symbols and words carry all of it; colour only helps the eye."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console, RenderableType
from rich.text import Text

from batchform.canon import short
from batchform.plan.model import Action, Change, Plan, Sample, SpecPlan, Verdict
from batchform.spec.wording import counted, money
from batchform.view.caching import cache_words
from batchform.view.change import change_title, how_to_decide, option_cells
from batchform.view.console import Grid, line, make_console
from batchform.view.requests import prompt_lines, request_diff
from batchform.view.rollout import rollout_lines
from batchform.view.summary import (
    ORDER,
    after_line,
    cost_range,
    jobs_words,
    label,
    move_lines,
    partial_line,
    quiet_line,
    resumed_lines,
    sum_line,
    whys,
)
from batchform.view.text import clipped, count, safe, size, tokens

_STYLES: Final = {
    Action.RUN: "green",
    Action.RERUN: "yellow",
    Action.REUSE: "cyan",
    Action.REPARSE: "cyan",
    Action.REDELIVER: "cyan",
    Action.IN_FLIGHT: "blue",
    Action.UNKNOWN: "bold magenta",
    Action.FORGET: "dim",
    Action.REMOVE: "red",
    Action.HELD: "bold red",
    Action.KEEP: "dim",
}
_MARKS: Final = {"-": "red", "+": "green", "@": "dim", " ": "dim"}
SAMPLE_LINES: Final = 8


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print a plan.

    Row text shows only to a person at a terminal, or where the spec says `preview: public`.
    """
    console = console or make_console()
    console.print()
    for block in plan_blocks(plan, width=console.width, row_text=console.is_terminal):
        console.print(block)


def plan_blocks(plan: Plan, *, width: int, row_text: bool) -> Iterator[RenderableType]:
    """The plan's paragraphs and tables, top to bottom.

    row_text: whether samples of private specs may show.
    """
    quiet, part = quiet_line(plan), partial_line(plan)
    if part:
        yield line((safe(part), "bold yellow"))
        yield Text()
    if quiet:
        yield line((quiet, "bold"))
        for spec in plan.specs:
            yield from (_note(f"{spec.name}: {n}") for n in spec.notes)
        return
    for text in move_lines(plan):
        yield line(("⇄ ", "cyan"), text)
    if plan.moves or plan.imports:
        yield Text()
    for spec in plan.specs:
        yield from _spec(spec, plan, width=width, row_text=row_text or spec.preview == "public")
        yield Text()
    if plan.verdicts:
        yield line(("project limits", "bold"))
        yield _verdicts(plan.verdicts)
        yield Text()
    if plan.reason:
        yield line(("limits are released: ", "yellow"), safe(plan.reason))
    if part:
        yield line((safe(part), "bold yellow"))
    yield line((sum_line(plan), "bold"), (f" · digest {short(plan.digest)}", "dim"))


def _spec(spec: SpecPlan, plan: Plan, *, width: int, row_text: bool) -> Iterator[RenderableType]:
    realm = " (emulator)" if spec.realm == "emulator" and spec.backend != "emulator" else ""
    ledger = f"ledger #{plan.serial}" if plan.serial else "new ledger"
    yield line((spec.name, "bold"), f"   {safe(spec.model)}   {safe(spec.backend)}{realm}   ", (ledger, "dim"))
    about = f"{counted(spec.source_rows, 'row')} from {spec.source} → {spec.destination}"
    yield line((safe(about), "dim"), indent=2)
    yield Text()
    words, other = whys(spec)
    rows: list[tuple[Text, ...]] = [
        (
            Text(f"{action.symbol} {label(action)}", _STYLES[action]),
            Text(count(spec.actions[action])),
            Text(words.get(action, ""), "" if action is Action.HELD else "dim"),
        )
        for action in ORDER
        if spec.actions.get(action)
    ]
    if rows:
        yield Grid(rows, right=(1,))
    if other:
        yield line((f"because: {other}", "dim"), indent=4)
    if spec.change:
        yield from _change(spec, spec.change)
    for i, text in enumerate(rollout_lines(spec, keys=row_text)):
        yield line((safe(text), "cyan" if not i else "dim"), indent=2 if not i else 4)
    if spec.after:
        yield line((safe(after_line(spec)), "cyan"), indent=2)
    if spec.rows_to_send:
        yield Text()
        yield _figures(spec, plan)
        yield from (line((safe(text), "dim"), indent=2) for text in resumed_lines(spec))
    if spec.previous:
        yield line((safe(spec.previous), "dim"), indent=2)
    if spec.verdicts:
        yield Text()
        yield _verdicts(spec.verdicts)
    if spec.notes:
        yield Text()
        yield from (_note(n) for n in spec.notes)
    yield from _samples(spec, width=width, row_text=row_text)


def _change(spec: SpecPlan, change: Change) -> Iterator[RenderableType]:
    """What becomes of answered rows that an edit concerns, and what each way costs, side by side."""
    yield Text()
    yield line((safe(change_title(spec)), "bold yellow" if change.held else ""), indent=2)
    yield Grid([tuple(Text(cell) for cell in cells) for cells in option_cells(change)], right=(1, 2))
    yield line((safe(how_to_decide(spec)), "dim"), indent=4)


def _figures(spec: SpecPlan, plan: Plan) -> RenderableType:
    output, cost = spec.tokens.output, spec.cost
    charged = "; the emulator charges nothing" if spec.realm == "emulator" else ""
    spread = f"{tokens(output.low)} to {tokens(output.high)}"
    rows = [
        ("rows", count(spec.rows_to_send), f"{jobs_words(spec)}, {size(spec.bytes)}"),
        ("input", tokens(spec.tokens.input), f"tokens, {spec.tokens.input_basis}"),
        ("output", tokens(output.expected), f"tokens, {spread}; {spec.tokens.basis}"),
        ("cost", money(cost.expected), f"{cost_range(cost)}; batch prices of {plan.prices_dated}{charged}"),
    ]
    if spec.cache:
        rows.insert(2, ("cache", tokens(spec.cache.tokens), cache_words(spec.cache)))
    return Grid([(Text(a), Text(b, "bold"), Text(safe(c), "dim")) for a, b, c in rows], right=(1,))


def _verdicts(verdicts: tuple[Verdict, ...]) -> RenderableType:
    rows: list[tuple[Text, ...]] = []
    for v in verdicts:
        style = "bold red" if not v.ok else "yellow" if v.allowed else "green"
        rows.append((Text(f"{'✓' if v.ok else '✗'} {v.name}", style), Text(safe(v.message), "" if not v.ok else "dim")))
    return Grid(rows)


def _note(text: str) -> RenderableType:
    return line(("note: ", "dim"), safe(text), indent=2)


def _samples(spec: SpecPlan, *, width: int, row_text: bool) -> Iterator[RenderableType]:
    if spec.samples and not row_text:
        yield Text()
        hidden = f"{counted(len(spec.samples), 'sample')} not shown: row text stays private (preview: public shows it)"
        yield line((hidden, "dim"), indent=2)
        return
    for sample in spec.samples:
        yield Text()
        yield _sample_title(sample)
        yield from _sample_body(sample, width=width)


def _sample_title(sample: Sample) -> RenderableType:
    why = f" {sample.reason.value}" if sample.reason else ""
    return line(
        (f"{sample.action.symbol} {label(sample.action)}{why}", _STYLES[sample.action]),
        "  ",
        (clipped(safe(sample.key), 60), "bold"),
        (f"  {sample.chosen_as}", "dim"),
        indent=2,
    )


def _sample_body(sample: Sample, *, width: int) -> Iterator[RenderableType]:
    """The difference to the earlier request; or the row's own turns, since the system prompt is the same for all."""
    if sample.before is not None:
        lines = request_diff(sample.before, sample.request) or [("@", "the same request as before")]
    else:
        lines = [(" ", text) for text in prompt_lines(sample.request)]
    for mark, text in lines[:SAMPLE_LINES]:
        style = _MARKS[mark] if sample.before is not None else "dim" if text.startswith("[") else ""
        shown = Text(f"    │ {'' if mark == '@' else mark} {text}", style, no_wrap=True, overflow="ellipsis")
        shown.truncate(width, overflow="ellipsis")
        shown.rstrip()
        yield shown
    if len(lines) > SAMPLE_LINES:
        yield Text(f"    │ … {counted(len(lines) - SAMPLE_LINES, 'more line')}", "dim")
