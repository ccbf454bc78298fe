"""Rollouts as a ledger records them, and as the fold of their events sees them."""

from __future__ import annotations

from msgspec import Struct, field

from batchform.ledger.event import Event


class StageReached(Event, frozen=True, kw_only=True, tag=True):
    """A stage of a rollout is released, and so are those before it: rows of it may be sent from here on.

    edit: digest of what its rows are asked with; stages: digest of the stages as they were written; stage, of: from 1;
    rows, measured: what the gate before it was judged on, the latter by the names of its conditions; plan_digest: of
    the plan that sends them.
    """

    spec: str
    edit: str
    stage: int
    of: int
    rows: int = 0
    measured: dict[str, float] = field(default_factory=dict)
    plan_digest: str = ""
    stages: str = ""


class StageApproved(Event, frozen=True, kw_only=True, tag=True):
    """Somebody releases a stage of a rollout that is `manual`: the next sync or apply sends its rows. edit, stages: as
    of StageReached."""

    spec: str
    edit: str
    stage: int
    reason: str = ""
    stages: str = ""


class Reached(Struct):
    """stage: the furthest that is released, from 1; approved: stages that somebody has released."""

    stage: int = 1
    approved: list[int] = field(default_factory=list)
