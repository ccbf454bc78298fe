"""What `apply` and `sync` send of rows in each state, by a table: a run that nobody looks at sends only what a reviewed
one was to send.

(queued | failed | answered) × (one of two rows edited | prompt edited) × (no rerun | applied | not yet) × (sync, then
apply). Real commands in virtual time against the emulator, which keeps the bill.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fault_world import World

ROWS = 2
STATES = ("queued", "failed", "answered")
RERUNS = ("no rerun", "rerun applied", "rerun not applied")
CASES = (
    *((state, asked, "row") for state in STATES for asked in RERUNS),
    *((state, asked, "prompt") for state in ("queued", "failed") for asked in RERUNS),
    ("queued", "no rerun", "reworded"),
)
CHANGING = frozenset({"prompt", "row"})
"""Edits after which another request would be sent."""
NO_ROOM = {"call": "batches.create", "times": "all", "do": {"type": "error", "status": 429}}
ROW_ERRORS = {"call": "batches.create", "times": "all", "do": {"type": "row_error", "status": 500}}
TOO_LONG = {"call": "batches.create", "times": "all", "do": {"type": "finish_reason", "reason": "MAX_TOKENS"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("sent")) as world:
        yield world


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where copies of the world lie, one for each state and rerun."""
    return tmp_path_factory.mktemp("kept")


def run(world: World, *command: str) -> dict[str, Any]:
    ran = world.run((*command, "--json"))
    assert ran.code in (0, 6), (ran.code, ran.out, ran.err)
    found: dict[str, Any] = json.loads(ran.out)
    return found


def come_to(world: World, state: str) -> None:
    """An apply ends in this state."""
    if state == "queued":
        world.server.set_faults([NO_ROOM])
        run(world, "apply", "--yes", "--detach")
    else:
        world.server.set_faults([ROW_ERRORS] if state == "failed" else [])
        run(world, "apply", "--yes")
    world.server.set_faults(())


def rerun(world: World) -> None:
    assert world.run(("rerun", "triage", "--where", "true")).code == 0


def in_state(world: World, kept: Path, state: str, asked: str) -> None:
    """Both rows are in this state. Made once, then copied."""
    template = kept / f"{state} {asked}"
    if template.exists():
        world.restore(template)
        return
    world.reset(shards=1)
    if asked == "rerun applied":
        come_to(world, "answered")
        rerun(world)
    come_to(world, state)
    if asked == "rerun not applied":
        rerun(world)
    world.pass_time(1000)
    world.store(template)


def edit(world: World, what: str) -> None:
    path = world.project / "specs/triage.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    if what == "reworded":
        spec["prompt"]["user"]["text"] = "{# as before #}Title: {{ title }}"
    elif what == "prompt":
        spec["prompt"]["user"]["text"] = "Another: {{ title }}"
    elif what == "row":  # one of the two
        world._write("data/tickets.csv", "id,title\nT1,edited\nT2,ticket 2\n")
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")


def to_send(world: World) -> int:
    actions = run(world, "plan")["specs"][0]["actions"]
    return int(actions["run"] + actions["rerun"])


def sent_by(world: World, *command: str) -> int:
    before = len(world.server.bill())
    run(world, *command)
    return len(world.server.bill()) - before


def apply_sends(state: str, asked: str, edited: str) -> bool:
    """The law of a reviewed run."""
    return state != "answered" or edited in CHANGING or asked == "rerun not applied"


def sync_sends(state: str, asked: str, edited: str) -> bool:
    """The law of a run that nobody looks at: rows that a reviewed one was to send, with the very request it had."""
    return state != "answered" and edited not in CHANGING and asked != "rerun not applied"


@pytest.mark.parametrize(("state", "asked", "edited"), CASES)
def test_what_is_sent(world: World, kept: Path, state: str, asked: str, edited: str) -> None:
    """First sync, then apply; a plan says before what apply would send then."""
    in_state(world, kept, state, asked)
    edit(world, edited)
    rows = [edited, "unedited" if edited == "row" else edited]
    whole = sum(apply_sends(state, asked, row) for row in rows)
    by_sync = sum(sync_sends(state, asked, row) for row in rows)
    assert to_send(world) == whole
    before = len(world.server.bill())
    told = run(world, "sync", "--wait")
    assert len(world.server.bill()) - before == by_sync
    if state != "answered" or asked == "rerun not applied":  # else sync does not look at the source
        assert told["left"] == {"failed": 0, "for_apply": whole - by_sync}
    assert sent_by(world, "apply", "--yes") == whole - by_sync


def test_what_apply_sends_of_queued_rows_without_a_sync_before_it(world: World, kept: Path) -> None:
    in_state(world, kept, "queued", "no rerun")
    edit(world, "row")
    assert to_send(world) == ROWS
    assert sent_by(world, "apply", "--yes") == ROWS


def test_rows_edited_in_the_queue_are_sent_by_apply_with_their_reason(world: World, kept: Path) -> None:
    in_state(world, kept, "queued", "no rerun")
    edit(world, "prompt")
    run(world, "sync", "--wait")
    assert world.server.bill() == []
    assert run(world, "plan")["specs"][0]["reasons"] == {"prompt_changed": ROWS}


def test_sync_says_what_it_leaves_alone(world: World, kept: Path) -> None:
    in_state(world, kept, "queued", "no rerun")
    edit(world, "prompt")
    assert world.run(("sync",)).out == "Nothing to do now: 2 rows wait for apply. `batchform plan` shows why.\n"
    world.reset(shards=1)
    refused = {"type": "row_error", "status": 400, "rows": [1]}
    world.server.set_faults([{"call": "batches.create", "times": "all", "do": refused}])
    run(world, "apply", "--yes")
    assert world.run(("sync",)).out == "Nothing to do now: 1 row failed. `batchform plan` shows why.\n"


def test_sync_says_that_archived_answers_wait_to_be_read_anew(world: World, kept: Path) -> None:
    in_state(world, kept, "answered", "no rerun")
    path = world.project / "specs/triage.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**spec, "output": {"format": "json"}}), encoding="utf-8")
    assert run(world, "sync")["left"] == {"failed": 0, "for_apply": ROWS}


def test_attempts_of_a_rerun_are_counted_though_each_is_queued_between(world: World, kept: Path) -> None:
    """Three are allowed: two retries by sync, each of which finds no room first."""
    in_state(world, kept, "answered", "rerun not applied")
    before = len(world.server.bill())
    for _ in range(4):
        world.server.set_faults([TOO_LONG])
        world.run(("apply", "--yes", "--detach", "--json"))
        world.pass_time(100)
        world.server.set_faults([NO_ROOM])
        world.run(("sync", "--json"))
        world.pass_time(1000)
    assert len(world.server.bill()) - before == 3 * ROWS
    assert to_send(world) == 0


def test_a_rerun_whose_job_never_came_to_be_is_sent_by_sync(world: World, kept: Path) -> None:
    in_state(world, kept, "answered", "rerun not applied")
    drop = {"call": "batches.create", "nth": 1, "do": {"type": "drop", "when": "before"}}
    world.server.set_faults([drop])
    assert world.run(("apply", "--yes", "--json")).code == 8
    world.pass_time(2000)
    assert sent_by(world, "sync", "--wait") == ROWS
    assert to_send(world) == 0
