"""Resumes whose create call was not answered: what a runner leaves that is killed before, or after, that call. Nothing
is sent twice, and what was given back is gone on with from the same job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fault_schedules import APPLY, DETACH, SYNC
from fault_world import SETTLE, World

from batchform.adapters.local_blobs import LocalBlobs
from batchform.ledger.records import JobRecord
from batchform.ledger.store import Ledger

ROWS = 10
CUT: list[dict[str, Any]] = [
    {"call": "vertex.batches.create", "do": {"type": "ends", "state": "EXPIRED", "share": 0.3, "seconds": 30}}
]
BLIND = {"call": "vertex.batches.list", "times": "all", "do": {"type": "error", "status": 400}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def cut_short(world: World, cloud: str) -> None:
    """A job of ten rows that expired when three were answered."""
    world.reset(cloud=cloud, shards=1, resume="auto", max_rows_per_job=50)
    rows = [f"T{n},{'a long text that is worth more than its answer ' * 40}{n}\n" for n in range(ROWS)]
    (world.project / "data/tickets.csv").write_text("id,title\n" + "".join(rows), encoding="utf-8")
    path = world.project / "specs/triage.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**spec, "generation_config": {"temperature": 0}}), encoding="utf-8")
    world.server.set_faults(CUT)
    assert world.run(APPLY).code == 6
    assert len(world.bill()) == 3


def lose(world: World, when: str) -> None:
    """The resume's create call gets no answer, and the list is not to be had."""
    world.server.set_faults([{"call": "vertex.batches.create", "do": {"type": "drop", "when": when}}, BLIND])
    ran = world.run(DETACH)
    assert ran.code == 8, ran.err
    world.server.set_faults(())


def records(world: World) -> list[JobRecord]:
    ledger = Ledger.open(LocalBlobs(world.project / ".batchform"), clock=world.clock, who="tests")
    return list(ledger.control().jobs.values())


def settled(world: World) -> None:
    """Every row was answered and charged once."""
    assert set(world.bill().values()) == {1} and len(world.bill()) == ROWS
    delivered = (world.project / "results/triage.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["id"] for line in delivered}) == ROWS
    assert world.run(("plan", "--detailed-exitcode")).code == 0


@pytest.mark.parametrize("cloud", ["vertex", "tables"])
def test_a_resume_that_came_to_be_is_found_by_its_tag(world: World, cloud: str) -> None:
    cut_short(world, cloud)
    lose(world, "after")
    [first, lost] = records(world)
    assert lost.status == "intent" and lost.intent.resumes == first.tag and lost.intent.results == ROWS
    found = world.run(SYNC)
    assert found.code == 0, found.err
    [_, adopted] = records(world)
    assert (adopted.how, adopted.collected and adopted.collected.rows) == ("adopted", {"answered": 7})
    assert len(world.jobs()) == 2
    settled(world)


@pytest.mark.parametrize("cloud", ["vertex", "tables"])
def test_a_resume_that_never_came_to_be_is_made_again(world: World, cloud: str) -> None:
    cut_short(world, cloud)
    lose(world, "before")
    assert world.run(APPLY).code == 8, "it is too early to send anything"
    assert len(world.jobs()) == 1
    world.pass_time(2 * SETTLE)
    assert world.run(APPLY).code == 0
    [first, lost, again] = records(world)
    assert (lost.status, again.status) == ("not_submitted", "collected")
    assert lost.intent.resumes == again.intent.resumes == first.tag and lost.tag != again.tag
    assert len(world.jobs()) == 2
    settled(world)
