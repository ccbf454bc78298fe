"""What a ledger must do wherever it lies. A new adapter of Blobs adds itself to `make_blobs`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batchform.canon import key_hash
from batchform.errors import BatchformError, LedgerMoved
from batchform.ledger.compact import compact
from batchform.ledger.records import Allowed, AnyEvent
from batchform.ledger.repair import repair
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.store import Ledger, RowsFile
from batchform.ledger.verify import verify
from batchform.ports import Blobs

MakeBlobs = Callable[[], Blobs]


class HandClock:
    """Time that moves only when told to, or when slept."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def opened(blobs: Blobs, *, clock: HandClock | None = None, who: str = "ann@desk") -> Ledger:
    return Ledger.open(blobs, clock=clock or HandClock(), who=who)


def event(name: str) -> AnyEvent:
    return Allowed(at="2026-03-01T12:00:00Z", limit=name, plan_digest="")


def rows(path: Path, keys: str, *, tag: str = "t", spec: str = "triage") -> RowsFile:
    """A file of states, a key for each letter."""
    with RowStateWriter(path, constants={"status": "answered", "tag": tag}) as writer:
        writer.append({"key": list(keys), "key_hash": [key_hash(key) for key in keys]})
    return RowsFile(spec, path, len(keys))


def names(ledger: Ledger) -> list[str]:
    return [allowed.limit for allowed in ledger.control().allowed]


def states(ledger: Ledger, spec: str = "triage") -> dict[str, tuple[str, int]]:
    """Key → tag and serial."""
    with duckdb.connect() as con:
        found = con.execute(f"SELECT key, tag, changed_serial FROM {ledger.rows_relation(con, spec)}").fetchall()
    return {key: (tag, serial) for key, tag, serial in found}


def problems(ledger: Ledger) -> list[Any]:
    with duckdb.connect() as con:
        return [f for f in verify(ledger, con) if f.severity == "error"]


# --- commits -------------------------------------------------------------------------------------------------------


def test_what_is_committed_is_seen_by_others(make_blobs: MakeBlobs, tmp_path: Path) -> None:
    mine = opened(make_blobs())
    assert (mine.serial, mine.lineage, names(mine)) == (0, "", [])
    mine.commit([event("a")], [rows(tmp_path / "1", "xy", tag="t1")])
    mine.commit([event("b")], [rows(tmp_path / "2", "yz", tag="t2")])
    theirs = opened(make_blobs())
    assert (theirs.serial, theirs.lineage, names(theirs)) == (2, mine.lineage, ["a", "b"])
    assert states(theirs) == {"x": ("t1", 1), "y": ("t2", 2), "z": ("t2", 2)}
    assert problems(theirs) == []


def test_a_decision_is_recorded_on_what_it_rests_on_or_not_at_all(make_blobs: MakeBlobs) -> None:
    mine, theirs = opened(make_blobs()), opened(make_blobs())
    mine.commit([event("a")])
    theirs.refresh()
    mine.commit([event("b")], expect=1)
    with pytest.raises(LedgerMoved):
        theirs.commit([event("c")], expect=1)
    theirs.commit([event("d")])
    assert names(opened(make_blobs())) == ["a", "b", "d"]


def test_folding_changes_nothing_that_is_seen(make_blobs: MakeBlobs, tmp_path: Path) -> None:
    clock = HandClock()
    ledger = opened(make_blobs(), clock=clock)
    for step in range(4):
        ledger.commit([event(str(step))], [rows(tmp_path / str(step), f"x{step}", tag=f"t{step}")])
    before = states(ledger), names(ledger)
    clock.at += timedelta(hours=2)
    compact(ledger, duckdb.connect, keep_history=timedelta(0))
    again = opened(make_blobs(), clock=clock)
    assert (states(again), names(again)) == before
    assert len(again.row_segments("triage")) == len(again.event_segments()) == 1
    assert problems(again) == []


def test_a_lost_head_is_noticed_and_put_back(make_blobs: MakeBlobs) -> None:
    """The head is what another writer made of it, in another place: as after a mistake."""
    clock = HandClock()
    ledger = opened(make_blobs(), clock=clock)
    ledger.commit([event("a")])
    early = ledger.blobs.head()
    assert early
    for name in "bcd":
        ledger.commit([event(name)])
    late = ledger.blobs.head()
    assert late
    ledger.blobs.swap_head(early[0], late[1])
    with pytest.raises(BatchformError, match="went back"):
        opened(make_blobs())
    repair(make_blobs(), clock=clock)
    again = opened(make_blobs())
    assert names(again) == list("abcd")
    assert problems(again) == []


# --- several commits in one ----------------------------------------------------------------------------------------


def test_decisions_of_one_step_are_one_commit(make_blobs: MakeBlobs, tmp_path: Path) -> None:
    ledger = opened(make_blobs())
    ledger.commit([event("before")], [rows(tmp_path / "0", "xyz", tag="t0")])
    with ledger.joined(tmp_path) as pending:
        pending.add([event("a")], [rows(tmp_path / "1", "x", tag="t1")])
        assert names(ledger) == ["before", "a"], "who decides next sees it"
        assert states(ledger)["x"] == ("t1", 2)
        assert names(opened(make_blobs())) == ["before"], "nobody else does"
        pending.add([event("b")], [rows(tmp_path / "2", "y", tag="t2")])
        pending.add([event("c")], [rows(tmp_path / "3", "q", tag="t3", spec="other")])
        assert states(ledger) == {"x": ("t1", 2), "y": ("t2", 2), "z": ("t0", 1)}
        assert pending.holds_rows_of([rows(tmp_path / "4", "yw")], duckdb.connect)
        assert not pending.holds_rows_of([rows(tmp_path / "4", "wz")], duckdb.connect)
    again = opened(make_blobs())
    assert (again.serial, names(again)) == (2, ["before", "a", "b", "c"])
    assert states(again) == states(ledger) == {"x": ("t1", 2), "y": ("t2", 2), "z": ("t0", 1)}
    assert states(again, "other") == {"q": ("t3", 2)}
    assert [len(again.row_segments("triage")), len(again.event_segments())] == [2, 2], "small files became one"
    assert problems(again) == []


def test_of_a_step_that_stops_nothing_is_recorded(make_blobs: MakeBlobs, tmp_path: Path) -> None:
    ledger = opened(make_blobs())
    ledger.commit([event("before")])
    with pytest.raises(ZeroDivisionError), ledger.joined(tmp_path) as pending:
        pending.add([event("a")], [rows(tmp_path / "1", "x")])
        raise ZeroDivisionError
    assert names(ledger) == names(opened(make_blobs())) == ["before"]
    assert states(ledger) == {}
    assert len(ledger.blobs.list("segments/")) == 1


def test_decisions_of_one_step_rest_on_the_ledger_that_they_saw(make_blobs: MakeBlobs, tmp_path: Path) -> None:
    ledger, other = opened(make_blobs()), opened(make_blobs())
    ledger.commit([event("before")])
    with pytest.raises(LedgerMoved), ledger.joined(tmp_path) as pending:
        pending.add([event("a")], [])
        other.commit([event("faster")])
        pending.add([event("b")], [])
    ledger.refresh()
    assert names(ledger) == names(opened(make_blobs())) == ["before", "faster"]


class Slow:
    """A ledger's place whose first swap waits until `threads` have come as well, and have had time to line up."""

    def __init__(self, blobs: Blobs, threads: int) -> None:
        self._blobs, self.swaps = blobs, 0
        self.ready = threading.Barrier(threads + 1)

    def swap_head(self, content: bytes, expect: str | None) -> str:
        if b'"serial": 2,' in content and not self.swaps:
            self.ready.wait()
            time.sleep(0.2)
        self.swaps += 1
        return self._blobs.swap_head(content, expect)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)


def run_beside(ledger: Ledger, slow: Slow, works: list[Callable[[], object]]) -> list[object]:
    """What comes of commits that line up while another one is swapped in: heads, or errors."""
    came: list[object] = [None] * len(works)

    def run(index: int, work: Callable[[], object]) -> None:
        slow.ready.wait()
        try:
            came[index] = work()
        except BatchformError as error:
            came[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    ledger.commit([event("first")])
    for thread in threads:
        thread.join()
    return came


def test_commits_of_threads_that_wait_are_one(make_blobs: MakeBlobs, tmp_path: Path) -> None:
    slow = Slow(make_blobs(), 8)
    ledger = opened(slow)  # type: ignore[arg-type]
    ledger.commit([event("start")])
    slow.swaps = 0
    files = [rows(tmp_path / str(n), "abcdefgh"[n], tag=f"t{n}") for n in range(8)]
    works = [
        lambda n=n: ledger.commit([event(str(n))], [files[n]] if n < 2 else [])  # type: ignore[misc]
        for n in range(8)
    ]
    came = run_beside(ledger, slow, works)
    again = opened(make_blobs())
    assert sorted(names(again)) == sorted(["start", "first", *map(str, range(8))])
    assert sorted(states(again)) == ["a", "b"]
    assert slow.swaps == 3, "the first, those that waited, and the second with rows of that spec"
    assert {head.serial for head in came} == {3, 4}  # type: ignore[attr-defined]
    assert problems(again) == []


def test_of_threads_that_decided_on_the_same_ledger_one_wins(make_blobs: MakeBlobs) -> None:
    slow = Slow(make_blobs(), 6)
    ledger = opened(slow)  # type: ignore[arg-type]
    ledger.commit([event("start")])
    slow.swaps = 0
    works = [
        lambda n=n: ledger.commit([event(str(n))], expect=2 if n < 3 else None)  # type: ignore[misc]
        for n in range(6)
    ]
    came = run_beside(ledger, slow, works)
    lost = [n for n, result in enumerate(came) if isinstance(result, LedgerMoved)]
    assert len(lost) == 2
    assert set(lost) < {0, 1, 2}
    assert sorted(names(opened(make_blobs()))) == sorted(
        ["start", "first", *(str(n) for n in range(6) if n not in lost)]
    )


def test_what_cannot_be_written_is_told_to_every_thread(make_blobs: MakeBlobs) -> None:
    slow = Slow(make_blobs(), 4)
    ledger = opened(slow)  # type: ignore[arg-type]
    ledger.commit([event("start")])
    slow.swaps = 0
    refused: list[str] = []

    def refuse(name: str, content: bytes | Path) -> None:
        if slow.swaps and name.startswith("segments/"):
            refused.append(name)
            raise BatchformError("The bucket is full.")
        slow._blobs.write_new(name, content)

    slow.write_new = refuse  # type: ignore[attr-defined]
    came = run_beside(ledger, slow, [lambda n=n: ledger.commit([event(str(n))]) for n in range(4)])  # type: ignore[misc]
    assert [str(error) for error in came] == ["The bucket is full."] * 4
    assert len(refused) == 1
    assert names(opened(make_blobs())) == ["start", "first"]
    del slow.write_new  # type: ignore[attr-defined]
    ledger.commit([event("on")])
    assert names(opened(make_blobs())) == ["start", "first", "on"]
