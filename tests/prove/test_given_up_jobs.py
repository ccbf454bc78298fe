"""Jobs that were given up on under another key, and come back: from the command line to the bill and the next plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from fault_world import POLL, SETTLE, World


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("given-up")) as world:
        yield world


@pytest.fixture
def world(shared: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A job of two rows at work under the key "first"; then the key "second" is used, and the job is given up."""
    shared.reset(shards=1)
    path = shared.project / "batchform.yaml"
    backend = {"type": "gemini", "base_url": shared.server.url, "settle": SETTLE, "poll": POLL, "max_rows_per_job": 2}
    project = yaml.safe_load(path.read_text(encoding="utf-8")) | {"backends": {"local": backend}}
    path.write_text(yaml.safe_dump(project), encoding="utf-8")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    [tag] = told(shared, "apply", "--yes", "--detach", "--json")["created"]
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    done = shared.run(("jobs", "abandon", tag, "--yes"))
    assert done.code == 0, done
    return shared


def told(world: World, *command: str, code: int = 0) -> dict[str, Any]:
    ran = world.run(command)
    assert ran.code == code, (ran.code, ran.out, ran.err)
    found: dict[str, Any] = json.loads(ran.out)
    return found


def no_room(world: World, *command: str) -> None:
    """The rows of the job are planned again, refused for the quota, and stay queued."""
    world.server.set_faults([{"call": "batches.create", "times": 1, "do": {"type": "error", "status": 429}}])
    ran = world.run(command or ("apply", "--yes", "--detach"))
    assert "stay queued" in ran.out + ran.err, ran
    world.server.set_faults(())


def actions(world: World) -> dict[str, int]:
    plan = told(world, "plan", "--json")
    return {name: count for name, count in plan["specs"][0]["actions"].items() if count}


def titles(world: World, *rows: str) -> None:
    lines = "".join(f"T{n},{title}\n" for n, title in enumerate(rows, start=1))
    (world.project / "data/tickets.csv").write_text("id,title\n" + lines, encoding="utf-8")


def both_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are sent again under the second key; then the first key is back, and the first answers come late."""
    told(world, "apply", "--yes", "--detach", "--json")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    world.pass_time(SETTLE)
    world.run(("sync",))
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    told(world, "sync", "--json")
    assert world.bill().total() == 4  # the price of giving up a job that was alive


def test_late_answers_of_rows_that_moved_on_are_no_obstacle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    both_answered(world, monkeypatch)
    titles(world, "edited", "ticket 2")
    assert actions(world) == {"rerun": 1, "keep": 1}
    told(world, "apply", "--yes", "--json")
    assert world.bill().total() == 5
    assert world.run(("ledger", "verify")).code == 0


def test_a_late_answer_is_found_by_its_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows were edited when the first job came back: its answers are kept, and used when the edit is undone."""
    titles(world, "edited 1", "edited 2")
    both_answered(world, monkeypatch)
    titles(world, "ticket 1", "ticket 2")
    assert actions(world) == {"reuse": 2}
    told(world, "apply", "--yes", "--json")
    assert world.bill().total() == 4
    assert "ticket 1" in (world.project / "results/triage.jsonl").read_text(encoding="utf-8")


def test_a_late_answer_saves_rows_that_failed_in_their_second_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.set_faults([{"call": "batches.create", "times": 1, "do": {"type": "row_error", "status": 500}}])
    told(world, "apply", "--yes", "--detach", "--json")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    world.pass_time(SETTLE)
    world.run(("sync",))
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    world.run(("sync", "--wait"))
    assert len(world.jobs()) == 2
    assert world.bill().total() == 2
    assert actions(world) == {"keep": 2}


@pytest.mark.parametrize("status", [500, 400], ids=["no attempts left", "not worth another"])
def test_a_late_answer_saves_rows_that_failed_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    path = world.project / "specs/triage.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "\nretry: {max_attempts: 2}\n", encoding="utf-8")
    fail = {"call": "batches.create", "times": 1, "do": {"type": "row_error", "status": status}}
    world.server.set_faults([fail])
    told(world, "apply", "--yes", "--detach", "--json")
    world.pass_time(SETTLE)
    world.run(("sync",))
    assert actions(world) == {"held": 2}
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    world.run(("sync",))
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    assert actions(world) in ({"keep": 2}, {"reuse": 2})
    world.run(("sync", "--wait"))
    assert len(world.jobs()) == 2
    assert world.bill().total() == 2
    assert actions(world) == {"keep": 2}
    assert "ticket 1" in (world.project / "results/triage.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("status", [500, 400], ids=["no attempts left", "not worth another"])
def test_rows_that_fail_for_good_after_the_late_answer_came_have_it(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The first job answers while the second is at work; then the second fails, and there is no third attempt."""
    path = world.project / "specs/triage.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "\nretry: {max_attempts: 2}\n", encoding="utf-8")
    fail = {"call": "batches.create", "times": 1, "do": {"type": "row_error", "status": status}}
    world.server.set_faults([fail])
    told(world, "apply", "--yes", "--detach", "--json")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    world.pass_time(SETTLE)
    world.run(("sync",))
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    world.run(("sync",))
    assert actions(world) == {"keep": 2}
    assert (len(world.jobs()), world.bill().total()) == (2, 2)
    assert "ticket 1" in (world.project / "results/triage.jsonl").read_text(encoding="utf-8")


def test_answers_of_an_earlier_version_that_name_no_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    both_answered(world, monkeypatch)
    for path in (world.project / ".batchform/answers").iterdir():
        forget_requests(path)
    titles(world, "edited", "ticket 2")
    assert actions(world) == {"rerun": 1, "keep": 1}


def forget_requests(path: Path) -> None:
    path.chmod(0o600)
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE kept AS SELECT * REPLACE (NULL::BLOB AS request_fp) FROM '{path}'")
        con.execute(f"COPY kept TO '{path}' (FORMAT parquet)")


@pytest.mark.parametrize("ended", [False, True], ids=["at work", "ended"])
def test_queued_rows_wait_for_the_job_that_came_back(
    world: World, monkeypatch: pytest.MonkeyPatch, *, ended: bool
) -> None:
    no_room(world)
    assert actions(world) == {"run": 2}
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    world.pass_time(SETTLE if ended else 1)
    ran = world.run(("sync",))
    assert "is there after all" in ran.out + ran.err
    assert "sent again since" not in ran.out + ran.err
    world.pass_time(SETTLE)
    told(world, "sync", "--wait", "--json")
    assert len(world.jobs()) == 1
    assert set(world.bill().values()) == {1}
    assert actions(world) == {"keep": 2}


def test_rows_that_failed_again_wait_for_the_job_that_came_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were sent in a second job, which failed; there is no reason for a third while the first is at work."""
    world.server.set_faults(
        [{"call": "batches.create", "times": 1, "do": {"type": "ends", "state": "FAILED", "share": 0.0, "seconds": 1}}]
    )
    told(world, "apply", "--yes", "--detach", "--json")
    world.server.set_faults(())
    world.pass_time(2)
    no_room(world, "sync")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    world.run(("sync",))
    world.pass_time(SETTLE)
    told(world, "sync", "--wait", "--json")
    assert len(world.jobs()) == 2
    assert set(world.bill().values()) == {1}
    assert actions(world) == {"keep": 2}


def test_of_two_that_both_answer_the_first_counts_and_the_other_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both jobs were given up, and nothing was sent since: the rows wait for neither, and have the first answer."""
    [second] = told(world, "apply", "--yes", "--detach", "--json")["created"]
    monkeypatch.setenv("GEMINI_API_KEY", "third")
    assert world.run(("jobs", "abandon", second, "--yes")).code == 0
    world.pass_time(SETTLE)
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    world.run(("sync",))
    delivered = (world.project / "results/triage.jsonl").read_bytes()
    assert b"ticket 1" in delivered and b"ticket 2" in delivered
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    ran = world.run(("sync",))
    assert f"{second} (2 rows of triage): 2 rows were sent again since" in ran.err
    assert "their answers of this job are archived" in ran.err
    assert (len(world.jobs()), world.bill().total()) == (2, 4)
    assert actions(world) == {"keep": 2}
    assert (world.project / "results/triage.jsonl").read_bytes() == delivered
    assert world.run(("ledger", "verify")).code == 0
    told(world, "apply", "--yes", "--json")
    assert (len(world.jobs()), world.bill().total()) == (2, 4)
