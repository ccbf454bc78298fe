"""The summary after a run: one line per spec, whatever happened to it."""

from __future__ import annotations

from collections import Counter

from batchform.ports import Delivered
from batchform.run.outcome import Left, Outcome
from batchform.view.outcome import outcome_lines


def test_each_spec_has_one_line() -> None:
    outcome = Outcome(created=["t1"], collected=["t1"], usd=0.000042)
    outcome.rows = {"triage": Counter(answered=1200, truncated=1)}
    outcome.reread = {"extract": Counter(answered=2)}
    outcome.delivered = {"triage": Delivered(rows=1200, location="results/triage.csv")}
    assert list(outcome_lines(outcome, detached=False)) == [
        "extract: 2 archived answers read anew.",
        "triage: 1,200 answered, 1 truncated; 1,200 rows delivered to results/triage.csv.",
        "Cost of what was collected: $0.000042.",
    ]


def test_a_detached_run_says_how_to_come_back() -> None:
    outcome = Outcome(created=["t1"], running=["t1"])
    assert list(outcome_lines(outcome, detached=True)) == ["1 job at work. Come back with: batchform sync --wait"]


def test_nothing_to_do() -> None:
    assert list(outcome_lines(Outcome(), detached=False)) == ["Nothing to do: every row is up to date."]
    assert next(outcome_lines(Outcome(), detached=False, held=1)).startswith("1 row held: ")


def test_what_a_sync_leaves_alone_is_said() -> None:
    assert list(outcome_lines(Outcome(left=Left(2, 1)), detached=True)) == [
        "Nothing to do now: 2 rows failed, 1 row waits for apply. `batchform plan` shows why."
    ]
    assert list(outcome_lines(Outcome(running=["t1"], left=Left(0, 2)), detached=False)) == [
        "2 rows wait for apply: `batchform plan` shows why."
    ]
    (quiet,) = outcome_lines(Outcome(left=Left()), detached=True)
    assert "up to date" not in quiet
