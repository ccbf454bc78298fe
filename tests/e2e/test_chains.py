"""Chains: a spec that reads another's answers, planned in order, with what is known only after apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tests_e2e_kit import SPEC, Workspace

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}, "score": {"type": "integer"}}}
EXTRACT: dict[str, Any] = {
    **SPEC,
    "name": "extract",
    "generation_config": {"temperature": 0, "max_output_tokens": 64, "response_schema": SCHEMA},
    "destination": {"type": "jsonl", "path": "results/extract.jsonl"},
}
FOLLOW: dict[str, Any] = {
    **SPEC,
    "name": "follow",
    "source": {"type": "spec", "name": "extract"},
    "prompt": {"user": {"text": "Why {{ label }} of {{ score }}?"}},
    "destination": {"type": "jsonl", "path": "results/follow.jsonl"},
}
SUMMARISE: dict[str, Any] = {
    **FOLLOW,
    "name": "summarise",
    "source": {
        "type": "spec",
        "name": "extract",
        "query": "SELECT left(id, 2) AS part, count(*) AS many, string_agg(label, ', ' ORDER BY id) AS labels "
        "FROM source GROUP BY ALL",
    },
    "prompt": {"user": {"text": "{{ many }}: {{ labels }}"}},
    "idempotency": {"key": ["part"]},
    "destination": {"type": "jsonl", "path": "results/summarise.jsonl"},
}


@pytest.fixture
def chain(workspace: Workspace) -> Workspace:
    """extract → follow."""
    (workspace.root / "specs/triage.yaml").unlink()
    write(workspace, EXTRACT, FOLLOW)
    return workspace


def write(workspace: Workspace, *specs: dict[str, Any]) -> None:
    for spec in specs:
        workspace.write(f"specs/{spec['name']}.yaml", yaml.safe_dump(spec))


def planned(workspace: Workspace, *arguments: str) -> dict[str, dict[str, Any]]:
    """The specs of the JSON plan, in its order."""
    found = workspace.run("plan", "--json", *arguments)
    assert found.code in (0, 2), found.err
    return {spec["name"]: spec for spec in found.json["specs"]}


def actions(spec: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in spec["actions"].items() if count}


def test_a_plan_shows_what_is_known_after_apply(chain: Workspace) -> None:
    write(chain, {**FOLLOW, "name": "after", "source": {"type": "spec", "name": "follow"},
                  "prompt": {"user": {"text": "{{ text }}"}},
                  "destination": {"type": "jsonl", "path": "results/after.jsonl"}})  # fmt: skip
    found = chain.ok("plan", "--json").json
    schema = json.loads((Path(__file__).parents[2] / "docs/plan.schema.json").read_bytes())
    jsonschema_rs.validator_for(schema).validate(found)
    assert found["rows_known_after_apply"] == 12 and found["has_changes"]
    specs = planned(chain)
    assert list(specs) == ["extract", "follow", "after"]
    assert actions(specs["extract"]) == {"run": 6} and specs["extract"]["known_after_apply"] is None
    for name, upstream in (("follow", "extract"), ("after", "follow")):
        known = specs[name]["known_after_apply"]
        assert actions(specs[name]) == {} and specs[name]["rows_to_send"] == 0
        assert (known["upstream"], known["rows_at_most"]) == (upstream, 6)
        assert 0 == known["cost_usd"]["low"] < known["cost_usd"]["expected"] < known["cost_usd"]["high"]
    shown = chain.ok("plan").out
    assert "6 to send" in shown and "up to 12 known after apply" in shown
    assert "up to 6 known after apply" in chain.ok("plan", "--format", "markdown").out


def test_rows_that_change_are_known_after_apply_and_the_others_now(chain: Workspace) -> None:
    chain.ok("apply", "--yes", "--select", "extract")
    chain.ok("apply", "--yes")
    assert {n: actions(s) for n, s in planned(chain).items()} == {"extract": {"keep": 6}, "follow": {"keep": 6}}
    rows = [chain.row(i) for i in range(1, 9)]
    rows[0]["body"] = "another"
    chain.rows(rows)
    specs = planned(chain)
    assert actions(specs["extract"]) == {"run": 2, "rerun": 1, "keep": 5}
    assert actions(specs["follow"]) == {"keep": 6}
    assert specs["follow"]["known_after_apply"]["rows_at_most"] == 3


def test_a_grouping_chain_waits_for_the_last_answer(chain: Workspace) -> None:
    write(chain, SUMMARISE)
    specs = planned(chain)
    assert specs["summarise"]["known_after_apply"]["rows_at_most"] == 6
    chain.ok("apply", "--yes", "--select", "extract")
    specs = planned(chain)
    assert actions(specs["summarise"]) == {"run": 1} and specs["summarise"]["known_after_apply"] is None


def test_an_answer_that_comes_out_the_same_keeps_the_row(chain: Workspace) -> None:
    """Another request with the same answer: the emulator answers by request, so the label is the same by the schema."""
    chain.ok("apply", "--yes", "--select", "extract")
    chain.ok("apply", "--yes")
    rows = [chain.row(i) for i in range(1, 7)]
    rows[0]["body"] = "another"
    chain.rows(rows)
    chain.ok("apply", "--yes", "--select", "extract")
    before = json.loads((chain.root / "results/follow.jsonl").read_text().splitlines()[0])
    spec = planned(chain, "--select", "follow")["follow"]
    assert actions(spec) == {"rerun": 1, "keep": 5} and spec["reasons"] == {"upstream_changed": 1}, before


def test_a_chain_in_part_is_said_loudly(chain: Workspace) -> None:
    spec = planned(chain, "--select", "follow")["follow"]
    assert spec["known_after_apply"] is None and actions(spec) == {}
    assert any("extract" in note and "not selected" in note for note in spec["notes"])
    spec = planned(chain, "--select", "extract")["extract"]
    assert any("follow" in note and "not selected" in note for note in spec["notes"])


def test_failed_rows_are_no_rows_of_a_chain(chain: Workspace) -> None:
    chain.rows([chain.row(i, **({"body": "[[emulator:blocked]]"} if i == 3 else {})) for i in range(1, 7)])
    assert chain.run("apply", "--yes", "--select", "extract").code == 6
    spec = planned(chain, "--select", "follow")["follow"]
    assert actions(spec) == {"run": 5}
    assert any("1 row of extract failed" in note for note in spec["notes"])


def test_its_own_source_joins_by_key(chain: Workspace) -> None:
    write(chain, {**FOLLOW, "source": {"type": "spec", "name": "extract", "with_source": True},
                  "prompt": {"user": {"text": "{{ label }} of {{ title }}"}}})  # fmt: skip
    chain.ok("apply", "--yes", "--select", "extract")
    found = json.loads(chain.ok("render", "follow", "--key", "T-3").out)
    assert found["contents"][0]["parts"][0]["text"].endswith(" of ticket 3")


def test_columns_are_known_before_there_is_an_answer(chain: Workspace) -> None:
    """Those of the source with their types, in prompts and in SQL."""
    chain.rows([{**chain.row(i), "id": str(i)} for i in range(1, 4)])
    query = "SELECT tenant, sum(CAST(id AS BIGINT)) AS total, any_value(label) AS label FROM source "
    write(chain, {**FOLLOW, "source": {"type": "spec", "name": "extract", "with_source": True},
                  "prompt": {"user": {"text": "{{ label }} of {{ title }}"}}},
          {**SUMMARISE, "source": {"type": "spec", "name": "extract", "with_source": True,
                                   "query": f"{query}WHERE status = 'answered' GROUP BY tenant"},
           "prompt": {"user": {"text": "{{ total }} {{ label }}"}}, "idempotency": {"key": ["tenant"]}})  # fmt: skip
    assert [s["rows_to_send"] for s in planned(chain).values()] == [3, 0, 0]
    chain.apply()
    (row,) = chain.delivered("results/summarise.jsonl")
    assert row["tenant"] == "acme" and len(texts(chain, "follow")) == 3


def test_a_key_that_left_the_source_leaves_the_chain_only_where_it_is_pruned(chain: Workspace) -> None:
    chain.ok("apply", "--yes", "--select", "extract")
    chain.ok("apply", "--yes")
    chain.rows([chain.row(i) for i in range(1, 6)])
    specs = planned(chain)
    assert actions(specs["extract"]) == {"keep": 5, "forget": 1} and actions(specs["follow"]) == {"keep": 6}
    write(chain, {**EXTRACT, "destination": {**EXTRACT["destination"], "prune": True}})
    chain.ok("apply", "--yes", "--select", "extract")
    assert actions(planned(chain)["follow"]) == {"keep": 5, "forget": 1}


def test_validate_judges_rows_where_there_are_answers(chain: Workspace) -> None:
    assert "rows of follow were not checked: extract, whose answers they are, has none yet" in chain.ok("validate").err
    chain.ok("apply", "--yes", "--select", "extract")
    assert "not checked" not in chain.ok("validate").err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"name": "extrakt"}, "there is no spec `extrakt`"),
        ({"name": "follow"}, "follow reads its own answers"),
    ],
)
def test_names_are_checked(chain: Workspace, source: dict[str, Any], said: str) -> None:
    write(chain, {**FOLLOW, "source": {"type": "spec", **source}})
    found = chain.run("validate")
    assert found.code == 1 and said in found.err and "specs/follow.yaml:" in found.err, found.err


def test_a_circle_is_spelled_out(chain: Workspace) -> None:
    write(chain, {**EXTRACT, "source": {"type": "spec", "name": "follow"}})
    found = chain.run("validate")
    assert found.code == 1 and "extract reads follow reads extract" in found.err, found.err


def test_a_column_that_the_answers_do_not_have_is_refused(chain: Workspace) -> None:
    write(chain, {**FOLLOW, "prompt": {"user": {"text": "{{ lable }}"}}})
    found = chain.run("validate")
    assert found.code == 1 and "has no column `lable`" in found.err and "Did you mean `label`?" in found.err, found.err


def test_answers_of_the_emulator_are_no_rows_for_google(chain: Workspace) -> None:
    chain.project(backends={"local": {"type": "emulator"}, "real": {"type": "gemini"}})
    write(chain, {**FOLLOW, "backend": "real"})
    found = chain.run("validate")
    assert found.code == 1 and "BF144" in found.err, found.err


# --- waves ---------------------------------------------------------------------------------------------------------


def texts(workspace: Workspace, name: str) -> dict[str, str]:
    lines = (workspace.root / f"results/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {row.get("id") or row["part"]: row["text"] for row in map(json.loads, lines)}


def test_apply_carries_a_chain_through(chain: Workspace) -> None:
    write(chain, SUMMARISE)
    found = chain.apply().json
    assert found["rows"] == {"extract": {"answered": 6}, "follow": {"answered": 6}, "summarise": {"answered": 1}}
    assert len(chain.billed()) == len(set(chain.billed())) == 13
    assert len(texts(chain, "follow")) == 6 and len(texts(chain, "summarise")) == 1
    assert all(actions(s) == {"keep": s["source"]["rows"]} for s in planned(chain).values())
    assert chain.apply().json["created"] == []
    assert "extract" not in chain.ok("explain", "follow", "T-1").err
    assert "T-1" in chain.ok("results", "follow", "--key", "T-1").out
    assert not [n for n in chain.ok("status", "--json").json["notes"] if "approved" in n]


def test_a_changed_row_goes_through_the_chain_alone(chain: Workspace) -> None:
    chain.apply()
    rows = [chain.row(i) for i in range(1, 8)]
    rows[0]["body"] = "another"
    chain.rows(rows)
    assert chain.apply().json["rows"] == {"extract": {"answered": 2}, "follow": {"answered": 2}}
    assert len(chain.billed()) == len(set(chain.billed())) == 16


def test_a_saved_plan_bounds_its_waves(chain: Workspace) -> None:
    write(chain, SUMMARISE)
    chain.ok("plan", "--out", "saved")
    assert chain.ok("apply", "saved", "--json").json["rows"]["summarise"] == {"answered": 1}
    assert len(chain.billed()) == 13


def test_more_than_was_approved_is_not_sent(chain: Workspace) -> None:
    """A query that makes more rows of answers than there are answers."""
    doubled = "SELECT id || '-' || n AS part, label, score FROM source, range(3) t(n)"
    write(chain, {**SUMMARISE, "source": {"type": "spec", "name": "extract", "query": doubled},
                  "prompt": {"user": {"text": "{{ part }}: {{ label }}"}}})  # fmt: skip
    found = chain.run("apply", "--yes", "--json")
    assert found.code == 4 and "summarise would send 18 rows" in found.out and "6 rows" in found.out, found.out
    assert found.json["rows"] == {"extract": {"answered": 6}, "follow": {"answered": 6}}
    assert chain.run("sync", "--json").json["created"] == []
    assert actions(planned(chain)["summarise"]) == {"run": 18}


def test_limits_hold_over_waves(chain: Workspace) -> None:
    chain.project(limits={"max_rows": 11})
    found = chain.run("apply", "--yes")
    assert found.code == 3 and "12 rows to send, above 11" in found.err and not chain.billed()
    chain.project(limits={"max_rows": 12})
    write(chain, {**FOLLOW, "limits": {"max_rows": 4}})
    assert planned(chain)["follow"]["known_after_apply"]["rows_at_most"] == 4
    found = chain.run("apply", "--yes", "--json")
    assert found.code == 3 and "6 rows to send, above 4" in found.out and len(chain.billed()) == 6


def test_sync_goes_on_with_what_was_approved(chain: Workspace) -> None:
    write(chain, SUMMARISE)
    chain.ok("apply", "--yes", "--detach")
    notes = chain.ok("status", "--json").json["notes"]
    assert any("follow: up to 6 rows" in note for note in notes) and any("summarise" in note for note in notes)
    chain.ok("sync")  # collects extract, and sends the waves
    found = chain.ok("sync", "--wait", "--json").json
    assert len(texts(chain, "follow")) == 6 and len(texts(chain, "summarise")) == 1, found
    assert len(chain.billed()) == len(set(chain.billed())) == 13
    assert chain.ok("sync", "--wait", "--json").json["created"] == []


def test_sync_sends_no_wave_that_nobody_approved(chain: Workspace) -> None:
    chain.ok("apply", "--yes", "--detach", "--select", "extract")
    chain.ok("sync", "--wait")
    assert len(chain.billed()) == 6
    assert actions(planned(chain)["follow"]) == {"run": 6}


def test_sync_leaves_a_chain_that_was_edited_to_apply(chain: Workspace) -> None:
    chain.ok("apply", "--yes", "--detach")
    write(chain, {**FOLLOW, "prompt": {"user": {"text": "Really {{ label }}?"}}})
    found = chain.run("sync", "--wait")
    assert found.code == 0 and "is not as it was approved" in found.err and len(chain.billed()) == 6
    assert chain.apply().json["rows"] == {"follow": {"answered": 6}}


def test_rows_sent_without_the_chain_end_its_approval(chain: Workspace) -> None:
    chain.ok("apply", "--yes", "--detach")
    chain.rows([chain.row(i) for i in range(1, 9)])
    found = chain.run("apply", "--yes", "--select", "extract")
    assert found.code == 0 and "follow is not in this plan" in found.err, found.err
    chain.ok("sync", "--wait")
    assert len(chain.billed()) == 8


def test_failed_rows_are_tried_again_before_a_group_is_asked(chain: Workspace) -> None:
    write(chain, SUMMARISE)
    chain.rows([chain.row(i, **({"body": "[[emulator:error 503 x1]]"} if i == 3 else {})) for i in range(1, 7)])
    assert chain.run("apply", "--yes").code == 6
    assert not (chain.root / "results/summarise.jsonl").exists() and len(texts(chain, "follow")) == 5
    chain.ok("sync", "--wait")
    assert len(texts(chain, "summarise")) == 1 and len(texts(chain, "follow")) == 6
    assert actions(planned(chain)["summarise"]) == {"keep": 1}


def test_rows_that_share_a_request_go_through(chain: Workspace) -> None:
    write(chain, {**EXTRACT, "idempotency": {"key": ["id"], "reuse_identical": True}})
    chain.rows([{**chain.row(1), "id": f"T-{i}"} for i in range(1, 5)])
    assert planned(chain)["follow"]["known_after_apply"]["rows_at_most"] == 4
    chain.apply()
    assert len(texts(chain, "follow")) == 4 and len(chain.billed()) == 5
