"""What is told of drift: what is in the repository, and nobody has applied."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from batchform.plan.model import Action, Plan
from batchform.spec.wording import counted, money
from batchform.view.markdown import marker, plain, plan_markdown
from batchform.view.text import safe


def drift_marker(project: str, environment: str) -> str:
    """The hidden first line of the issue of a project in an environment."""
    return marker(project, environment).replace("batchform:plan:", "batchform:drift:", 1)


def drift_issue(plan: Plan) -> tuple[str, str] | None:
    """Title and body of the issue about a plan; None if there is no drift."""
    words = _words(plan)
    if not words:
        return None
    name = f"{plan.project} in {plan.environment}" if plan.environment else plan.project
    head = drift_marker(plan.project, plan.environment)
    shown = plan_markdown(replace(plan, envelope=None)).partition("\n")[2]
    title = safe(f"batchform: {name} is not as its files say: {', '.join(words)}")
    if len(title) > _TITLE:
        title = f"{title[: _TITLE - 1]}…"
    return title, f"{head}\n{_WHAT_TO_DO}\n{shown}"


def no_plan_issue(project: str, environment: str, *, url: str) -> tuple[str, str]:
    """Title and body of the issue where nothing could be planned."""
    name = f"{project} in {environment}" if environment else project
    why = f"[The log]({url}) says why." if url else "The log of the run says why."
    body = f"{drift_marker(project, environment)}\n### ✗ batchform: no plan of {plain(name)}\n\n{why}\n"
    return safe(f"batchform: {name} cannot be planned"), body


def _words(plan: Plan) -> list[str]:
    """What there is to do, or to decide."""
    words = (
        [f"{counted(plan.rows_to_send, 'row')} to send for {money(plan.cost.expected)}"] if plan.rows_to_send else []
    )
    if waiting := sum(s.change.held for s in plan.specs if s.change):
        words.append(f"{counted(waiting, 'row')} wait for a decision")
    for spec in plan.specs:
        if spec.rollout and spec.rollout.state in _STOPPED and spec.rollout.held:
            words.append(f"{counted(spec.rollout.held, 'row')} of {spec.name} {_STOPPED[spec.rollout.state]}")
    if held := sorted({v.name for v in plan.all_verdicts if not v.ok}):
        words.append(f"held by {', '.join(held)}")
    if plan.has_changes and not words:
        free = sum(n for s in plan.specs for a, n in s.actions.items() if a not in _IDLE)
        words.append(f"{counted(free, 'row')} to bring up to date for nothing" if free else "rows that are sent later")
    return words


_TITLE: Final = 250
"""Characters of a title: the services take 255."""
_STOPPED = {"failed": "wait behind a gate that failed", "manual": "wait until somebody approves the next stage"}
_IDLE = (Action.KEEP, Action.IN_FLIGHT, Action.UNKNOWN, Action.HELD)
_WHAT_TO_DO = (
    "This is in the repository, and nobody has applied it: rows that came, a change that was not approved, or one\n"
    "whose answered rows wait for a decision. Run the workflow by hand with the digest of the plan in its log, or\n"
    "decide in the spec. This issue is kept up to date every night, and closed when there is nothing left.\n"
)
