"""What is killed: a project with a history, the command that dies, and what would have followed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from crash_effects import Point
from crash_world import SETTLE, Command, World

APPLY: Final[Command] = ("apply", "--yes")
SYNC: Final[Command] = ("sync", "--wait")
_TABLES: Final = ("sqlite", "duckdb")


@dataclass(frozen=True)
class Scenario:
    """prepare: makes the project and its history; rest: commands that follow `command` in an undisturbed run; again:
    what a user does after a kill, in this order, until it says that all is done; focus: which points belong to it;
    regroups: rows that failed may be sent again in other groups than undisturbed, and so in more or fewer jobs."""

    name: str
    prepare: Callable[[World], None]
    command: Command = APPLY
    rest: tuple[Command, ...] = ()
    again: tuple[Command, ...] = (SYNC, APPLY)
    destination: str = "results/triage.jsonl"
    focus: Callable[[list[Point]], list[Point]] = field(default=lambda points: points)
    regroups: bool = False


# --- projects --------------------------------------------------------------------------------------------------------


def project(world: World, *, rows_per_job: int = 2, **backend: Any) -> None:
    """An empty project with one spec and no rows."""
    local = {"type": "emulator", "url": world.url, "settle": SETTLE, "poll": 5, "max_rows_per_job": rows_per_job}
    world.write(
        "batchform.yaml",
        {
            "version": 1,
            "project": "crash",
            "backends": {"local": {**local, **backend}},
            "defaults": {"backend": "local"},
        },
    )
    spec(world)


def spec(world: World, **changes: Any) -> None:
    world.write(
        "specs/triage.yaml",
        {
            "name": "triage",
            "source": {"type": "csv", "path": "data/tickets.csv"},
            "prompt": {"user": {"text": "Title: {{ title }}"}},
            "model": "gemini-3.5-flash-lite",
            "submit": "file",
            "generation_config": {"temperature": 0, "max_output_tokens": 64},
            "destination": destination("jsonl", "results/triage.jsonl"),
            "idempotency": {"key": ["id"]},
            **changes,
        },
    )


def destination(kind: str, path: str, **changes: Any) -> dict[str, Any]:
    """Columns without times and job names, so that two runs deliver the same bytes."""
    table = {"table": "triage"} if kind in _TABLES else {}
    return {
        "type": kind, "path": path, **table, "columns": {"id": "id", "answer": "text", "out": "output_tokens"},
        **changes,
    }  # fmt: skip


def rows(world: World, titles: dict[str, str]) -> None:
    world.write("data/tickets.csv", "id,title\n" + "".join(f'{key},"{title}"\n' for key, title in titles.items()))


def some(count: int, **changes: str) -> dict[str, str]:
    """Rows T1 … Tn, some of them otherwise or not at all (an empty title)."""
    found = {f"T{n}": f"ticket {n}" for n in range(1, count + 1)} | changes
    return {key: title for key, title in found.items() if title}


# --- histories -------------------------------------------------------------------------------------------------------


def _first(world: World, **changes: Any) -> None:
    project(world)
    spec(world, **changes)
    rows(world, some(6))


def _saved(world: World) -> None:
    _first(world)
    world.ok(("plan", "--out", "saved"))


def _detached(world: World) -> None:
    _first(world)
    world.ok((*APPLY, "--detach"))


def _changed(world: World) -> None:
    """Changed, new and gone rows; one fails once and one for good."""
    project(world)
    retry = {"max_attempts": 2, "on": ["internal", "empty"]}
    spec(world, retry=retry)
    rows(world, some(4))
    world.ok(APPLY)
    once, never = "ticket 5 [[emulator:error 500 x1]]", "ticket 6 [[emulator:empty]]"
    rows(world, some(7, T1="another ticket 1", T2="", T5=once, T6=never))


def _failed(world: World) -> None:
    _changed(world)
    world.ok(APPLY, codes=(6,))


def _worn(world: World) -> None:
    """A ledger of many segments, some of them replaced long ago."""
    project(world, rows_per_job=50)
    for number in range(1, 4):
        rows(world, some(4, T1=f"version {number}"))
        world.ok(APPLY)
    world.ok(("ledger", "compact"))
    rows(world, some(4, T1="version 4"))
    world.ok(APPLY)
    world.pass_time(2 * 3600)


def _crowded(world: World) -> None:
    """Nearly as many segments as make batchform compact by itself."""
    project(world, rows_per_job=1)
    rows(world, some(8))
    world.ok(APPLY)
    rows(world, some(8, T1="another ticket 1"))


def _delivered_to(kind: str, path: str, **changes: Any) -> Callable[[World], None]:
    """Rows that were delivered there, and others that will be."""

    def prepare(world: World) -> None:
        project(world, rows_per_job=50)
        spec(world, destination=destination(kind, path, **changes))
        rows(world, some(6))
        world.ok(APPLY)
        gone = {"T6": ""} if changes.get("prune") else {}
        rows(world, some(7, T1="another ticket 1", **gone))

    return prepare


def _redirected(kind: str, path: str) -> Callable[[World], None]:
    """Rows that were delivered elsewhere: all is written anew."""

    def prepare(world: World) -> None:
        project(world, rows_per_job=50)
        rows(world, some(6))
        world.ok(APPLY)
        spec(world, destination=destination(kind, path))

    return prepare


def _pruned(world: World) -> None:
    project(world, rows_per_job=50)
    spec(world, destination=destination("jsonl", "results/triage.jsonl", prune=True))
    rows(world, some(6))
    world.ok(APPLY)
    rows(world, some(6, T2="", T5=""))


def _answered(world: World) -> None:
    project(world, rows_per_job=50)
    rows(world, some(4))
    world.ok(APPLY)


def _to_rerun(world: World) -> None:
    _answered(world)
    world.ok(("rerun", "triage", "--key", "T2", "--key", "T3"))


def _read_otherwise(world: World) -> None:
    """Answers in JSON that were read as text, and shall be read as JSON."""
    project(world)
    config = {"temperature": 0, "max_output_tokens": 64, "response_mime_type": "application/json"}
    spec(world, generation_config=config, output={"format": "text"})
    rows(world, some(4))
    world.ok(APPLY)
    spec(world, generation_config=config, output={"format": "json"})


# --- the matrix ------------------------------------------------------------------------------------------------------


def _from_delivery(points: list[Point]) -> list[Point]:
    """Only what comes after the last thing that the service was asked."""
    last = max((i for i, p in enumerate(points) if p.kind == "network"), default=-1)
    return points[last:] if last >= 0 else points


_RERUN: Final[Command] = ("rerun", "triage", "--key", "T2", "--key", "T3")
_SAVE: Final[Command] = ("plan", "--out", "saved")
_SEND_SAVED: Final[Command] = ("apply", "saved")
_KINDS: Final = {
    "jsonl": "results/triage.jsonl",
    "csv": "results/triage.csv",
    "parquet": "results/triage.parquet",
    "sqlite": "results/answers.sqlite",
    "duckdb": "results/answers.duckdb",
}

SCENARIOS: Final = (
    Scenario("first apply, input as a file", _first),
    Scenario("first apply, rows inline", lambda world: _first(world, submit="inline")),
    Scenario("plan --out", _first, command=_SAVE, rest=(_SEND_SAVED,), again=(_SAVE,)),
    Scenario("apply of a saved plan", _saved, command=_SEND_SAVED, again=(_SEND_SAVED, SYNC, APPLY)),
    Scenario("apply --detach", _first, command=(*APPLY, "--detach"), rest=(SYNC,)),
    Scenario("sync --wait after it", _detached, command=SYNC),
    Scenario("second round, with failures", _changed, rest=(SYNC, APPLY), regroups=True),
    Scenario("sync with retries", _failed, command=SYNC, rest=(APPLY,), regroups=True),
    Scenario("rerun", _answered, command=_RERUN, rest=(APPLY,), again=(_RERUN,)),
    Scenario("apply after a rerun", _to_rerun),
    Scenario("prune", _pruned),
    Scenario("answers read anew", _read_otherwise),
    Scenario("ledger compact", _worn, command=("ledger", "compact"), again=(("ledger", "compact"), APPLY)),
    Scenario("automatic compaction", _crowded, focus=_from_delivery),
    *(
        Scenario(f"first delivery, {kind}", _redirected(kind, path), destination=path)
        for kind, path in {**_KINDS, "jsonl": "results/other.jsonl"}.items()
    ),
    *(
        Scenario(f"next delivery, {kind}", _delivered_to(kind, path), destination=path, focus=_from_delivery)
        for kind, path in _KINDS.items()
    ),
    Scenario("first part", _redirected("jsonl", "results/parts/"), destination="results/parts/"),
    Scenario("next part", _delivered_to("jsonl", "results/parts/"), destination="results/parts/", focus=_from_delivery),
    Scenario(
        "parts with a pruned row",
        _delivered_to("jsonl", "results/parts/", prune=True),
        destination="results/parts/",
        focus=_from_delivery,
    ),
)
