"""A spec whose schema is a Python class: planned, saved, applied elsewhere without importing anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests_e2e_kit import PROJECT, SPEC, Workspace

CODE = """
from pydantic import BaseModel
class Ticket(BaseModel):
    label: str
    sure: bool
"""


@pytest.fixture
def of_class(workspace: Workspace) -> Workspace:
    sys.modules.pop("bf_saved_models", None)
    workspace.write("bf_saved_models.py", CODE)
    workspace.project(**{**PROJECT, "allow_imports": ["bf_saved_models"]})
    config = {"response_schema": {"python": "bf_saved_models:Ticket"}, "max_output_tokens": 64}
    workspace.spec(**{**SPEC, "generation_config": config})
    return workspace


def test_answers_follow_the_class_and_a_refactoring_is_free(of_class: Workspace) -> None:
    of_class.apply()
    assert all(set(row["response"]) == {"label", "sure"} for row in of_class.delivered())
    sys.modules.pop("bf_saved_models")
    of_class.write("bf_saved_models.py", CODE.replace("Ticket", "Base") + "class Ticket(Base):\n    pass\n")
    assert of_class.actions() == {"keep": 6}
    sys.modules.pop("bf_saved_models")
    of_class.write("bf_saved_models.py", CODE + "    more: str\n")
    assert of_class.actions() == {"rerun": 6}


def test_a_saved_plan_is_applied_without_the_class(of_class: Workspace) -> None:
    of_class.ok("plan", "--out", "plan")
    saved = json.loads((of_class.root / "plan/bundle.json").read_text())["schemas"]["bf_saved_models:Ticket"]
    assert saved["required"] == ["label", "sure"]
    sys.modules.pop("bf_saved_models")
    of_class.write("bf_saved_models.py", "raise RuntimeError('not to be imported')")
    said = of_class.run("plan")
    assert said.code == 64 or said.code == 1
    assert "importing `bf_saved_models` failed: RuntimeError: not to be imported" in said.err
    of_class.ok("apply", "plan")
    assert len(of_class.delivered()) == 6
    assert "bf_saved_models" not in sys.modules


def test_a_saved_schema_that_was_changed_is_refused(of_class: Workspace) -> None:
    of_class.ok("plan", "--out", "plan")
    manifest = of_class.root / "plan/bundle.json"
    manifest.write_text(manifest.read_text().replace('"label"', '"lable"'))
    refused = of_class.run("apply", "plan")
    assert refused.code == 4
    assert "spec triage, or a template or schema it uses, changed" in refused.err
    assert of_class.billed() == []
    assert not Path(of_class.root / "results").exists()
