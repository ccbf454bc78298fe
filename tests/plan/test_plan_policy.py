"""Limits and what releases them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.errors import UsageError
from batchform.plan.model import Action, Range, Verdict
from batchform.plan.policy import BUDGETS, GUARDS, NAMES, PROJECT, Figures, check_allow, holds, judge, judge_project
from batchform.plan.spend import Spend
from batchform.spec.model import Limits

FIGURED = tuple(n for n in NAMES if n not in GUARDS)  # what is judged on figures
FIGURES = Figures(to_send=1304, cost=Range(10, 21.31, 35.43), answered=1000, changed=400, known=1000, removed=350)
ALL = Limits(max_usd=15, max_rows=1000, max_changed_percent=30)


def one(limits: Limits, figures: Figures, *allow: str) -> Verdict:
    (verdict,) = judge("triage", limits, figures, allow=allow)
    return verdict


def test_no_limit_holds_unless_a_file_sets_it() -> None:
    assert judge("triage", Limits(), FIGURES) == ()
    assert Limits().changed_floor == 20


def test_each_limit_that_is_set_is_judged_and_says_the_numbers_and_the_way_out() -> None:
    assert [(v.name, v.ok, v.message) for v in judge("triage", ALL, FIGURES)] == [
        (
            "max_usd",
            False,
            "expected cost $21.31 (up to $35.43) is above $15.00; --allow triage.max_usd releases it",
        ),
        ("max_rows", False, "1,304 rows to send, above 1,000; --allow triage.max_rows releases it"),
        (
            "max_changed_percent",
            False,
            (
                "400 of 1,000 answered rows (40.0 %) would be sent again, above 30 %; "
                "--allow triage.max_changed_percent releases it"
            ),
        ),
        (
            "source_shrunk",
            False,
            "350 of 1,000 known rows (35.0 %) would be removed, above 30 %; --allow triage.source_shrunk releases it",
        ),
    ]


def test_a_limit_that_is_just_reached_passes() -> None:
    figures = Figures(to_send=1000, cost=Range(1, 15, 90), answered=1000, changed=300)
    assert [v.ok for v in judge("triage", ALL, figures)] == [True, True, True]


def test_a_limit_that_is_passed_by_less_than_a_cent_shows_it() -> None:
    verdict = one(Limits(max_usd=0.5), Figures(to_send=1, cost=Range(0, 0.500001, 1)))
    assert not verdict.ok
    assert "$0.500001" in verdict.message


def test_rows_without_a_known_price_never_pass_max_usd() -> None:
    assert not one(Limits(max_usd=1000), Figures(to_send=1, priced=False)).ok
    assert one(Limits(max_usd=1000), Figures(to_send=0, priced=False)).ok


PLANNED = Figures(to_send=10, cost=Range(1, 3, 4.1))
SPEND = Spend(today=1.2, month=5, total=90, in_flight=0.8)


@pytest.mark.parametrize(
    ("limits", "ok", "message"),
    [
        (
            {"max_usd": 5}, True,
            "expected cost $3.00 (up to $4.10) + $1.20 spent today + $0.80 in flight is within $5.00",
        ),
        (
            {"max_usd": 4}, False,
            ("expected cost $3.00 (up to $4.10) + $1.20 spent today + $0.80 in flight is above $4.00; "
             "--allow t.max_usd releases it"),
        ),
        (
            {"max_usd": 6, "max_usd_basis": "high"}, False,
            ("cost of up to $4.10 ($3.00 expected) + $1.20 spent today + $0.80 in flight is above $6.00; "
             "--allow t.max_usd releases it"),
        ),
        ({"max_usd_per_plan": 3}, True, "expected cost $3.00 (up to $4.10) is within $3.00"),
        (
            {"max_usd_per_plan": 3, "max_usd_basis": "high"}, False,
            "cost of up to $4.10 ($3.00 expected) is above $3.00; --allow t.max_usd_per_plan releases it",
        ),
        (
            {"max_usd_per_month": 8.79}, False,
            ("expected cost $3.00 (up to $4.10) + $5.00 spent this month + $0.80 in flight is above $8.79; "
             "--allow t.max_usd_per_month releases it"),
        ),
        (
            {"max_usd_total": 93.8}, True,
            "expected cost $3.00 (up to $4.10) + $90.00 spent in all + $0.80 in flight is within $93.80",
        ),
    ],
)  # fmt: skip
def test_budgets_count_what_is_spent_and_what_is_in_flight(limits: dict[str, Any], ok: bool, message: str) -> None:
    (verdict,) = judge("t", Limits.model_validate(limits), PLANNED, spend=SPEND)
    assert (verdict.ok, verdict.message) == (ok, message)
    assert verdict.budget is not None
    assert verdict.actual == verdict.budget.settled + verdict.budget.in_flight + verdict.budget.planned


def test_a_plan_that_sends_nothing_passes_a_budget_that_is_overspent() -> None:
    (verdict,) = judge("t", Limits(max_usd=1), Figures(), spend=SPEND)
    assert verdict.ok
    assert verdict.message == (
        "expected cost $0.00 (up to $0.00) + $1.20 spent today + $0.80 in flight is above $1.00, but nothing is sent"
    )


def test_sums_that_miss_the_limit_by_a_rounding_of_floats_pass() -> None:
    spend = Spend(today=0.1, in_flight=0.1)
    assert one_with(spend, Limits(max_usd=0.3), Figures(to_send=1, cost=Range(0.1, 0.1, 0.1))).ok
    assert not one_with(spend, Limits(max_usd=0.3), Figures(to_send=1, cost=Range(0.1, 0.100001, 0.1))).ok


def one_with(spend: Spend, limits: Limits, figures: Figures) -> Verdict:
    (verdict,) = judge("triage", limits, figures, spend=spend)
    return verdict


def test_money_of_the_emulator_and_of_google_never_adds_up() -> None:
    figures = {"google": Figures(to_send=5, cost=Range(1, 2, 3)), "emulator": Figures(to_send=7, cost=Range(4, 5, 6))}
    spend = {"google": Spend(today=8), "emulator": Spend(today=3)}
    usd, rows = judge_project(Limits(max_usd=10, max_rows=12), figures, spend=spend.__getitem__)
    assert (usd.ok, usd.actual, rows.ok, rows.actual) == (True, 10, True, 12)
    (usd,) = judge_project(Limits(max_usd=9.5), figures, spend=spend.__getitem__)
    assert not usd.ok
    assert usd.message == (
        "expected cost $2.00 (up to $3.00) + $8.00 spent today is above $9.50; --allow max_usd releases it"
    )
    assert judge_project(Limits(max_usd=9.5), figures, spend=spend.__getitem__, allow=["project.max_usd"])[0].allowed
    assert judge_project(Limits(max_usd=1), {}, spend=spend.__getitem__)[0].ok


def test_the_floor_lets_small_sets_change() -> None:
    few = Figures(to_send=20, answered=20, changed=20)
    verdict = one(Limits(max_changed_percent=10), few)
    assert verdict.ok
    assert verdict.message.endswith("above 10 %, but no more than changed_floor 20")
    assert not one(Limits(max_changed_percent=10), Figures(to_send=21, answered=21, changed=21)).ok
    assert not one(Limits(max_changed_percent=10, changed_floor=0), few).ok


def test_removals_are_judged_only_beside_max_changed_percent() -> None:
    assert judge("triage", Limits(max_rows=5), Figures(removed=500, known=500))[1:] == ()
    names = [v.name for v in judge("triage", Limits(max_changed_percent=30), Figures(removed=1, known=500))]
    assert names == ["max_changed_percent", "source_shrunk"]


def test_an_emptied_source_fails_whatever_the_floor() -> None:
    verdict = judge("t", Limits(max_changed_percent=100), Figures(removed=3, known=3, emptied=True))[1]
    assert not verdict.ok
    assert "since the source is empty" in verdict.message


@pytest.mark.parametrize("name", FIGURED)
@pytest.mark.parametrize("scope", ["", "triage."])
def test_allow_releases_only_its_own_limit(name: str, scope: str) -> None:
    limits = ALL.model_copy(update=dict.fromkeys(BUDGETS, 15))
    verdicts = judge("triage", limits, FIGURES, allow=[scope + name])
    assert [v.name for v in verdicts] == list(FIGURED)
    assert [(v.ok, v.allowed) for v in verdicts] == [(v.name == name,) * 2 for v in verdicts]
    (released,) = (v for v in verdicts if v.allowed)
    assert released.message.endswith("; allowed")


def test_allow_of_another_scope_releases_nothing() -> None:
    assert not any(v.ok for v in judge("triage", ALL, FIGURES, allow=["summary.max_usd", "project.max_rows"]))


def test_the_project_is_released_by_the_bare_name() -> None:
    verdict = judge(PROJECT, Limits(max_usd=1), FIGURES)[0]
    assert verdict.message.endswith("--allow max_usd releases it")


def test_what_a_failed_verdict_holds() -> None:
    held = {v.name: holds(v) for v in judge("triage", ALL, FIGURES)}
    paid = {Action.RUN, Action.RERUN}
    assert held == {
        "max_usd": paid, "max_rows": paid, "max_changed_percent": paid, "source_shrunk": paid | {Action.REMOVE},
    }  # fmt: skip
    assert not any(holds(v) for v in judge("triage", ALL, FIGURES, allow=NAMES))


def test_check_allow_knows_every_name_and_names_the_nearest() -> None:
    names = ["max_usd", "triage.max_rows", "project.source_shrunk"]
    assert check_allow(names, ["triage"]) == frozenset(names)
    with pytest.raises(UsageError) as caught:
        check_allow(["max_usd", "trage.max_rows"], ["triage"])
    assert caught.value.exit_code == 64
    assert caught.value.hint == "Did you mean triage.max_rows?"
    with pytest.raises(UsageError) as caught:
        check_allow(["everything"], ["triage"])
    assert "max_usd_total, max_rows" in caught.value.hint


NUMBERS = st.integers(0, 10**6)
ANY = st.builds(
    Figures,
    to_send=NUMBERS,
    cost=st.builds(lambda x: Range(x / 2, x, 2 * x), st.floats(0, 1e6)),
    priced=st.booleans(),
    answered=NUMBERS,
    changed=NUMBERS,
    known=NUMBERS,
    removed=NUMBERS,
    emptied=st.booleans(),
)


@settings(deadline=None)
@given(ANY, ANY)
def test_a_larger_plan_never_passes_what_a_part_of_it_fails(part: Figures, rest: Figures) -> None:
    limits = Limits(max_usd=15, max_rows=1000)
    for alone, together in zip(judge("s", limits, part), judge("s", limits, part + rest), strict=True):
        assert alone.ok or not together.ok
