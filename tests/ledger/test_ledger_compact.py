"""Compaction: what is folded, when files go, and that being killed or overtaken costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from ledger_kit import HandClock, database, intent, open_ledger, rows_file, values

from batchform.adapters.local_blobs import LocalBlobs
from batchform.ledger.compact import compact
from batchform.ledger.store import Ledger
from batchform.ledger.verify import verify

SHOWN = ("key", "status", "changed_serial", "answer_serial")


def grown(root: Path, clock: HandClock, *, commits: int = 4) -> Ledger:
    ledger = open_ledger(root / "ledger", clock=clock)
    for i in range(commits):
        files = [rows_file(root / f"{spec}{i}.parquet", ["a", f"b{i}"], spec=spec) for spec in ("one", "two")]
        ledger.commit([intent(f"t{i}")], files)
    return ledger


def files_of(root: Path) -> set[str]:
    return {f"segments/{p.name}" for p in (root / "ledger" / "segments").iterdir()}


def test_all_is_folded_and_reads_the_same(tmp_path: Path) -> None:
    ledger = grown(tmp_path, HandClock())
    before = [values(ledger, spec, *SHOWN) for spec in ("one", "two")], ledger.control().jobs
    report = compact(ledger, database)
    assert (report.serial, report.rows, report.folded, report.removed) == (5, {"one": 5, "two": 5}, 12, 0)
    for reader in (ledger, open_ledger(tmp_path / "ledger")):
        assert ([values(reader, spec, *SHOWN) for spec in ("one", "two")], reader.control().jobs) == before
    assert ledger.head is not None
    assert len(ledger.head.segments) == 3
    assert compact(ledger, database).folded == 0
    assert ledger.serial == 5, "nothing to fold is no commit"


def test_one_spec_leaves_the_others(tmp_path: Path) -> None:
    ledger = grown(tmp_path, HandClock())
    assert compact(ledger, database, spec="one").rows == {"one": 5}
    assert [len(ledger.row_segments(spec)) for spec in ("one", "two")] == [1, 4]
    assert len(ledger.event_segments()) == 1
    assert compact(ledger, database, spec="nothing").folded == 0


def test_a_base_is_folded_again(tmp_path: Path) -> None:
    ledger = grown(tmp_path, HandClock())
    compact(ledger, database)
    ledger.commit([intent("t9")], [rows_file(tmp_path / "9.parquet", ["a", "z"], spec="one", status="failed")])
    before = values(ledger, "one", *SHOWN)
    assert compact(ledger, database).rows == {"one": 6}
    assert values(ledger, "one", *SHOWN) == before
    assert before[0] == ("a", "failed", 6, None)
    assert list(ledger.control().jobs) == ["t0", "t1", "t2", "t3", "t9"]


def test_replaced_files_stay_for_readers_and_then_go(tmp_path: Path) -> None:
    clock = HandClock()
    ledger = grown(tmp_path, clock)
    old = files_of(tmp_path)
    reader = open_ledger(tmp_path / "ledger")
    compact(ledger, database, keep_history=timedelta(hours=1))
    assert old < files_of(tmp_path)
    assert len(values(reader, "one", "key")) == 5, "a reader of the old head is not disturbed"
    clock.at += timedelta(minutes=59)
    assert compact(ledger, database, keep_history=timedelta(hours=1)).removed == 0
    clock.at += timedelta(minutes=1)
    assert compact(ledger, database, keep_history=timedelta(hours=1)).removed == 12
    assert not old & files_of(tmp_path)
    assert ledger.head is not None
    assert len(ledger.head.retired) == 12, "named until another compaction, so that no slow writer commits one"
    ledger.commit([intent("t9")])
    compact(ledger, database)
    assert len(ledger.head.retired) == 2
    with database() as con:
        assert verify(ledger, con) == [] or not [f for f in verify(ledger, con) if f.severity == "error"]


def test_segments_of_killed_commits_go_after_a_day(tmp_path: Path) -> None:
    clock = HandClock()
    ledger = grown(tmp_path, clock, commits=1)
    ledger.log.draft("segments/events-20260301T110000Z-0123456789ab.jsonl", b"", kind="events")
    ledger.blobs.write_new("segments/notes.txt", b"not ours")
    assert compact(ledger, database).folded == 0
    assert ledger.serial == 1
    clock.at += timedelta(days=1)
    compact(ledger, database, keep_history=timedelta(0))
    assert "segments/notes.txt" in files_of(tmp_path)
    assert len(files_of(tmp_path)) == 4


class KilledBlobs(LocalBlobs):
    """Storage that dies at the n-th write, for good."""

    left = 10**9

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        with super()._writing(name):
            yield


@pytest.mark.parametrize("step", range(22))
def test_killed_at_any_write_the_ledger_reads_the_same(tmp_path: Path, step: int) -> None:
    expected = grown(tmp_path, HandClock())
    shown = [values(expected, spec, *SHOWN) for spec in ("one", "two")]
    jobs = expected.control().jobs
    blobs = KilledBlobs(tmp_path / "ledger")
    ledger = Ledger.open(blobs, clock=HandClock(), who="ann@desk")
    blobs.left = step
    finished = True
    try:
        compact(ledger, database, keep_history=timedelta(0))
    except KeyboardInterrupt:
        finished = False
    assert finished == (step >= 17), "3 segments, a copy, 1 swap, 12 deletions"
    again = open_ledger(tmp_path / "ledger")
    assert [values(again, spec, *SHOWN) for spec in ("one", "two")] == shown
    assert again.control().jobs == jobs
    with database() as con:
        assert not [f for f in verify(again, con) if f.severity == "error"]
    late = HandClock()
    late.at += timedelta(days=2)
    cleaner = open_ledger(tmp_path / "ledger", clock=late)
    compact(cleaner, database, keep_history=timedelta(0))
    assert len(files_of(tmp_path)) == 3
    assert [values(cleaner, spec, *SHOWN) for spec in ("one", "two")] == shown


def test_a_commit_in_the_middle_of_a_compaction_is_kept(tmp_path: Path) -> None:
    ledger = grown(tmp_path, HandClock())
    other = open_ledger(tmp_path / "ledger")

    def busy() -> duckdb.DuckDBPyConnection:
        name = f"{other.serial}.parquet"
        other.commit([intent(name)], [rows_file(tmp_path / name, ["a"], spec="one", status="failed")])
        return database()

    report = compact(ledger, busy)
    assert report.rows == {"one": 5, "two": 5}
    assert len(ledger.row_segments("one")) == 3
    assert values(ledger, "one", *SHOWN)[0] == ("a", "failed", 6, None)
    assert len(ledger.control().jobs) == 6


def test_of_two_compactions_one_does_the_work(tmp_path: Path) -> None:
    ledger = grown(tmp_path, HandClock())
    other = open_ledger(tmp_path / "ledger")

    def overtaken() -> duckdb.DuckDBPyConnection:
        compact(other, database)
        return database()

    shown = values(ledger, "one", *SHOWN)
    report = compact(ledger, overtaken)
    assert (report.folded, report.rows) == (0, {})
    assert values(ledger, "one", *SHOWN) == shown
    assert len(files_of(tmp_path)) == 12 + 3


def test_when_it_pays(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    for i in range(17):
        assert not ledger.should_compact("one")
        ledger.commit([], [rows_file(tmp_path / f"{i}.parquet", ["a"], spec="one")])
    assert ledger.should_compact("one")
    assert not ledger.should_compact("two")
    compact(ledger, database)
    assert not ledger.should_compact("one")
    for i in range(65):
        ledger.commit([intent(f"t{i}")])
    assert ledger.should_compact("two"), "many event segments slow down every spec"


def test_it_pays_when_much_was_replaced(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    keys = [str(i) for i in range(51_000)]
    ledger.commit([], [rows_file(tmp_path / "1.parquet", keys)])
    assert not ledger.should_compact("triage")
    ledger.commit([], [rows_file(tmp_path / "2.parquet", keys[:49_000])])
    assert not ledger.should_compact("triage"), "small ledgers are folded on every read without anyone noticing"
    ledger.commit([], [rows_file(tmp_path / "3.parquet", keys[:2_000])])
    assert ledger.should_compact("triage")
