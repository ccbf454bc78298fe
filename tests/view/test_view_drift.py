"""What the issue about drift says of any plan."""

from __future__ import annotations

from hypothesis import given, settings
from view_plans import GATE_FAILED, PLANS, STAGED, plan

from batchform.plan.model import Plan
from batchform.view.drift import drift_issue, drift_marker


@settings(max_examples=40)
@given(PLANS)
def test_an_issue_of_any_plan_fits_and_is_found_again(found: Plan) -> None:
    told = drift_issue(found)
    if told is None:
        assert found.rows_to_send == 0 and not found.has_changes and not found.waits
        assert all(v.ok for v in found.all_verdicts)
        return
    title, body = told
    assert len(title) <= 255 and title.isprintable() and len(body) <= 65_000
    assert body.startswith(drift_marker(found.project, found.environment) + "\n")
    assert "batchform:plan:" not in body.partition("\n")[0]


def test_stages_that_wait_for_somebody_are_named() -> None:
    failed, staged = (drift_issue(plan(spec)) for spec in (GATE_FAILED, STAGED))
    assert failed is not None and "wait behind a gate that failed" in failed[0]
    assert staged is None or "gate that failed" not in staged[0]
