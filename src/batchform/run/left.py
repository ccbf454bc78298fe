"""What a sync leaves alone, for its summary: rows that failed for good, and rows that only an apply goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from batchform.ledger.rekeyed import asked_rows
from batchform.plan.diff import asked_since
from batchform.plan.model import Action, Plan
from batchform.plan.render import LEFT_TO_APPLY
from batchform.plan.rollout import PREFIX
from batchform.rows.sql import literal
from batchform.run.context import RunContext
from batchform.run.outcome import Left
from batchform.spec.resolved import ResolvedSpec


def left_by_plan(plan: Plan, other: Left, *, reads: str) -> Left:
    """Added to `other`, what a plan of sync holds. reads: "yes" if it reads archived answers anew, "no" leaves them."""
    failed, for_apply = other.failed, other.for_apply
    for spec in plan.specs:
        for why, rows in spec.held_by.items():
            if why == LEFT_TO_APPLY:
                for_apply += rows
            elif not why.startswith(("limit ", PREFIX)):
                failed += rows
        for_apply += spec.actions.get(Action.REPARSE, 0) if reads == "no" else 0
    return Left(failed, for_apply)


def left_by_ledger(ctx: RunContext, specs: Sequence[ResolvedSpec]) -> Left:
    """What can be told of specs without failed and queued rows, whose sources a sync does not look at: answers that the
    spec reads otherwise by now, and rows that a person asked for."""
    count = 0
    known = ctx.ledger.specs()
    for spec in (s for s in specs if s.name in known):
        asked = asked_rows(ctx.ledger, spec.name)
        last = f"(SELECT key_hash, max(serial) AS serial FROM {asked} a GROUP BY key_hash)" if asked else None
        joined = f" LEFT JOIN {last} q ON q.key_hash = l.key_hash" if last else ""
        again = asked_since("q.serial", "l") if last else "false"
        with closing(ctx.connect()) as con:
            found = con.execute(
                f"SELECT count(*) FROM {ctx.ledger.rows_relation(con, spec.name)} l{joined} WHERE "
                f"l.status = 'answered' AND (l.parse_digest <> {literal(spec.parse_digest)} OR {again})"
            ).fetchall()
        count += int(found[0][0])
    return Left(0, count)
