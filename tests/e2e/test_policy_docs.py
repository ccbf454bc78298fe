"""The rules of docs/policy.md, as they stand there, on plans of a real project: by jq, and by an engine of Rego."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jq
import regopy
from tests_e2e_kit import Workspace

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/policy.md"
COUNTED = "triage: up to $"
TOO_MANY = "triage: 1100 rows for gemini-2.5-pro, which may have 1000"
AGAIN = "triage: 120 answered rows are sent again: keep them, or begin with a canary"
TICKET = "without a ticket (OPS-…) in the reason"


def block(language: str) -> str:
    """The only block of a language in the document."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(found)


def by_jq(plan: Any) -> list[str]:
    try:
        assert jq.compile(block("jq")).input_value(plan).all() == ["allowed"]
    except ValueError as error:
        return str(error).split("; ")
    return []


def by_rego(plan: Any) -> list[str]:
    engine = regopy.Interpreter()
    engine.add_module("policy/plan.rego", block("rego"))
    engine.set_input(plan)
    [found] = json.loads(str(engine.query("data.batchform.deny")))["expressions"]
    return list(found)


def test_the_documented_rules_judge_real_plans(workspace: Workspace) -> None:
    def judged(*arguments: str) -> list[str]:
        """What both say of a plan, which is the same."""
        assert workspace.run("plan", "--quiet", "--out", "plan", *arguments).code == 0
        plan = json.loads((workspace.root / "plan/plan.json").read_text())
        found, other = by_jq(plan), by_rego(plan)
        assert len(found) == len(other)
        for words in (COUNTED, TOO_MANY, AGAIN, TICKET):
            assert any(words in said for said in found) == any(words in said for said in other), words
        return found

    workspace.spec(model="gemini-2.5-pro", generation_config={"temperature": 0})
    workspace.rows([workspace.row(i) for i in range(1100)])
    refused = judged()
    assert len(refused) == 2 and refused[0].startswith(COUNTED) and refused[1] == TOO_MANY
    assert judged("--count", "20") == [TOO_MANY]

    workspace.spec()
    workspace.rows([workspace.row(i) for i in range(120)])
    assert judged() == []
    workspace.ok("apply", "plan", "--quiet")

    workspace.project(limits={"max_rows": 10})
    workspace.spec(generation_config={"temperature": 1})
    refused = judged("--allow", "max_rows", "--reason", "the quarter ends")
    assert len(refused) == 2 and refused[0] == AGAIN and TICKET in refused[1]
    change = ("--on-change", "triage=canary:20", "--allow", "max_rows", "--reason", "OPS-7: the quarter ends")
    assert judged(*change) == []
