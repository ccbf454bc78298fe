"""Values of generation_config that each row gives: typed, checked, and part of that row's request alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests_e2e_kit import Workspace

SHAPE = {
    "temperature": {"expr": "temp"},
    "max_output_tokens": {"expr": "most or none"},
    "thinking_config": {"thinking_level": {"expr": "'low' if temp | float > 1 else none"}},
}


def rows(workspace: Workspace, *values: tuple[str, str]) -> None:
    workspace.rows([{**workspace.row(i), "temp": t, "most": m} for i, (t, m) in enumerate(values, start=1)])


def config_of(workspace: Workspace, key: str) -> dict[str, Any]:
    return dict(json.loads(workspace.ok("render", "triage", "--key", key).out)["generationConfig"])


def test_rows_have_values_of_their_own(workspace: Workspace) -> None:
    workspace.spec(generation_config={**SHAPE, "seed": 3})
    rows(workspace, ("0", "64"), ("1.50", ""), ("0.5", "128"))
    assert config_of(workspace, "T-1") == {"temperature": 0, "maxOutputTokens": 64, "seed": 3}
    thinking = {"thinkingConfig": {"thinkingLevel": "LOW"}}
    assert config_of(workspace, "T-2") == {"temperature": 1.5, "seed": 3, **thinking}
    workspace.apply()
    assert workspace.actions() == {"keep": 3}
    rows(workspace, ("0", "64"), ("1.5", ""), ("0.25", "128"))
    assert workspace.actions() == {"keep": 2, "rerun": 1}


def test_the_same_value_by_row_or_for_all_is_one_request(workspace: Workspace) -> None:
    workspace.apply()
    workspace.spec(generation_config={"temperature": {"expr": "0 * (id | length)"}, "max_output_tokens": 64})
    assert workspace.actions() == {"keep": 6}


@pytest.mark.parametrize(
    ("temp", "said"),
    [
        (
            "hot",
            "generation_config.temperature is \"hot\" for the row with key 'T-1' of triage: `temperature` must be a",
        ),
        ("2.5", "must be between 0 and 2"),
        ("nan", "must be a number"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(workspace: Workspace, temp: str, said: str) -> None:
    workspace.spec(generation_config={"temperature": {"expr": "temp"}})
    rows(workspace, (temp, "1"))
    refused = workspace.run("plan")
    assert refused.code != 0
    assert said in refused.err.replace("generationConfig", "generation_config")
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"temperature": {"expr": "1 / 2"}}, "reads no column"),
        ({"temperature": {"expr": "temp |"}}, "specs/triage.yaml:"),
        ({"temperature": {"exp": "temp"}}, "`temperature` must be a number"),
        ({"response_mime_type": {"expr": "temp"}}, "`response_mime_type` must be text"),
    ],
)
def test_what_no_row_can_give(workspace: Workspace, config: Any, said: str) -> None:
    workspace.spec(generation_config=config)
    refused = workspace.run("plan")
    assert refused.code != 0
    assert said in refused.err


def test_a_model_for_each_row_is_refused(workspace: Workspace) -> None:
    workspace.spec(model={"expr": "temp"})
    refused = workspace.run("plan")
    assert refused.code != 0
    assert "`model` must be text" in refused.err


def test_a_level_that_the_model_does_not_take_is_refused_for_its_rows(workspace: Workspace) -> None:
    level = {"thinking_config": {"thinking_level": {"expr": "temp"}}}
    workspace.spec(model="gemini-3.8-flash", generation_config=level)
    rows(workspace, ("low", ""), ("minimal", ""), ("high", ""), ("minimal", ""))
    refused = workspace.run("plan")
    assert refused.code == 1
    said = " ".join(refused.err.split())
    assert (
        "2 rows (`T-2`, `T-4`) would send what the model does not take at $.generationConfig: gemini-3.8-flash has no "
        "thinking_level MINIMAL: it takes LOW, MEDIUM, HIGH [BF407 model-refuses]"
    ) in said
    assert workspace.run("validate").code == 1
    assert workspace.run("validate", "--sample", "1").code == 0  # the first row is well
    workspace.spec(model="gemini-2.5-pro", generation_config={"thinking_config": {"thinking_budget": {"expr": "most"}}})
    rows(workspace, ("", "128"), ("", "40000"), ("", "-1"))
    assert "1 row (`T-2`) would send" in " ".join(workspace.run("plan").err.split())


def test_a_rung_of_another_model_is_not_held_to_the_first_ones_levels(workspace: Workspace) -> None:
    """Its change was judged with the spec; a row is judged as its files ask."""
    change = {"model": "gemini-2.5-flash", "thinking_budget": 512}
    workspace.spec(
        model="gemini-3.8-flash",
        generation_config={"max_output_tokens": 16, "thinking_config": {"thinking_level": {"expr": "temp"}}},
        prompt={"user": {"text": "{{ body }}"}}, retry={"max_attempts": 3, "on": {"truncated": change}},
        tolerate_failed=1,
    )  # fmt: skip
    workspace.rows([{**workspace.row(1, body="a long story about a ticket " * 8), "temp": "low", "most": ""}])
    workspace.ok("apply", "--yes")
    assert workspace.plan()["shards"][0]["rung"].startswith("gemini-2.5-flash, thinking 512 after truncated")


def test_rows_that_leave_no_room_to_think_are_noted(workspace: Workspace) -> None:
    level = {"thinking_level": "high"}
    workspace.spec(generation_config={"max_output_tokens": {"expr": "most"}, "thinking_config": level})
    rows(workspace, ("", "128"), ("", "8192"))
    shown = " ".join(workspace.ok("plan").out.split())
    assert (
        "BF513 1 row (`T-1`) would leave no room for an answer, at $.generationConfig: max_output_tokens 128" in shown
    )
