"""What the methods of `Project` return: plain values that stay what they are.

Names are those of `plan --format json` and `apply --json`; money is in US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from batchform.errors import BatchformError, Diagnostic
from batchform.plan.model import Plan as PlanModel
from batchform.plan.model import Range, Verdict
from batchform.view.values import StatusView as Status

if TYPE_CHECKING:
    from batchform.plan.model import SpecPlan
    from batchform.run.outcome import Outcome as RunOutcome

__all__ = ["Delivered", "Outcome", "Plan", "PlannedSpec", "Range", "SpecOutcome", "Status", "Validation", "Verdict"]


class Validation(Struct, frozen=True):
    """A project without errors. specs: names; warnings: about files and rows; unchecked: specs whose rows are not on
    this machine, and why not."""

    specs: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    unchecked: Mapping[str, str]


class PlannedSpec(Struct, frozen=True):
    """What one spec would do. actions, reasons: rows by name (`run`, `keep`; `new_key`), without zeros; held_by: why
    rows are held → rows; jobs: to be created; known_after_apply: rows of a chain that are known later, at
    most; input_tokens, output_tokens: estimates; input_basis, output_basis: where they come from, in words;
    counted_requests: of them, those whose input the service has counted."""

    name: str
    model: str
    backend: str
    realm: str
    source: str
    source_rows: int
    destination: str
    rows_to_send: int
    requests_to_send: int
    jobs: int
    cost: Range
    actions: Mapping[str, int]
    reasons: Mapping[str, int]
    held_by: Mapping[str, int]
    known_after_apply: int
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    input_tokens: int
    output_tokens: Range
    input_basis: str
    output_basis: str
    counted_requests: int


class Plan(Struct, frozen=True):
    """What `apply` would do. verdicts: of all limits, the project's and those of its specs; saved: where it is saved,
    None if it is not. In a notebook it shows itself as Markdown."""

    digest: str
    project: str
    environment: str
    created_at: str
    partial: bool
    selected: tuple[str, ...]
    rows_to_send: int
    cost: Range
    has_changes: bool
    specs: tuple[PlannedSpec, ...]
    verdicts: tuple[Verdict, ...]
    saved: str | None = None
    _model: PlanModel | None = field(default=None)

    @property
    def ok(self) -> bool:
        """Whether no limit holds it."""
        return all(v.ok for v in self.verdicts)

    def spec(self, name: str) -> PlannedSpec:
        """One spec's part. Raises KeyError."""
        for spec in self.specs:
            if spec.name == name:
                return spec
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """As `plan --format json`, which docs/plan-format.md describes. Row text is in it only where a spec says
        `preview: public`."""
        from batchform.view.json import plan_json

        return plan_json(self._known())

    def to_markdown(self) -> str:
        """As `plan --format markdown`, for a comment or a chat message."""
        from batchform.view.markdown import plan_markdown

        return plan_markdown(self._known())

    def _known(self) -> PlanModel:
        if self._model is None:
            raise BatchformError("this plan was made by hand: it cannot be shown", hint="Plans come of Project.plan().")
        return self._model

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def __repr__(self) -> str:
        held = "" if self.ok else ", held by a limit"
        return f"<Plan {self.digest[-12:]}: {self.rows_to_send} rows to send, ${self.cost.expected:.6g} expected{held}>"


class Delivered(Struct, frozen=True):
    """A destination that was written: rows that it holds or was given, and where."""

    rows: int
    location: str


class SpecOutcome(Struct, frozen=True):
    """What became of one spec's rows. answered: rows of jobs collected in this run, or read anew from the archive;
    failures: class → rows that are failed at its end; delivered: None if nothing was."""

    name: str
    answered: int
    failures: Mapping[str, int]
    delivered: Delivered | None = None


class Outcome(Struct, frozen=True):
    """What a run did. created, adopted, collected, running, unknown: tags of jobs; unknown: whether they came to be;
    held: rows that a limit held; not_sent: shards that wait for room; usd: cost of what was collected; plan: what was
    applied, None of a sync; error: what the exit code of the command says, None if all is well."""

    specs: tuple[SpecOutcome, ...]
    created: tuple[str, ...]
    adopted: tuple[str, ...]
    collected: tuple[str, ...]
    running: tuple[str, ...]
    unknown: tuple[str, ...]
    held: int
    not_sent: int
    usd: float
    plan: Plan | None = None
    error: BatchformError | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for."""
        return not self.running and not self.unknown and not self.not_sent

    @property
    def exit_code(self) -> int:
        """Of the command; see docs/design.md."""
        return self.error.exit_code if self.error else 0

    def spec(self, name: str) -> SpecOutcome:
        """What became of one spec. Raises KeyError for one that nothing came of."""
        for spec in self.specs:
            if spec.name == name:
                return spec
        raise KeyError(name)


def plan_value(plan: PlanModel, *, saved: str | None = None) -> Plan:
    """A plan as it is handed out."""
    return Plan(
        digest=plan.digest,
        project=plan.project,
        environment=plan.environment,
        created_at=plan.created_at,
        partial=plan.partial,
        selected=plan.selected,
        rows_to_send=plan.rows_to_send,
        cost=plan.cost,
        has_changes=plan.has_changes,
        specs=tuple(map(_planned, plan.specs)),
        verdicts=plan.all_verdicts,
        saved=saved,
        _model=plan,
    )


def _planned(spec: SpecPlan) -> PlannedSpec:
    return PlannedSpec(
        name=spec.name,
        model=spec.model,
        backend=spec.backend,
        realm=spec.realm,
        source=spec.source,
        source_rows=spec.source_rows,
        destination=spec.destination,
        rows_to_send=spec.rows_to_send,
        requests_to_send=spec.requests_to_send,
        jobs=len(spec.shards),
        cost=spec.cost,
        actions={a.value: n for a, n in spec.actions.items() if n},
        reasons={r.value: n for r, n in spec.reasons.items() if n},
        held_by=dict(spec.held_by),
        known_after_apply=spec.after.rows if spec.after else 0,
        verdicts=spec.verdicts,
        notes=spec.notes,
        input_tokens=spec.tokens.input,
        output_tokens=spec.tokens.output,
        input_basis=spec.tokens.input_basis,
        output_basis=spec.tokens.basis,
        counted_requests=spec.tokens.counted,
    )


def outcome_value(
    outcome: RunOutcome, error: BatchformError | None, *, held: int = 0, plan: PlanModel | None = None
) -> Outcome:
    """A run as it is handed out. held: rows that its plan did not send."""
    return Outcome(
        specs=tuple(_became(outcome, n) for n in sorted({*outcome.rows, *outcome.reread, *outcome.delivered})),
        created=tuple(outcome.created),
        adopted=tuple(outcome.adopted),
        collected=tuple(outcome.collected),
        running=tuple(outcome.running),
        unknown=tuple(outcome.unknown),
        held=held + sum(r.rows for r in outcome.refused),
        not_sent=outcome.not_sent,
        usd=outcome.usd,
        plan=plan_value(plan) if plan else None,
        error=error,
    )


def _became(outcome: RunOutcome, name: str) -> SpecOutcome:
    answered = sum(kind[name]["answered"] for kind in (outcome.rows, outcome.reread) if name in kind)
    reread = {c: n for c, n in outcome.reread.get(name, {}).items() if c != "answered"}
    failures = {**outcome.failures.get(name, {})}
    for kind, rows in reread.items():
        failures[kind] = failures.get(kind, 0) + rows
    there = outcome.delivered.get(name)
    return SpecOutcome(name, answered, failures, Delivered(there.rows, there.location) if there else None)
