"""`--events`: what a run does, one JSON object a line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests_e2e_kit import Result, Workspace

from batchform.view.events import TYPES


def told(result: Result) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [lines[0]["type"], lines[0]["format"]] == ["version", 1]
    for line in lines:
        assert line["type"] in TYPES and line["message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["at"])
    return lines


def test_an_apply_and_a_sync_as_events(workspace: Workspace) -> None:
    lines = told(workspace.ok("apply", "--yes", "--detach", "--events"))
    assert [line["type"] for line in lines] == ["version", "planned", "staged", "submitted", "outcome"]
    assert lines[1]["rows"] == 6 and lines[2]["tag"] == lines[3]["tag"] and lines[3]["how"] == "created"
    assert lines[-1]["exit_code"] == 0 and lines[-1]["outcome"]["created"] == [lines[2]["tag"]]
    lines = told(workspace.ok("sync", "--wait", "--events"))
    kinds = [line["type"] for line in lines]
    assert kinds[-3:] == ["collected", "delivered", "outcome"]
    assert lines[-3]["rows"] == {"answered": 6} and lines[-2]["rows"] == 6


def test_a_plan_as_events(workspace: Workspace) -> None:
    shown = workspace.run("plan", "--events", "--detailed-exitcode", "--out", str(workspace.root / "saved"))
    lines = told(shown)
    assert shown.code == 2
    assert [line["type"] for line in lines] == ["version", "spec", "planned"]
    spec, plan = lines[1:]
    assert (spec["rows"], spec["actions"], spec["held"]) == (6, {"run": 6}, []) and spec["spec"] in spec["message"]
    assert (plan["rows"], plan["usd"], plan["exit_code"], plan["held"]) == (6, spec["usd"], 2, [])
    assert plan["digest"] == json.loads((workspace.root / "saved/plan.json").read_text())["digest"]
    workspace.project(limits={"max_rows": 2})
    last = told(workspace.run("plan", "--events"))[-1]
    assert (last["type"], last["exit_code"], last["held"]) == ("planned", 3, ["max_rows"])
    for other in (["--json"], ["--steps"], ["--format", "markdown"]):
        refused = workspace.run("plan", "--events", *other)
        assert refused.code == 64 and refused.out.count("\n") <= 1
    workspace.write("batchform.yaml", "nonsense: 1")
    assert told(workspace.run("plan", "--events"))[-1]["error"]["type"] == "InvalidProject"


def test_what_ends_a_run_is_an_event(workspace: Workspace) -> None:
    workspace.project(limits={"max_rows": 2})
    held = workspace.run("apply", "--yes", "--events")
    assert held.code == 3
    last = told(held)[-1]
    assert (last["type"], last["exit_code"], last["error"]["type"]) == ("error", 3, "LimitExceeded")
    assert workspace.run("apply", "--events", "--json").code == 64
    workspace.write("batchform.yaml", "nonsense: 1")
    assert told(workspace.run("sync", "--events"))[-1]["error"]["type"] == "InvalidProject"


def test_the_types_are_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/ci.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", page.partition("## Events")[2].partition("\n## ")[0], re.M))
    assert rows == dict(TYPES)
