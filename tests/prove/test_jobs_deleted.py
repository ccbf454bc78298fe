"""`jobs delete` of a job that was given up on: what it answered, or will, is paid for, and is not deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml
from fault_world import POLL, SETTLE, World


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("deleted")) as world:
        yield world


@pytest.fixture
def given_up(shared: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tag of a job that was given up on while another key was used; the key that made it is back."""
    shared.reset(shards=1)
    path = shared.project / "batchform.yaml"
    backend = {"type": "gemini", "base_url": shared.server.url, "settle": SETTLE, "poll": POLL}
    project = yaml.safe_load(path.read_text(encoding="utf-8")) | {"backends": {"local": backend}}
    path.write_text(yaml.safe_dump(project), encoding="utf-8")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    [tag] = json.loads(shared.run(("apply", "--yes", "--detach", "--json")).out)["created"]
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    assert shared.run(("jobs", "abandon", tag, "--yes")).code == 0
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    return str(tag)


@pytest.mark.parametrize("seconds", [0, 1000], ids=["at work", "finished"])
def test_a_given_up_job_that_is_there_is_not_deleted(shared: World, given_up: str, seconds: float) -> None:
    shared.pass_time(seconds)
    refused = shared.run(("jobs", "delete", given_up))
    assert (refused.code, "was given up on, and is there after all" in refused.err) == (64, True), refused
    assert "batchform sync" in refused.err
    shared.run(("sync", "--wait"))
    plan = json.loads(shared.run(("plan", "--json")).out)["specs"][0]["actions"]
    assert {name: n for name, n in plan.items() if n} == {"keep": 2}
    assert shared.bill().total() == 2
    assert shared.run(("jobs", "delete", given_up)).code == 0


def test_a_failed_job_without_answers_is_deleted(shared: World) -> None:
    shared.reset(shards=1)
    shared.server.set_faults([{"call": "batches.create", "do": {"type": "ends", "state": "FAILED"}}])
    shared.run(("apply", "--yes", "--json"))
    [tag] = [job["tag"] for job in json.loads(shared.run(("jobs", "list", "--json")).out)]
    assert shared.run(("jobs", "delete", tag)).code == 0
    assert [job["deleted"] for job in shared.jobs()] == [1]
