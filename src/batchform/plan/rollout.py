"""Stages of a rollout: how far an edit has come, and which rows it may reach. Pure: figures in, figures out.

A stage is so many rows, those of the stages before among them. What was sent with the edit counts first, whatever
became of it; then come the rows that wait, by the hash of their keys. A stage is full when as many were sent, or when
none is left to send; its gate is then judged on all rows that were sent with the edit, once none is under way. So a row
that comes, goes or fails moves no other one out of its stage, and nothing is sent beyond a gate that has not passed.

An edit is what rows are asked with: prompt, model, configuration and schema, and whose answers they get.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from batchform.canon import digest_of
from batchform.ledger.records import ControlView
from batchform.plan.stages import Measure
from batchform.spec.model_rollout import Require, Stage
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec

PREFIX: Final = "rollout: "
"""With which begins why a row is held by a rollout."""
_FRACTION: Final = 1e-9
_UNREADABLE: Final = ("invalid_output", "truncated")
"""Failure classes of answers that came back and are not what was asked for."""


def edit_of(spec: ResolvedSpec) -> str:
    """A digest of what rows are asked with, and of whose answers they get: a rollout is of one such edit."""
    parts = [spec.prompt_digest, spec.model, spec.config_digest, spec.schema_digest, realm_of(spec.backend)]
    return digest_of("edit", parts)


def stages_of(spec: ResolvedSpec) -> str:
    """A digest of how many rows the stages hold and which wait for a person: numbers of stages are told of these."""
    return digest_of("stages", [[s.rows, s.percent, s.manual] for s in spec.spec.rollout])


class Sent(Struct, frozen=True):
    """Rows that were sent with an edit, by the ledger.

    under_way: in flight or queued; again: failed, and sync sends them again; failed: failure class → rows; usd: what
    their jobs cost, None where that is not known; samples: (key, failure class) of a few that failed.
    """

    rows: int = 0
    answered: int = 0
    under_way: int = 0
    again: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    usd: float | None = 0.0
    samples: tuple[tuple[str, str], ...] = ()


class Standing(Struct, frozen=True):
    """How far a rollout has come.

    stage: the one that is released, from 1, of so many; places: rows that may still be sent in it, None: all; state:
    "sending" while rows are to be sent in it, "waiting" for answers or retries, "failed" at its gate, "manual" until
    somebody releases the next one, "complete" when all rows are released; size: rows of the stage; gate: the last that
    was judged.
    """

    stage: int
    of: int
    state: str
    places: int | None
    size: int
    gate: tuple[Measure, ...] = ()

    @property
    def held_words(self) -> str:
        """Why the rows beyond the stage are held."""
        here, after = f"stage {self.stage} of {self.of}", f"stage {self.stage + 1} of {self.of}"
        match self.state:
            case "complete":
                return f"{PREFIX}beyond the rows that were approved, left to apply"
            case "failed":
                return f"{PREFIX}the gate of {here} failed"
            case "manual":
                return f"{PREFIX}{after} waits to be approved"
        return f"{PREFIX}{after} waits for the gate of stage {self.stage}"


def sizes(stages: Sequence[Stage], population: int) -> list[int]:
    """Rows of each stage. population: rows that were sent with the edit, and those that wait."""
    found: list[int] = []
    for stage in stages:
        share = population * (stage.percent or 0.0) / 100
        own = stage.rows if stage.rows is not None else max(1, math.ceil(share - _FRACTION))
        found.append(min(population, max(own, found[-1] if found else 0)))
    return found


def required_of(stages: Sequence[Stage], stage: int) -> Require:
    """The gate of a stage, from 1: its own, or that of the last one before which says any."""
    return next((s.require for s in reversed(stages[:stage]) if s.require is not None), Require())


def judge_gate(require: Require, sent: Sent) -> tuple[Measure, ...]:
    """The conditions of a gate, with what was measured. Of no rows nothing can be said, and no share is reached."""
    judged = []
    returned = sent.answered + sum(sent.failed.get(failure, 0) for failure in _UNREADABLE)
    for name, least, part, whole in (
        ("answered", require.answered, sent.answered, sent.rows),
        ("valid", require.valid, sent.answered, returned),
    ):
        if least is not None:
            share = part / whole if whole else None
            judged.append(Measure(name, least, share, share is not None and share >= least - _FRACTION))
    if require.max_usd_per_row is not None:
        mean = sent.usd / sent.rows if sent.usd is not None and sent.rows else None
        most = require.max_usd_per_row
        judged.append(Measure("max_usd_per_row", most, mean, mean is not None and mean <= most + _FRACTION))
    return tuple(judged)


def stand(
    stages: Sequence[Stage], *, sent: Sent, waiting: int, reached: int = 1, approved: Collection[int] = ()
) -> Standing:
    """How far a rollout has come. waiting: rows that would be sent with the edit and were not; reached: the furthest
    stage that was released before; approved: stages that somebody has released."""
    last = len(stages)
    gate: tuple[Measure, ...] = ()
    size = sizes(stages, sent.rows + waiting)
    stage = max(1, min(reached, last))

    def standing(state: str, places: int | None = 0, gate: tuple[Measure, ...] = ()) -> Standing:
        return Standing(stage, last, state, places, size[stage - 1], gate)

    while stage < last:
        if sent.rows < size[stage - 1]:
            return standing("sending", size[stage - 1] - sent.rows, gate)
        if sent.under_way or sent.again or not sent.rows:
            return standing("waiting")
        gate = judge_gate(required_of(stages, stage), sent)
        if not all(m.ok for m in gate):
            return standing("failed", gate=gate)
        if not waiting:
            return standing("waiting", gate=gate)
        if stages[stage].manual and stage + 1 not in approved:
            return standing("manual", gate=gate)
        stage += 1
    return standing("complete", None, gate)


def reached_by(control: ControlView, spec: ResolvedSpec) -> tuple[int, frozenset[int]]:
    """(furthest stage that was released, stages that somebody has released) of a spec's edit, as recorded. Of stages
    that were written otherwise nothing counts but what was sent: their gates are judged anew, from the first on."""
    found = control.rollouts.get(spec.name, {}).get((edit_of(spec), stages_of(spec)))
    return (1, frozenset()) if found is None else (found.stage, frozenset(found.approved))
