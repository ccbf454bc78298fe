"""The digest of a plan: what is reviewed under it is what runs."""

from __future__ import annotations

from batchform.canon import digest_of
from batchform.plan.model import After, Change, Plan, Shard, Verdict


def plan_digest(plan: Plan) -> str:
    """Digest of everything that decides what apply does, and of nothing that only informs."""
    specs = [
        {
            "name": s.name,
            "spec": s.spec_digest,
            "backend": s.backend,
            "realm": s.realm,
            "model": s.model,
            "actions": {a.value: n for a, n in s.actions.items()},
            "shards": [_sent(shard) for shard in s.shards],
            "verdicts": [_judged(v) for v in s.verdicts],
            **({"after": _bound(s.after)} if s.after else {}),
            **({"change": _decided(s.change)} if s.change and s.change.source == "command" else {}),
        }
        for s in plan.specs
    ]
    return digest_of(
        "plan",
        {
            "project": plan.project,
            "environment": plan.environment,
            "lineage": plan.lineage,
            "purpose": plan.purpose,
            "specs": specs,
            **({"wave_of": plan.wave_of} if plan.wave_of else {}),
            "verdicts": [_judged(v) for v in plan.verdicts],
            **({"imports": [[i.tag, i.rows] for i in plan.imports]} if plan.imports else {}),
            **({"moves": [[m.spec, m.before, m.rows, m.keys, m.waits] for m in plan.moves]} if plan.moves else {}),
        },
    )


def _sent(shard: Shard) -> list[str | int]:
    """What decides what one job runs."""
    resumed = [shard.resumes.tag, shard.resumes.job] if shard.resumes else []
    return [
        shard.digest,
        shard.tag,
        shard.rows,
        shard.mode,
        *resumed,
        *([shard.model] if shard.model else []),
        *(["cached"] if shard.cached else []),
    ]


def _judged(verdict: Verdict) -> list[str | bool]:
    """A verdict without its figures: what was spent meanwhile makes no plan another one. What was released does, since
    that is not judged again."""
    return [verdict.name, verdict.ok, *(["allowed"] if verdict.allowed else [])]


def _decided(change: Change) -> list[str | int]:
    """What the command line says becomes of answered rows; what the spec says is part of the spec."""
    return [change.decision, change.canary, change.components]


def _bound(after: After) -> list[str | int]:
    """How far apply may go on when answers are there."""
    return [after.upstream, after.rows, f"{after.cost.high:.6f}"]
