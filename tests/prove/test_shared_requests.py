"""`reuse_identical`: one request is sent once, whichever of its rows failed, is queued, or came later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from fault_world import World

ROW_ERROR = {"call": "batches.create", "times": "all", "do": {"type": "row_error", "status": 500}}
NO_ROOM = {"call": "batches.create", "times": "all", "do": {"type": "error", "status": 429}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("identical")) as world:
        yield world


@pytest.fixture
def world(shared: World) -> World:
    shared.reset(shards=1)
    share(shared, identical=True)
    return shared


def share(world: World, *, identical: bool) -> None:
    path = world.project / "specs/triage.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec["idempotency"]["reuse_identical"] = identical
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")


def rows(world: World, *keys: str) -> None:
    world._write("data/tickets.csv", "id,title\n" + "".join(f"{key},the same\n" for key in keys))


def actions(world: World) -> dict[str, int]:
    found: dict[str, Any] = json.loads(world.run(("plan", "--json")).out)["specs"][0]["actions"]
    return {name: count for name, count in found.items() if count}


def apply(world: World, *faults: dict[str, Any], detach: bool = False) -> None:
    world.server.set_faults(faults)
    ran = world.run(("apply", "--yes", "--json", *(("--detach",) if detach else ())))
    assert ran.code in (0, 6), ran
    world.server.set_faults(())


def all_answered(world: World, count: int) -> None:
    assert world.bill().total() == 1
    assert actions(world) == {"keep": count}
    lines = (world.project / "results/triage.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["answer"] for line in lines} == {"Emulated answer to: Title: the same"}
    assert len(lines) == count


@pytest.mark.parametrize("keys", [("A", "B"), ("B", "A")], ids=["below", "above"])
def test_a_failed_row_is_sent_again_for_a_new_one_too(world: World, keys: tuple[str, str]) -> None:
    rows(world, "A")
    apply(world, ROW_ERROR)
    rows(world, *keys)
    assert actions(world) == {"rerun": 1, "reuse": 1}
    apply(world)
    all_answered(world, 2)


def test_of_failed_rows_one_is_sent_again_for_all(world: World) -> None:
    share(world, identical=False)
    rows(world, "A", "B", "C")
    apply(world, ROW_ERROR)
    share(world, identical=True)
    assert actions(world) == {"rerun": 1, "reuse": 2}
    apply(world)
    all_answered(world, 3)


@pytest.mark.parametrize("state", ["failed", "queued"])
def test_sync_sends_the_row_that_it_may_send(world: World, state: str) -> None:
    rows(world, "A")
    apply(world, ROW_ERROR if state == "failed" else NO_ROOM, detach=True)
    if state == "failed":
        world.pass_time(1000)
        world.server.set_faults([NO_ROOM])
        world.run(("sync",))
        world.server.set_faults(())
    rows(world, "B", "A")
    world.pass_time(1000)
    world.run(("sync", "--wait"))
    assert world.bill().total() == 1
    apply(world)
    all_answered(world, 2)


def test_each_row_that_is_run_again_by_name_gets_an_answer_of_its_own(world: World) -> None:
    rows(world, "A", "B")
    apply(world)
    assert world.bill().total() == 1
    assert world.run(("rerun", "triage", "--key", "A", "--key", "B")).code == 0
    assert actions(world) == {"rerun": 2}
    apply(world)
    assert world.bill().total() == 3
    assert actions(world) == {"keep": 2}
