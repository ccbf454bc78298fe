"""Context caches of jobs in virtual time: made once, found again, kept while a job names them, dropped after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import yaml
from fault_world import World

HOUR = 3600.0
SYSTEM = "Sort each ticket by the rules of the house. " * 500
APPLY = ("apply", "--yes", "--json")
DETACHED = (*APPLY, "--detach")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("caches")) as world:
        yield world


@pytest.fixture
def world(shared: World) -> World:
    """Six rows in three jobs, and a system instruction worth caching."""
    shared.reset()
    spec(shared, cache={})
    return shared


def spec(world: World, **changes: Any) -> None:
    path = world.project / "specs/triage.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    found["prompt"]["system"] = {"text": SYSTEM}
    path.write_text(yaml.safe_dump(found | changes), encoding="utf-8")


def told(world: World, *command: str, code: int = 0) -> Any:
    ran = world.run(command)
    assert ran.code == code, (ran.code, ran.out, ran.err)
    return json.loads(ran.out) if "--json" in command else ran


def caches(world: World) -> list[Any]:
    """All that were ever made, those that were dropped too."""
    return world.query("SELECT * FROM caches ORDER BY rowid")


def living(world: World) -> list[str]:
    now = world.clock.now().timestamp()
    return [c["id"] for c in caches(world) if c["dropped_at"] is None and c["expires_at"] > now]


def events(world: World, kind: str) -> list[dict[str, Any]]:
    found = sorted((world.project / ".batchform/segments").glob("events-*.jsonl"))
    lines = [json.loads(line) for path in found for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.get("type") == kind]


def delivered(world: World) -> int:
    return len((world.project / "results/triage.jsonl").read_text(encoding="utf-8").splitlines())


def all_is_answered(world: World, *, made: int = 1) -> None:
    assert world.bill().total() == 6 and set(world.bill().values()) == {1}
    assert delivered(world) == 6
    assert len(caches(world)) == made
    plan = told(world, "plan", "--json")
    assert {name: n for name, n in plan["specs"][0]["actions"].items() if n} == {"keep": 6}
    told(world, "ledger", "verify")


def test_one_cache_serves_all_jobs_and_goes_with_the_last(world: World) -> None:
    told(world, *DETACHED)
    assert len(world.jobs()) == 3 and len(living(world)) == 1
    uses = [intent["cache"] for intent in events(world, "Intent")]
    [name] = {use["name"] for use in uses}
    assert name == f"cachedContents/{living(world)[0]}" and {use["turns"] for use in uses} == {0}
    told(world, "sync", "--json")
    assert len(living(world)) == 1, "jobs name it"

    told(world, "sync", "--wait", "--json")

    assert living(world) == []
    all_is_answered(world)
    [spent] = events(world, "Spent")
    [kept] = caches(world)
    assert spent["cache"] == name and spent["usd"] > 0
    told(world, "sync", "--json")
    assert len(events(world, "Spent")) == 1, "what it cost is recorded once"
    told(world, "ledger", "compact")
    all_is_answered(world)
    hours = (kept["dropped_at"] - kept["created_at"]) / HOUR
    assert spent["usd"] == pytest.approx(kept["tokens"] * (0.3e-6 + hours * 1e-6), rel=0.05)


def test_a_run_that_dies_before_its_intent_leaves_a_cache_that_the_next_one_uses(world: World) -> None:
    world.server.set_faults([{"call": "files.upload.start", "do": {"type": "error", "status": 403}}])
    world.run(DETACHED)
    assert len(living(world)) == 1 and world.jobs() == [] and events(world, "Intent") == []
    world.server.set_faults(())

    told(world, *APPLY)

    all_is_answered(world)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_to_its_making_makes_no_second_one(world: World, when: str) -> None:
    fault = {"call": "caches.create", "times": 1, "do": {"type": "error", "status": 503, "when": when}}
    world.server.set_faults([fault])
    world.run(APPLY)
    world.server.set_faults(())
    told(world, *APPLY)
    all_is_answered(world)


def test_one_that_is_gone_when_a_job_is_about_to_name_it_gives_its_rows_back_and_they_are_sent(world: World) -> None:
    gone = {"call": "caches.update", "times": 1, "do": {"type": "error", "status": 403}}
    world.server.set_faults([gone])
    told(world, *APPLY)
    all_is_answered(world)
    [given_back] = events(world, "NotSubmitted")
    assert given_back["reason"] == "the context cache that it names was gone"


def test_one_that_always_goes_stops_the_run_and_sends_nothing(world: World) -> None:
    world.server.set_faults([{"call": "caches.update", "times": "all", "do": {"type": "error", "status": 404}}])
    ran = world.run(("apply", "--yes"))
    assert ran.code == 1 and "was gone before the job could be created" in ran.err
    assert world.jobs() == [] and world.bill().total() == 0


def test_rows_that_found_no_cache_are_sent_again_as_expired(world: World) -> None:
    told(world, *DETACHED)
    for one in living(world):
        with world._tables() as db:
            db.execute("UPDATE caches SET dropped_at = ? WHERE id = ?", (world.clock.now().timestamp(), one))

    told(world, "sync", "--wait", "--json")

    assert {name for c in events(world, "Collected") for name in c["rows"]} == {"expired", "answered"}
    assert world.bill().total() == 6 and delivered(world) == 6


def test_results_without_keys_find_their_rows(world: World) -> None:
    world.server.set_faults([{"call": "files.download", "do": {"type": "keys_missing"}}])
    told(world, *APPLY)
    all_is_answered(world)


def test_a_ttl_keeps_it_for_the_next_run_which_prolongs_it(world: World) -> None:
    spec(world, cache={"ttl": "7d"})
    told(world, *APPLY)
    [first] = caches(world)
    assert living(world) == [first["id"]]
    world.pass_time(6 * 24 * HOUR)
    (world.project / "data/tickets.csv").write_text("id,title\nT1,ticket 1\nT9,another\n", encoding="utf-8")

    told(world, *APPLY)

    [same] = caches(world)
    assert same["expires_at"] - first["expires_at"] > 5 * 24 * HOUR
    assert events(world, "Spent") == []
    world.pass_time(8 * 24 * HOUR)
    told(world, "sync", "--json")
    assert len(events(world, "Spent")) == 1 and living(world) == []


def test_it_lives_as_long_as_a_job_that_takes_its_time(world: World) -> None:
    spec(world, cache={"ttl": "48h"})
    world.server.set_faults([{"call": "batches.create", "times": 1, "do": {"type": "hang"}}])
    told(world, *DETACHED)
    [before] = caches(world)
    world.pass_time(30 * HOUR)
    told(world, "sync", "--json")
    [after] = caches(world)
    assert after["expires_at"] - before["expires_at"] == pytest.approx(30 * HOUR, abs=HOUR)


def test_what_no_job_names_is_left_over_only_when_it_is_old(world: World) -> None:
    told(world, *DETACHED)
    with world._tables() as db:
        [own] = caches(world)
        copy = {**dict(own), "id": "left-over"}
        db.execute(
            f"INSERT INTO caches ({', '.join(copy)}) VALUES ({', '.join('?' * len(copy))})", tuple(copy.values())
        )
        strange = {**copy, "id": "strange", "display_name": "somebody else's"}
        db.execute(
            f"INSERT INTO caches ({', '.join(copy)}) VALUES ({', '.join('?' * len(copy))})", tuple(strange.values())
        )
    told(world, "sync", "--json")
    assert set(living(world)) == {own["id"], "left-over", "strange"}
    world.pass_time(7 * HOUR)
    told(world, "sync", "--wait", "--json")
    assert living(world) == ["strange"]


def test_cleanup_false_leaves_it_to_its_end(world: World) -> None:
    path = world.project / "batchform.yaml"
    project = yaml.safe_load(path.read_text(encoding="utf-8"))
    project["backends"]["local"]["cleanup"] = False
    path.write_text(yaml.safe_dump(project), encoding="utf-8")
    told(world, *APPLY)
    assert len(living(world)) == 1 and events(world, "Spent") == []
    world.pass_time(51 * HOUR)
    told(world, "sync", "--json")
    [spent] = events(world, "Spent")
    assert spent["usd"] > 0


def other_spec(world: World, name: str, **changes: Any) -> None:
    """Another spec over the same rows, with another question and the same system instruction."""
    found = yaml.safe_load((world.project / "specs/triage.yaml").read_text(encoding="utf-8"))
    found |= {"name": name, "destination": {"type": "jsonl", "path": f"results/{name}.jsonl"}}
    found["prompt"] = {"system": {"text": SYSTEM}, "user": {"text": "And what of {{ title }}?"}} | changes.pop(
        "prompt", {}
    )
    (world.project / f"specs/{name}.yaml").write_text(yaml.safe_dump(found | changes), encoding="utf-8")


def test_one_that_a_spec_keeps_is_not_shortened_or_dropped_or_settled_by_another_that_does_not(world: World) -> None:
    spec(world, cache={"ttl": "7d"})
    told(world, *APPLY)
    [before] = caches(world)
    other_spec(world, "other", cache={})

    told(world, *APPLY)

    [same] = caches(world)
    assert same["expires_at"] >= before["expires_at"]
    assert living(world) == [same["id"]] and events(world, "Spent") == []
    world.pass_time(7 * HOUR)
    told(world, "sync", "--json")
    assert living(world) == [same["id"]] and events(world, "Spent") == []
    world.pass_time(8 * 24 * HOUR)
    told(world, "sync", "--json")
    [spent] = events(world, "Spent")
    hours = (same["expires_at"] - same["created_at"]) / HOUR
    assert spent["usd"] == pytest.approx(same["tokens"] * (0.3e-6 + hours * 1e-6), rel=0.05)


def test_what_another_backend_of_the_same_key_keeps_is_not_left_over(world: World) -> None:
    spec(world, cache={"ttl": "7d"})
    told(world, *APPLY)
    [kept] = caches(world)
    path = world.project / "batchform.yaml"
    project = yaml.safe_load(path.read_text(encoding="utf-8"))
    project["backends"]["twin"] = project["backends"]["local"]
    path.write_text(yaml.safe_dump(project), encoding="utf-8")
    other_spec(world, "other", backend="twin", cache={}, prompt={"system": {"text": SYSTEM + "Be quick."}})
    told(world, *DETACHED)
    world.pass_time(7 * HOUR)
    told(world, "sync", "--wait", "--json")
    assert living(world) == [kept["id"]]


def test_one_that_cannot_be_prolonged_gives_its_rows_back_at_once(world: World) -> None:
    """An outage just before a job is created: surely no job, so nothing waits for the settle window."""
    (world.project / "data/tickets.csv").write_text("id,title\nT1,ticket 1\n", encoding="utf-8")
    world.server.set_faults([{"call": "caches.update", "times": "all", "do": {"type": "error", "status": 503}}])
    ran = world.run(("apply", "--yes"))
    assert ran.code == 1 and world.jobs() == [], ran.err
    assert len(events(world, "NotSubmitted")) == 1
    world.server.set_faults(())
    told(world, *APPLY)
    assert world.bill().total() == 1 and len(caches(world)) == 1


def test_a_version_of_the_api_without_caches_is_not_taken_for_a_cache_that_is_gone(world: World) -> None:
    world.server.set_faults([{"call": "caches.update", "times": 1, "do": {"type": "error", "status": 404}}])
    told(world, *APPLY)
    assert events(world, "NotSubmitted") == []
    all_is_answered(world)


def test_its_time_begins_with_the_job_however_long_the_input_was_uploaded(world: World) -> None:
    world.server.set_faults([{"call": "files.upload.start", "times": 2, "do": {"type": "error", "status": 503}}])
    told(world, *DETACHED)
    for intent in events(world, "Intent"):
        begun, until = (datetime.fromisoformat(t) for t in (intent["at"], intent["cache"]["until"]))
        assert (until - begun).total_seconds() == pytest.approx(50 * HOUR, abs=0.5)


def test_it_stays_for_a_job_that_was_taken_for_lost_and_may_turn_up(world: World) -> None:
    (world.project / "data/tickets.csv").write_text("id,title\nT1,ticket 1\n", encoding="utf-8")
    world.server.set_faults(
        [
            {"call": "batches.create", "do": {"type": "list_lag", "seconds": 12 * HOUR}},
            {"call": "batches.create", "do": {"type": "ends", "state": "SUCCEEDED", "share": 1, "seconds": 20 * HOUR}},
            {"call": "batches.create", "do": {"type": "error", "status": 504, "when": "after"}},
        ]
    )
    world.run(DETACHED)
    [cache] = caches(world)
    spec(world, cache={}, limits={"max_usd_total": 0})  # so that its rows wait
    world.pass_time(2000)
    world.run(("sync",))
    assert [e["how"] for e in events(world, "NotSubmitted")] == ["unlisted"]
    world.pass_time(8 * HOUR)
    world.run(("sync",))
    assert len(world.jobs()) == 1 and living(world) == [cache["id"]] and events(world, "Spent") == []
    world.pass_time(14 * HOUR)
    world.run(("sync", "--wait"))
    assert world.bill().total() == 1 and delivered(world) == 1 and living(world) == []
    assert len(events(world, "Spent")) == 1


def test_what_a_kept_one_will_cost_counts_against_budgets_until_it_has_ended(world: World) -> None:
    spec(world, cache={"ttl": "7d"}, limits={"max_usd_total": 100})
    told(world, *APPLY)
    shares = sum(intent["cache"]["usd"] for intent in events(world, "Intent"))
    [kept] = caches(world)
    assert shares == pytest.approx(kept["tokens"] * (0.3e-6 + 168 * 1e-6), rel=0.05)

    def budget() -> tuple[float, float]:
        [line] = [b for b in told(world, "status", "--json")["budgets"] if b["name"] == "max_usd_total"]
        return line["settled"], line["in_flight"]

    answers, held = budget()
    assert held == pytest.approx(shares)
    world.pass_time(8 * 24 * HOUR)
    told(world, "sync", "--json")
    [spent] = events(world, "Spent")
    settled, held = budget()
    assert settled == pytest.approx(answers + spent["usd"]) and held == 0.0
    [line] = told(world, "spend", "--json")
    assert line["usd"] == pytest.approx(answers + spent["usd"], abs=1e-5)
