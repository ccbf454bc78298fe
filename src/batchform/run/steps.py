"""What an apply does, as a list: `apply_plan` walks it, and `plan --steps` prints it. Making it does nothing.

Each step is durable before the next begins. CARRIED are done while the ledger's lease is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from batchform.plan.importing import imports_words
from batchform.plan.model import Action, Plan, SpecPlan
from batchform.plan.moving_words import moving_words
from batchform.spec.wording import counted, money

SETTLE: Final = "settle"
JUDGE: Final = "judge"
CHECK: Final = "check"
RELEASE: Final = "release"
DECIDE: Final = "decide"
STAGE: Final = "stage"
APPROVE: Final = "approve"
MOVE: Final = "move"
FREE: Final = "free"
SEND: Final = "send"
WAIT: Final = "wait"
GO_ON: Final = "go on"
FINISH: Final = "finish"
CARRIED: Final = (CHECK, RELEASE, DECIDE, STAGE, APPROVE, MOVE, FREE, SEND)


class Step(Struct, frozen=True):
    """kind: one of the above; words: what is done, for people; spec: of steps that are about one; details: its parts, a
    line each."""

    kind: str
    words: str
    spec: str = ""
    details: tuple[str, ...] = ()


def steps_of(plan: Plan, *, wait: str = "done") -> tuple[Step, ...]:
    """All that applying a plan does, in order. wait: as of `apply_plan`."""
    return (
        Step(SETTLE, "look for the jobs of earlier submissions whose outcome is not known, and settle them"),
        Step(JUDGE, "judge budgets again, with what was spent since the plan was made"),
        *carried_out(plan),
        *(_afterwards(plan) if wait == "done" else ()),
    )


def carried_out(plan: Plan) -> tuple[Step, ...]:
    """What is recorded and sent of a plan, whoever made it: an apply, a retry, a wave of a chain."""
    return tuple(_carried(plan))


def _carried(plan: Plan) -> Iterator[Step]:
    yield Step(CHECK, "hold rows and jobs of the plan against the ledger")
    if released := [v for v in plan.all_verdicts if v.allowed]:
        yield Step(RELEASE, "record released limits", details=tuple(f"{v.scope}.{v.name}" for v in released))
    if decided := [s for s in plan.specs if s.change and s.change.source == "command"]:
        said = tuple(f"{s.name}: {s.change.decision}" for s in decided if s.change)
        yield Step(DECIDE, "record what becomes of answered rows", details=said)
    if staged := [s for s in plan.specs if s.rollout and s.rollout.stage > s.rollout.before]:
        said = tuple(f"{s.name}: stage {s.rollout.stage} of {s.rollout.of}" for s in staged if s.rollout)
        yield Step(STAGE, "record the stages of rollouts that are released", details=said)
    if plan.purpose == "apply":
        details = [f"{s.name}: up to {counted(s.after.rows, 'row')}" for s in plan.specs if s.after]
        details += [f"under {plan.under}"] if plan.under else []
        yield Step(APPROVE, "record what is approved, of chains and by digest", details=tuple(details))
    told = [moving_words(m) for m in plan.moves if not m.waits] + imports_words([i for i in plan.imports if i.rows])
    if told:
        yield Step(MOVE, "record what moves to another name or key, and what is imported", details=tuple(told))
    for spec in plan.specs:
        if spec.bookkeeping or spec.reread:
            yield Step(FREE, f"record what costs nothing of {spec.name}", spec.name, tuple(_free(spec)))
    if any(s.shards for s in plan.specs):
        words = f"send {counted(plan.rows_to_send, 'row')} for about {money(plan.cost.expected)}"
        yield Step(SEND, words, details=tuple(_jobs(plan)))


def _free(spec: SpecPlan) -> Iterator[str]:
    for action in (Action.KEEP, Action.REUSE, Action.REPARSE, Action.FORGET, Action.REMOVE):
        if spec.actions.get(action):
            yield f"{action.symbol} {action.value}: {counted(spec.actions[action], 'row')}"


def _jobs(plan: Plan) -> Iterator[str]:
    for spec in plan.specs:
        for shard in spec.shards:
            how = f"go on with {shard.resumes.tag}" if shard.resumes else f"by {shard.mode}"
            rows = counted(shard.rows, "row")
            yield f"{spec.name} → {spec.backend}: job {shard.tag}, {rows}, about {money(shard.usd.expected)}, {how}"


def _afterwards(plan: Plan) -> Iterator[Step]:
    yield Step(WAIT, "wait for the jobs at work, archive and read their results, mark their rows")
    chains = tuple(
        f"{s.name}: up to {counted(s.after.rows, 'row')} for at most {money(s.after.cost.high)}"
        for s in plan.specs
        if s.after
    )
    yield Step(
        GO_ON,
        "send, within what is approved, what has become known of chains and stages that are released; wait again",
        details=chains,
    )
    places = tuple(f"{s.name} → {s.destination}" for s in plan.specs)
    yield Step(FINISH, "clean up, fold the ledger, deliver new answers", details=places)
