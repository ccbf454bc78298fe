"""What an approval, and a decision on an edit, hold against while rows, prices and other runs go on moving."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace
from tests_e2e_kit import Workspace

from batchform.cli.approved import find_envelope, held_inside, specs_of
from batchform.cli.options import Common, Reviewed
from batchform.cli.plans import make_plan
from batchform.cli.running import make_progress_for
from batchform.cli.wiring import open_session
from batchform.errors import StalePlan
from batchform.plan.model import Range
from batchform.run.reconcile import apply_plan

NEW = {"user": {"text": "New prompt: {{ body }}"}}


def rows(workspace: Workspace, *numbers: int) -> None:
    workspace.rows([workspace.row(i) for i in numbers])


def approved(workspace: Workspace, *arguments: str) -> tuple[str, ...]:
    """Plan into `plan`; the words that apply what it approves."""
    workspace.ok("plan", "--quiet", "--out", "plan", *arguments)
    digest = json.loads((workspace.root / "plan/plan.json").read_text())["envelope"]["digest"]
    return "apply", "--quiet", "--approved", digest, "--envelope", "plan"


def test_a_canary_does_not_grow_when_rows_of_it_leave(applied: Workspace) -> None:
    applied.spec(prompt=NEW, idempotency={"key": ["id"], "on_prompt_change": {"canary": 2}})
    applied.apply()
    for gone in range(1, 7):  # whichever they are
        rows(applied, *(i for i in range(1, 7) if i != gone))
        assert "rerun" not in applied.actions(), gone


def test_removals_are_used_up_as_rows_are(workspace: Workspace) -> None:
    workspace.project(approval={"percent": 0, "rows": 0})
    workspace.spec(destination={"type": "jsonl", "path": "results/triage.jsonl", "prune": True})
    workspace.apply()
    rows(workspace, 1, 2, 3, 4, 5)
    apply = approved(workspace)
    workspace.ok(*apply)
    workspace.ok(*apply)  # nothing more to do
    rows(workspace, 1, 2, 3, 4)
    refused = workspace.run(*apply)
    assert refused.code == 4
    assert "triage: 1 row to remove, and 1 were approved at most, 1 of them removed before" in refused.err
    assert len(workspace.delivered()) == 5


def test_queued_rows_that_sync_sends_are_used_up(workspace: Workspace) -> None:
    local = {"type": "emulator", "job_seconds": 0, "poll": "10ms", "max_rows_per_job": 2, "max_jobs_in_flight": 1}
    workspace.project(backends={"local": local}, approval={"percent": 0, "rows": 0})
    apply = approved(workspace)
    workspace.ok(*apply, "--detach")
    assert len(workspace.billed()) < 6
    workspace.ok("sync", "--wait")
    assert len(workspace.billed()) == 6
    rows(workspace, *range(1, 9))
    refused = workspace.run(*apply)
    assert refused.code == 4
    assert "2 rows to send, and 6 were approved at most, 6 of them sent before" in refused.err
    assert len(workspace.billed()) == 6


def test_two_applies_at_once_do_not_both_use_it_up(workspace: Workspace) -> None:
    workspace.project(approval={"percent": 0, "rows": 0})
    _, _, _, digest, *_ = apply = approved(workspace)
    quiet = Common(str(workspace.root), None, as_json=True, quiet=True)
    with open_session(quiet) as session:
        bundle, reviewed = session.scratch / "bundle", Reviewed(digest, str(workspace.root / "plan"))
        envelope = find_envelope(session.root, digest, reviewed.where)
        specs = specs_of(session, envelope)
        late = held_inside(session, envelope, make_plan(session, specs, folder=bundle), specs, "")
        rows(workspace, 11, 12, 13)  # the other sends other rows, so that only the approval tells
        workspace.ok(*apply)
        session.ledger.refresh()
        ctx = session.run_context(make_progress_for(quiet), bundle)
        with pytest.raises(StalePlan, match=r"3 rows for .* were sent under it, and 6 rows more pass 6 for"):
            apply_plan(ctx, late, bundle, wait="submitted")
    assert len(workspace.billed()) == 3


def test_dollars_bound_what_has_no_price_any_more(workspace: Workspace) -> None:
    _, _, _, digest, *_ = approved(workspace)
    quiet = Common(str(workspace.root), None, as_json=True, quiet=True)
    with open_session(quiet) as session:
        envelope = find_envelope(session.root, digest, str(workspace.root / "plan"))
        specs = specs_of(session, envelope)
        plan = make_plan(session, specs, folder=session.scratch / "bundle")
        held_inside(session, envelope, plan, specs, "")
        unpriced = replace(plan, specs=tuple(replace(spec, cost=Range(0.0, 0.0, 0.0)) for spec in plan.specs))
        with pytest.raises(StalePlan) as refused:
            held_inside(session, envelope, unpriced, specs, "")
        assert "triage: what it costs is not known any more, and $" in refused.value.render()
