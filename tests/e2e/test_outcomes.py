"""What becomes of rows that fail: their class, their next plan, their retries, their bill, and what is delivered."""

from __future__ import annotations

import sqlite3
from collections import Counter
from datetime import datetime, timedelta

import pytest
from tests_e2e_kit import SPEC, Workspace

from batchform.canon import wire_key
from batchform.cli import wiring

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
MARKERS = {
    # marker → class, attempts that retries allow, charges per attempt
    "blocked": ("blocked", 1, 1),
    "max_tokens": ("truncated", 3, 1),
    "missing": ("missing", 3, 1),
    "invalid_json": ("invalid_output", 3, 1),
    "empty": ("empty", 1, 1),
    "error 500": ("internal", 3, 0),
    "error 429": ("rate_limited", 3, 0),
    "error 400": ("invalid_request", 1, 0),
    "duplicate": ("answered", 1, 1),
    "unknown_key": ("answered", 1, 1),
}
RETRIED = {marker for marker, (_, attempts, _) in MARKERS.items() if attempts > 1}
HELD = {marker for marker, (cls, attempts, _) in MARKERS.items() if attempts == 1 and cls != "answered"}


class SkippingClock(wiring.SystemClock):
    """The real time, and the waits that were slept through without waiting."""

    def __init__(self) -> None:
        self.skipped = timedelta()

    def now(self) -> datetime:
        return super().now() + self.skipped

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.01))
        self.skipped += timedelta(seconds=max(seconds - 0.01, 0.0))


@pytest.fixture(autouse=True)
def nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results without a line for a row have the settle window."""
    clock = SkippingClock()
    monkeypatch.setattr(wiring, "SystemClock", lambda: clock)


def marked(workspace: Workspace, *markers: str) -> None:
    """One plain row, and one for each marker, keyed by its name."""
    rows = [workspace.row(0, id=m, title=m, body=f"[[emulator:{m}]]") for m in markers]
    workspace.rows([workspace.row(1, id="plain"), *rows])


def charges(workspace: Workspace) -> Counter[str]:
    """How often each row was charged, by its key."""
    con = sqlite3.connect(workspace.root / ".batchform/emulator/emulator.sqlite")
    try:
        names = {wire_key(name): name for name in ("plain", *MARKERS, *(f"T-{i}" for i in range(1, 7)))}
        return Counter(names[key] for (key,) in con.execute("SELECT key FROM bill"))
    finally:
        con.close()


def test_every_outcome_is_classed_planned_retried_and_charged(workspace: Workspace) -> None:
    workspace.spec(generation_config={"max_output_tokens": 64, "response_schema": SCHEMA})
    marked(workspace, *MARKERS)
    failed = workspace.run("apply", "--yes", "--json")
    assert failed.code == 6
    classes = Counter(cls for cls, _, _ in MARKERS.values()) + Counter(answered=1)
    assert failed.json["rows"] == {"triage": dict(classes)}

    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["actions"]["held"], plan["actions"]["keep"]) == (len(RETRIED), len(HELD), 3)
    assert (plan["reasons"], plan["rows_to_send"]) == ({"previous_failed": len(RETRIED)}, len(RETRIED))
    assert plan["cost_usd"]["expected"] > 0
    said = " ".join(workspace.run("plan").out.split())
    assert all(f"failed: {MARKERS[m][0]} is not in retry.on" in said for m in HELD), said
    assert [r["id"] for r in workspace.delivered()] == ["duplicate", "plain", "unknown_key"]

    retried = workspace.run("sync", "--wait", "--json")
    assert (retried.code, retried.json["rows"]["triage"].get("answered", 0)) == (6, 0)
    once = {m: n for m, (_, attempts, n) in MARKERS.items() if n and attempts == 1}
    thrice = {m: 3 for m, (_, attempts, n) in MARKERS.items() if n and attempts == 3}
    assert charges(workspace) == {"plain": 1, **once, **thrice}

    assert workspace.actions() == {"held": len(RETRIED | HELD), "keep": 3}
    assert "after 3 of 3 attempts" in workspace.run("plan").out
    workspace.ok("sync", "--wait")
    assert workspace.ok("apply", "--yes", "--json").json["created"] == []
    assert charges(workspace) == {"plain": 1, **once, **thrice}


def test_failures_of_the_first_attempt_only_are_made_good(workspace: Workspace) -> None:
    markers = ["error 500 x1", "error 503 x2", "missing x1", "max_tokens x1"]
    rows = [workspace.row(i, body=f"[[emulator:{m}]]") for i, m in enumerate(markers, 1)]
    workspace.rows(rows)
    assert workspace.run("apply", "--yes").code == 6
    waiting = workspace.run("sync", "--json")
    assert (waiting.code, len(waiting.json["created"])) == (0, 1), "a step does not wait"
    again = workspace.run("sync", "--json")
    assert (again.code, again.json["rows"]["triage"], len(again.json["created"])) == (
        0,
        {"answered": 3, "internal": 1},
        1,
    )
    workspace.ok("sync", "--wait")
    assert workspace.actions() == {"keep": 4}
    assert charges(workspace) == {"T-1": 1, "T-2": 1, "T-3": 2, "T-4": 2}
    assert len(workspace.delivered()) == 4
    workspace.ok("sync", "--wait")
    assert sum(charges(workspace).values()) == 6


@pytest.mark.parametrize(("tolerated", "code"), [(0.5, 0), (0.49, 6)])
def test_tolerated_failures_are_no_error(workspace: Workspace, tolerated: float, code: int) -> None:
    marked(workspace, "blocked")
    workspace.spec(tolerate_failed=tolerated)
    assert workspace.run("apply", "--yes").code == code
    assert workspace.actions() == {"keep": 1, "held": 1}


def test_retry_says_what_is_sent_again_and_how_often(workspace: Workspace) -> None:
    marked(workspace, "blocked", "missing", "error 500")
    workspace.spec(retry={"max_attempts": 2, "on": ["blocked", "missing"]})
    assert workspace.run("apply", "--yes").code == 6
    assert workspace.actions() == {"keep": 1, "rerun": 2, "held": 1}
    assert workspace.run("apply", "--yes").code == 6
    assert workspace.actions() == {"keep": 1, "held": 3}
    assert charges(workspace) == {"plain": 1, "blocked": 2, "missing": 2}
    workspace.spec(retry={"max_attempts": 3, "on": ["missing"]})
    assert workspace.actions() == {"keep": 1, "rerun": 1, "held": 2}


def test_a_failed_row_that_is_edited_starts_anew(workspace: Workspace) -> None:
    marked(workspace, "blocked", "missing")
    workspace.spec(retry={"max_attempts": 1})
    assert workspace.run("apply", "--yes").code == 6
    assert workspace.actions() == {"keep": 1, "held": 2}
    workspace.rows([workspace.row(1, id="plain"), workspace.row(2, id="blocked"), workspace.row(3, id="missing")])
    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["reasons"]) == (2, {"row_changed": 2})
    workspace.apply()
    assert (workspace.actions(), len(workspace.delivered())) == ({"keep": 3}, 3)
    assert set(Counter(workspace.billed()).values()) == {1}


def test_a_failed_row_is_sent_by_request(workspace: Workspace) -> None:
    marked(workspace, "blocked")
    assert workspace.run("apply", "--yes").code == 6
    workspace.ok("rerun", "triage", "--key", "blocked")
    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["reasons"]) == (1, {"requested": 1})
    assert workspace.run("apply", "--yes").code == 6
    assert workspace.actions() == {"keep": 1, "held": 1}
    assert charges(workspace) == {"plain": 1, "blocked": 2}


def test_the_destination_keeps_the_earlier_answer_of_a_row_whose_rerun_failed(applied: Workspace) -> None:
    before = applied.delivered()
    rows = [applied.row(i) for i in range(1, 7)]
    applied.rows([*rows[:5], applied.row(6, body="[[emulator:blocked]]")])
    assert applied.run("apply", "--yes").code == 6
    assert applied.delivered() == before
    assert applied.actions() == {"keep": 5, "held": 1}
    applied.spec(destination={**SPEC["destination"], "path": "results/again.jsonl"})
    assert applied.run("apply", "--yes").code == 0
    assert applied.delivered("results/again.jsonl") == before
    applied.spec()
    applied.rows(rows)
    assert applied.plan()["rows_to_send"] == 0
    applied.apply()
    assert (applied.actions(), len(applied.billed()), applied.delivered()) == ({"keep": 6}, 7, before)


def test_a_schema_that_answers_do_not_meet_is_replayed_for_nothing_and_back(workspace: Workspace) -> None:
    config = {"max_output_tokens": 64, "response_schema": SCHEMA}
    workspace.spec(generation_config=config)
    workspace.apply()
    workspace.spec(generation_config=config, output={"schema": {**SCHEMA, "required": ["label", "score"]}})
    assert workspace.actions() == {"reparse": 6}
    assert (workspace.run("apply", "--yes").code, len(workspace.billed())) == (6, 6)
    workspace.ok("sync", "--wait")
    assert len(workspace.billed()) == 6, "what fails for another parser is paid for by apply, which somebody reviews"
    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["reasons"]) == (6, {"previous_failed": 6})
    workspace.spec(generation_config=config)
    assert workspace.plan()["rows_to_send"] == 0
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


def test_odd_results_are_told(workspace: Workspace) -> None:
    marked(workspace, "duplicate", "unknown_key")
    said = workspace.run("apply", "--yes")
    assert said.code == 0
    assert "repeat a row that was already answered" in said.err
    assert "belong to no row of this spec" in said.err
    assert len(workspace.delivered()) == 3
