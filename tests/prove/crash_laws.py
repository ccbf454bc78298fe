"""What must hold after a kill and what followed it: the same as if nothing had happened."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from crash_cloud import ANSWERS, BUCKET
from crash_scenarios import TABLE, Scenario
from crash_world import World

PLAN, LEDGER, JOBS = ("plan", "--json"), ("ledger", "list", "--json"), ("jobs", "list", "--json")
NOTHING, VERIFY = ("apply", "--yes", "--json"), ("ledger", "verify", "--json")
_LEDGER_FILES = {"head.json", ".lock", ".tmp", "heads", "lease", "segments", "archive", "answers"}


@dataclass(frozen=True)
class Facts:
    """What a run came to. bill: charges by request digest; jobs: at the service; actions: of a further plan."""

    bill: Counter[str]
    jobs: int
    destination: Any
    actions: dict[str, int]


def facts(world: World, scenario: Scenario) -> Facts:
    """Also checks what needs no comparison. Raises AssertionError that says what does not hold."""
    planned, before, nothing, after, verified, listed = world.ask(PLAN, LEDGER, NOTHING, LEDGER, VERIFY, JOBS)
    _holds(planned.code == 0, "plan", planned.err)
    actions = {name: n for s in planned.json["specs"] for name, n in s["actions"].items() if n}
    _holds(sum(s["rows_to_send"] for s in planned.json["specs"]) == 0, "a further plan sends rows", actions)
    _holds(nothing.code == 0, "a further apply fails", nothing.err)
    _holds(before.json == after.json, "a further apply changes the ledger", nothing.out)
    found = [f for f in verified.json["findings"] if f["severity"] != "info"]
    _holds(verified.code == 0 and not found, "ledger verify", found)
    remote = world.jobs()
    known = Counter(j["job"] for j in listed.json if j["job"])
    _holds(Counter(j["name"] for j in remote) == known, "jobs at the service are not those of the ledger", known)
    _holds(not any(j["open"] for j in listed.json), "a job is not settled", listed.json)
    _holds(not world.inputs(), "uploaded inputs are left", world.inputs())
    _holds(not world.strays(), "results of no job are left", world.strays())
    if scenario.command[0] == "try":
        sent, counted = world.tries(), world.tried()
        _holds(0 < sent <= counted, "what try sent is not all in the ledger", (sent, counted))
    return Facts(world.bill(), len(remote), _delivered(world, scenario), actions)


def compare(found: Facts, expected: Facts, *, regroups: bool) -> None:
    """Raise AssertionError unless the run came to what an undisturbed one comes to."""
    twice = found.bill - expected.bill
    _holds(not twice, "paid for more often than undisturbed", dict(twice))
    _holds(not expected.bill - found.bill, "never sent", dict(expected.bill - found.bill))
    _holds(regroups or found.jobs == expected.jobs, "another number of jobs", (found.jobs, expected.jobs))
    _holds(found.actions == expected.actions, "a further plan is another", (found.actions, expected.actions))
    _holds(
        found.destination == expected.destination, "the destination differs", (found.destination, expected.destination)
    )


def leftovers(world: World, scenario: Scenario, *, kills: int) -> None:
    """Raise AssertionError when files pile up. A killed writer's one file in .tmp/ stays for a day."""
    ledger, cloud = world.project / ".batchform", scenario.cloud
    known = {"cache"} if cloud.ledger else _LEDGER_FILES | {"cache"}
    strange = {p.name for p in ledger.iterdir()} - known
    _holds(not strange, "left in the ledger", strange)
    partial = [p.name for p in (*ledger.glob(".tmp/*"), *ledger.glob("cache/.*"))]
    _holds(len(partial) <= kills, "piling up in .tmp or the cache", partial)
    if cloud.ledger:
        names = {name.split("/")[1] for name in world.service.objects("ledger/")}
        _holds(names <= _LEDGER_FILES, "left in the ledger", names - _LEDGER_FILES)
    left = [p.name for p in (world.folder / "tmp").iterdir()]
    _holds(not left, "left in the temporary folder", left)
    results = world.project / "results"
    known = {"results/triage.jsonl", "/".join(scenario.destination.split("/")[:2]).rstrip("/")}
    odd = {p.relative_to(world.project).as_posix() for p in results.glob("*")} - known
    _holds(not odd, "left beside the destination", odd)
    _beside_cloud_destination(world, scenario, kills)


def _beside_cloud_destination(world: World, scenario: Scenario, kills: int) -> None:
    """A table that a killed delivery staged its rows in stays for a day."""
    if not scenario.cloud.vertex:
        return
    at = scenario.destination
    known = [at.removeprefix(f"gs://{BUCKET}/")] if at.startswith("gs://") else []
    objects = [name for name in world.service.objects("out/") if not name.startswith(tuple(known))]
    _holds(not objects, "left beside the destination", objects)
    tables = set(world.service.tables(ANSWERS)) - ({TABLE} if at == TABLE else set())
    staged = {name for name in tables if name.startswith("_batchform_staging_")}
    _holds(tables == staged and len(staged) <= kills, "left beside the destination", tables)


def _delivered(world: World, scenario: Scenario) -> Any:
    if scenario.destination == TABLE:
        return world.service.rows(ANSWERS, TABLE, ("id", "answer", "out"))
    if scenario.destination.startswith("gs://"):
        return _in_the_bucket(world, scenario.destination.removeprefix(f"gs://{BUCKET}/"))
    path = world.project / scenario.destination
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as db:
            return db.execute("SELECT * FROM triage ORDER BY id").fetchall()
    if path.suffix == ".duckdb":
        return world.rows_of(scenario.destination, "triage")
    if path.is_dir():
        parts = [p for p in path.iterdir() if p.suffix == ".jsonl"]
        _holds(len(parts) == len(list(path.iterdir())), "odd files in the folder of parts", list(path.iterdir()))
        return sorted(json.loads(line)["answer"] for p in parts for line in p.read_text(encoding="utf-8").splitlines())
    return path.read_bytes()


def _in_the_bucket(world: World, name: str) -> Any:
    if not name.endswith("/"):
        return world.service.read(name)
    parts = [world.service.read(part) for part in world.service.objects(name) if part.endswith(".jsonl")]
    _holds(len(parts) == len(world.service.objects(name)), "odd files in the folder of parts", name)
    return sorted(json.loads(line)["answer"] for part in parts for line in part.splitlines())


def _holds(condition: bool, law: str, shown: Any) -> None:
    if not condition:
        raise AssertionError(f"{law}: {shown}")
