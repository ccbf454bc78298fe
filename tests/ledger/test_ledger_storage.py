"""The ledger at gs://: real processes that race, answers that are lost, writers that are killed at every step."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import HandClock, database, intent, rows_file, values

from batchform.adapters.storage.blobs import PACE
from batchform.emulator import EmulatorServer
from batchform.errors import BatchformError, LedgerMoved
from batchform.ledger.compact import compact
from batchform.ledger.lease import lease
from batchform.ledger.store import Ledger
from batchform.ledger.verify import verify
from bucket_kit import Bucket, Opened

SPAWN = multiprocessing.get_context("spawn")
EVERY = int(os.environ.get("BATCHFORM_STORAGE_FAULTS_EVERY", "16"))  # 1: a fault at each call, and the whole race
COMMITS = 200 if EVERY == 1 else 60


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorServer]:
    """A server of its own, so that faults meet nobody else."""
    with EmulatorServer(tmp_path / "server") as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def own(server: EmulatorServer) -> Iterator[Bucket]:
    """A bucket of that server."""
    made = Bucket(server.url)
    yield made
    made.close()


@pytest.fixture
def opened() -> Iterator[Opened]:
    with Opened() as adapters:
        yield adapters


def commit_many(place: str, folder: Path, writer: int, many: int, done: Queue[tuple[int, int]]) -> None:
    """What each process does: records that are true whatever the other does."""
    from batchform.cli.wiring import SystemClock

    with Opened() as opened:
        ledger = Ledger.open(opened.blobs(place, folder / f"cache{writer}"), clock=SystemClock(), who=f"writer{writer}")
        for step in range(many):
            done.put((ledger.commit([intent(f"{writer}-{step}")]).serial, writer))


@pytest.mark.timeout(300)
def test_of_many_racing_commits_of_two_processes_none_is_lost_or_doubled(
    bucket: Bucket, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    done: Queue[tuple[int, int]] = SPAWN.Queue()
    place = bucket.uri("ledger")
    racers = [SPAWN.Process(target=commit_many, args=(place, tmp_path, w, COMMITS // 2, done)) for w in range(2)]
    for process in racers:
        process.start()
    told = [done.get(timeout=240) for _ in range(COMMITS)]
    for process in racers:
        process.join()
        assert process.exitcode == 0
    assert sorted(serial for serial, _ in told) == list(range(1, COMMITS + 1)), "each commit got a serial of its own"
    with Opened() as opened, database() as con:
        ledger = Ledger.open(opened.blobs(place, tmp_path / "cache"), clock=HandClock(), who="ann")
        assert ledger.serial == COMMITS
        assert sorted(ledger.control().jobs) == sorted(f"{w}-{s}" for w in range(2) for s in range(COMMITS // 2))
        assert verify(ledger, con) == []
    assert len(bucket.names("ledger/segments/")) == COMMITS
    record_property("racing commits", COMMITS)


# --- one fault at each call ----------------------------------------------------------------------------------------


def work(ledger: Ledger, scratch: Path, kind: str) -> Iterator[None]:
    """What a ledger does, step by step. kind: "single" or "joined" commits, of which each records two decisions."""
    for i in range(2):
        decided = [([intent(f"t{i}")], [rows_file(scratch / f"{i}.parquet", ["a", f"b{i}"], tag=f"t{i}")])]
        if kind == "joined":
            decided.append(([intent(f"u{i}")], [rows_file(scratch / f"{i}.u.parquet", [f"c{i}"], tag=f"u{i}")]))
        with ledger.joined(scratch) as pending:
            for events, files in decided:
                pending.add(events, files)
        yield
    compact(ledger, database, keep_history=timedelta(0))
    yield


def state(ledger: Ledger) -> Any:
    return values(ledger, "triage", "key", "tag"), list(ledger.control().jobs)


def states(kind: str) -> list[Any]:
    if kind == "joined":
        more = [("b0", "t0"), ("b1", "t1"), ("c0", "u0"), ("c1", "u1")]
        first = [("a", "t0"), ("b0", "t0"), ("c0", "u0")], ["t0", "u0"]
        return [([], []), first, ([("a", "t1"), *more], ["t0", "u0", "t1", "u1"])]
    return [([], []), ([("a", "t0"), ("b0", "t0")], ["t0"]), ([("a", "t1"), ("b0", "t0"), ("b1", "t1")], ["t0", "t1"])]


FAULTS = {
    "refused for a moment": {"type": "error", "status": 503},
    "too many": {"type": "error", "status": 429},
    "answer lost": {"type": "error", "status": 503, "when": "after"},
    "connection lost": {"type": "drop", "when": "after"},
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["single", "joined"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_one_fault_at_any_call_is_not_even_noticed(
    server: EmulatorServer, own: Bucket, opened: Opened, tmp_path: Path, fault: dict[str, Any], kind: str,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """The client asks again, and is refused for its own write when only the answer was lost."""
    client, calls, tried, finished = opened.client(), 0, 0, False
    nth = 1 + list(FAULTS.values()).index(fault) * EVERY // len(FAULTS)  # not all at the same calls
    while not finished:
        server.set_faults([{"call": "storage.*", "nth": nth, "do": fault}])
        place = own.uri(f"ledger-{nth}")
        blobs = opened.blobs(place, tmp_path / "cache", client=client)
        ledger = Ledger.open(blobs, clock=HandClock(), who="ann")
        for _ in work(ledger, tmp_path, kind):
            pass
        finished = not server.fired()
        calls = server.faults()[0]["seen"]
        server.set_faults(())
        again = Ledger.open(opened.blobs(place, tmp_path / "cache", client=client), clock=HandClock(), who="bob")
        assert state(again) == states(kind)[-1]
        assert (again.serial, again.lineage) == (3, ledger.lineage)
        with database() as con:
            assert [f for f in verify(again, con) if f.severity == "error"] == []
        tried, nth = tried + (not finished), nth + EVERY
    record_property("faults", tried)
    assert calls > 30


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["single", "joined"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_at_any_call_leaves_a_whole_ledger(
    server: EmulatorServer, own: Bucket, opened: Opened, tmp_path: Path, when: str, kind: str,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """From the n-th call on nothing gets through, and what did is as it was right before or right after that call."""
    client, hasty = opened.client(), opened.client(retry_for=0.0)
    nth, tried, finished = (1 if when == "before" else 1 + EVERY // 2), 0, False
    while not finished:
        cut = {"call": "storage.*", "nth": nth, "do": {"type": "drop", "when": when}}
        gone = {"call": "storage.*", "nth": nth + 1, "times": "all", "do": {"type": "error", "status": 503}}
        server.set_faults([cut, gone])
        place, reached = own.uri(f"{when}-{nth}"), 0
        try:
            killed = Ledger.open(opened.blobs(place, tmp_path / "k", client=hasty), clock=HandClock(), who="ann")
            for _ in work(killed, tmp_path, kind):
                reached += 1
            finished = not server.fired()
        except (BatchformError, OSError):
            assert server.fired()
        server.set_faults(())
        after = Ledger.open(opened.blobs(place, tmp_path / "cache", client=client), clock=HandClock(), who="bob")
        steps = states(kind)
        assert state(after) in (steps[min(reached, 2)], steps[min(reached + 1, 2)])
        before = state(after)[1]
        after.commit([intent("on")])
        assert state(after)[1] in ([*before, "on"], [*steps[min(reached + 1, 2)][1], "on"])
        with database() as con:
            assert [f for f in verify(after, con) if f.severity == "error"] == []
        tried, nth = tried + (not finished), nth + EVERY
    record_property("kills", tried)
    assert nth > 30


# --- the head ------------------------------------------------------------------------------------------------------


def test_commits_that_follow_quickly_are_spaced(bucket: Bucket, opened: Opened, tmp_path: Path) -> None:
    waits: list[float] = []
    blobs = opened.blobs(bucket.uri("ledger"), tmp_path, pace=PACE, sleep=waits.append)
    version = None
    for step in range(3):
        version = blobs.swap_head(f"{step}".encode(), version)
    assert len(waits) == 2
    assert all(0.5 < wait <= PACE for wait in waits)
    unpaced = opened.blobs(bucket.uri("other"), tmp_path, sleep=waits.append)
    unpaced.swap_head(b"2", unpaced.swap_head(b"1", None))
    assert len(waits) == 2, "no emulator is waited for"


def test_an_own_write_is_told_from_that_of_another(
    server: EmulatorServer, own: Bucket, opened: Opened, tmp_path: Path
) -> None:
    mine, theirs = (opened.blobs(own.uri("ledger"), tmp_path / name) for name in ("mine", "theirs"))
    first = mine.swap_head(b"first", None)
    server.set_faults([{"call": "storage.objects.insert", "do": {"type": "error", "status": 503, "when": "after"}}])
    second = mine.swap_head(b"second", first)
    assert len(server.fired()) == 1
    assert theirs.head() == (b"second", second)
    server.set_faults([{"call": "storage.objects.insert", "do": {"type": "error", "status": 503, "when": "after"}}])
    with pytest.raises(LedgerMoved):
        theirs.swap_head(b"third", first)
    assert theirs.head() == (b"second", second)


def test_a_bucket_that_is_not_there_is_no_empty_ledger(bucket: Bucket, opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(BatchformError, match="There is no bucket gs://no-such-bucket") as caught:
        Ledger.open(opened.blobs("gs://no-such-bucket/ledger", tmp_path), clock=HandClock(), who="ann")
    assert "gcloud storage buckets create" in caught.value.hint
    assert bucket.names() == []


def test_what_was_read_is_not_read_again(bucket: Bucket, opened: Opened, tmp_path: Path) -> None:
    writer = opened.blobs(bucket.uri("ledger"), tmp_path / "writer")
    writer.write_new("segments/a", b"content")
    reader = opened.blobs(bucket.uri("ledger"), tmp_path / "cache")
    path = reader.local("segments/a")
    inode = path.stat().st_ino
    assert opened.blobs(bucket.uri("ledger"), tmp_path / "cache").local("segments/a").stat().st_ino == inode
    path.write_bytes(b"spoiled")  # by whatever else is on this disk
    assert opened.blobs(bucket.uri("ledger"), tmp_path / "cache").local("segments/a").read_bytes() == b"content"
    bucket.put("ledger/segments/a", b"another")  # a repair, or an accident: it must be seen
    assert opened.blobs(bucket.uri("ledger"), tmp_path / "cache").read("segments/a") == b"another"


def test_the_lease_is_an_object_that_one_process_holds(
    server: EmulatorServer, own: Bucket, opened: Opened, tmp_path: Path
) -> None:
    mine, theirs = (opened.blobs(own.uri("ledger"), tmp_path / name) for name in ("mine", "theirs"))
    server.set_faults([{"call": "storage.objects.insert", "do": {"type": "error", "status": 503, "when": "after"}}])
    with lease(mine, HandClock(), who="ann@desk", ttl=300) as held:
        assert len(server.fired()) == 1, "the answer to its claim was lost, and it knows that it has it"
        assert held.takeover == ""
        with pytest.raises(LedgerMoved, match="ann@desk"), lease(theirs, HandClock(), who="bob", ttl=300):
            pass
        assert held.renew()
    with lease(theirs, HandClock(), who="bob", ttl=300) as next_one:
        assert next_one.takeover == ""
