"""`--count`: input tokens counted by the service, bounded, remembered, and for nothing; estimated where it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attached_kit import project as with_files
from tests_e2e_kit import SPEC, Workspace

import batchform
from batchform.errors import UsageError
from batchform.plan.counting import Sample

LOCAL: dict[str, Any] = {"type": "emulator", "job_seconds": 0, "poll": "10ms"}
CLOUDS = pytest.mark.parametrize("cloud", [{}, {"cloud": "vertex"}], ids=["gemini", "vertex"])
COUNTS = ("models.count_tokens", "vertex.models.count_tokens")


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between attempts, in seconds; nobody waits."""
    found: list[float] = []
    monkeypatch.setattr("batchform.cli.wiring.SystemClock.sleep", lambda _, seconds: found.append(seconds))
    return found


def failing(workspace: Workspace, do: dict[str, Any], *, times: str | int = "all", **backend: Any) -> None:
    """A service on which counting goes wrong."""
    entries = [{"call": call, "times": times, "do": do} for call in COUNTS]
    workspace.write("faults.yaml", json.dumps({"faults": entries}))
    workspace.project(backends={"local": {**LOCAL, **backend, "faults": "faults.yaml"}})


@CLOUDS
def test_all_requests_are_counted_as_they_will_be_charged_and_each_once(
    workspace: Workspace, cloud: dict[str, str]
) -> None:
    workspace.project(backends={"local": {**LOCAL, **cloud}})
    to = {"type": "jsonl", "path": "results/triage.jsonl", "columns": {"charged": "usage.prompt_token_count"}}
    workspace.spec(prompt={"system": {"text": "Be brief and kind."}, "user": "triage.j2"}, destination=to)
    found = workspace.plan("--count")
    tokens = found["tokens"]
    assert (tokens["counted_requests"], tokens["input_basis"]) == (6, "counted by the service in all 6 requests")
    assert workspace.billed() == []
    if not cloud:
        assert workspace.plan()["tokens"]["counted_requests"] == 0
        assert "tokens, counted by the service in all 6 requests" in workspace.ok("plan", "--count").out
    failing(workspace, {"type": "error", "status": 503}, **cloud)  # what was counted is not asked for again
    assert workspace.plan("--count")["tokens"] == tokens
    told = batchform.Project(workspace.root).plan(count=50).spec("triage")
    assert (told.input_tokens, told.counted_requests) == (tokens["input"], 6)
    assert (told.input_basis, told.output_basis) == (tokens["input_basis"], tokens["output_basis"])

    workspace.project(backends={"local": {**LOCAL, **cloud}})
    workspace.ok("plan", "--quiet", "--count", "--out", "saved")
    assert "counted by the service in all 6 requests" in (workspace.root / "saved/plan.md").read_text()
    assert workspace.run("apply", "saved", "--count", "30").code == 64
    workspace.ok("apply", "saved")
    assert sum(row["charged"] for row in workspace.delivered()) == tokens["input"]


def test_of_many_requests_a_sample_is_counted_that_stays_the_same(workspace: Workspace) -> None:
    rows = [workspace.row(i, body="word " * (i % 17)) for i in range(60)]
    workspace.rows(rows)
    exact = workspace.plan("--count")
    assert exact["tokens"]["counted_requests"] == 60
    assert exact["cost_usd"]["low"] < exact["cost_usd"]["expected"]  # of the output
    (workspace.root / ".batchform/cache/tokens-1.sqlite3").unlink()

    found = workspace.plan("--count", "20")
    assert found["tokens"]["counted_requests"] == 20
    assert found["tokens"]["input_basis"].startswith("counted by the service in 20 of 60 requests, give or take ")
    spread = float(found["tokens"]["input_basis"].removesuffix(" %").rpartition(" ")[2]) / 100
    assert 0 < spread < 0.1
    assert abs(found["tokens"]["input"] / exact["tokens"]["input"] - 1) < 2 * spread

    failing(workspace, {"type": "error", "status": 503})
    workspace.rows(rows[:59])
    again = workspace.plan("--count", "20")["tokens"]  # the same rows, but for those that left
    assert again["input_basis"].startswith("counted by the service in 20 of 59") or again["counted_requests"] == 0


@pytest.mark.parametrize(
    ("do", "words"),
    [
        ({"type": "error", "status": 429}, "not counted, but estimated: Counting tokens for gemini-3.5-flash-lite"),
        ({"type": "error", "status": 403}, "not counted, but estimated: Counting tokens for gemini-3.5-flash-lite"),
        ({"type": "error", "status": 400}, "not counted, but estimated: 6 requests refused, Counting tokens"),
    ],
)
def test_what_cannot_be_counted_is_estimated_and_said(
    workspace: Workspace, do: dict[str, Any], words: str, naps: list[float]
) -> None:
    failing(workspace, do)
    found = workspace.plan("--count")
    assert found["tokens"]["input_basis"].startswith("4 bytes of prompt per token")
    assert any(words in note for note in found["notes"]), found["notes"]
    assert bool(naps) == (do["status"] == 429)
    assert not (workspace.root / ".batchform/cache/tokens-1.sqlite3").exists()


def test_a_quota_is_waited_for_and_one_request_does_not_spoil_the_count(
    workspace: Workspace, naps: list[float]
) -> None:
    workspace.rows([workspace.row(i) for i in range(30)])
    failing(workspace, {"type": "error", "status": 429}, times=1)
    assert workspace.plan("--count")["tokens"]["counted_requests"] == 30
    assert len(naps) == 1
    (workspace.root / ".batchform/cache/tokens-1.sqlite3").write_bytes(b"no database")
    failing(workspace, {"type": "error", "status": 400}, times=2)
    found = workspace.plan("--count")
    assert found["tokens"]["counted_requests"] == 28
    assert any(n.startswith("tokens of 2 requests were not counted: 2 requests refused") for n in found["notes"])


def test_without_a_key_tokens_are_estimated(workspace: Workspace) -> None:
    workspace.project(backends={"gemini": {"type": "gemini"}}, defaults={"backend": "gemini"})
    found = workspace.plan("--count")
    assert found["tokens"]["counted_requests"] == 0
    assert any("tokens are not counted, but estimated: " in n and "API" in n for n in found["notes"]), found["notes"]


def test_files_are_estimated_beside_what_is_counted(workspace: Workspace) -> None:
    with_files(workspace, {"column": "image", "inline_up_to": 1})
    tokens = workspace.plan("--count")["tokens"]
    assert tokens["counted_requests"] == 3
    assert tokens["input_basis"].startswith("counted by the service in all 3 requests; about ")
    assert tokens["input_basis"].endswith(" of attached files")


@CLOUDS
def test_texts_to_embed_are_counted_where_the_service_does(workspace: Workspace, cloud: dict[str, str]) -> None:
    workspace.project(backends={"local": {**LOCAL, **cloud}})
    spec = {name: value for name, value in SPEC.items() if name != "generation_config"}
    workspace.write("specs/triage.yaml", json.dumps({**spec, "task": "embed", "model": "gemini-embedding-001"}))
    found = workspace.plan("--count")
    if cloud:
        assert any("Vertex AI counts no tokens of what is to be embedded" in n for n in found["notes"])
    else:
        assert found["tokens"]["counted_requests"] == 6


def test_a_number_of_requests_is_one_that_says_something(workspace: Workspace) -> None:
    assert workspace.run("plan", "--count", "5").code == 64
    assert workspace.run("apply", "--count", "x").code == 64
    for wrong in (5, -1, 10_001):
        with pytest.raises(UsageError, match="is not a number of requests to count"):
            batchform.Project(workspace.root).plan(count=wrong)


def test_a_sample_is_of_the_lowest_hashes_and_small() -> None:
    few, many = Sample(20), Sample(500)
    for number in range(500):
        for sample in (few, many):
            sample.look(f"T-{number}", b"%d" % number)
    assert (few.seen, few.requests) == (500, many.requests[:20])
    long = Sample(200)
    for number in range(40):
        long.look(f"T-{number}", b"x" * (4 << 20))
    assert (long.seen, len(long.requests)) == (40, 8)
