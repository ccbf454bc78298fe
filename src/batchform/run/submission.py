"""Shards that are to be sent, and what sending them did."""

from __future__ import annotations

from msgspec import Struct, field

from batchform.plan.model import Shard, SpecPlan
from batchform.run.budget import Refused


class Work(Struct, frozen=True):
    """One shard to be sent."""

    plan: SpecPlan
    shard: Shard

    @property
    def model(self) -> str:
        """Of its job."""
        return self.shard.model or self.plan.model


class Submission(Struct):
    """What submitting did. Tags by outcome; `held` shards were not sent: there was no room, or it was stopped. Those of
    `over_budget` were not, because a budget had no room."""

    created: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    held: int = 0
    over_budget: list[Refused] = field(default_factory=list)
