"""Waves of chains: plans of rows that have become known since a plan was reviewed, within what it approved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.cli.options import Asked
from batchform.spec.chains import ancestors, in_order

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.ledger.records import Approved
    from batchform.plan.model import Plan
    from batchform.run.context import RunContext
    from batchform.run.outcome import Outcome
    from batchform.spec.resolved import ResolvedSpec


class Waves:
    """Makes the waves of one run. names: the specs that it is about."""

    def __init__(self, session: Session, ctx: RunContext, names: Collection[str]) -> None:
        self._session, self._ctx, self._names = session, ctx, names
        self._tried: dict[str, frozenset[str]] = {}
        self._made = 0

    def __call__(self, outcome: Outcome) -> tuple[Plan, Path] | None:
        """The next wave and its bundle; None when there is none now. What would pass its bound is ended, and told."""
        self._ctx.ledger.refresh()
        self._end_done()
        while ready := self._ready():
            approved = self._ctx.ledger.control().approved
            first = approved[ready[0].name].plan_digest
            together = [s for s in ready if approved[s.name].plan_digest == first]
            if shared := self._shared(together):
                return shared
            for spec in together:
                self._tried[spec.name] = self._state(spec)
            found = self._planned(together, first, outcome)
            if found is not None:
                return found
            self._end_done()
        return None

    # --- which

    def _ready(self) -> list[ResolvedSpec]:
        """Approved specs whose upstreams are at rest, with answers that no wave has seen."""
        approved = self._ctx.ledger.control().approved
        found: list[ResolvedSpec] = []
        for spec in in_order(self._session.project.specs):
            if spec.name not in approved or spec.name not in self._names or not self._as_reviewed(approved[spec.name]):
                continue
            above = ancestors(spec, self._session.project.specs)
            if self._tried.get(spec.name) == self._state(spec) or any(a in found for a in above):
                continue
            if not any(self._at_work(a) for a in self._read_by(spec)) and self._tellable(spec, approved):
                found.append(spec)
        return found

    def _read_by(self, spec: ResolvedSpec) -> list[ResolvedSpec]:
        """The specs whose answers decide what a wave of this one sends: those above it, and itself if it has stages."""
        above = ancestors(spec, self._session.project.specs)
        return [*above, spec] if spec.spec.rollout else list(above)

    def _as_reviewed(self, approved: Approved) -> bool:
        from batchform.run.approvals import digests_of

        if digests_of(self._ctx, approved.spec) == approved.digests:
            return True
        self._ctx.tell_once(
            f"{approved.spec}, or a spec that its rows come from, is not as it was approved: the rest is left to apply."
        )
        return False

    def _at_work(self, spec: ResolvedSpec) -> bool:
        """Whether a spec has jobs that are open, or queued rows."""
        ledger = self._ctx.ledger
        if any(j.open for j in ledger.control().jobs.values() if j.intent.spec == spec.name):
            return True
        return self._count(spec, "status IN ('pending', 'in_flight')") > 0

    def _tellable(self, spec: ResolvedSpec, approved: Mapping[str, Approved]) -> bool:
        """Whether a chain that is known as a whole or not at all is known."""
        from batchform.ports import Chained
        from batchform.run.approvals import taken_up

        source = self._session.rows(spec)
        if not isinstance(source, Chained) or not source.whole_only:
            return True
        above = ancestors(spec, self._session.project.specs)
        return not any(a.name in approved for a in above) and taken_up(self._ctx, approved[spec.name])

    def _count(self, spec: ResolvedSpec, condition: str) -> int:
        ledger = self._ctx.ledger
        if spec.name not in ledger.specs():
            return 0
        con = self._ctx.connect()
        try:
            rows = ledger.rows_relation(con, spec.name)
            return int(con.execute(f"SELECT count(*) FROM {rows} WHERE {condition}").fetchall()[0][0])
        finally:
            con.close()

    def _state(self, spec: ResolvedSpec) -> frozenset[str]:
        """What the answers that a spec reads rest on: the jobs that were collected."""
        above = {s.name for s in self._read_by(spec)}
        jobs = self._ctx.ledger.control().jobs.values()
        return frozenset(j.tag for j in jobs if j.intent.spec in above and j.status == "collected")

    def _end_done(self) -> None:
        """End approvals of which a wave has seen all that there will be."""
        from batchform.ports import Chained
        from batchform.run.approvals import ended

        for spec in in_order(self._session.project.specs):
            approved = self._ctx.ledger.control().approved
            if spec.name not in approved or self._tried.get(spec.name) != self._state(spec):
                continue
            if self._held_by_stage(spec):
                continue
            source = self._session.rows(spec)
            above = [a.name for a in ancestors(spec, self._session.project.specs)]
            if any(name in approved for name in above) or (isinstance(source, Chained) and source.unsettled()):
                continue
            self._ctx.ledger.commit([ended(self._ctx, approved[spec.name], "all answers are there")])

    def _held_by_stage(self, spec: ResolvedSpec) -> bool:
        """Whether stages of its rollout are not released yet."""
        from batchform.plan.rollout import reached_by

        stages = spec.spec.rollout
        return reached_by(self._ctx.ledger.control(), spec)[0] < len(stages)

    # --- what

    def _planned(self, specs: Sequence[ResolvedSpec], wave_of: str, outcome: Outcome) -> tuple[Plan, Path] | None:
        """A plan of these specs without those that have grown beyond what was approved, or that a limit holds."""
        from batchform.run.approvals import ended, grown
        from batchform.run.budget import Refused

        ctx, left = self._ctx, list(specs)
        while left:
            plan, bundle = self._make(left, "wave", wave_of)
            control, out = ctx.ledger.control(), set()
            self._tell_gates(plan, outcome)
            for planned in plan.specs:
                approved = control.approved[planned.name]
                if words := grown(control, approved, rows=planned.rows_to_send, usd=planned.cost.expected):
                    outcome.grown.append(words)
                    ctx.ledger.commit([ended(ctx, approved, words)])
                    out.add(planned.name)
            failed = tuple(v for v in plan.all_verdicts if not v.ok)
            if not out and failed:
                rows = sum(n for s in plan.specs for why, n in s.held_by.items() if why.startswith("limit "))
                outcome.refused.append(Refused(rows, failed))
                out = {s.name for s in plan.specs if any(not v.ok for v in (*plan.verdicts, *s.verdicts))}
            if not out:
                idle = not plan.rows_to_send and not any(s.bookkeeping or s.reread for s in plan.specs)
                return None if idle else (plan, bundle)
            left = [s for s in left if s.name not in out]
        return None

    def _tell_gates(self, plan: Plan, outcome: Outcome) -> None:
        """Say of rollouts what keeps the next stage back."""
        for planned in plan.specs:
            found = planned.rollout
            if found is not None and found.state == "failed":
                words = found.failed_words(planned.name, keys=True)
                outcome.gates += [] if words in outcome.gates else [words]
            elif found is not None and found.state == "manual":
                after = found.stage + 1
                self._ctx.tell_once(
                    f"{planned.name}: stage {after} of {found.of} waits for somebody: "
                    f"batchform approve {planned.name} --stage {after}"
                )

    def _shared(self, specs: Sequence[ResolvedSpec]) -> tuple[Plan, Path] | None:
        """Of upstreams where rows share a request: a plan that gives them the answer that has come for another row."""
        named = {s.name: s for s in self._session.project.specs}
        above = {s.upstream: named[s.upstream] for s in specs if s.upstream}
        sharing = [a for a in above.values() if a.spec.idempotency.reuse_identical and self._count(a, "true")]
        if not sharing:
            return None
        plan, bundle = self._make(sharing, "settle", "")
        return (plan, bundle) if any(s.bookkeeping for s in plan.specs) else None

    def _make(self, specs: Sequence[ResolvedSpec], purpose: str, wave_of: str) -> tuple[Plan, Path]:
        from batchform.cli.plans import make_plan

        self._made += 1
        bundle = self._session.scratch / f"wave-{self._made}"
        asked = Asked(allow=tuple(self._released(wave_of)))
        plan = make_plan(self._session, specs, folder=bundle, purpose=purpose, wave_of=wave_of, asked=asked)
        return plan, bundle

    def _released(self, wave_of: str) -> list[str]:
        """The limits that were released for the plan that was reviewed."""
        allowed = self._ctx.ledger.control().allowed
        return sorted({a.limit for a in allowed if wave_of and a.plan_digest == wave_of})
