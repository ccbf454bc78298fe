"""Budgets where money is about to be spent: judged again on the very ledger that an intent goes on top of.

What a plan was judged on may have changed: another apply sent its jobs, answers cost more than expected, a file sets
other limits. An intent is committed only on the ledger that it was judged on, so that of two runs that fit alone but
not together the second is refused, whichever specs they send. A limit that `--allow` released for the plan is not
judged.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import LedgerMoved, LimitExceeded
from batchform.ledger.records import Allowed, Spent
from batchform.ledger.segments import timestamp
from batchform.ledger.store import Ledger
from batchform.plan.model import ZERO, Plan, Range, Shard, SpecPlan, Verdict
from batchform.plan.policy import (
    BUDGETS,
    PROJECT,
    WINDOWS,
    Figures,
    by_realm,
    check_allow,
    judge_budgets,
    judge_project,
)
from batchform.plan.spend import Books
from batchform.ports import Clock
from batchform.run.approvals import beyond_approval
from batchform.run.context import RunContext
from batchform.spec.model import Limits
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedProject, ResolvedSpec
from batchform.spec.wording import counted

_NEXT = "What was sent goes on and is collected; these rows stay in the next plan."
_TOMORROW = " max_usd has room again when jobs settle for less, and from 00:00 UTC."

_ATTEMPTS: Final = 20
_NEXT_TRIAL = "`try` sends at the synchronous price and counts against the same budgets as jobs."


class Refused(Struct, frozen=True):
    """Rows that limits held when they were about to be sent, and the verdicts that say so."""

    rows: int
    verdicts: tuple[Verdict, ...]


def not_sent(held: Sequence[Refused]) -> LimitExceeded:
    """What held rows come to, as one error: each limit with the numbers of its first refusal."""
    first: dict[tuple[str, str], Verdict] = {}
    for refused in held:
        for verdict in refused.verdicts:
            first.setdefault((verdict.scope, verdict.name), verdict)
    rows, words = sum(r.rows for r in held), "; ".join(f"{v.scope}: {v.message}" for v in first.values())
    daily = any(name == "max_usd" for _, name in first)
    return LimitExceeded(f"{counted(rows, 'row')} not sent: {words}", hint=_NEXT + (_TOMORROW if daily else ""))


def refusal(ctx: RunContext, plan: Plan, planned: SpecPlan, shard: Shard) -> Refused | None:
    """Why a shard may not be sent as the ledger stands now; None if it may."""
    spec = ctx.spec(planned.name)
    own, whole = spec.limits if spec else Limits(), ctx.project.config.limits
    books, figures = Books(ctx.ledger.control(), ctx.clock.now()), Figures(to_send=shard.rows, cost=shard.usd)
    verdicts: list[Verdict] = []
    for scope, limits, name in ((planned.name, own, planned.name), (PROJECT, whole, None)):
        spend = books.spend(limits, planned.realm, name)
        verdicts += judge_budgets(scope, limits, figures, spend=spend, allow=released(plan))
    failed = tuple(v for v in [*verdicts, *beyond_approval(ctx, plan, planned, shard)] if not v.ok)
    return Refused(shard.rows, failed) if failed else None


def check_budgets(ctx: RunContext, plan: Plan) -> None:
    """Judge a plan's budgets again, before anything of it is sent. Raises LimitExceeded with the numbers of now."""
    books, allow = Books(ctx.ledger.control(), ctx.clock.now()), released(plan)
    verdicts: list[Verdict] = []
    figures = {s.name: _figures(s) for s in plan.specs if s.rows_to_send or s.after}
    for planned in plan.specs:
        spec = ctx.spec(planned.name)
        if spec is not None and planned.name in figures:
            spend = books.spend(spec.limits, planned.realm, planned.name)
            verdicts += judge_budgets(planned.name, spec.limits, figures[planned.name], spend=spend, allow=allow)
    limits = ctx.project.config.limits
    sums = by_realm((s.realm, figures[s.name]) for s in plan.specs if s.name in figures)
    whole = judge_project(limits, sums, spend=lambda realm: books.spend(limits, realm), allow=allow)
    verdicts += [v for v in whole if v.name in BUDGETS]
    if failed := [v for v in verdicts if not v.ok]:
        words = "; ".join(f"{v.scope}: {v.message}" for v in failed)
        raise LimitExceeded(f"nothing was sent: {words}", hint="Plan again: it says what there is room for.")


def _figures(planned: SpecPlan) -> Figures:
    """What a spec would send, now and once answers are there."""
    rows, cost = (planned.after.rows, planned.after.cost) if planned.after else (0, ZERO)
    return Figures(to_send=planned.rows_to_send + rows, cost=planned.cost + cost)


def released(plan: Plan) -> frozenset[str]:
    """The limits that were released when the plan was made, as `SCOPE.NAME`."""
    return frozenset(f"{v.scope}.{v.name}" for v in plan.all_verdicts if v.allowed)


class BudgetLine(Struct, frozen=True):
    """One budget as it stands. scope: a spec's name or "project"; US dollars; window: when `settled` was, in words."""

    scope: str
    name: str
    realm: str
    limit: float
    settled: float
    in_flight: float
    window: str


def budget_lines(
    project: ResolvedProject, specs: Iterable[ResolvedSpec], ledger: Ledger, clock: Clock
) -> tuple[BudgetLine, ...]:
    """The budgets of the project and of these specs; those of one plan hold no spend and are left out."""
    chosen, books = list(specs), Books(ledger.control(), clock.now())
    realms = dict.fromkeys(realm_of(s.backend) for s in project.specs)
    scopes: list[tuple[str, Limits, str, str | None]] = [
        (PROJECT, project.config.limits, realm, None) for realm in realms
    ]
    scopes += [(s.name, s.limits, realm_of(s.backend), s.name) for s in chosen]
    lines = []
    for scope, limits, realm, name in scopes:
        spend = books.spend(limits, realm, name)
        for verdict in judge_budgets(scope, limits, Figures(), spend=spend):
            if verdict.budget is not None and verdict.name in WINDOWS:
                lines.append(
                    BudgetLine(
                        scope, verdict.name, realm, verdict.limit, verdict.budget.settled, verdict.budget.in_flight,
                        WINDOWS[verdict.name],
                    )
                )  # fmt: skip
    return tuple(lines)


class TrialBudget:
    """What `try` may spend, and did. It sends no job, so there is no intent: each request is reserved in the ledger
    before it is sent, and what all of them cost is recorded at the end. One that is killed counts as reserved."""

    def __init__(
        self,
        project: ResolvedProject,
        spec: ResolvedSpec,
        ledger: Ledger,
        clock: Clock,
        *,
        allow: Iterable[str] = (),
        reason: str = "",
    ) -> None:
        self._limits = {spec.name: spec.limits, PROJECT: project.config.limits}
        self._spec, self._realm, self._model = spec.name, realm_of(spec.backend), spec.model
        self._ledger, self._clock = ledger, clock
        self._reason = reason
        self._allow = check_allow(allow, [s.name for s in project.specs])
        self._trial = secrets.token_hex(6)
        self._spent = self._reserved = 0.0
        self._requests = 0
        self._recorded = False  # whether the ledger holds a reservation
        self._allowed: dict[str, Verdict] = {}

    def reserve(self, cost: Range, *, priced: bool) -> None:
        """Hold back what one request may cost, durably, on top of a ledger that has room for it.

        Raises LimitExceeded when a budget has none, LedgerMoved when others are faster every time.
        """
        for _ in range(_ATTEMPTS):
            self._ledger.refresh()
            self._judge(cost, priced=priced)
            self._reserved = cost.expected
            if not cost.expected:
                return
            event = self._event(usd=cost.expected, requests=1, reserved=True)
            try:
                self._ledger.commit([event], expect=self._ledger.serial)
            except LedgerMoved:
                self._reserved = 0.0
            else:
                self._recorded = True
                return
        raise LedgerMoved(f"{self._ledger.place} is too busy to record what is spent.", hint="Run again.")

    def _judge(self, cost: Range, *, priced: bool) -> None:
        control = self._ledger.control()
        others = [(at, spent) for at, spent in control.spent if spent.trial != self._trial]
        books = Books(replace(control, spent=others), self._clock.now())
        here = Range(self._spent, self._spent, self._spent)
        figures = Figures(to_send=1, cost=here + cost, priced=priced)
        for scope, limits in self._limits.items():
            spend = books.spend(limits, self._realm, None if scope == PROJECT else scope)
            for verdict in judge_budgets(scope, limits, figures, spend=spend, allow=self._allow):
                if not verdict.ok:
                    raise LimitExceeded(f"not sent: {scope}: {verdict.message}", hint=_NEXT_TRIAL)
                if verdict.allowed:
                    self._allowed[f"{scope}.{verdict.name}"] = verdict

    def settle(self, usd: float) -> None:
        """The request was answered, or refused for nothing. What is never settled counts as it was reserved."""
        self._spent += usd
        self._requests += 1
        self._reserved = 0.0

    def record(self) -> None:
        """Commit what was spent, and which limits were released for it."""
        usd = self._spent + self._reserved
        if not usd and not self._recorded:
            return
        at = timestamp(self._clock.now())
        released = [
            Allowed(at=at, limit=name, plan_digest="", message=verdict.message, reason=self._reason)
            for name, verdict in self._allowed.items()
        ]
        spent = self._event(usd=usd, requests=self._requests + (self._reserved > 0), reserved=False)
        self._ledger.commit([*released, spent])

    def _event(self, *, usd: float, requests: int, reserved: bool) -> Spent:
        return Spent(
            at=timestamp(self._clock.now()), spec=self._spec, realm=self._realm, model=self._model, requests=requests,
            usd=usd, trial=self._trial, reserved=reserved,
        )  # fmt: skip
