"""A job on Vertex AI whose create call was not answered is looked for where it was sent, whatever the files say now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fault_schedules import APPLY, DETACH, SYNC
from fault_world import SETTLE, World

LOST: list[dict[str, Any]] = [
    {"call": "vertex.batches.create", "do": {"type": "drop", "when": "after"}},
    {"call": "vertex.batches.list", "times": 12, "do": {"type": "error", "status": 503}},
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def move(world: World, location: str) -> None:
    """Another location in batchform.yaml, with a bucket there."""
    path = world.project / "batchform.yaml"
    project = yaml.safe_load(path.read_text())
    project["backends"]["local"] |= {"location": location, "staging": "gs://moved-batches/staging"}
    path.write_text(yaml.safe_dump(project))
    world.server.provide(location, bucket="moved-batches")


def test_a_lost_job_is_found_where_it_was_sent(world: World) -> None:
    world.reset(cloud="vertex", shards=1)
    world.server.set_faults(LOST)
    assert world.run(DETACH).code == 8
    move(world, "europe-west4")
    world.pass_time(SETTLE / 3)
    found = world.run(SYNC)
    assert found.code == 0, found.err
    assert len(world.jobs()) == 1 and "/us-central1/" in world.jobs()[0]["name"]
    assert world.run(APPLY).code == 0 and set(world.bill().values()) == {1}
    assert world.inputs() == []


def test_a_job_that_never_came_to_be_is_sent_to_the_new_place(world: World) -> None:
    world.reset(cloud="vertex", shards=1)
    world.server.set_faults([{"call": "vertex.batches.create", "do": {"type": "drop"}}])
    assert world.run(DETACH).code == 8
    move(world, "europe-west4")
    world.pass_time(2 * SETTLE)
    assert world.run(APPLY).code == 0
    assert [job["name"].split("/")[3] for job in world.jobs()] == ["europe-west4"]
    assert set(world.bill().values()) == {1}
