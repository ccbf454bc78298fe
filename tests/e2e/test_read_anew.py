"""Archived answers read anew: for nothing, never instead of what was asked for, and never at the cost of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests_e2e_kit import SPEC, Workspace


def schema(*required: str) -> dict[str, Any]:
    return {"type": "object", "properties": {n: {"type": "string"} for n in required}, "required": list(required)}


SENT = {"max_output_tokens": 64, "response_schema": schema("category")}
LOOSE = {"schema": {"type": "object"}}
STRICT = {"schema": {"type": "object", "required": ["nothing has this"]}}
STRICTER = {"schema": {"type": "object", "required": ["nor this"]}}


@pytest.fixture
def answered(workspace: Workspace) -> Workspace:
    """Six answered rows under a response schema."""
    workspace.spec(generation_config=SENT)
    workspace.apply()
    return workspace


def edited(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1, body="edited"), *map(workspace.row, range(2, 7))])


def test_one_apply_reads_anew_and_sends_a_row_that_was_answered_before(answered: Workspace) -> None:
    edited(answered)
    answered.spec(generation_config=SENT, output=LOOSE)
    assert answered.actions() == {"rerun": 1, "reparse": 5}
    answered.apply()
    assert (answered.actions(), len(answered.billed())) == ({"keep": 6}, 7)


@pytest.mark.parametrize("output", [LOOSE, STRICT], ids=["loose", "strict"])
def test_a_saved_plan_reads_anew_and_sends_what_rerun_asked_for(answered: Workspace, output: dict[str, Any]) -> None:
    answered.ok("rerun", "triage", "--key", "T-1")
    answered.spec(generation_config=SENT, output=output, retry={"max_attempts": 1})
    assert answered.actions() == {"rerun": 1, "reparse": 5}
    answered.ok("plan", "--out", "saved")
    assert answered.run("apply", "saved").code == (0 if output is LOOSE else 6)
    assert len(answered.billed()) == 7
    assert answered.actions() == ({"keep": 6} if output is LOOSE else {"held": 6})


def test_a_failed_row_that_rerun_asked_for_is_sent_whatever_is_read_anew(answered: Workspace) -> None:
    answered.spec(generation_config=SENT, output=STRICT, retry={"max_attempts": 1})
    assert answered.run("apply", "--yes").code == 6
    answered.ok("rerun", "triage", "--key", "T-1")
    answered.spec(generation_config=SENT, output=STRICTER, retry={"max_attempts": 1})
    assert answered.actions() == {"rerun": 1, "reparse": 5}
    assert answered.run("apply", "--yes").code == 6
    assert (answered.actions(), len(answered.billed())) == ({"held": 6}, 7)


def test_sync_that_reads_anew_forgets_no_rerun(answered: Workspace) -> None:
    idempotency = {"key": ["id"], "reuse_identical": True}
    answered.ok("rerun", "triage", "--key", "T-1")
    answered.spec(generation_config=SENT, output=LOOSE, idempotency=idempotency)
    answered.rows([*map(answered.row, range(1, 7)), {**answered.row(2), "id": "T-7"}])
    assert answered.actions() == {"rerun": 1, "reparse": 5, "reuse": 1}
    read = answered.ok("sync", "--wait", "--json").json["reread"]
    assert (read, answered.actions()) == ({"triage": {"answered": 6}}, {"rerun": 1, "keep": 6})
    answered.apply()
    assert (answered.actions(), len(answered.billed())) == ({"keep": 7}, 7)


@pytest.mark.parametrize("keep", ["on_prompt_change", "on_row_change"])
def test_kept_answers_that_do_not_fit_a_new_schema_are_neither_lost_nor_paid_for_again(
    answered: Workspace, keep: str
) -> None:
    idempotency = {"key": ["id"], "on_prompt_change": "keep", keep: "keep"}
    before = answered.delivered()
    if keep == "on_row_change":
        edited(answered)
    answered.spec(generation_config={**SENT, "response_schema": schema("category", "urgency")}, idempotency=idempotency)
    assert answered.actions() == {"reparse": 6}
    done = answered.run("apply", "--yes")
    assert (done.code, "6 kept answers of triage" in done.err) == (0, True)
    assert (answered.actions(), answered.delivered(), len(answered.billed())) == ({"keep": 6}, before, 6)
    answered.apply()
    assert len(answered.billed()) == 6


def test_kept_answers_that_fit_are_read_anew(answered: Workspace) -> None:
    answered.spec(
        prompt={"user": {"text": "New: {{ body }}"}}, generation_config=SENT, output=LOOSE,
        idempotency={"key": ["id"], "on_prompt_change": "keep"},
    )  # fmt: skip
    assert answered.actions() == {"reparse": 6}
    assert answered.ok("apply", "--yes", "--json").json["reread"] == {"triage": {"answered": 6}}
    assert (answered.actions(), len(answered.billed())) == ({"keep": 6}, 6)


def test_a_plan_promises_no_reading_of_results_that_are_archived_no_longer(answered: Workspace) -> None:
    for archive in (answered.root / ".batchform/archive").glob("*.jsonl.gz"):
        archive.unlink()
    answered.spec(generation_config=SENT, output=LOOSE)
    assert answered.actions() == {"keep": 6}
    assert answered.plan()["notes"] == ["6 rows cannot be read anew: their results are archived no longer"]
    answered.apply()
    assert (answered.actions(), len(answered.delivered())) == ({"keep": 6}, 6)


@pytest.mark.parametrize("before", [True, False], ids=["left before", "leaves now"])
def test_rows_that_left_the_source_are_not_failed_by_a_stricter_reading(answered: Workspace, *, before: bool) -> None:
    answered.rows([answered.row(i) for i in range(2, 7)])
    if before:
        answered.apply()
    answered.spec(generation_config=SENT, output=STRICT, retry={"max_attempts": 1})
    assert answered.actions() == {"reparse": 5} | ({} if before else {"forget": 1})
    refused = answered.run("apply", "--yes")
    assert (refused.code, "5 of 5 rows of triage failed" in refused.err) == (6, True)
    assert answered.actions() == {"held": 5}
    answered.spec(generation_config=SENT)
    answered.rows([answered.row(i) for i in range(1, 7)])
    answered.apply()
    assert (answered.actions(), len(answered.billed()), len(answered.delivered())) == ({"keep": 6}, 6, 6)


def test_rows_that_come_back_or_cost_nothing_are_read_anew_in_the_same_apply(answered: Workspace) -> None:
    answered.rows([answered.row(i) for i in range(2, 7)])
    answered.apply()
    rows = [*map(answered.row, range(1, 7)), {**answered.row(3), "id": "T-7"}]
    answered.rows(rows)
    answered.spec(generation_config=SENT, output=LOOSE, idempotency={"key": ["id"], "reuse_identical": True})
    assert answered.actions() == {"reparse": 5, "keep": 1, "reuse": 1}
    answered.apply()
    assert (answered.actions(), len(answered.billed())) == ({"keep": 7}, 6)


def test_lost_answers_that_are_read_anew_forget_no_rerun(answered: Workspace) -> None:
    answered.ok("rerun", "triage", "--key", "T-1")
    for answers in (answered.root / ".batchform/answers").glob("*.parquet"):
        answers.unlink()
    answered.spec(generation_config=SENT, output=LOOSE)
    answered.apply()
    assert (answered.actions(), len(answered.billed()), len(answered.delivered())) == ({"keep": 6}, 7, 6)


@pytest.mark.parametrize("policy", [{}, {"on_prompt_change": "keep"}], ids=["rerun", "keep"])
def test_what_is_collected_without_its_spec_waits_to_be_judged(workspace: Workspace, policy: dict[str, str]) -> None:
    """An old checkout collects a job whose spec it does not have: nothing that was judged gives way to it."""
    spec = {"generation_config": SENT, "retry": {"max_attempts": 1}}
    spec |= {"idempotency": {"key": ["id"], **policy}} if policy else {}
    workspace.spec(**spec)
    other = {**SPEC, "name": "other", "destination": {"type": "jsonl", "path": "results/other.jsonl"}}
    workspace.write("specs/other.yaml", json.dumps(other))
    workspace.rows([workspace.row(1), workspace.row(2)])
    workspace.apply("--select", "triage")
    first = workspace.delivered()
    workspace.rows(
        [workspace.row(1, body="[[emulator:invalid_json]]"), workspace.row(2, body="edited"), workspace.row(3)]
    )
    workspace.ok("apply", "--yes", "--detach", "--select", "triage")
    made = workspace.root / "specs/triage.yaml"
    kept = made.read_bytes()
    made.unlink()
    collected = workspace.run("sync", "--wait", "--json")
    assert (collected.code, collected.json["rows"]) == (0, {"triage": {"unread": 3}})
    made.write_bytes(kept)
    if policy:
        workspace.write("templates/triage.j2", "Another title: {{ title }}\nBody: {{ body }}\n")
    workspace.run("sync", "--wait")
    assert workspace.delivered() == first
    assert plan_of(workspace) == {"reparse": 3}
    applied = workspace.run("apply", "--yes", "--json", "--select", "triage")
    assert applied.json["reread"] == {"triage": {"answered": 2, "invalid_output": 1}}
    assert (applied.code, len(workspace.billed())) == (6, 5)
    delivered = {row["id"]: row for row in workspace.delivered()}
    assert delivered["T-1"] == first[0] and delivered["T-2"] != first[1] and len(delivered) == 3


def plan_of(workspace: Workspace) -> dict[str, int]:
    [spec] = workspace.run("plan", "--json", "--select", "triage").json["specs"]
    return {name: count for name, count in spec["actions"].items() if count}
