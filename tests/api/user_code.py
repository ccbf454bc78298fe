"""A user's code, which `make check` types with mypy: what is not `Any` here is known to users' editors."""

from __future__ import annotations

from typing import assert_type

from batchform import Outcome, Plan, Project, Results
from batchform.errors import LimitExceeded


def nightly(project: Project) -> list[object]:
    plan = project.plan("tag:nightly", out="bundle")
    assert_type(plan, Plan)
    assert_type(plan.cost.expected, float)
    assert_type([s.name for s in plan.specs if s.actions.get("run", 0) > 1], list[str])
    plan.nothing  # type: ignore[attr-defined]  # noqa: B018
    try:
        outcome = project.apply(plan, progress=print)
    except LimitExceeded as error:
        return [error.render()]
    assert_type(outcome, Outcome)
    assert_type(outcome.spec("triage").answered, int)
    assert_type(project.status().specs[0].usd, float)
    results = project.results("triage")
    assert_type(results, Results)
    return [row["category"] for row in results]
