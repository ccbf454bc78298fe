"""A plan's summary can be shown without the bundle: it says all that plan.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from view_plans import FULL, HELD, PLANS, plan

from batchform.cli import run
from batchform.errors import UsageError
from batchform.plan.model import Plan
from batchform.view.json import plan_json, plan_json_text
from batchform.view.markdown import plan_markdown
from batchform.view.summary_file import load_summary


@settings(max_examples=25)
@given(PLANS)
def test_what_a_summary_tells_is_what_was_planned(tmp_path_factory: pytest.TempPathFactory, made: Plan) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.json"
    path.write_text(plan_json_text(made), encoding="utf-8")
    read = load_summary(path)
    assert plan_json(read) == plan_json(made)
    assert plan_markdown(read) == plan_markdown(made)


@pytest.mark.parametrize("shown", ["plan.json", "."])
def test_show_takes_a_summary_or_a_folder_with_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: str
) -> None:
    made = plan(HELD, *FULL.specs)
    (tmp_path / "plan.json").write_text(plan_json_text(made), encoding="utf-8")
    assert run(["show", "--format", "markdown", str(tmp_path / shown)]) == 0
    assert capsys.readouterr().out.strip() == plan_markdown(made).strip()
    assert run(["show", str(tmp_path / shown)]) == 0
    assert f"digest {made.digest[7:19]}" in capsys.readouterr().out


def test_a_bundle_of_another_version_is_still_shown_by_its_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle.json").write_text('{"bundle_format": 99}')
    assert run(["show", str(tmp_path)]) == 4
    (tmp_path / "plan.json").write_text(plan_json_text(FULL), encoding="utf-8")
    assert run(["show", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == FULL.digest


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": "1"}', '{"format_version": "2"}', "\xff", "nul"])
def test_what_is_no_summary_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"plan\.json"):
        load_summary(path)
