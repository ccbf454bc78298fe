"""Moves of a plan, recorded: rows go on under another name or key, and all that is known of them goes along."""

from __future__ import annotations

from pathlib import Path

from batchform.errors import StalePlan
from batchform.plan.model import Plan
from batchform.plan.moving import Moves, add_move
from batchform.run.context import RunContext
from batchform.run.row_states import refuse_changed


def record_moves(ctx: RunContext, plan: Plan, bundle: Path) -> frozenset[int]:
    """Record what moves, in one commit, on the ledger as it was planned on. Returns the serial of that commit.

    Raises StalePlan if rows that take a new key changed since, or if a name was moved by another run.
    """
    found = Moves()
    for moving in plan.moves:
        _refuse_moved(ctx, moving.spec, moving.before)
        if moving.states:
            refuse_changed(ctx, moving.before or moving.spec, bundle / moving.states, since=plan.serial)
        add_move(found, moving, bundle, at=ctx.now(), by=ctx.who, plan=plan.digest)
    if not found.events:
        return frozenset()
    for name, path in found.blobs.items():
        if not ctx.ledger.has_blob(name):
            ctx.ledger.put_blob(name, path)
    head = ctx.ledger.commit(found.events, found.files, expect=ctx.ledger.serial)
    return frozenset({head.serial})


def _refuse_moved(ctx: RunContext, name: str, before: str) -> None:
    known = ctx.ledger.specs()
    if before and (before not in known or name in known):
        raise StalePlan(
            f"the rows of {before} were to move to {name}, and another run was faster.",
            hint="Nothing was sent. Plan again.",
        )
