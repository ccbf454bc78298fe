"""verify holds records against each other, and blobs against what they are recorded as."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from ledger_kit import HandClock, database, intent, open_ledger, rows_file

from batchform.adapters.local_blobs import LocalBlobs
from batchform.canon import key_hash
from batchform.ledger.compact import compact
from batchform.ledger.findings import Finding
from batchform.ledger.records import ANSWER_COLUMNS, Collected, NotSubmitted, RerunRequested, StateSeen, Submitted
from batchform.ledger.records import answers_name as name_of
from batchform.ledger.repair import repair
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.store import Ledger, RowsFile
from batchform.ledger.verify import verify

AT = "2026-03-01T12:00:00Z"
PARSE = "v1:0123456789abcdef"
ANSWERS = name_of("t1", PARSE)
SENT = "archive/t1.input.jsonl.zst"


def found(ledger: Ledger, severity: str = "error") -> list[Finding]:
    with database() as con:
        return [f for f in verify(ledger, con) if f.severity == severity]


def texts(ledger: Ledger, severity: str = "error") -> list[str]:
    return [f.message for f in found(ledger, severity)]


def answers_file(to: Path, keys: str, requests: dict[str, bytes]) -> Path:
    to.unlink(missing_ok=True)
    values = ", ".join(f"('{k}', '{key_hash(k).hex()}', '\\x{requests.get(k, b'1').hex()}'::BLOB)" for k in keys)
    own = {
        "tag": "'t1'",
        "key_hash": "hash::UUID",
        "request_fp": "fp",
        "parse_digest": f"'{PARSE}'",
        "class": "'answered'",
    }
    columns = ", ".join(f"CAST({own.get(c, 'NULL')} AS {kind}) AS {c}" for c, kind in ANSWER_COLUMNS.items())
    with database() as con:
        con.execute(f"COPY (SELECT {columns} FROM (VALUES {values}) v(key, hash, fp)) TO '{to}' (FORMAT parquet)")
    return to


Make = Callable[..., Ledger]


@pytest.fixture
def answered(tmp_path: Path) -> Make:
    """A ledger of one job of three rows: two answered, one failed."""

    def make(
        *, counted: dict[str, int] | None = None, held: str = "ab", requests: dict[str, bytes] | None = None
    ) -> Ledger:
        ledger = open_ledger(tmp_path / "ledger")
        (tmp_path / "raw").write_bytes(gzip.compress(b"{}\n" * 3, mtime=0))
        with pa.CompressedOutputStream(str(tmp_path / "sent"), "zstd") as out:
            out.write(b"{}\n" * 3)
        ledger.put_blob(SENT, tmp_path / "sent")
        waiting = rows_file(tmp_path / "1.parquet", "abc", status="in_flight", tag="t1")
        ledger.commit([intent("t1", rows=3)], [waiting], expect=0)
        ledger.commit([Submitted(at=AT, tag="t1", job="batches/1")])
        ledger.put_blob("archive/t1.jsonl.gz", tmp_path / "raw")
        ledger.put_blob(ANSWERS, answers_file(tmp_path / "parsed", held, requests or {}))
        collected = Collected(
            at=AT, tag="t1", archive="archive/t1.jsonl.gz", answers=ANSWERS,
            rows=counted or {"answered": 2, "truncated": 1},
        )  # fmt: skip
        good = ["a", "b", None]
        columns = {
            "status": ["answered", "answered", "failed"],
            "failure": [None, None, "truncated"],
            "answer_tag": ["t1", "t1", None],
            "answer_fp": [b"1", b"1", None],
            "answer_key_hash": [key_hash(k) if k else None for k in good],
            "parse_digest": [PARSE, PARSE, None],
        }
        ledger.commit([collected], [_rows(tmp_path / "2.parquet", columns)])
        return ledger

    return make


def _rows(path: Path, columns: dict[str, list[object]]) -> RowsFile:
    with RowStateWriter(path, constants={"tag": "t1"}) as out:
        out.append({"key": list("abc"), "key_hash": [key_hash(k) for k in "abc"], **columns})
    return RowsFile("triage", path, out.rows)


def test_what_holds_together_stays_so_when_folded(answered: Make) -> None:
    ledger = answered()
    assert [texts(ledger, s) for s in ("error", "warning", "info")] == [[], [], []]
    compact(ledger, database, keep_history=timedelta(0))
    assert [texts(ledger, s) for s in ("error", "warning", "info")] == [[], [], []]


def test_a_collection_that_counted_otherwise(answered: Make) -> None:
    assert texts(answered(counted={"answered": 3})) == [
        "Job t1 was collected as 3 answered, its rows say 2 answered, 1 truncated."
    ]


def test_answers_without_a_rows_key(answered: Make) -> None:
    assert texts(answered(held="ax")) == ["1 rows of triage are answered by job t1, but are not in its answers."]


def test_answers_to_another_request(answered: Make) -> None:
    assert texts(answered(requests={"b": b"2"})) == [
        "1 rows of triage are answered by job t1, but have answers to another request there."
    ]


def test_a_job_that_was_intended_twice(answered: Make) -> None:
    ledger = answered()
    ledger.commit([intent("t1")])
    (text,) = texts(ledger)
    assert text.endswith(": job t1 was intended again after Collected.")


def test_a_job_that_was_given_up_may_be_intended_again(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([intent("t1", rows=0), NotSubmitted(at=AT, tag="t1", reason="refused"), intent("t1", rows=0)])
    assert texts(ledger) == []
    ledger.commit([Submitted(at=AT, tag="t1", job="batches/1"), StateSeen(at=AT, tag="t1", state="RUNNING")])
    ledger.commit([NotSubmitted(at=AT, tag="t1", reason="a late doubt"), intent("t1", rows=0)])
    assert len(texts(ledger)) == 1, "a doubt does not undo a job that was seen"


def test_rows_that_wait_for_no_job_by_name(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([], [rows_file(tmp_path / "1.parquet", "ab", status="in_flight")])
    (text,) = texts(ledger)
    assert text.endswith(": rows that wait for no job: 2.")


@pytest.mark.parametrize("kept", [0, 3, 10, -3])
def test_what_was_sent_is_read_to_the_end(answered: Make, tmp_path: Path, kept: int) -> None:
    ledger = answered()
    path = tmp_path / "ledger" / SENT
    path.write_bytes(path.read_bytes()[:kept])
    (finding,) = found(ledger, "warning")
    assert (finding.file, finding.repair) == (SENT, "batchform ledger repair --from BACKUP")
    assert "cannot be shown any more" in finding.message


def test_a_damaged_archive_is_named_with_what_is_lost(answered: Make, tmp_path: Path) -> None:
    ledger = answered()
    shutil.copytree(tmp_path / "ledger", tmp_path / "backup")
    path = tmp_path / "ledger/archive/t1.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-4])
    (finding,) = found(ledger)
    assert "Its answers are there; they cannot be parsed anew." in finding.message
    (tmp_path / "ledger" / ANSWERS).unlink()
    (finding,) = found(ledger)
    assert "Its answers are lost with it." in finding.message
    blobs, clock = LocalBlobs(tmp_path / "ledger"), HandClock()
    (refused,) = repair(blobs, clock=clock).refused
    assert "The answers of job t1 are lost." in refused.message
    broken = path.read_bytes()
    assert len(repair(blobs, clock=clock, backup=LocalBlobs(tmp_path / "backup")).done) == 1
    assert texts(ledger) == []
    assert [p.read_bytes() for p in (tmp_path / "ledger/damaged").rglob("*.gz")] == [broken]


def test_the_rows_of_a_rerun_are_there(answered: Make) -> None:
    ledger = answered()
    ledger.commit([RerunRequested(at=AT, spec="triage", chosen="archive/rerun-1.parquet", rows=1)])
    (finding,) = found(ledger)
    assert (
        finding.message
        == "archive/rerun-1.parquet, the rows that a rerun was asked for, cannot be read: it is missing."
    )


def test_results_of_a_job_that_is_not_known(answered: Make) -> None:
    ledger = answered()
    ledger.blobs.write_new("archive/t9.jsonl.gz", gzip.compress(b"{}\n"))
    (finding,) = found(ledger)
    assert finding.message.endswith("holds results of a job that this ledger does not know: the ledger went back.")
    assert "apply nothing" in finding.hint


def test_retention_that_was_asked_for_is_kept_by_every_later_compaction(tmp_path: Path) -> None:
    clock = HandClock()
    ledger = open_ledger(tmp_path / "ledger", clock=clock)

    def grow(name: str) -> set[str]:
        for i in range(2):
            ledger.commit([intent(f"{name}{i}")], [rows_file(tmp_path / f"{name}{i}.parquet", ["a", name])])
        return {s.name for s in ledger.log.live}

    first = grow("x")
    compact(ledger, database, keep_history=timedelta(days=30))
    for day in range(1, 31):
        clock.at += timedelta(hours=23, minutes=59)
        second = grow(f"d{day}") if day in (1, 2) else set()
        compact(ledger, database, keep_history=timedelta(hours=1))
        assert first <= set(ledger.blobs.list("segments/"))
    clock.at += timedelta(hours=1)
    compact(ledger, database, keep_history=timedelta(hours=1))
    assert not (first | second) & set(ledger.blobs.list("segments/"))
    assert len(ledger.control().jobs) == 6, "no event is ever dropped"
