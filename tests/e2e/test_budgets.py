"""Budgets from the command line: what plan says, what apply, sync and try refuse, and two processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests_e2e_kit import PROJECT, SPEC, Workspace

from batchform.emulator import EmulatorServer


def cost(workspace: Workspace) -> float:
    """Expected cost of the six rows of the only spec."""
    return float(workspace.plan()["cost_usd"]["expected"])


def budget(workspace: Workspace) -> dict[str, Any]:
    """What the project's budget was judged on by a new plan."""
    (verdict,) = workspace.run("plan", "--json").json["verdicts"]
    return dict(verdict)


def more_rows(workspace: Workspace, first: int = 7) -> None:
    """As many rows again as were there, all new."""
    workspace.rows([workspace.row(i) for i in range(first, first + 6)])


def test_a_plan_says_what_is_spent_in_flight_and_planned(workspace: Workspace) -> None:
    workspace.project(limits={"max_usd": 10 * cost(workspace)})
    first = budget(workspace)
    planned = first["budget"]["planned"]
    assert first["budget"] == {"settled": 0, "in_flight": 0, "planned": planned, "basis": "expected"}
    assert "spent" not in first["message"] and "flight" not in first["message"]
    workspace.apply("--detach")
    more_rows(workspace)
    flying = budget(workspace)
    assert (flying["budget"]["settled"], flying["budget"]["in_flight"]) == (0, planned)
    assert flying["actual"] == planned + flying["budget"]["planned"]
    workspace.ok("sync", "--wait")
    settled = budget(workspace)["budget"]
    assert (settled["in_flight"], settled["settled"] > 0) == (0, True)
    assert settled["settled"] == pytest.approx(workspace.ok("status", "--json").json["budgets"][0]["settled"])
    text = " ".join(workspace.run("plan").out.split())
    assert "spent today is within" in text
    assert "spent today" in workspace.run("plan", "--format", "markdown").out.replace("\u200b", "")
    assert "spent today, of" in workspace.ok("status").out


def test_what_was_spent_counts_against_the_next_plan_until_it_is_allowed(workspace: Workspace) -> None:
    name = "max_usd_per_month"
    workspace.project(limits={name: 1.1 * cost(workspace)})
    workspace.apply()
    more_rows(workspace)
    plan = workspace.run("plan", "--json")
    assert (plan.code, plan.json["rows_to_send"], plan.json["verdicts"][0]["name"]) == (3, 0, name)
    refused = workspace.run("apply", "--yes")
    assert (refused.code, len(workspace.billed())) == (3, 6)
    assert f"--allow {name} releases it" in refused.err and "spent" in refused.err
    workspace.apply("--allow", name, "--reason", "known")
    assert len(workspace.billed()) == 12
    assert workspace.run("plan").code == 0, "a plan that sends nothing passes a budget that is overspent"


def test_a_budget_of_one_plan_forgets_what_was_spent(workspace: Workspace) -> None:
    workspace.spec(limits={"max_usd_per_plan": 1.1 * cost(workspace)})
    workspace.apply()
    more_rows(workspace)
    assert workspace.run("plan").code == 0
    workspace.rows([workspace.row(i) for i in range(30, 42)])
    refused = workspace.run("apply", "--yes")
    assert (refused.code, len(workspace.billed())) == (3, 6)
    assert "--allow triage.max_usd_per_plan" in refused.err


def test_the_upper_basis_judges_and_reserves_the_upper_estimate(workspace: Workspace) -> None:
    planned = workspace.plan()["cost_usd"]
    limit = (planned["expected"] + planned["high"]) / 2
    workspace.project(limits={"max_usd": limit})
    assert workspace.run("plan").code == 0
    workspace.project(limits={"max_usd": limit, "max_usd_basis": "high"})
    refused = workspace.run("apply", "--yes")
    assert (refused.code, workspace.billed()) == (3, []) and "cost of up to" in refused.err
    workspace.project(limits={"max_usd": 10 * limit, "max_usd_basis": "high"})
    workspace.apply("--detach")
    more_rows(workspace)
    assert budget(workspace)["budget"]["in_flight"] == pytest.approx(planned["high"])


def test_a_saved_plan_is_judged_again_when_it_is_applied(workspace: Workspace, tmp_path: Path) -> None:
    expected, bundle = cost(workspace), str(tmp_path / "plan")
    workspace.project(limits={"max_usd": 2 * expected})
    workspace.ok("plan", "--out", bundle)
    workspace.project(limits={"max_usd": 0.5 * expected})
    refused = workspace.run("apply", bundle)
    assert (refused.code, workspace.billed()) == (3, []), refused.err
    assert "nothing was sent" in refused.err and "--allow max_usd" in refused.err
    workspace.project(limits={"max_usd": 2 * expected})
    workspace.ok("apply", bundle)
    assert len(workspace.billed()) == 6


def test_what_is_spent_meanwhile_makes_no_saved_plan_stale(workspace: Workspace, tmp_path: Path) -> None:
    bundle = str(tmp_path / "plan")
    workspace.project(limits={"max_usd": 1})
    workspace.ok("plan", "--out", bundle)
    workspace.ok("try", "triage", "--rows", "1")
    assert workspace.ok("status", "--json").json["budgets"][0]["settled"] > 0
    workspace.ok("apply", bundle)
    again = workspace.run("apply", bundle)
    assert (again.code, len(workspace.billed())) == (4, 7), "what was sent meanwhile does"


def test_try_is_refused_when_a_budget_is_passed_and_counts_against_it(workspace: Workspace) -> None:
    workspace.project(limits={"max_usd": 0})
    refused = workspace.run("try", "triage")
    assert (refused.code, workspace.billed()) == (3, [])
    assert "not sent: project:" in refused.err and "--allow max_usd" in refused.err
    workspace.ok("try", "triage", "--rows", "1", "--allow", "max_usd", "--reason", "known")
    assert workspace.run("try", "triage", "--allow", "max_usq", "--reason", "known").code == 64
    status = workspace.ok("status", "--json").json["budgets"][0]
    assert status["settled"] > 0
    workspace.project(limits={"max_usd": status["settled"] + 0.5 * cost(workspace)})
    assert workspace.run("apply", "--yes").code == 3, "what try spent is part of the day"


def test_a_trial_stops_at_the_row_that_no_longer_fits(workspace: Workspace) -> None:
    one = workspace.ok("try", "triage", "--rows", "1", "--json").json["usd"]
    estimate = cost(workspace) / 6 * 2  # a synchronous request costs twice what one of a batch does
    workspace.project(limits={"max_usd": 2 * one + 1.2 * estimate})
    tried = workspace.run("try", "triage", "--rows", "6", "--json")
    lines = [json.loads(line) for line in tried.out.splitlines()]
    answered = sum("class" in line for line in lines)
    assert tried.code == 3 and 0 < answered < 6
    assert workspace.ok("status", "--json").json["budgets"][0]["settled"] == pytest.approx(
        one * (1 + answered), rel=0.2
    )


@pytest.mark.parametrize("wait", [(), ("--wait",)])
def test_a_retry_that_would_pass_the_budget_is_held_by_sync(workspace: Workspace, wait: tuple[str, ...]) -> None:
    workspace.rows([workspace.row(i, body="[[emulator:max_tokens]]" if i > 3 else "fine") for i in range(1, 7)])
    limits = {"max_usd": 0.5 * cost(workspace)}
    workspace.ok("apply", "--yes", "--detach")
    workspace.project(limits=limits)
    held = workspace.run("sync", *wait)
    assert held.code == 3, (held.out, held.err)
    assert "3 rows not sent: project: expected cost" in held.err and "spent today" in held.err
    assert "3 rows held" in held.out
    assert len(workspace.billed()) == 6
    if not wait:
        assert workspace.run("sync", "--json").json["exit_code"] == 3, "cron is told every time"


def test_money_of_the_emulator_is_not_googles(workspace: Workspace) -> None:
    expected = cost(workspace)
    workspace.project(limits={"max_usd": 1.1 * expected})
    workspace.apply()
    google = {**PROJECT["backends"], "gemini": {"type": "gemini"}}  # type: ignore[dict-item]
    workspace.project(limits={"max_usd": 1.1 * expected}, backends=google, defaults={"backend": "gemini"})
    plan = workspace.run("plan", "--json")
    assert (plan.code, plan.json["rows_to_send"]) == (0, 6)
    assert plan.json["verdicts"][0]["budget"]["settled"] == 0


# --- two processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path / "emulator", job_seconds=0) as server:
        yield server


def start(workspace: Workspace, spec: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "batchform", "apply", "--yes", "--quiet", "--select", spec]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, cwd=workspace.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_applies_of_two_specs_at_once_pass_no_budget_together(workspace: Workspace, served: EmulatorServer) -> None:
    """The project's budget fits one of them. Whoever comes second is refused, at its plan, at its intent, or because
    the other one is at work; and is refused again for the budget when it comes back."""
    local = {"type": "emulator", "url": served.url, "poll": "10ms"}
    workspace.project(backends={"local": local})
    expected = cost(workspace)
    workspace.project(backends={"local": local}, limits={"max_usd": 1.5 * expected})
    names = ("one", "two")
    for name in names:
        made = {**SPEC, "name": name, "destination": {"type": "jsonl", "path": f"results/{name}.jsonl"}}
        workspace.write(f"specs/{name}.yaml", yaml.safe_dump(made))
    (workspace.root / "specs/triage.yaml").unlink()
    running = {name: start(workspace, name) for name in names}
    errors = {name: process.communicate(timeout=60)[1] for name, process in running.items()}
    codes = {name: process.returncode for name, process in running.items()}
    assert sorted(codes.values())[0] == 0 and sorted(codes.values())[1] in (3, 5), (codes, errors)
    assert len(served.bill()) == 6
    (loser,) = (name for name, code in codes.items() if code)
    again = workspace.run("apply", "--yes", "--select", loser)
    assert again.code == 3 and "spent today" in again.err
    assert len(served.bill()) == 6
    used = workspace.ok("status", "--json").json["budgets"][0]
    assert 0 < used["settled"] <= used["limit"] and used["in_flight"] == 0
