"""The JSON contract of a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from view_plans import EVIL, FULL, HELD, PLANS, SUMMARY, TRIAGE, UP_TO_DATE, plan

from batchform.plan.model import Action, Plan, Reason
from batchform.view.json import plan_json, plan_json_text

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "plan.schema.json").read_bytes())


def test_the_core_is_as_documented() -> None:
    found = plan_json(FULL)
    (triage, _) = found["specs"]
    assert (found["format_version"], found["digest"]) == ("1", "sha256:" + "5c1e0a77" * 8)
    assert list(triage["actions"]) == [
        "run", "rerun", "reuse", "reparse", "redeliver", "keep", "in_flight", "unknown", "forget", "remove", "held",
    ]  # fmt: skip
    assert triage["actions"]["run"] == 1204
    assert triage["actions"]["reuse"] == 0
    assert triage["reasons"] == {"new_key": 1204, "row_changed": 20, "prompt_changed": 280, "key_left_source": 3}
    assert (triage["rows_to_send"], triage["requests_to_send"], triage["jobs"]) == (1504, 1504, 2)
    assert triage["cost_usd"] == {"low": 0.4, "expected": 0.57, "high": 1.1}
    assert [v["name"] for v in triage["verdicts"]] == ["max_usd", "max_rows"]


def test_the_documented_example_is_part_of_what_is_printed() -> None:
    text = (DOCS / "plan-format.md").read_text(encoding="utf-8")
    example = json.loads(text.split("```json\n")[1].split("```")[0])
    found = plan_json(FULL)
    assert set(example) <= set(found)
    assert set(example["specs"][0]) <= set(found["specs"][0])
    assert list(example["specs"][0]["actions"]) == list(found["specs"][0]["actions"])


@settings(deadline=None)
@given(PLANS)
def test_every_plan_fits_the_schema(any_plan: Plan) -> None:
    jsonschema_rs.validate(SCHEMA, json.loads(plan_json_text(any_plan)))


def test_the_schema_names_every_action_and_reason() -> None:
    spec = SCHEMA["$defs"]["spec"]["properties"]
    assert spec["actions"]["required"] == [a.value for a in Action]
    assert spec["reasons"]["propertyNames"]["enum"] == [r.value for r in Reason]


@pytest.mark.parametrize("path", [("digest",), ("specs", 0, "actions", "held"), ("specs", 0, "cost_usd", "high")])
def test_the_schema_refuses_a_plan_with_a_field_missing(path: tuple[Any, ...]) -> None:
    value = plan_json(FULL)
    at = value
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    assert not jsonschema_rs.is_valid(SCHEMA, value)


def test_row_text_and_keys_are_in_it_only_where_the_spec_makes_them_public() -> None:
    text = plan_json_text(plan(TRIAGE, HELD))
    assert "printer" not in text
    assert "T-1881" not in text
    assert plan_json(plan(SUMMARY))["specs"][0]["samples"][0]["key"] == EVIL


def test_the_text_ends_in_one_newline_and_is_the_value() -> None:
    text = plan_json_text(plan(UP_TO_DATE))
    assert text.endswith("}\n")
    assert json.loads(text) == plan_json(plan(UP_TO_DATE))
    assert json.loads(text)["has_changes"] is False
