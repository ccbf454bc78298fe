"""Limits as named verdicts. Each is released only by its own `--allow NAME`, or `SCOPE.NAME`.

max_usd              fails when what was spent today (UTC) + what is in flight + the planned cost is above it, or when
                     the price of rows to send is not known.
max_usd_per_plan     fails when the planned cost is.
max_usd_per_month    as max_usd, with what was spent in this calendar month.
max_usd_total        as max_usd, with all that was ever spent.
max_rows             fails when more rows would be sent.
max_changed_percent  fails when a larger share of the answered rows would be sent again, and more than
                     changed_floor rows.
source_shrunk        is judged when max_shrink_percent is set and keys have left the source, or max_changed_percent
                     is and rows would be removed (`prune: true`); fails when a larger share of the known rows left, or
                     would be removed, and more than changed_floor rows; or when the source is empty.

and those of guards.py, on what is asked.

A failed verdict of a spec holds that spec's paid rows, one of the project those of every spec; a failed
source_shrunk also holds the removals. A spec's limits are judged on its own figures, the project's on the sum
of all specs of the plan; but money of the emulator and of Google never adds up. A plan that sends nothing
passes every budget, whatever was spent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import UsageError
from batchform.plan.model import ZERO, Action, Budget, Range, Verdict
from batchform.plan.spend import NOTHING, Spend
from batchform.spec.model import Limits
from batchform.spec.wording import counted, money

PROJECT: Final = "project"
BUDGETS: Final = ("max_usd", "max_usd_per_plan", "max_usd_per_month", "max_usd_total")
GUARDS: Final = ("allowed_models", "required_labels", "min_model_days")
NAMES: Final = (*BUDGETS, "max_rows", "max_changed_percent", "source_shrunk", *GUARDS)
_CENT_FRACTION: Final = 1e-9
"""US dollars by which sums of floats may miss each other."""

WINDOWS: Final[Mapping[str, str]] = {
    "max_usd": "today",
    "max_usd_per_month": "this month",
    "max_usd_total": "in all",
}
"""Budget → when the spend that it counts was settled. The budget of one plan counts no other spend."""


class Figures(Struct, frozen=True):
    """What limits are judged on. Rows, and US dollars.

    priced: whether the price of all that is sent is known; answered: source rows with an answer; changed: how
    many of them would be sent again; known: rows of the ledger that were in the source; removed: how many of
    them would be removed from the destination (0 without prune); left: how many left the source, removed or not;
    emptied: the source has no rows.
    """

    to_send: int = 0
    cost: Range = ZERO
    priced: bool = True
    answered: int = 0
    changed: int = 0
    known: int = 0
    removed: int = 0
    emptied: bool = False
    left: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            to_send=self.to_send + other.to_send,
            cost=self.cost + other.cost,
            priced=self.priced and other.priced,
            answered=self.answered + other.answered,
            changed=self.changed + other.changed,
            known=self.known + other.known,
            removed=self.removed + other.removed,
            emptied=self.emptied or other.emptied,
            left=self.left + other.left,
        )


def judge(
    scope: str, limits: Limits, figures: Figures, *, spend: Spend = NOTHING, allow: Collection[str] = ()
) -> tuple[Verdict, ...]:
    """Verdicts of one scope, a spec's name or PROJECT: one for each limit that is set. spend: of that scope, on the
    basis of these limits."""
    verdicts = _budgets(scope, limits, figures, spend)
    if limits.max_rows is not None:
        verdicts.append(_max_rows(scope, limits.max_rows, figures))
    if limits.max_changed_percent is not None:
        verdicts.append(_max_changed(scope, limits.max_changed_percent, limits.changed_floor, figures))
    if limits.max_shrink_percent is not None and figures.left:
        gone = (figures.left, "left the source")
        verdicts.append(_source_shrunk(scope, limits.max_shrink_percent, limits.changed_floor, figures, gone))
    elif limits.max_changed_percent is not None and figures.removed:
        gone = (figures.removed, "would be removed")
        verdicts.append(_source_shrunk(scope, limits.max_changed_percent, limits.changed_floor, figures, gone))
    return release(verdicts, allow)


def release(verdicts: Iterable[Verdict], allow: Collection[str]) -> tuple[Verdict, ...]:
    """Verdicts, the failed ones released if `--allow` names them."""
    return tuple(_released(v, allow) for v in verdicts)


def judge_project(
    limits: Limits, figures: Mapping[str, Figures], *, spend: Callable[[str], Spend], allow: Collection[str] = ()
) -> tuple[Verdict, ...]:
    """Verdicts of the project, from figures and spend by realm: each budget as the realm has it that is worst off."""
    whole = judge(PROJECT, limits, sum(figures.values(), Figures()), allow=allow)
    budgets: dict[str, Verdict] = {}
    for realm, part in figures.items():
        for verdict in _budgets(PROJECT, limits, part, spend(realm)):
            known = budgets.get(verdict.name)
            if known is None or (verdict.ok, -verdict.actual) < (known.ok, -known.actual):
                budgets[verdict.name] = verdict
    return tuple(_released(budgets[v.name], allow) if v.name in budgets else v for v in whole)


def by_realm(figures: Iterable[tuple[str, Figures]]) -> dict[str, Figures]:
    """Sums of (realm, figures) pairs."""
    sums: dict[str, Figures] = {}
    for realm, part in figures:
        sums[realm] = sums.get(realm, Figures()) + part
    return sums


def judge_budgets(
    scope: str, limits: Limits, figures: Figures, *, spend: Spend, allow: Collection[str] = ()
) -> tuple[Verdict, ...]:
    """The verdicts of BUDGETS alone."""
    return tuple(_released(v, allow) for v in _budgets(scope, limits, figures, spend))


def holds(verdict: Verdict) -> frozenset[Action]:
    """The actions whose rows a failed verdict holds: of its spec, or of every spec when its scope is PROJECT."""
    if verdict.ok:
        return frozenset()
    paid = frozenset({Action.RUN, Action.RERUN})
    return paid | {Action.REMOVE} if verdict.name == "source_shrunk" else paid


def check_allow(allow: Iterable[str], specs: Collection[str]) -> frozenset[str]:
    """The names given to `--allow`, checked. Raises UsageError with the nearest name."""
    scopes = (*specs, PROJECT)
    known = (*NAMES, *(f"{scope}.{name}" for scope in scopes for name in NAMES))
    names = frozenset(allow)
    for name in sorted(names):
        if name in known:
            continue
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=1)
        meant = (
            f"Did you mean {near[0]}?" if near else f"Limits are {', '.join(NAMES)}, or SPEC.{NAMES[0]} for one spec."
        )
        raise UsageError(f"--allow {name}: there is no such limit.", hint=meant)
    return names


def _budgets(scope: str, limits: Limits, figures: Figures, spend: Spend) -> list[Verdict]:
    basis, set_ = limits.max_usd_basis, {name: getattr(limits, name) for name in BUDGETS}
    return [_budget(n, scope, limit, basis, figures, spend) for n, limit in set_.items() if limit is not None]


def _budget(name: str, scope: str, limit: float, basis: str, figures: Figures, spend: Spend) -> Verdict:
    cost, window = figures.cost, WINDOWS.get(name)
    settled = {"today": spend.today, "this month": spend.month, "in all": spend.total, None: 0.0}[window]
    in_flight = spend.in_flight if window else 0.0
    budget = Budget(settled, in_flight, cost.high if basis == "high" else cost.expected, basis)
    if figures.to_send and not figures.priced:
        unknown = "the price of the model is not known"
        return replace(_verdict(name, scope, limit, budget.total, unknown, ok=False), budget=budget)
    within = budget.total <= limit + _CENT_FRACTION
    ok = within or not figures.to_send
    shown = money if within or money(budget.total) != money(limit) else _exact
    terms = [
        f"expected cost {shown(cost.expected)} (up to {shown(cost.high)})"
        if basis == "expected"
        else f"cost of up to {shown(cost.high)} ({shown(cost.expected)} expected)"
    ]
    if settled:
        terms.append(f"{shown(settled)} spent {window}")
    if in_flight:
        terms.append(f"{shown(in_flight)} in flight")
    words = f"{' + '.join(terms)} is {_side(within=within)} {shown(limit)}"
    if ok and not within:
        words += ", but nothing is sent"
    return replace(_verdict(name, scope, limit, budget.total, words, ok=ok), budget=budget)


def _exact(usd: float) -> str:
    return f"${usd:,.6f}"


def _max_rows(scope: str, limit: int, figures: Figures) -> Verdict:
    ok = figures.to_send <= limit
    words = f"{counted(figures.to_send, 'row')} to send, {_side(within=ok)} {limit:,}"
    return _verdict("max_rows", scope, limit, figures.to_send, words, ok=ok)


def _max_changed(scope: str, limit: float, floor: int, figures: Figures) -> Verdict:
    percent = _percent(figures.changed, figures.answered)
    ok = percent <= limit or figures.changed <= floor
    words = f"{figures.changed:,} of {figures.answered:,} answered rows ({percent:.1f} %) would be sent again"
    words += _against(limit, floor, figures.changed, over_share=percent > limit)
    return _verdict("max_changed_percent", scope, limit, percent, words, ok=ok)


def _source_shrunk(scope: str, limit: float, floor: int, figures: Figures, gone: tuple[int, str]) -> Verdict:
    """gone: rows, and what became of them."""
    rows, became = gone
    percent = _percent(rows, figures.known)
    ok = not figures.emptied and (percent <= limit or rows <= floor)
    words = f"{rows:,} of {figures.known:,} known rows ({percent:.1f} %) {became}"
    if figures.emptied:
        words += ", since the source is empty"
    else:
        words += _against(limit, floor, rows, over_share=percent > limit)
    return _verdict("source_shrunk", scope, limit, percent, words, ok=ok)


def _against(limit: float, floor: int, rows: int, *, over_share: bool) -> str:
    if over_share and rows <= floor:
        return f", above {limit:g} %, but no more than changed_floor {floor:,}"
    return f", {_side(within=not over_share)} {limit:g} %"


def _released(verdict: Verdict, allow: Collection[str]) -> Verdict:
    if verdict.ok:
        return verdict
    if verdict.name in allow or f"{verdict.scope}.{verdict.name}" in allow:
        return replace(verdict, ok=True, allowed=True, message=f"{verdict.message}; allowed")
    option = f"--allow {verdict.name}" if verdict.scope == PROJECT else f"--allow {verdict.scope}.{verdict.name}"
    return replace(verdict, message=f"{verdict.message}; {option} releases it")


def _verdict(name: str, scope: str, limit: float, actual: float, message: str, *, ok: bool) -> Verdict:
    return Verdict(name, scope, ok, float(limit), float(actual), message)


def _side(*, within: bool) -> str:
    return "within" if within else "above"


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
