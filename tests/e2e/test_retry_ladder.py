"""The retry ladder: failed rows are sent with changes, and what they ask for stays what their files say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests_e2e_kit import PROJECT, Workspace

from batchform.adapters.local_blobs import LocalBlobs
from batchform.cli.wiring import SystemClock
from batchform.ledger.store import Ledger

TEXT = "a long story about a ticket " * 8  # the emulator says it again: about 56 tokens
CONFIG = {"temperature": 0, "max_output_tokens": 16}
DOUBLE = {"truncated": {"max_output_tokens": "x2"}}
VERTEX = {"type": "emulator", "cloud": "vertex", "job_seconds": 0, "poll": "10ms"}


def setup(workspace: Workspace, on: Any, *, body: str = TEXT, attempts: int = 4, **changes: Any) -> None:
    workspace.rows([workspace.row(1), workspace.row(2, body=body)])
    spec = {"generation_config": CONFIG, "prompt": {"user": {"text": "{{ body }}"}}, "tolerate_failed": 1}
    workspace.spec(**{**spec, "retry": {"max_attempts": attempts, "on": on}, **changes})


def archived(workspace: Workspace) -> list[tuple[str, Any]]:
    """(model, generationConfig) of the requests of each job, by the ledger."""
    import pyarrow as pa

    ledger = Ledger.open(LocalBlobs(workspace.root / ".batchform"), clock=SystemClock(), who="test")
    jobs = ledger.control().jobs
    found = []
    for path in sorted((workspace.root / ".batchform/archive").glob("*.input.jsonl.zst")):
        tag = path.name.removesuffix(".input.jsonl.zst")
        with pa.CompressedInputStream(str(path), "zstd") as lines:
            for line in lines.read().splitlines():
                found.append((jobs[tag].intent.model, json.loads(line)["request"]["generationConfig"]))
    return found


def tokens(workspace: Workspace) -> list[int]:
    return sorted(config["maxOutputTokens"] for _, config in archived(workspace))


@pytest.fixture(params=["gemini", "vertex"])
def service(request: pytest.FixtureRequest, workspace: Workspace) -> Workspace:
    if request.param == "vertex":
        workspace.project(**{**PROJECT, "backends": {"local": VERTEX}})
    return workspace


def test_truncated_rows_get_more_room_until_they_are_answered(service: Workspace) -> None:
    setup(service, DOUBLE)
    service.ok("apply", "--yes")
    assert service.actions() == {"keep": 1, "rerun": 1}
    plan = service.plan()
    assert [s["rung"] for s in plan["shards"]] == ["max_output_tokens 32 after truncated"]
    note = "1 row on the retry ladder: max_output_tokens 32 after truncated (about $"
    assert any(n.startswith(note) for n in plan["notes"])
    service.ok("sync", "--wait")
    assert tokens(service) == [16, 16, 32, 64]
    assert len(service.billed()) == len(set(service.billed())) == 4
    answers = {row["id"]: row for row in service.delivered()}
    assert answers["T-2"]["text"].endswith(TEXT.strip())
    assert service.actions() == {"keep": 2}
    service.ok("ledger", "verify")


def test_an_answer_from_a_higher_rung_stays_whatever_the_ladder_says(workspace: Workspace) -> None:
    setup(workspace, DOUBLE)
    workspace.ok("apply", "--yes")
    workspace.ok("sync", "--wait")
    before = workspace.billed()
    for on in (["truncated"], {"truncated": {"max_output_tokens": 999}}, {"truncated": {"model": "gemini-3.5-flash"}}):
        setup(workspace, on)
        assert workspace.actions() == {"keep": 2}
        workspace.ok("apply", "--yes")
    assert workspace.billed() == before
    setup(workspace, DOUBLE, generation_config={**CONFIG, "max_output_tokens": 64})
    assert workspace.actions() == {"rerun": 2}  # what the files ask for is another request now
    setup(workspace, DOUBLE)
    assert workspace.actions() == {"keep": 2}


def test_another_model_gets_jobs_of_its_own_at_its_own_price(service: Workspace) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    change = {"model": "gemini-3.5-flash", "temperature": 1, "thinking_level": "low"}
    setup(
        service,
        {"invalid_output": change, "truncated": None},
        body="[[emulator:invalid_json x1]] " + TEXT,
        generation_config={"response_schema": schema, "max_output_tokens": 4096},
    )
    service.ok("apply", "--yes")
    plan = service.plan()
    (shard,) = plan["shards"]
    assert (shard["model"], shard["rows"]) == ("gemini-3.5-flash", 1)
    assert shard["rung"] == "gemini-3.5-flash, temperature 1, thinking low after invalid_output"
    assert plan["cost_usd"] == shard["cost_usd"]
    service.ok("sync", "--wait")
    last = [(m, c) for m, c in archived(service) if m == "gemini-3.5-flash"]
    assert [c["temperature"] for _, c in last] == [1, 1]  # the emulator counts the runs of each request by itself
    assert last[0][1]["thinkingConfig"] == {"thinkingLevel": "LOW"}
    assert service.actions() == {"keep": 2}


def test_a_saved_plan_of_rungs_is_what_is_sent(workspace: Workspace) -> None:
    setup(workspace, {"truncated": {"max_output_tokens": "x4", "model": "gemini-3.5-flash"}})
    workspace.ok("apply", "--yes")
    workspace.ok("plan", "--out", "plan")
    bundle = workspace.root / "plan"
    saved = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(saved.replace('gemini-3.5-flash",', 'gemini-3.5-flash-lite",', 1))
    assert workspace.run("apply", "plan").code == 4
    (bundle / "bundle.json").write_text(saved)
    workspace.ok("apply", "plan")
    assert workspace.actions() == {"keep": 2}
    assert tokens(workspace) == [16, 16, 64]


def test_attempts_end_and_the_rung_is_the_same_when_planned_again(workspace: Workspace) -> None:
    setup(workspace, {"truncated": {"max_output_tokens": "x1.5"}}, attempts=3)
    workspace.ok("apply", "--yes")
    first, second = workspace.plan(), workspace.plan()
    assert first["shards"] == second["shards"]
    workspace.ok("sync", "--wait")
    assert tokens(workspace) == [16, 16, 24, 36]
    assert workspace.plan()["held_by"] == {"failed: truncated after 3 of 3 attempts": 1}


def test_more_than_the_model_takes_is_cut_to_that(workspace: Workspace) -> None:
    setup(workspace, {"truncated": {"max_output_tokens": "x99"}}, body="[[emulator:max_tokens x2]] " + TEXT)
    workspace.ok("apply", "--yes")
    workspace.ok("sync", "--wait")
    assert tokens(workspace)[-1] == 65_536


@pytest.mark.parametrize(
    ("on", "config", "said"),
    [
        (DOUBLE, {}, "`x2` multiplies max_output_tokens, and the spec sets none"),
        ({"expired": {"seed": 1}}, CONFIG, "`expired` says nothing of the request"),
        ({"empty": {"model": "gemini-3.5-flsh"}}, CONFIG, "model gemini-3.5-flsh is not known"),
        ({"empty": {"model": "../x"}}, CONFIG, "`../x` is not a model id"),
        ({"empty": {"thinking_level": "low", "thinking_budget": 1}}, CONFIG, "exclude each other"),
        ({"empty": {"modle": "x"}}, CONFIG, "unknown field `modle`"),
        ({"emty": None}, CONFIG, "emty"),
        ({"truncated": {"max_output_tokens": "x1"}}, CONFIG, "retry.on.truncated.max_output_tokens"),
        ({"truncated": {"max_output_tokens": 0}}, CONFIG, "`max_output_tokens` must be 1 or more"),
        ({"empty": {"model": "gemini-3.8-flash", "thinking_level": "minimal"}}, CONFIG, "MINIMAL"),
    ],
)
def test_what_a_ladder_cannot_say(workspace: Workspace, on: Any, config: Any, said: str) -> None:
    setup(workspace, on, generation_config=config)
    refused = workspace.run("plan")
    assert refused.code != 0
    assert said in refused.err
    assert "specs/triage.yaml:" in refused.err


def test_a_list_of_classes_is_what_it_was(workspace: Workspace) -> None:
    setup(workspace, ["truncated"])
    workspace.ok("apply", "--yes")
    setup(workspace, {"truncated": None})
    assert workspace.plan()["shards"][0].get("rung") is None
    workspace.ok("sync", "--wait")
    assert tokens(workspace) == [16] * 5


def test_commands_about_single_rows_show_their_rung(workspace: Workspace) -> None:
    on = {**DOUBLE, "invalid_output": {"model": "gemini-3.5-flash", "temperature": 1}}
    setup(workspace, on)
    workspace.ok("apply", "--yes")

    explained = workspace.ok("explain", "triage", "T-2", "--json").json
    assert json.loads(explained["after"])["generationConfig"]["maxOutputTokens"] == 32
    assert explained["notes"] == ["sent on the retry ladder, as: max_output_tokens 32 after truncated"]

    def shown(*after: str) -> dict[str, Any]:
        options = [o for name in after for o in ("--after", name)]
        return dict(json.loads(workspace.ok("render", "triage", "--key", "T-2", *options).out)["generationConfig"])

    assert shown()["maxOutputTokens"] == 16
    assert shown("truncated", "truncated")["maxOutputTokens"] == 64
    assert shown("invalid_output", "truncated") == {"temperature": 1, "maxOutputTokens": 32}

    tried = workspace.run("try", "triage", "--key", "T-2", "--after", "truncated", "--json")
    assert tried.code == 6
    assert tried.json["output_tokens"] <= 32
    other = workspace.ok("try", "triage", "--key", "T-1", "--after", "invalid_output", "--json").json
    assert other["usd"] > workspace.ok("try", "triage", "--key", "T-1", "--json").json["usd"], "a dearer model"

    refused = workspace.run("render", "triage", "--after", "blocked")
    assert refused.code == 64
    assert "`retry.on` of triage changes nothing after 'blocked'" in refused.err
    assert "It changes what failed as: invalid_output, truncated." in refused.err
