"""`apply --approved`: a plan made anew goes on inside what was approved, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests_e2e_kit import Workspace

from batchform.cli.approved import find_envelope
from batchform.errors import StalePlan, UsageError


def rows(workspace: Workspace, count: int) -> None:
    workspace.rows([workspace.row(i) for i in range(1, count + 1)])


def approved(workspace: Workspace, *arguments: str) -> str:
    """Plan into `plan`, and the digest that approves it."""
    workspace.ok("plan", "--quiet", "--out", "plan", *arguments)
    told = json.loads((workspace.root / "plan/plan.json").read_text())
    return str(told["envelope"]["digest"])


def test_rows_may_move_inside_what_was_approved_and_no_further(workspace: Workspace) -> None:
    workspace.project(approval={"percent": 0, "rows": 2})
    digest = approved(workspace)
    (bound,) = json.loads((workspace.root / "plan/plan.json").read_text())["envelope"]["specs"]
    assert (bound["rows"], bound["actions"]) == (8, {"run": 8, "rerun": 2, "remove": 0})
    markdown = (workspace.root / "plan/plan.md").read_text()
    assert f"batchform apply --approved {digest}" in markdown
    assert "You approve 8 rows for" in markdown

    rows(workspace, 9)
    grown = workspace.run("apply", "--approved", digest[7:27], "--envelope", "plan")
    assert grown.code == 4
    assert "triage: 9 rows to run, and 8 were approved at most" in grown.err
    assert "triage: 9 rows to send, and 8 were approved at most" in grown.err
    assert workspace.billed() == []

    rows(workspace, 7)
    workspace.ok("apply", "--approved", digest, "--envelope", "plan/plan.json", "--approver", "octocat")
    assert len(workspace.billed()) == 7
    rows(workspace, 8)  # one more is left of what was approved
    workspace.write("approvals/first.json", (workspace.root / "plan/plan.json").read_bytes())
    workspace.ok("apply", "--approved", digest)
    rows(workspace, 9)
    used = workspace.run("apply", "--approved", digest)
    assert used.code == 4
    assert "triage: 1 row to send, and 8 were approved at most, 8 of them sent before" in used.err
    assert len(workspace.billed()) == 8
    events = [
        json.loads(line)
        for path in sorted((workspace.root / ".batchform").rglob("events-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    admitted = [(e.get("approver"), e["envelope"] == digest, e["rows"]) for e in events if e["type"] == "Admitted"]
    assert ("octocat", True, 7) in admitted
    assert (None, True, 1) in admitted


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"prompt": {"user": {"text": "Other: {{ body }}"}}}, "triage: its prompt is "),
    ({"model": "gemini-3.5-flash"}, "model gemini-3.5-flash, and gemini-3.5-flash-lite was approved"),
    ({"generation_config": {"temperature": 1}}, "triage: its configuration is "),
    ({"output": {"format": "json"}}, "triage: how its answers are read is "),
    ({"destination": {"type": "csv", "path": "results/o.csv"}}, "triage: the spec is not as it was approved"),
    ({"name": "renamed"}, "spec triage is gone; spec renamed was not approved"),
]


def test_what_was_reviewed_is_what_is_asked(workspace: Workspace) -> None:
    digest = approved(workspace)
    for change, words in CHANGES:
        workspace.spec(**change)
        refused = workspace.run("apply", "--approved", digest, "--envelope", "plan")
        assert refused.code == 4, words
        assert words in refused.err
    workspace.spec()
    told = json.loads((workspace.root / "plan/plan.json").read_text())
    told["envelope"]["rows"] = 10_000
    workspace.write("plan/plan.json", json.dumps(told))
    forged = workspace.run("apply", "--approved", digest, "--envelope", "plan")
    assert (forged.code, "was changed after it was made" in forged.err) == (4, True)
    workspace.project(approval={"valid": "1ms"})
    late = approved(workspace)
    ended = workspace.run("apply", "--approved", late, "--envelope", "plan")
    assert (ended.code, "it was approved until 2" in ended.err) == (4, True)
    assert workspace.billed() == []


def test_a_decision_is_part_of_what_is_approved(applied: Workspace) -> None:
    applied.spec(prompt={"user": {"text": "New: {{ body }}"}}, idempotency={"key": ["id"], "on_prompt_change": "ask"})
    held = approved(applied)
    kept = approved(applied, "--on-change", "triage=canary:2")
    assert kept != held
    applied.ok("apply", "--approved", kept, "--envelope", "plan")
    assert (len(applied.billed()), applied.actions()) == (8, {"keep": 2, "held": 4})


def test_what_names_no_approval_is_told(applied: Workspace) -> None:
    for name, words in (
        ("nonsense", "that is no digest of an approval"),
        ("abcdef0123456789", "no plan with the approval"),
        ("abc", "that is no digest"),
    ):
        with pytest.raises(UsageError, match=words):
            find_envelope(applied.root, name, None)
    digest = approved(applied)
    for name in ("one", "two"):
        applied.write(f"approvals/{name}.json", (applied.root / "plan/plan.json").read_bytes())
    assert find_envelope(applied.root, digest, None).digest == digest
    assert find_envelope(applied.root, "plan", None).digest == digest
    text = (applied.root / "plan/plan.json").read_text().replace('"usd": 0', '"usd": 1')
    applied.write("plan/plan.json", text)
    with pytest.raises(StalePlan, match="was changed"):
        find_envelope(applied.root, "plan", None)
    for arguments in (("--envelope", "plan"), ("--approved", digest, "-s", "triage"), ("plan", "--approved", digest)):
        assert applied.run("apply", *arguments).code == 64


def test_the_commands_that_a_plan_prints_name_its_environment(workspace: Workspace) -> None:
    workspace.project(environments={"prod": {"ledger": "prod-ledger"}})
    told = workspace.ok("plan", "--out", "plan", "--env", "prod").out
    digest = json.loads((workspace.root / "plan/plan.json").read_text())["envelope"]["digest"]
    assert "Apply it with: batchform apply plan --env prod\n" in told
    assert f"batchform apply --approved {digest} --env prod\n" in told
    assert f"`batchform apply --approved {digest} --env prod`" in (workspace.root / "plan/plan.md").read_text()
    workspace.ok("apply", "plan", "--env", "prod")
