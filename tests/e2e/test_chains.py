"""Chains: a spec that reads another's answers, planned in order, with what is known only after apply."""

from __future__ import annotations

import json
from typing import Any

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
