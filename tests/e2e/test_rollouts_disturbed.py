"""Rollouts in the middle of which something else happens: nothing is sent past a gate, or that nobody reviewed."""

from __future__ import annotations

from typing import Any

from tests_e2e_kit import PROJECT, Workspace

MANUAL: list[dict[str, Any]] = [
    {"rows": 3, "require": {"answered": 0.9}}, {"percent": 50, "manual": True}, {"percent": 100},
]  # fmt: skip


def fill(workspace: Workspace, count: int = 20, rest: str = "text") -> None:
    workspace.rows([workspace.row(i, body=f"{rest} {i}") for i in range(1, count + 1)])


def test_queued_rows_that_an_edit_would_ask_otherwise_wait_for_a_place(workspace: Workspace) -> None:
    """They were counted as rows that need none, and the whole table was sent with the new prompt at once."""
    fill(workspace)
    narrow = {**PROJECT["backends"]["local"], "max_rows_per_job": 5, "max_jobs_in_flight": 1}
    workspace.project(backends={"local": narrow})
    workspace.ok("apply", "--yes", "--detach")  # 5 at work, 15 queued
    workspace.spec(prompt={"user": {"text": "New: {{ body }}"}}, rollout=[{"rows": 3}, {"percent": 100}])
    assert workspace.actions() == {"rerun": 3, "in_flight": 5, "held": 12}


def test_stages_that_are_written_otherwise_are_released_by_their_own_gates_and_people(workspace: Workspace) -> None:
    """The second of three is not released because another second one was."""
    fill(workspace)
    workspace.spec(rollout=[{"rows": 1, "require": {"answered": 1}}, {"rows": 3}, {"percent": 100, "manual": True}])
    workspace.ok("apply", "--yes", "--quiet")
    workspace.spec(rollout=MANUAL)
    assert workspace.plan()["held_by"] == {"rollout: stage 2 of 3 waits to be approved": 17}


def test_sync_sends_nothing_of_a_stage_that_only_an_apply_would_show(workspace: Workspace) -> None:
    """Rows that were asked for again, or have changed, are not sent for the room that later stages were approved; nor
    is that lost when the spec is renamed on the way."""
    fill(workspace)
    workspace.spec(rollout=MANUAL)
    workspace.ok("apply", "--yes", "--quiet")
    workspace.ok("rerun", "triage", "--where", "true")
    assert "3 rows wait for apply" in workspace.ok("sync").words
    fill(workspace, rest="another text")
    workspace.ok("sync", "--quiet")
    assert len(workspace.billed()) == 3
    workspace.spec(name="sorted", moved={"from": "triage"}, rollout=MANUAL)
    workspace.ok("apply", "--yes", "--quiet")
    assert len(workspace.billed()) == 6
    workspace.ok("approve", "sorted", "--stage", "2")
    workspace.ok("sync", "--wait", "--quiet")
    assert (len(workspace.billed()), workspace.actions()) == (23, {"keep": 20})


def test_a_rollout_that_is_over_leaves_new_rows_to_apply(workspace: Workspace) -> None:
    """The last wave looks once more under an approval that is used up."""
    fill(workspace)
    workspace.spec(rollout=[{"rows": 3, "require": {"answered": 1}}, {"percent": 100}])
    workspace.ok("apply", "--yes", "--detach")
    workspace.ok("sync")
    fill(workspace, count=25)
    workspace.ok("sync")
    workspace.ok("sync")
    assert len(workspace.billed()) == 20


def test_rows_that_a_stage_leaves_queued_count_against_what_was_approved(workspace: Workspace) -> None:
    """Those that another sync sent were sent for nothing: as many new rows took their room, unseen."""
    fill(workspace)
    narrow = {**PROJECT["backends"]["local"], "max_rows_per_job": 9, "max_jobs_in_flight": 1}
    workspace.project(backends={"local": narrow})
    workspace.spec(rollout=[{"rows": 3, "require": {"answered": 1}}, {"percent": 100}])
    envelope = str(workspace.root / "approvals/p/plan.json")
    workspace.ok("plan", "--quiet", "--out", str(workspace.root / "approvals/p"))
    workspace.ok("apply", "--quiet", "--detach", "--approved", envelope)
    workspace.ok("sync", "--quiet")  # 9 of 17 are sent, and 8 queued
    fill(workspace, count=28)
    for _ in range(3):
        workspace.ok("sync", "--quiet")
    assert len(workspace.billed()) == 20
    found = workspace.run("apply", "--detach", "--approved", envelope)
    assert found.code == 4 and "22 were approved at most, 20 of them sent before" in found.words
