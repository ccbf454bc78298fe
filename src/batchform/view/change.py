"""What a plan says of an edit that concerns answered rows: what becomes of them, and what each other way would cost."""

from __future__ import annotations

from batchform.plan.model import Change, Option, SpecPlan
from batchform.spec.wording import counted, money
from batchform.view.text import count


def change_title(spec: SpecPlan) -> str:
    """`the edit concerns 48,311 answered rows: held until somebody says (on_prompt_change: ask)`; empty without one."""
    change = spec.change
    if change is None:
        return ""
    rows = counted(change.rows, "answered row")
    staged = ", in the stages of the rollout" if spec.rollout and change.decision == "rerun" else ""
    return f"this edit concerns {rows}: {_becomes(change)}{staged} ({_source(change)})"


def option_cells(change: Change) -> list[tuple[str, str, str]]:
    """(way, rows to send, cost) of each; the one that holds is marked with ▸."""
    return [
        (
            f"{'▸' if o.decision == change.decision else ' '} {option_name(o)}",
            counted(o.rows, "row"),
            money(o.cost.expected),
        )
        for o in change.options
    ]


def option_name(option: Option) -> str:
    """`canary of 50`."""
    return f"canary of {count(option.canary)}" if option.canary else option.decision


def how_to_decide(spec: SpecPlan) -> str:
    """The words that decide otherwise, or at all; empty where nothing is open."""
    change = spec.change
    if change is None:
        return ""
    canary = next((o.canary for o in change.options if o.canary), 0)
    ways = {"rerun": "rerun", "keep": "keep", "canary": f"canary:{canary}"}
    others = [way for name, way in ways.items() if name != change.decision]
    verb = "decide" if change.held else "otherwise"
    return f"{verb}: --on-change {spec.name}={' | '.join(others)}"


def _becomes(change: Change) -> str:
    match change.decision:
        case "ask":
            return "all are held until somebody decides"
        case "keep":
            return "they keep their answers; new and changed rows use the new prompt"
        case "canary" if change.held == change.rows:
            return f"the canary of {count(change.canary)} is sent, the others wait for a decision"
        case "canary":
            return f"a canary of {count(change.canary)} is sent first, {count(change.held)} wait for a decision"
    return "all are sent again"


def _source(change: Change) -> str:
    if change.source == "command":
        return "--on-change"
    if change.source == "recorded":
        return f"decided by {change.by}"
    return f"on_prompt_change: {change.decision}"
