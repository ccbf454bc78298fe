"""Moves of a plan, recorded: rows go on under another name or key, and all that is known of them goes along."""

from __future__ import annotations

from pathlib import Path

from batchform.errors import StalePlan
from batchform.plan.importing import import_blobs, import_events
from batchform.plan.model import Plan
from batchform.plan.moving import Moves, add_move
from batchform.run.context import RunContext
from batchform.run.row_states import refuse_changed
from batchform.spec.realm import realm_of


def record_moves(ctx: RunContext, plan: Plan, bundle: Path) -> frozenset[int]:
    """Record what moves and what is imported, in one commit, on the ledger as it was planned on. Returns its serial.

    Raises StalePlan if rows that take a new key changed since, or if a name was moved by another run.
    """
    found = Moves()
    for moving in plan.moves:
        _refuse_moved(ctx, moving.spec, moving.before)
        if moving.reason and not moving.waits:
            _refuse_at_work(ctx, moving.spec)
        if moving.states:
            refuse_changed(ctx, moving.before or moving.spec, bundle / moving.states, since=plan.serial)
        add_move(found, moving, bundle, at=ctx.now(), by=ctx.who, plan=plan.digest)
    for one in plan.imports:
        spec = ctx.spec(one.spec)
        if one.rows and spec is not None:
            found.events += import_events(one, spec, realm_of(spec.backend), at=ctx.now(), by=ctx.who)
            found.blobs |= import_blobs(one, bundle)
    if not found.events:
        return frozenset()
    if ctx.ledger.head is None:
        ctx.ledger.log.create()  # a head comes before anything that it could name
    for name, path in found.blobs.items():
        if not ctx.ledger.has_blob(name):
            ctx.ledger.put_blob(name, path)
    head = ctx.ledger.commit(found.events, found.files, expect=ctx.ledger.serial)
    return frozenset({head.serial})


def _refuse_at_work(ctx: RunContext, name: str) -> None:
    if any(job.open for job in ctx.ledger.control().jobs.values() if job.intent.spec == name):
        raise StalePlan(f"{name} was to be given up, and has a job at work by now.", hint="Plan again.")


def _refuse_moved(ctx: RunContext, name: str, before: str) -> None:
    known = ctx.ledger.specs()
    if before and (before not in known or name in known):
        raise StalePlan(
            f"the rows of {before} were to move to {name}, and another run was faster.",
            hint="Nothing was sent. Plan again.",
        )
