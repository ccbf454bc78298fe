"""`approve`: a person releases a stage of a rollout that waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.stages import StagePlan
    from batchform.spec.resolved import ResolvedSpec


@click.command("approve", short_help="Release a stage of a rollout that waits for somebody.")
@click.argument("spec")
@click.option("--stage", required=True, type=click.IntRange(2), help="Its number, from 2: the first is applied.")
@click.option("--reason", default="", metavar="TEXT", help="Why, recorded in the ledger.")
@common
def approve_command(common: Common, spec: str, stage: int, reason: str) -> None:
    """Record that a stage of SPEC's rollout may be sent, once the gate before it has passed.

    Nothing is sent: the next `sync` or `apply` sends its rows, within what was approved of the plan.
    """
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        done = release_stage(session, session.spec(spec), stage, reason)
        if not common.quiet:
            click.echo(done)


def release_stage(session: Session, spec: ResolvedSpec, stage: int, reason: str) -> str:
    """Record it; what was done, in words. Raises UsageError when the stage is none that waits for somebody,
    LimitExceeded when the gate before it has not passed."""
    from batchform.ledger.records import StageApproved
    from batchform.ledger.segments import timestamp
    from batchform.plan.rollout import edit_of, reached_by, stages_of

    _check_stage(spec, stage)
    reached, approved = reached_by(session.ledger.control(), spec)
    if stage <= reached or stage in approved:
        return f"Stage {stage} of {spec.name} is released already."
    found = _found(session, spec)
    if found is None or found.stage >= stage:
        return f"Stage {stage} of {spec.name} needs nobody any more: the next sync or apply sends what is left of it."
    _check_gate(spec, found, stage)
    now = timestamp(session.clock.now())
    released = StageApproved(
        at=now, by=session.who, spec=spec.name, edit=edit_of(spec), stage=stage, reason=reason, stages=stages_of(spec)
    )
    session.ledger.commit([released], expect=session.ledger.serial)
    judged = f" ({found.gate_words})" if found.gate else ""
    return (
        f"Recorded: stage {stage} of {found.of} of {spec.name} is released{judged}. "
        "`batchform sync` sends its rows, or the next apply."
    )


def _found(session: Session, spec: ResolvedSpec) -> StagePlan | None:
    from batchform.cli.plans import make_plan

    return make_plan(session, [spec]).specs[0].rollout


def _check_stage(spec: ResolvedSpec, stage: int) -> None:
    from batchform.errors import UsageError

    stages = spec.spec.rollout
    if stage > len(stages):
        many = f"{len(stages)} stages" if stages else "no rollout"
        raise UsageError(f"{spec.name} has {many}, and no stage {stage}", hint="`batchform status` says how far it is.")
    if not stages[stage - 1].manual:
        raise UsageError(
            f"stage {stage} of {spec.name} is released by the gate before it, and by nobody",
            hint="`manual: true` in its stage leaves that to a person.",
        )


def _check_gate(spec: ResolvedSpec, found: StagePlan, stage: int) -> None:
    """Raises LimitExceeded unless this very stage waits for somebody."""
    from batchform.errors import LimitExceeded
    from batchform.plan.stages import what_to_do

    if found.state == "manual" and found.stage + 1 == stage:
        return
    if found.state == "failed":
        raise LimitExceeded(f"not released: {found.failed_words(spec.name, keys=True)}", hint=what_to_do(spec.name))
    raise LimitExceeded(
        f"not released: stage {found.stage} of {found.of} of {spec.name} is not judged yet, "
        f"{found.sent:,} of its {found.size:,} rows were sent",
        hint="`batchform sync --wait` brings their answers; then approve it.",
    )
