"""What each way to treat answered rows would cost, side by side, where an edit of their spec concerns them."""

from __future__ import annotations

from collections.abc import Callable

from batchform.plan.changes import SUGGESTED, Decision, Edited, components_of
from batchform.plan.model import Change, Option, Range
from batchform.spec.resolved import ResolvedSpec

Priced = Callable[[int, int], Range]
"""(rows, bytes of their requests) → cost."""


def change_of(
    spec: ResolvedSpec, edited: Edited, kept: tuple[int, int], *, sent: tuple[int, int], others: int, priced: Priced
) -> Change | None:
    """What an edit concerns and the ways to go on; None if it concerns no answered row.

    kept: rows that a decision keeps unrendered, and the bytes that were recorded of them; sent: rows that the plan
    sends, and their bytes, those of the edit among them; others: rows that it sends beside those; priced: of rows that
    are sent with these.
    """
    decision: Decision = edited.decision
    rows, size = (edited.rows, edited.size) if edited.rows else kept
    if not rows:
        return None
    now, now_bytes = edited.rows - edited.held, edited.size - edited.held_size
    rest, rest_bytes = max(sent[0] - now, 0), max(sent[1] - now_bytes, 0)

    def option(name: str, count: int, canary: int = 0) -> Option:
        cost = priced(rest + count, rest_bytes + size * count // rows)
        return Option(name, rest + count + others, cost, canary)

    canary = decision.rows or min(SUGGESTED, rows)
    trial = now if decision.kind == "canary" else min(canary, rows)
    return Change(
        decision=decision.kind,
        canary=decision.rows,
        source=decision.source,
        by=decision.by,
        components=components_of(spec),
        rows=rows,
        held=edited.held,
        options=(option("rerun", rows), option("keep", 0), option("canary", trial, canary)),
    )
