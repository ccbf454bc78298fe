"""Rollouts: an edit reaches a few rows first, and the others when the gate of each stage has passed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tests_e2e_kit import SPEC, Workspace

from batchform.canon import key_hash

STAGES: list[dict[str, Any]] = [{"rows": 3, "require": {"answered": 0.9}}, {"percent": 50}, {"percent": 100}]
PROMPT = {"user": {"text": "New: {{ body }}"}}


def fill(workspace: Workspace, count: int, bad: tuple[int, ...] = (), first: int = 1) -> None:
    """Rows whose text asks the emulator to refuse some of them."""
    text = dict.fromkeys(bad, "no [[emulator:blocked]]")
    workspace.rows([workspace.row(i, body=text.get(i, f"text {i}")) for i in range(first, first + count)])


@pytest.fixture
def staged(workspace: Workspace) -> Workspace:
    """20 rows, none sent; stages of 3, 10 and all of them."""
    fill(workspace, 20)
    workspace.spec(rollout=STAGES)
    return workspace


def sync(workspace: Workspace, code: int = 0) -> str:
    found = workspace.run("sync")
    assert found.code == code, (found.code, found.out, found.err)
    return found.out + found.err


def test_stages_are_released_by_their_gates_under_what_was_approved_once(staged: Workspace) -> None:
    found = staged.ok("plan", "--json").json
    schema = json.loads((Path(__file__).parents[2] / "docs/plan.schema.json").read_bytes())
    jsonschema_rs.validator_for(schema).validate(found)
    plan = found["specs"][0]
    assert {a: n for a, n in plan["actions"].items() if n} == {"run": 3, "held": 17}
    assert plan["held_by"] == {"rollout: stage 2 of 3 waits for the gate of stage 1": 17}
    later = plan["known_after_apply"]
    assert (later["rows_at_most"], later["rows_in_later_stages"], later["upstream"]) == (17, 17, "")
    assert later["cost_usd"]["low"] == 0 < later["cost_usd"]["expected"] < later["cost_usd"]["high"]
    stage = plan["rollout"]
    assert (stage["stage"], stage["of"], stage["state"], stage["rows_held"]) == (1, 3, "sending", 17)
    text = staged.ok("plan").out
    assert "rollout: stage 1 of 3 (3 rows): 3 to send, 17 wait for its gate" in text
    assert "up to 17 in later stages" in text

    staged.ok("apply", "--yes", "--detach")
    assert "3 of them under way" in staged.ok("status").out
    assert "stage 2 of 3 of its rollout is released (answered 1, required 0.9)" in sync(staged)
    assert len(staged.billed()) == 10
    last = max((f"T-{i}" for i in range(1, 21)), key=key_hash)
    assert "rollout: stage 3 of 3 waits for the gate of stage 2" in staged.ok("explain", "triage", last).out
    sync(staged)
    sync(staged)
    assert (len(staged.billed()), len(set(staged.billed()))) == (20, 20)
    fill(staged, 30)  # its rollout is over: new rows go straight
    plan = staged.plan()
    assert {a: n for a, n in plan["actions"].items() if n} == {"run": 10, "keep": 20}
    assert "rollout" not in plan


def test_apply_goes_on_through_all_stages_while_it_waits(staged: Workspace) -> None:
    staged.apply()
    assert len(staged.billed()) == 20
    staged.spec(rollout=STAGES[1:], prompt=PROMPT)  # an edit starts anew, with the rows that it resends
    bundle = str(staged.root / "plan")
    shown = " ".join(staged.ok("plan", "--out", bundle).out.split())
    assert "all are sent again, in the stages of the rollout" in shown and "~ rerun 10" in shown
    assert "up to 10 in later stages" in staged.ok("show", f"{bundle}/plan.json").out
    staged.ok("apply", bundle)
    assert (len(staged.billed()), staged.actions()) == (40, {"keep": 20})


def test_a_failed_gate_holds_with_numbers_and_the_mended_prompt_starts_anew(workspace: Workspace) -> None:
    fill(workspace, 20, bad=tuple(range(1, 21)))
    workspace.spec(rollout=STAGES)
    found = workspace.run("apply", "--yes")
    assert found.code == 3
    assert "the gate of stage 1 of 3 failed after 3 rows: answered 0, required 0.9 (3 blocked, such as T-" in found.err
    assert "Mend the prompt" in found.err
    assert "failed after 3 rows" in sync(workspace, code=3)
    plan = workspace.plan()
    assert {a: n for a, n in plan["actions"].items() if n} == {"held": 20}
    assert plan["held_by"]["rollout: the gate of stage 1 of 3 failed"] == 17
    assert (plan["rollout"]["state"], plan["rollout"]["failed"]) == ("failed", {"blocked": 3})
    assert plan["rollout"]["failed_rows"] == [], "keys are in a summary only with preview: public"
    assert "✗ answered 0, required 0.9" in " ".join(workspace.ok("status").out.split())
    assert workspace.run("apply", "--yes").code == 3
    workspace.spec(rollout=[{"rows": 3, "require": {"answered": 0}}, {"percent": 100}], preview="public")
    assert "is not as it was approved" in sync(workspace)
    assert len(workspace.billed()) == 3, "sync sends what was reviewed, and nothing else"
    lower = workspace.plan()  # what was sent is measured by the lower bar, which somebody reviews
    assert {a: n for a, n in lower["actions"].items() if n} == {"run": 17, "held": 3}
    workspace.spec(rollout=STAGES, preview="public")
    assert len(workspace.plan()["rollout"]["failed_rows"]) == 3
    assert workspace.run("approve", "triage", "--stage", "2").code == 64  # it is no person's
    workspace.ok("rerun", "triage", "--where", "true")
    assert workspace.actions() == {"rerun": 3, "held": 17}, "beyond the stage they wait with the others"
    assert workspace.run("try", "triage", "--rows", "1").code == 6  # it looks, and moves no stage
    fill(workspace, 20)  # the rows are mended: those of the stage are sent first
    workspace.apply()
    assert (len(workspace.billed()), workspace.actions()) == (24, {"keep": 20})


def test_a_manual_stage_waits_for_a_person(staged: Workspace) -> None:
    staged.spec(rollout=[{"rows": 3, "require": {"answered": 0.9}}, {"percent": 100, "manual": True}])
    assert staged.run("approve", "triage", "--stage", "2").code == 3
    found = staged.run("apply", "--yes")
    assert found.code == 0 and "batchform approve triage --stage 2" in found.err
    assert staged.plan()["held_by"] == {"rollout: stage 2 of 2 waits to be approved": 17}
    assert staged.run("approve", "triage", "--stage", "3").code == 64
    assert "is released (answered 1" in staged.ok("approve", "triage", "--stage", "2", "--reason", "looks good").out
    assert "already" in staged.ok("approve", "triage", "--stage", "2").out
    sync(staged)
    assert len(staged.billed()) == 20


def test_rows_that_the_edit_leaves_as_they_are_take_no_place(staged: Workspace) -> None:
    staged.apply()
    few = {"user": {"text": "Title: {{ title }}\nBody: {{ body }}\n{{ '!' if id in ['T-2', 'T-5', 'T-9', 'T-11'] }}"}}
    staged.write("templates/triage.j2", few["user"]["text"].replace("\n{{", "{{") + "\n")
    staged.spec(rollout=[{"rows": 2, "require": {"answered": 1}}, {"percent": 100}])
    assert staged.actions() == {"rerun": 2, "held": 2, "keep": 16}
    staged.apply()
    assert (len(staged.billed()), staged.actions()) == (24, {"keep": 20})


def test_rows_that_come_while_a_gate_is_open_are_left_to_an_apply(staged: Workspace) -> None:
    staged.ok("apply", "--yes", "--detach")
    fill(staged, 60)
    sync(staged)
    sync(staged)
    assert len(staged.billed()) == 20, "as many as were approved"
    assert staged.actions() == {"run": 10, "held": 30, "keep": 20}, "half of them are its second stage now"


def test_identical_requests_wait_with_the_one_that_is_sent_for_them(staged: Workspace) -> None:
    staged.rows([staged.row(i, title="same", body=f"text {i % 5}") for i in range(1, 21)])
    staged.spec(
        rollout=[{"rows": 2, "require": {"answered": 1}}, {"percent": 100}],
        idempotency={"key": ["id"], "reuse_identical": True},
    )
    found = staged.actions()
    assert found["run"] == 2 and found["run"] + found["reuse"] + found["held"] == 20
    staged.apply()
    sync(staged)
    assert (len(staged.billed()), staged.actions()) == (5, {"keep": 20})


def test_limits_and_envelopes_hold_for_all_stages(staged: Workspace) -> None:
    staged.spec(rollout=STAGES, limits={"max_rows": 19})
    found = staged.run("plan", "--json")
    assert found.code == 3 and "20 rows to send, above 19" in found.out
    staged.spec(rollout=STAGES)
    staged.ok("plan", "--out", str(staged.root / "approvals/p"))
    envelope = str(staged.root / "approvals/p/plan.json")
    bound = json.loads(Path(envelope).read_text())["envelope"]["specs"][0]
    assert (bound["after"], bound["rows"]) == (17, 22)
    fill(staged, 21)
    staged.ok("apply", "--approved", envelope)
    assert (len(staged.billed()), staged.actions()) == (21, {"keep": 21})


def test_a_chain_below_a_rollout_follows_stage_by_stage(staged: Workspace) -> None:
    below = {
        **SPEC, "name": "follow", "source": {"type": "spec", "name": "triage"},
        "prompt": {"user": {"text": "Why {{ text }}?"}}, "destination": {"type": "jsonl", "path": "results/f.jsonl"},
    }  # fmt: skip
    staged.write("specs/follow.yaml", yaml.safe_dump(below))
    specs = {s["name"]: s for s in staged.ok("plan", "--json").json["specs"]}
    assert specs["follow"]["known_after_apply"]["rows_at_most"] == 20
    staged.apply()
    assert len(staged.billed()) == 40
