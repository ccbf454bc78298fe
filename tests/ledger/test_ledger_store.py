"""Commits: what is recorded, what is refused, what a lost answer means, and how damage is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from ledger_kit import HandClock, database, intent, open_ledger, rows_file, values

from batchform.adapters.local_blobs import LocalBlobs
from batchform.errors import BatchformError, LedgerCorrupt, LedgerMoved
from batchform.ledger import relation, segments
from batchform.ledger.compact import compact
from batchform.ledger.records import Allowed, Collected, StateSeen, Submitted
from batchform.ledger.store import Ledger
from batchform.ledger.verify import verify

AT = "2026-03-01T12:00:00Z"


def test_an_absent_ledger_is_an_empty_view(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    assert (ledger.head, ledger.serial, ledger.lineage) == (None, 0, "")
    view = ledger.control()
    assert (view.serial, view.lineage, view.jobs) == (0, "", {})
    assert not ledger.should_compact("triage")
    with database() as con:
        assert verify(ledger, con) == []
    assert compact(ledger, database).folded == 0
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_seen_by_the_next_reader(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    head = ledger.commit([intent("t1")], [rows_file(tmp_path / "1.parquet", ["a"], status="in_flight", tag="t1")])
    assert head.serial == 1
    assert head.by == "ann@desk"
    other = open_ledger(tmp_path / "ledger", who="bob@ci")
    assert (other.serial, other.lineage) == (1, head.lineage)
    assert other.control() == ledger.control()
    assert other.control().jobs["t1"].intent == msgspec.structs.replace(intent("t1"), by="ann@desk")
    assert values(other, "triage", "key", "status") == [("a", "in_flight")]
    other.commit([Submitted(at=AT, tag="t1", job="batches/1", by="robot")])
    assert not ledger.control().jobs["t1"].job
    ledger.refresh()
    assert ledger.control().jobs["t1"].job == "batches/1"
    assert ledger.control() is ledger.control()


def test_who_decided_on_an_older_serial_is_told(tmp_path: Path) -> None:
    mine, theirs = open_ledger(tmp_path / "ledger"), open_ledger(tmp_path / "ledger", who="bob@ci")
    mine.commit([intent("t1")], expect=0)
    theirs.commit([intent("t2")], expect=1)
    segments = len(list((tmp_path / "ledger" / "segments").iterdir()))
    with pytest.raises(LedgerMoved, match=r"from serial 1 to 2 in the meantime: bob@ci wrote last, at 2026-") as moved:
        mine.commit([intent("t3")], [rows_file(tmp_path / "1.parquet", ["a"])], expect=1)
    assert moved.value.exit_code == 5
    assert len(list((tmp_path / "ledger" / "segments").iterdir())) == segments
    assert mine.serial == 2, "the newest head is known, so that the decision can be made again"
    with pytest.raises(LedgerMoved, match="from serial 7 to 0"):
        open_ledger(tmp_path / "nothing").commit([intent("t1")], expect=7)
    assert not (tmp_path / "nothing").exists()


def test_commutative_records_go_on_top_of_whatever_is_there(tmp_path: Path) -> None:
    mine, theirs = open_ledger(tmp_path / "ledger"), open_ledger(tmp_path / "ledger")
    for index in range(3):
        mine.commit([intent(f"mine{index}")])
        theirs.commit([intent(f"theirs{index}")])
    mine.refresh()
    assert list(mine.control().jobs) == ["mine0", "theirs0", "mine1", "theirs1", "mine2", "theirs2"]


def test_nothing_to_record_is_no_commit(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    assert ledger.commit([]).serial == 0
    ledger.commit([intent("t1")])
    assert ledger.commit([], [rows_file(tmp_path / "0.parquet", [])]).serial == 1
    with pytest.raises(LedgerMoved):
        ledger.commit([], expect=0)


def test_threads_share_one_ledger(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    threads = [threading.Thread(target=lambda n=n: ledger.commit([intent(f"t{n}")])) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.serial <= 12, "those that wait at the same time are one commit"
    assert sorted(ledger.control().jobs) == sorted(f"t{n}" for n in range(12))


def test_a_failed_write_records_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([intent("t1")])
    file = rows_file(tmp_path / "1.parquet", ["a"])
    (tmp_path / "ledger" / ".tmp").rmdir()
    (tmp_path / "ledger" / ".tmp").write_text("in the way")
    with pytest.raises(BatchformError, match="cannot be written"):
        ledger.commit([intent("t2")], [file])
    (tmp_path / "ledger" / ".tmp").unlink()
    assert open_ledger(tmp_path / "ledger").serial == 1
    assert ledger.commit([intent("t2")], [file]).serial == 2


# --- answers that get lost ---------------------------------------------------------------------------------------


class FlakyBlobs(LocalBlobs):
    """Storage whose next swap meets trouble: `early` runs before the copy of the head is written, `before` between it
    and the swap, `after` once that is done."""

    early: Callable[[], None] | None = None
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None

    def write_new(self, name: str, content: bytes | Path) -> None:
        if name.startswith("heads/") and self.early:
            early, self.early = self.early, None
            early()
        super().write_new(name, content)

    def swap_head(self, content: bytes, expect: str | None) -> str:
        before, after, self.before, self.after = self.before, self.after, None, None
        if before:
            before()
        version = super().swap_head(content, expect)
        if after:
            after()
        return version


def fail(error: Exception) -> Callable[[], None]:
    def trouble() -> None:
        raise error

    return trouble


@pytest.fixture
def flaky(tmp_path: Path) -> tuple[FlakyBlobs, Ledger]:
    open_ledger(tmp_path / "ledger").commit([intent("t0")])
    blobs = FlakyBlobs(tmp_path / "ledger")
    return blobs, Ledger.open(blobs, clock=HandClock(), who="ann@desk")


LOST_ANSWERS = [LedgerMoved("its own write came first"), BatchformError("timeout"), TimeoutError("timeout")]


@pytest.mark.parametrize("answer", LOST_ANSWERS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("expect", [1, None])
def test_a_swap_whose_answer_was_lost_counts(
    flaky: tuple[FlakyBlobs, Ledger], answer: Exception, expect: int | None
) -> None:
    blobs, ledger = flaky
    blobs.after = fail(answer)
    assert ledger.commit([intent("t1")], expect=expect).serial == 2
    assert list(ledger.control().jobs) == ["t0", "t1"]
    assert ledger.commit([intent("t2")], expect=2).serial == 3


@pytest.mark.parametrize("answer", LOST_ANSWERS, ids=lambda e: type(e).__name__)
def test_so_it_does_when_another_has_written_since(
    flaky: tuple[FlakyBlobs, Ledger], answer: Exception, tmp_path: Path
) -> None:
    blobs, ledger = flaky

    def overtake() -> None:
        open_ledger(tmp_path / "ledger").commit([intent("theirs")])
        compact(open_ledger(tmp_path / "ledger"), database)
        raise answer

    blobs.after = overtake
    assert ledger.commit([intent("mine")], expect=1).serial == 2
    assert list(ledger.control().jobs) == ["t0", "mine", "theirs"]
    assert ledger.serial == 4


def test_a_swap_that_failed_is_not_taken_for_done(flaky: tuple[FlakyBlobs, Ledger]) -> None:
    blobs, ledger = flaky
    blobs.before = fail(TimeoutError("timeout"))
    with pytest.raises(TimeoutError):
        ledger.commit([intent("t1")])
    assert list(ledger.control().jobs) == ["t0"]


def test_a_commit_on_top_of_another_keeps_both(flaky: tuple[FlakyBlobs, Ledger], tmp_path: Path) -> None:
    blobs, ledger = flaky
    other = open_ledger(tmp_path / "ledger")
    blobs.early = lambda: other.commit([intent("theirs")]) and None
    assert ledger.commit([intent("mine")], [rows_file(tmp_path / "1.parquet", ["a"])]).serial == 3
    assert list(ledger.control().jobs) == ["t0", "theirs", "mine"]
    assert values(ledger, "triage", "changed_serial") == [(3,)]


def test_with_an_expectation_it_is_refused_at_the_swap(flaky: tuple[FlakyBlobs, Ledger], tmp_path: Path) -> None:
    blobs, ledger = flaky
    other = open_ledger(tmp_path / "ledger")
    blobs.early = lambda: other.commit([intent("theirs")]) and None
    with pytest.raises(LedgerMoved, match="from serial 1 to 2"):
        ledger.commit([intent("mine")], expect=1)
    assert list(ledger.control().jobs) == ["t0", "theirs"]
    assert len(blobs.list("segments/")) == 2


@pytest.mark.parametrize(
    ("keep", "forgotten"),
    [(timedelta(0), False), (timedelta(days=1), False), (timedelta(0), True)],
    ids=["deleted", "retired", "deleted and forgotten"],
)
def test_a_writer_slower_than_compaction_is_refused(
    flaky: tuple[FlakyBlobs, Ledger], tmp_path: Path, keep: timedelta, forgotten: bool
) -> None:
    """Its segment was taken for abandoned: naming it now would name a file that is or will be deleted."""
    blobs, ledger = flaky

    def days_pass() -> None:
        clock = HandClock()
        clock.at += timedelta(days=3)
        other = open_ledger(tmp_path / "ledger", clock=clock)
        compact(other, database, keep_history=keep)
        if forgotten:
            other.commit([intent("theirs")])
            compact(other, database, keep_history=keep)

    blobs.early = days_pass
    with pytest.raises(LedgerMoved, match="cleaned away"):
        ledger.commit([intent("mine")])
    assert "mine" not in ledger.control().jobs
    with database() as con:
        assert verify(ledger, con) == []


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A ledger of two commits, about to be damaged."""
    ledger = open_ledger(tmp_path / "ledger")
    for index in range(2):
        ledger.commit([intent(f"t{index}")], [rows_file(tmp_path / f"{index}.parquet", ["a", "b"])])
    return tmp_path / "ledger"


@pytest.mark.parametrize("content", [b"", b"{", b"not json", b"[]", b'{"format_version": 1}', b"\xff\xfe", b"null"])
def test_a_head_that_is_none(damaged: Path, content: bytes) -> None:
    (damaged / "head.json").write_bytes(content)
    said = "is not a ledger's head: " if content else r"is empty\."
    with pytest.raises(LedgerCorrupt, match=rf"/head\.json {said}") as corrupt:
        open_ledger(damaged)
    assert "batchform ledger repair" in corrupt.value.hint
    shutil.rmtree(damaged / "heads")
    with pytest.raises(LedgerCorrupt, match=rf"/head\.json {said}") as corrupt:
        open_ledger(damaged)
    assert "Restore" in corrupt.value.hint


def test_a_torn_head(damaged: Path) -> None:
    content = (damaged / "head.json").read_bytes()
    for size in range(0, len(content) - 2, 97):
        (damaged / "head.json").write_bytes(content[:size])
        with pytest.raises(LedgerCorrupt):
            open_ledger(damaged)


def test_a_head_from_the_future(damaged: Path) -> None:
    (damaged / "head.json").write_bytes(b'{"format_version": 2, "all": "else differs"}')
    with pytest.raises(LedgerCorrupt, match="newer batchform: ledger format 2, this one reads up to 1") as newer:
        open_ledger(damaged)
    assert "pip install -U batchform" in newer.value.hint


def test_a_lost_head_is_not_an_empty_ledger(damaged: Path) -> None:
    ledger = open_ledger(damaged)
    (damaged / "head.json").unlink()
    with pytest.raises(LedgerCorrupt, match=r"head\.json is missing, but 6 other files"):
        open_ledger(damaged)
    with pytest.raises(LedgerCorrupt, match="is missing"):
        ledger.commit([intent("t9")])


def test_a_killed_first_commit_leaves_an_empty_ledger(tmp_path: Path) -> None:
    """The head comes before the first segment, so that segments without a head always mean loss."""
    blobs = FlakyBlobs(tmp_path / "ledger")
    ledger = Ledger.open(blobs, clock=HandClock(), who="ann@desk")
    blobs.after = lambda: setattr(blobs, "before", fail(TimeoutError("killed")))
    with pytest.raises(TimeoutError):
        ledger.commit([intent("t1")])
    again = open_ledger(tmp_path / "ledger")
    assert again.serial == 0
    assert again.commit([intent("t1")], expect=0).serial == 1


def segment(folder: Path, kind: str) -> Path:
    return sorted((folder / "segments").glob(f"{kind}-*"))[0]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "is missing, but head.json names it": lambda p: p.unlink(),
    "is truncated: ": lambda p: p.write_bytes(p.read_bytes()[:-5]),
    "is longer than it was written: ": lambda p: p.write_bytes(p.read_bytes() + b"\n"),
    "was altered": lambda p: p.write_bytes(p.read_bytes()[::-1]),
}


@pytest.mark.parametrize("kind", ["events", "rows"])
@pytest.mark.parametrize("complaint", DAMAGE)
def test_damaged_segments_are_named(damaged: Path, kind: str, complaint: str) -> None:
    path = segment(damaged, kind)
    DAMAGE[complaint](path)
    ledger = open_ledger(damaged)
    with database() as con, pytest.raises(LedgerCorrupt, match=complaint) as corrupt:
        ledger.control() if kind == "events" else ledger.rows_relation(con, "triage")
    assert path.name in corrupt.value.message
    assert "Restore" in corrupt.value.hint


@pytest.mark.parametrize("which", range(3))
def test_a_damaged_footer_is_noticed_before_rows_are_read(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """Of segments that are too large for a digest on each read."""
    ledger = open_ledger(damaged)
    ledger.commit([], [rows_file(tmp_path / "more.parquet", ["c"])])
    path = damaged / ledger.row_segments("triage")[which].name
    path.write_bytes(path.read_bytes()[:-200] + bytes(196) + b"PAR1")
    for module in (segments, relation):
        monkeypatch.setattr(module, "DIGEST_ON_READ", 0)
    with database() as con, pytest.raises(LedgerCorrupt, match=r"of spec triage .* cannot be read"):
        open_ledger(damaged).rows_relation(con, "triage")


def test_events_of_an_unknown_kind_come_from_a_newer_version(damaged: Path) -> None:
    ledger = open_ledger(damaged)
    name = "segments/events-20260301T120000Z-ffffffffffff.jsonl"
    draft = ledger.log.draft(name, b'{"type":"Teleported","at":"x"}\n', kind="events", rows=1)
    head = ledger.head
    assert head is not None
    ledger.log.publish("token", [draft], lambda h: msgspec.structs.replace(h, segments=(*h.segments, draft)))
    with pytest.raises(LedgerCorrupt, match=r"ffffffffffff\.jsonl was written by a newer .*'Teleported'") as newer:
        open_ledger(damaged).control()
    assert newer.value.hint == "Upgrade batchform: pip install -U batchform"  # nothing is to be restored


def test_another_ledger_in_its_place_is_noticed(damaged: Path) -> None:
    ledger = open_ledger(damaged)
    backup = damaged.with_name("backup")
    shutil.copytree(damaged, backup)
    ledger.commit([intent("t9")])
    shutil.rmtree(damaged)
    backup.rename(damaged)
    with pytest.raises(LedgerMoved, match=r"was replaced while in use.*at serial 3 became .* at serial 2"):
        ledger.commit([intent("t10")])
    shutil.rmtree(damaged)
    open_ledger(damaged).commit([intent("other")])
    with pytest.raises(LedgerMoved, match="was replaced while in use"):
        ledger.refresh()


def test_a_reader_of_an_old_head_is_told_to_look_again(damaged: Path) -> None:
    reader, other = open_ledger(damaged), open_ledger(damaged)
    compact(other, database, keep_history=timedelta(0))
    with database() as con, pytest.raises(LedgerMoved, match="was compacted while"):
        reader.rows_relation(con, "triage")
    assert len(values(reader, "triage", "key")) == 2


# --- blobs beside ------------------------------------------------------------------------------------------------


def test_archives_are_kept_and_answers_replaced(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert not ledger.has_blob("archive/t1.jsonl.gz")
    with pytest.raises(LedgerCorrupt, match=r"archive/t1\.jsonl\.gz is missing"):
        ledger.blob("archive/t1.jsonl.gz")
    for name in ("archive/t1.jsonl.gz", "answers/t1.abc.parquet"):
        ledger.put_blob(name, one)
        ledger.put_blob(name, one)
        assert ledger.has_blob(name)
        assert not ledger.has_blob(name[:-1])
    with pytest.raises(BatchformError, match="already holds other results"):
        ledger.put_blob("archive/t1.jsonl.gz", two)
    ledger.put_blob("answers/t1.abc.parquet", two)
    assert ledger.blob("archive/t1.jsonl.gz").read_bytes() == b"1"
    assert ledger.blob("answers/t1.abc.parquet").read_bytes() == b"2"
    assert one.exists()
    assert two.exists()
    for call in (ledger.blob, ledger.has_blob):
        with pytest.raises(ValueError, match="beside"):
            call("segments/x")


# --- what it costs -----------------------------------------------------------------------------------------------


def test_opening_imports_no_heavy_library(tmp_path: Path) -> None:
    open_ledger(tmp_path / "ledger").commit([intent("t1"), StateSeen(at=AT, tag="t1", state="RUNNING")])
    code = f"""
import sys
from pathlib import Path
from batchform.adapters.local_blobs import LocalBlobs
from batchform.ledger.store import Ledger
ledger = Ledger.open(LocalBlobs(Path({str(tmp_path / "ledger")!r})), clock=None, who="x")
assert ledger.control().jobs["t1"].state == "RUNNING"
heavy = {{"duckdb", "pyarrow", "google", "pydantic", "jinja2"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_events_hold_no_row_text(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    collected = Collected(at=AT, tag="t1", archive=None, answers=None, rows={"answered": 1})
    file = rows_file(tmp_path / "1.parquet", ["secret-key"], status="failed", failure_message="secret text")
    ledger.commit([intent("t1"), collected, Allowed(at=AT, limit="max_usd", plan_digest="x")], [file])
    for path in (tmp_path / "ledger").rglob("*"):
        if path.is_file() and path.suffix != ".parquet":
            assert b"secret" not in path.read_bytes()
