"""What every rendering of a plan says in words: why rows have their action, and the sum of it all.

No layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from batchform.plan.importing import imports_words
from batchform.plan.model import Action, Plan, Range, Reason, SpecPlan
from batchform.plan.moving_words import moving_words
from batchform.spec.wording import counted, money
from batchform.view.text import count, safe

ORDER: Final = (
    Action.RUN, Action.RERUN, Action.REUSE, Action.REPARSE, Action.REDELIVER, Action.IN_FLIGHT, Action.UNKNOWN,
    Action.FORGET, Action.REMOVE, Action.HELD, Action.KEEP,
)  # fmt: skip
"""What costs money first, what stays as it is last."""

_MEANING: Final[Mapping[Action, str]] = {
    Action.REUSE: "an identical request answers it",
    Action.REPARSE: "archived answers are read anew",
    Action.REDELIVER: "archived answers are delivered again",
    Action.IN_FLIGHT: "sent, not back yet",
    Action.UNKNOWN: "sent, outcome not known yet",
    Action.FORGET: "key left the source, answer kept",
    Action.REMOVE: "key left the source, answer removed from the destination",
}

_TOLD_ELSEWHERE: Final = (Reason.KEY_LEFT_SOURCE, Reason.KEY_MOVED)
_UNTOUCHED: Final = (Action.KEEP, Action.IN_FLIGHT, Action.UNKNOWN)
_FREE: Final = (
    (Action.REUSE, "reused"),
    (Action.REPARSE, "read anew"),
    (Action.REDELIVER, "redelivered"),
    (Action.FORGET, "forgotten"),
    (Action.REMOVE, "removed"),
)


def label(action: Action) -> str:
    """`in flight`."""
    return action.value.replace("_", " ")


def whys(spec: SpecPlan) -> tuple[dict[Action, str], str]:
    """Words per action, and reasons that no single action can claim.

    A plan counts reasons over all rows. They stand beside an action only where the counts leave no doubt.
    """
    words = {a: text for a, text in _MEANING.items() if spec.actions.get(a)}
    if spec.held_by:
        several = len(spec.held_by) > 1
        held = (f"{count(rows)} {safe(why)}" if several else safe(why) for why, rows in spec.held_by.items())
        words[Action.HELD] = "; ".join(held)
    other: dict[Reason, int] = {r: n for r, n in spec.reasons.items() if n and r not in _TOLD_ELSEWHERE}
    new: dict[Reason, int] = {Reason.NEW_KEY: other.pop(Reason.NEW_KEY)} if Reason.NEW_KEY in other else {}
    left: dict[Reason, int] = {}
    for action, reasons in ((Action.RUN, new), (Action.RERUN, other)):
        if reasons and sum(reasons.values()) == spec.actions.get(action, 0):
            words[action] = _reasons(reasons)
        else:
            left |= reasons
    return words, _reasons(left)


def quiet_line(plan: Plan) -> str | None:
    """`No changes.

    500 rows are up to date.`, when there is nothing to do and nothing to decide; else None.
    """
    totals = action_totals(plan.specs)
    if plan.has_changes or totals[Action.HELD] or any(not v.ok for v in plan.all_verdicts):
        return None
    words = [f"No changes. {_rows_are(totals[Action.KEEP], 'up to date')}"]
    if totals[Action.IN_FLIGHT]:
        words.append(f"{_rows_are(totals[Action.IN_FLIGHT], 'in flight')}")
    if totals[Action.UNKNOWN]:
        words.append(f"{_rows_are(totals[Action.UNKNOWN], 'in a submission whose outcome is not known yet')}")
    return " ".join(words)


def move_lines(plan: Plan) -> list[str]:
    """What goes on under another name or key, a sentence each: `move triage → support: 6 rows`."""
    moves = [
        f"forget {safe(moving_words(m))}: what is delivered stays"
        if m.reason
        else f"move {safe(moving_words(m))}, for nothing"
        for m in plan.moves
    ]
    return moves + [safe(words) for words in imports_words(plan.imports)]


def partial_line(plan: Plan) -> str:
    """`PARTIAL PLAN: only triage; other specs of the project are not in it.`; empty for a whole one."""
    if not plan.partial:
        return ""
    which = ", ".join(plan.selected) if plan.selected else "none was selected"
    return f"PARTIAL PLAN: only {which}. The project's other specs are not in it."


def sum_line(plan: Plan) -> str:
    """`Plan: 12 to send ($0.02), 0 held, 488 untouched`; what is free is named when there is any."""
    totals = action_totals(plan.specs)
    what = "Plan" if plan.purpose == "apply" else f"Plan ({plan.purpose})"
    if plan.partial:
        what += f", only {', '.join(plan.selected)}"
    price = f" ({money(plan.cost.expected)})" if plan.rows_to_send else ""
    free = [f"{count(totals[a])} {words}" for a, words in _FREE if totals[a]]
    if moved := sum(m.rows for m in plan.moves if not m.waits and not m.reason):
        free.insert(0, f"{count(moved)} moved")
    later = [later_words(plan)] if plan.rows_after else []
    parts = [
        f"{count(plan.rows_to_send)} to send{price}",
        *later,
        *free,
        f"{count(totals[Action.HELD])} held",
        f"{count(sum(totals[a] for a in _UNTOUCHED))} untouched",
    ]
    return f"{what}: {', '.join(parts)}"


def later_words(plan: Plan) -> str:
    """`after_words` of all specs together."""
    return after_words(plan.rows_after, plan.cost_after, staged=plan.rows_staged)


def after_words(rows: int, cost: Range, *, staged: int = 0) -> str:
    """`up to 12 known after apply (about $0.01, at most $0.02)`. staged: those that are known, in later stages."""
    when = "in later stages" if staged == rows else "known after apply"
    when += " or in later stages" if 0 < staged < rows else ""
    return f"up to {count(rows)} {when} (about {money(cost.expected)}, at most {money(cost.high)})"


def after_line(spec: SpecPlan) -> str:
    """What is known of a chain only when answers are there, or sent in later stages; empty when there is no such."""
    after = spec.after
    if after is None:
        return ""
    words = after_words(after.rows, after.cost, staged=after.staged)
    what = [f"of answers of {after.upstream} that are to come"] if after.upstream else []
    what += ["rows that wait for a stage of the rollout"] if after.staged else []
    return f"{words}: {'; '.join([*what, *([after.basis] if after.basis else [])])}"


def action_totals(specs: Sequence[SpecPlan]) -> dict[Action, int]:
    """Rows per action over these specs."""
    return {a: sum(s.actions.get(a, 0) for s in specs) for a in Action}


def cost_range(cost: Range) -> str:
    """`$0.40 to $1.10`."""
    return f"{money(cost.low)} to {money(cost.high)}"


def jobs_words(spec: SpecPlan) -> str:
    """`in 3 jobs by file`."""
    modes = sorted({s.mode for s in spec.shards})
    return f"in {counted(len(spec.shards), 'job')}" + (f", {' and '.join(modes)}" if modes else "")


def resumed_lines(spec: SpecPlan) -> list[str]:
    """What is gone on with, a sentence for each job: `resume job bf-…: 400 of 1,000 rows`."""
    return [
        f"resume job {s.resumes.tag}: {count(s.rows)} of {counted(s.resumes.results, 'row')}, nothing to upload"
        for s in spec.shards
        if s.resumes
    ]


def _rows_are(number: int, what: str) -> str:
    return f"1 row is {what}." if number == 1 else f"{count(number)} rows are {what}."


def _reasons(reasons: Mapping[Reason, int]) -> str:
    if len(reasons) == 1:
        return next(iter(reasons)).value
    return ", ".join(f"{r.value} {count(n)}" for r, n in sorted(reasons.items(), key=lambda item: -item[1]))
