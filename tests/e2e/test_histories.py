"""Random histories: whatever is edited in whatever order, a plan says what apply does, and nothing is paid twice."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_e2e_kit import Workspace

ROW = st.tuples(st.sampled_from(["add", "edit", "drop", "restore"]), st.integers(1, 4))
SPEC = st.tuples(st.just("prompt"), st.sampled_from(["A", "B"])) | st.tuples(
    st.just("temperature"), st.sampled_from([0, 1])
)
STEP = ROW | SPEC | st.tuples(st.just("destination"), st.sampled_from(["one", "two"]))


class _Table:
    """The rows and spec that a history edits."""

    def __init__(self) -> None:
        self.bodies = {n: f"text {n}" for n in (1, 2, 3)}
        self.prompt, self.temperature, self.destination = "A", 0, "one"

    def edit(self, kind: str, value: Any) -> None:
        if kind in ("add", "restore"):
            self.bodies[value] = f"text {value}"
        elif kind == "edit":
            self.bodies[value] = f"{self.bodies.get(value, 'text')}!"[-12:]
        elif kind == "drop" and len(self.bodies) > 1:
            self.bodies.pop(value, None)
        elif kind != "drop":
            setattr(self, kind, value)

    def write(self, workspace: Workspace) -> None:
        workspace.rows([workspace.row(n, body=body) for n, body in self.bodies.items()])
        workspace.spec(
            prompt={"user": {"text": self.prompt + ": {{ id }} {{ body }}"}},
            generation_config={"temperature": self.temperature, "max_output_tokens": 64},
            destination={"type": "jsonl", "path": f"results/{self.destination}.jsonl"},
        )


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(STEP, min_size=1, max_size=3), min_size=1, max_size=4))
def test_plan_says_what_apply_does_and_nothing_is_paid_twice(
    workspace: Workspace, history: list[list[tuple[str, Any]]]
) -> None:
    for leftover in (".batchform", "results"):
        shutil.rmtree(workspace.root / leftover, ignore_errors=True)
    table = _Table()
    for steps in history:
        for kind, value in steps:
            table.edit(kind, value)
        table.write(workspace)
        before = len(workspace.billed())
        planned = workspace.plan()["rows_to_send"]
        workspace.apply()
        assert len(workspace.billed()) - before == planned
        assert workspace.actions() == {"keep": len(table.bodies)}
        _answers_are_their_own(workspace, table)
    assert max(Counter(workspace.billed()).values()) == 1


def _answers_are_their_own(workspace: Workspace, table: _Table) -> None:
    """The emulator echoes a request's text, so each delivered answer must name its own row."""
    path = Path(f"results/{table.destination}.jsonl")
    delivered = {r["id"]: r["text"] for r in workspace.delivered(str(path))}
    for number in table.bodies:
        assert f"T-{number}" in delivered[f"T-{number}"]
