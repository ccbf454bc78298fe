"""A plan as the comment of a pull request: verdict and money first, row text only where a spec makes it public.

Everything that comes from files or rows is untrusted here: it stands in code spans or fences that it cannot leave, and
it can neither mention people nor carry HTML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from batchform.canon import short
from batchform.plan.bounds import Envelope
from batchform.plan.model import Action, Plan, Sample, SpecPlan, Verdict
from batchform.spec.wording import counted, money
from batchform.view.approval import approval_command, approval_lines, approval_title
from batchform.view.caching import cache_line
from batchform.view.change import change_title, how_to_decide, option_cells
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

MAX_CHARS: Final = 60_000
SAMPLE_LINES: Final = 60
_ZERO_WIDTH: Final = "\u200b"
_SPECIAL: Final = re.compile(r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK: Final = re.compile(r"^(\s*)([#+\-=]|\d+(?=[.)](\s|$)))")
"""What would start a heading, a list or a line at the start of a list's item."""
_FORMULA: Final = re.compile(r"\$(?!\d)")
_LINKED: Final = re.compile(r"(@|[#!%](?=\d)|:(?=//)|\bwww(?=\.)|\bGH(?=-\d))", re.IGNORECASE)


def plan_markdown(plan: Plan, *, max_chars: int = MAX_CHARS) -> str:
    """GitHub-flavoured Markdown that ends in a newline, of at most `max_chars` characters.

    The first line is a marker by which a bot finds its own comment again. When there is too much, details are left
    out from the end, and the text says so: the verdict, the money and the table always stay.
    """
    left_out = "\n*{} more sections are left out, since a comment holds no more. `batchform show PLAN` has them.*\n"
    room = max_chars - len(left_out) - 10
    text = clipped("\n".join([*_head(plan), *_table(plan), *_failed(plan), ""]), room)
    sections = [] if quiet_line(plan) else _sections(plan)
    for i, made in enumerate(sections):
        section = made()
        if len(text) + len(section) > room:
            return text + left_out.format(len(sections) - i)
        text += section
    return text


def marker(project: str, environment: str) -> str:
    """The hidden first line of the comment of a project in an environment."""
    name = re.sub(r"[^a-z0-9_-]+", "-", f"{project} {environment}".strip().lower())
    return f"<!-- batchform:plan:{name} -->"


def code(text: str) -> str:
    """Untrusted text as a code span that it cannot leave."""
    shown = safe(text) or " "
    fence = "`" * (_longest_run(shown) + 1)
    gap = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{gap}{shown}{gap}{fence}"


def plain(text: str) -> str:
    """Untrusted text as prose: no HTML, no mentions, no references, no mathematics, no Markdown of its own.

    Amounts such as `$0.40` stay as they are: a dollar sign before a figure ends no formula.
    """
    shown = _SPECIAL.sub(lambda match: "\\" + match[0], safe(text))
    shown = _BLOCK.sub(lambda match: match[1] + (match[2] + "\\" if match[2].isdigit() else "\\" + match[2]), shown)
    return _FORMULA.sub("&#36;", html(shown))


def html(text: str) -> str:
    """Untrusted text inside an HTML element: no tags, no mentions, no references."""
    shown = safe(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKED.sub(lambda match: match[0] + _ZERO_WIDTH, shown)


def fenced(lines: list[str], language: str = "") -> str:
    """Untrusted lines in a fence longer than any run of backticks in them. None starts with a slash: GitLab would
    take it for an order."""
    body = "\n".join(_ZERO_WIDTH + line if line.startswith("/") else line for line in lines)
    fence = "`" * max(_longest_run(body) + 1, 3)
    return f"{fence}{language}\n{body}\n{fence}\n"


def _sections(plan: Plan) -> list[Callable[[], str]]:
    """Closed sections, made when there is room: the project's limits, what and why of every spec, then the samples,
    which are left out first."""
    public = [s for s in plan.specs if s.preview == "public"]
    limits = [partial(_project_limits, plan)] if plan.verdicts else []
    details = [partial(_details, s, plan) for s in plan.specs]
    approved = [partial(_approval, plan.envelope)] if plan.envelope and plan.has_changes else []
    return [*approved, *limits, *details, *(partial(_sample, s, sample) for s in public for sample in s.samples)]


def _project_limits(plan: Plan) -> str:
    return _closed("project limits", "".join(f"- {_judged(v)}\n" for v in plan.verdicts))


def _approval(envelope: Envelope) -> str:
    """What is approved by its digest."""
    lines = "".join(f"- {plain(text)}\n" for text in approval_lines(envelope))
    return f"\n{plain(approval_title(envelope))}:\n\n{lines}\n`{approval_command(envelope)}`\n"


def _head(plan: Plan) -> Iterator[str]:
    where = f" in {plain(plan.environment)}" if plan.environment else ""
    yield marker(plan.project, plan.environment)
    failed = [v for v in plan.all_verdicts if not v.ok]
    quiet = quiet_line(plan)
    if failed:
        names = ", ".join(dict.fromkeys(v.name for v in failed))
        yield f"### ✗ batchform: {plain(plan.project)}{where} is held by {plain(names)}"
    elif quiet:
        yield f"### ✓ batchform: {plain(plan.project)}{where} has no changes"
    else:
        yield f"### ✓ batchform: {plain(plan.project)}{where}, {money(plan.cost.expected)} expected"
    yield ""
    if plan.partial:
        yield f"**{plain(partial_line(plan))}**"
        yield ""
    if quiet:
        yield quiet
    else:
        yield f"**{plain(sum_line(plan))}**"
        yield ""
        yield from (f"- ⇄ {plain(text)}" for text in move_lines(plan))
        if plan.moves or plan.imports:
            yield ""
        if plan.rows_after:
            later = "is sent later" if plan.rows_staged else "is known after apply"
            yield f"You approve what {later} within its bound: {plain(_bound(plan))}."
        if plan.rows_to_send:
            charged = " The emulator charges nothing." if {s.realm for s in plan.specs} == {"emulator"} else ""
            yield f"Cost {cost_range(plan.cost)}, batch prices of {plain(plan.prices_dated)}.{charged}"
    yield ""


def _bound(plan: Plan) -> str:
    """`summarise 12 rows, $0.02; …`."""
    found = (f"{s.name} {counted(s.after.rows, 'row')}, {money(s.after.cost.high)}" for s in plan.specs if s.after)
    return "; ".join(found)


def _table(plan: Plan) -> Iterator[str]:
    if quiet_line(plan):
        return
    yield "| | spec | send | cost | held |"  # what a phone is wide enough for
    yield "|---|---|--:|--:|--:|"
    for s in plan.specs:
        cost = money(s.cost.expected) if s.rows_to_send else ""
        held = count(s.actions.get(Action.HELD, 0))
        yield f"| {_limits(s.verdicts)} | {code(s.name)} | {_send(s)} | {cost} | {held} |"
    yield ""
    ledger = code(f"#{plan.serial}")  # as text it would be a link to an issue
    planned = plain(f"{plan.created_at[:10]} {plan.created_at[11:16]} UTC")
    digest = f"Digest {code(short(plan.digest))}, ledger {ledger}, planned {planned}."
    yield f"{digest} **{plain(partial_line(plan))}**" if plan.partial else digest


def _send(spec: SpecPlan) -> str:
    """Rows that are sent at once, and how many more at most."""
    return count(spec.rows_to_send) + (f" + up to {count(spec.after.rows)}" if spec.after else "")


def _failed(plan: Plan) -> Iterator[str]:
    failed = [v for v in plan.all_verdicts if not v.ok]
    if failed:
        yield ""
    if plan.reason:
        yield from ("", f"Limits are released: {plain(plan.reason)}")
    yield from (f"- ✗ {code(f'{v.scope}.{v.name}')}: {plain(v.message)}" for v in failed)


def _details(spec: SpecPlan, plan: Plan) -> str:
    words, other = whys(spec)
    asked = f"{code(spec.model)} on {code(spec.backend)}"
    lines = [f"{code(spec.source)} → {asked} → {code(spec.destination)}", "", "| | rows | why |", "|---|--:|---|"]
    for action in ORDER:
        if spec.actions.get(action):
            why = plain(words.get(action, ""))
            named = f"{code(action.symbol)} {label(action)}".replace(" ", "\u00a0")
            lines.append(f"| {named} | {count(spec.actions[action])} | {why} |")
    lines += _change(spec)
    points = [f"because: {plain(other)}"] if other else []
    points += [plain(text) for text in rollout_lines(spec, keys=spec.preview == "public")]
    points += [plain(after_line(spec))] if spec.after else []
    if spec.rows_to_send:
        points += _figures(spec, plan)
        points += [plain(text) for text in resumed_lines(spec)]
    points += [_judged(v) for v in spec.verdicts]
    points += [plain(text) for text in (spec.previous, *spec.notes) if text]
    lines += ["", *(f"- {point}" for point in points)]
    return _closed(f"{spec.name}: what and why", "\n".join(lines) + "\n")


def _change(spec: SpecPlan) -> Iterator[str]:
    """What becomes of answered rows that an edit concerns, and what each way costs."""
    if spec.change is None:
        return
    yield from ("", plain(change_title(spec)) + ".", "", "| | to send | cost |", "|---|--:|--:|")
    for name, rows, cost in option_cells(spec.change):
        yield f"| {name} | {rows} | {cost} |"
    yield from ("", plain(how_to_decide(spec)))


def _figures(spec: SpecPlan, plan: Plan) -> Iterator[str]:
    output = spec.tokens.output
    yield f"{count(spec.rows_to_send)} rows {jobs_words(spec)}, {size(spec.bytes)}"
    yield f"{tokens(spec.tokens.input)} input tokens, {plain(spec.tokens.input_basis)}"
    spread = f"{tokens(output.low)} to {tokens(output.high)}"
    yield f"{tokens(output.expected)} output tokens, {spread}, {plain(spec.tokens.basis)}"
    if spec.cache:
        yield plain(cache_line(spec))
    yield f"{money(spec.cost.expected)}, {cost_range(spec.cost)}, batch prices of {plain(plan.prices_dated)}"


def _sample(spec: SpecPlan, sample: Sample) -> str:
    if sample.before is not None:
        lines, language = [mark + text for mark, text in request_diff(sample.before, sample.request)], "diff"
    else:
        lines, language = prompt_lines(sample.request), ""
    if len(lines) > SAMPLE_LINES:
        lines = [*lines[:SAMPLE_LINES], "…"]
    shown = fenced([clipped(text, 500) for text in lines], language)
    why = f" {sample.reason.value}" if sample.reason else ""
    title = f"{spec.name}: {label(sample.action)}{why}, {sample.chosen_as}"
    return _closed(title, f"Key {code(clipped(sample.key, 120))}\n\n{shown}")


def _closed(title: str, body: str) -> str:
    return f"\n<details><summary>{html(title)}</summary>\n\n{body}\n</details>\n"


def _limits(verdicts: tuple[Verdict, ...]) -> str:
    return ("✓" if all(v.ok for v in verdicts) else "✗") if verdicts else ""


def _judged(verdict: Verdict) -> str:
    return f"{'✓' if verdict.ok else '✗'} {code(verdict.name)}: {plain(verdict.message)}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
