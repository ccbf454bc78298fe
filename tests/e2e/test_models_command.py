"""`batchform models`: the table, its sources, and what the service says of it."""

from __future__ import annotations

import pytest
import yaml
from tests_e2e_kit import PROJECT, Workspace


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


def test_the_list_has_prices_and_ends(workspace: Workspace) -> None:
    shown = workspace.ok("models", "list").out
    assert "gemini-3.5-flash-lite" in shown
    assert "$0.625" in shown  # a list price is not rounded
    told = workspace.ok("models", "list", "--json").json
    by_id = {m["id"]: m for m in told["models"]}
    assert told["prices_dated"]
    assert by_id["gemini-2.5-pro"]["shutdown"] == "2026-12-01"
    assert by_id["gemini-2.5-pro"]["sources"]["shutdown"]["url"].startswith("https://")


def test_every_fact_has_a_source_with_a_date(workspace: Workspace) -> None:
    for model in workspace.ok("models", "list", "--json").json["models"]:
        for field, source in model["sources"].items():
            assert source is not None, (model["id"], field)
            assert source["dated"], (model["id"], field)


def test_one_model_is_shown_with_where_each_thing_is_known_from(workspace: Workspace) -> None:
    shown = workspace.ok("models", "show", "models/gemini-2.5-pro").out
    assert "2026-12-01" in shown
    assert "above 200,000 tokens of prompt: $1.25 in, $7.50 out" in shown
    assert "deprecations" in shown
    refused = workspace.run("models", "show", "gemini-2.5-por")
    assert refused.code == 64
    assert "Did you mean `gemini-2.5-pro`?" in refused.err


def test_prices_have_days_and_models_have_kinds_of_content(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = workspace.ok("models", "show", "gemini-3.8-flash").out
    assert "until 2026-12-31" in shown
    assert "from 2027-01-01" in shown, "what comes after is known too"
    assert "text, image, audio, video" in shown
    told = workspace.ok("models", "show", "gemini-3.8-flash", "--json").json
    assert [p["batch_input"] for p in told["prices"]] == [0.375, 0.75]
    listed = workspace.ok("models", "list").out
    assert "text, image, audio, video" in listed
    assert "low/medium/high" in listed


def test_what_the_service_says_otherwise_can_be_taken_over(workspace: Workspace) -> None:
    shown = workspace.run("models", "refresh")
    assert shown.code == 2
    assert "gemini-3-pro-preview takes batches there, and is not in the table." in shown.out
    text = shown.out.partition("says what the service says:\n")[2]
    workspace.write("prices.yaml", text)
    workspace.project(prices="prices.yaml")
    assert yaml.safe_load(text)["models"]["gemini-3-pro-preview"] == {
        "batch": True, "max_input_tokens": 1_048_576, "max_output_tokens": 65_536, "thinking": True,
    }  # fmt: skip
    told = workspace.run("models", "refresh", "--json").json
    left = [d for d in told["differences"] if d["served"] is not None]
    assert left == []
    assert told["models"] == {}
    workspace.spec(model="gemini-3-pro-preview")
    assert workspace.run("validate").code == 0


def test_vertex_has_no_such_list(workspace: Workspace) -> None:
    backends = {**PROJECT["backends"], "cloud": {"type": "emulator", "cloud": "vertex"}}
    workspace.project(backends=backends)
    refused = workspace.run("models", "refresh", "--backend", "cloud")
    assert refused.code == 64
    assert "has no list of models" in refused.err
    unknown = workspace.run("models", "refresh", "--backend", "nope")
    assert unknown.code == 64
    assert "Backends: cloud, local." in unknown.err


def test_a_saved_plan_says_when_the_tables_moved(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1)])
    workspace.ok("plan", "--out", "saved")
    workspace.write("prices.yaml", "dated: 2026-11-25\n")
    workspace.project(prices="prices.yaml")
    applied = workspace.ok("apply", "saved", "--yes")
    assert (
        "The tables moved since the plan was made (prices of 2026-11-21, now of 2026-11-21, prices.yaml" in applied.err
    )
    assert "models of 2026-11-21, now of" in applied.err


def test_a_plan_says_each_warning_about_requests_once(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1)])
    workspace.spec(generation_config={"max_output_tokens": 100, "thinking_config": {"thinking_level": "high"}})
    assert workspace.ok("plan").out.count("BF513") == 1


def test_thinking_and_kind_are_held_against_the_list_too(workspace: Workspace) -> None:
    own = {"gemini-3.8-flash": {"thinking": False}, "gemini-embedding-001": {"kind": "text"}}
    workspace.write("prices.yaml", yaml.safe_dump({"models": own}))
    workspace.project(prices="prices.yaml")
    told = workspace.run("models", "refresh", "--json").json
    found = {(d["model"], d["field"]): (d["known"], d["served"]) for d in told["differences"]}
    assert found["gemini-3.8-flash", "thinking"] == (False, True)
    assert found["gemini-embedding-001", "kind"] == ("text", "embedding")
    assert ("gemini-2.5-pro", "thinking") not in found  # it has budgets, so it thinks
    refused = workspace.run("validate")
    assert refused.code == 0
    workspace.spec(model="gemini-3.8-flash", generation_config={"thinking_config": {"thinking_level": "low"}})
    assert "gemini-3.8-flash does not think" in " ".join(workspace.run("validate").err.split())
