"""Stages of rollouts in the ledger: released by the plans that send them, told by `status`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from batchform.ledger.records import StageReached
from batchform.ledger.store import Ledger
from batchform.plan.model import Plan
from batchform.plan.rollout import edit_of, judge_gate, reached_by, required_of, stages_of
from batchform.plan.stages import failures_told
from batchform.plan.staging import sent_with, tags_of
from batchform.run.context import RunContext
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def record_stages(ctx: RunContext, plan: Plan) -> None:
    """Commit which stages a plan has found released, before it sends their rows."""
    events = []
    for spec in plan.specs:
        found, as_written = spec.rollout, ctx.spec(spec.name)
        if found is None or as_written is None or found.stage <= found.before:
            continue
        measured = {m.name: m.measured for m in found.gate if m.measured is not None}
        events.append(
            StageReached(
                at=ctx.now(), by=ctx.who, spec=spec.name, edit=found.edit, stage=found.stage, of=found.of,
                rows=found.sent, measured=measured, plan_digest=plan.digest, stages=stages_of(as_written),
            )
        )  # fmt: skip
        ctx.progress.note(_released(spec.name, found.stage, found.of, found.gate_words))
    if events:
        ctx.ledger.commit(events)


def _released(name: str, stage: int, of: int, gate: str) -> str:
    judged = f" ({gate})" if gate else ""
    return f"{name}: stage {stage} of {of} of its rollout is released{judged}."


def rollout_notes(
    ledger: Ledger, specs: Iterable[ResolvedSpec], connect: Callable[[], DuckDBPyConnection]
) -> list[str]:
    """How far the rollouts of specs have come, as far as the ledger tells without their rows."""
    notes = []
    control, known = ledger.control(), ledger.specs()
    for spec in specs:
        stages, edit = spec.spec.rollout, edit_of(spec)
        reached, _ = reached_by(control, spec)
        if not stages or spec.name not in known or reached >= len(stages):
            continue
        tags = tags_of(control, spec.name, edit)
        with closing(connect()) as con:
            sent = sent_with(con, spec, ledger.rows_relation(con, spec.name), control, tags)
        if not sent.rows:
            continue
        words = f"{spec.name}: stage {reached} of {len(stages)} of its rollout: {counted(sent.rows, 'row')} sent"
        words += f", {sent.under_way:,} of them under way" if sent.under_way else ""
        gate = () if sent.under_way or sent.again else judge_gate(required_of(stages, reached), sent)
        words += "".join(f"; {'✓' if m.ok else '✗'} {m.words}" for m in gate)
        if sent.failed:
            words += f" ({failures_told(sent.failed, sent.samples)})"
        notes.append(words)
    return notes
