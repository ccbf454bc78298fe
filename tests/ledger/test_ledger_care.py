"""verify and export."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from ledger_kit import database, intent, open_ledger, rows_file

from batchform.canon import key_hash
from batchform.errors import DestinationError, UsageError
from batchform.ledger.compact import compact
from batchform.ledger.export import export
from batchform.ledger.records import ANSWER_COLUMNS, Collected, NotSubmitted, Submitted
from batchform.ledger.store import Ledger
from batchform.ledger.verify import Finding, verify

AT = "2026-03-01T12:00:00Z"
SUBMITTED = Submitted(at=AT, tag="t1", job="batches/1")
COLLECTED = Collected(
    at=AT, tag="t1", archive="archive/t1.jsonl.gz", answers="answers/t1.a.parquet", rows={"answered": 2}, usd=0.5
)


def findings(ledger: Ledger) -> list[Finding]:
    with database() as con:
        return verify(ledger, con)


def errors(ledger: Ledger) -> list[str]:
    return [f.message for f in findings(ledger) if f.severity == "error"]


@pytest.fixture
def answered(tmp_path: Path) -> Ledger:
    """A ledger of one job of two rows, sent and collected."""
    ledger = open_ledger(tmp_path / "ledger")
    (tmp_path / "raw").write_bytes(gzip.compress(b"{}\n" * 2, mtime=0))
    with database() as con:
        columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in ANSWER_COLUMNS.items())
        con.execute(f"COPY (SELECT {columns} FROM range(2)) TO '{tmp_path / 'parsed'}' (FORMAT parquet)")
    ledger.commit(
        [intent("t1", rows=2)], [rows_file(tmp_path / "1.parquet", "ab", status="in_flight", tag="t1")], expect=0
    )
    ledger.commit([SUBMITTED])
    ledger.put_blob("archive/t1.jsonl.gz", tmp_path / "raw")
    ledger.put_blob("answers/t1.a.parquet", tmp_path / "parsed")
    done = {"status": "answered", "tag": "t1", "answer_tag": "t1", "answer_fp": b"1"}
    ledger.commit([COLLECTED], [rows_file(tmp_path / "2.parquet", "ab", **done)])
    return ledger


# --- verify ------------------------------------------------------------------------------------------------------


def test_a_sound_ledger_has_no_findings(answered: Ledger) -> None:
    assert findings(answered) == []
    compact(answered, database)
    assert findings(answered) == []


def test_every_damaged_file_is_named(answered: Ledger, tmp_path: Path) -> None:
    names = sorted(s.name for s in answered.log.live)
    for name, damage in zip(names, (b"", b"x", None, b"y", b"z"), strict=True):
        path = tmp_path / "ledger" / name
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[1:] + damage)
    found = findings(open_ledger(tmp_path / "ledger"))
    assert {f.severity for f in found} == {"error"}
    assert len(found) == len(names)
    for name in names:
        (message,) = [f.message for f in found if name in f.message]
        assert any(word in message for word in ("truncated", "altered", "missing"))


def test_rows_that_wait_for_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([], [rows_file(tmp_path / "1.parquet", "abc", status="in_flight", tag="t1")])
    assert errors(ledger) == ["3 rows of triage wait for job t1, which was never intended."]
    ledger.commit([intent("t1", rows=3)])
    assert findings(ledger) == []
    ledger.commit([NotSubmitted(at=AT, tag="t1", reason="refused")])
    assert errors(ledger) == ["3 rows of triage wait for job t1, which is not_submitted."]


def test_jobs_that_too_few_rows_wait_for(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([intent("t1", rows=3)], [rows_file(tmp_path / "1.parquet", "ab", status="in_flight", tag="t1")])
    (finding,) = findings(ledger)
    assert finding.severity == "warning"
    assert finding.message == "Job t1 is open with 3 rows, but 2 rows wait for it."


def test_answers_of_a_job_that_was_not_collected(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    file = rows_file(tmp_path / "1.parquet", "ab", status="answered", answer_tag="t1")
    ledger.commit([intent("t1", rows=0), SUBMITTED], [file])
    assert errors(ledger) == ["2 rows of triage are answered by job t1, which was not collected."]


def test_events_of_a_job_that_was_not_intended(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([SUBMITTED])
    (message,) = errors(ledger)
    assert message.endswith(": Submitted of t1, which was never intended.")


def test_a_hash_that_is_not_its_keys(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([], [rows_file(tmp_path / "1.parquet", "ab", columns={"key_hash": [key_hash("a"), key_hash("c")]})])
    (message,) = errors(ledger)
    assert message.endswith(": rows whose hash is not their key's: 1.")


def test_missing_blobs(answered: Ledger) -> None:
    answered.blobs.delete("answers/t1.a.parquet")
    (finding,) = findings(answered)
    assert finding == Finding(
        "warning",
        "answers/t1.a.parquet is missing.",
        "`batchform sync` makes it again from the archived results, for nothing.",
        "answers/t1.a.parquet",
        "batchform sync",
    )
    answered.blobs.delete("archive/t1.jsonl.gz")
    assert errors(answered) == ["The answers of job t1 are gone: archive/t1.jsonl.gz is missing."]


@pytest.mark.parametrize("damage", ["", "xx", "cut", "inside"])
def test_damaged_blobs_are_named(answered: Ledger, tmp_path: Path, damage: str) -> None:
    for name, way_out in (
        ("answers/t1.a.parquet", "ledger repair && batchform sync"),
        ("archive/t1.jsonl.gz", "--from BACKUP"),
    ):
        path = tmp_path / "ledger" / name
        sound = path.read_bytes()
        middle = len(sound) // 4
        path.write_bytes(
            {"cut": sound[:-3], "inside": sound[:middle] + b"\xff" * 8 + sound[middle + 8 :]}.get(
                damage, damage.encode()
            )
        )
        (finding,) = findings(answered)
        assert finding.severity == "error"
        assert finding.message.startswith(f"{name} is damaged: ")
        assert way_out in finding.repair
        assert finding.file == name
        path.write_bytes(sound)
    assert findings(answered) == []


def test_answers_of_another_shape(answered: Ledger, tmp_path: Path) -> None:
    with database() as con:
        con.execute(f"COPY (SELECT 1 AS tag) TO '{tmp_path / 'ledger/answers/t1.a.parquet'}' (FORMAT parquet)")
    (message,) = errors(answered)
    assert message.startswith("answers/t1.a.parquet is damaged: it has no column key_hash, ")


def test_a_missing_archive_whose_answers_are_there(answered: Ledger) -> None:
    answered.blobs.delete("archive/t1.jsonl.gz")
    (finding,) = findings(answered)
    assert (finding.severity, "cannot be parsed anew" in finding.message) == ("warning", True)


def test_leftovers_of_a_killed_commit_are_harmless(answered: Ledger) -> None:
    answered.log.draft("segments/events-20260301T110000Z-0123456789ab.jsonl", b"", kind="events")
    (finding,) = findings(answered)
    assert finding.severity == "info"


# --- export ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_export(answered: Ledger, tmp_path: Path, form: str) -> None:
    with database() as con:
        exported = export(answered, con, tmp_path / "out" / "deep", format=form)
        assert (exported.rows, exported.jobs) == (2, 1)
        assert exported == export(answered, con, tmp_path / "out" / "deep", format=form)
        assert sorted(p.name for p in (tmp_path / "out" / "deep").iterdir()) == [f"jobs.{form}", f"rows.{form}"]
        rows = con.execute(f"SELECT spec, key, status, answer_fp FROM '{exported.files[0]}' ORDER BY key").fetchall()
        jobs = con.execute(f"SELECT tag, status, rows, usd, outcome FROM '{exported.files[1]}'").fetchall()
    assert [(r[0], r[1], r[2], str(r[3])) for r in rows] == [
        ("triage", "a", "answered", "31"),
        ("triage", "b", "answered", "31"),
    ]
    ((tag, status, count, usd, outcome),) = jobs
    assert (tag, status, count, usd) == ("t1", "collected", 2, 0.5)
    assert json.loads(outcome) == {"answered": 2}


def test_export_of_an_empty_ledger_has_columns(tmp_path: Path) -> None:
    with database() as con:
        exported = export(open_ledger(tmp_path / "ledger"), con, tmp_path, format="parquet")
        assert (exported.rows, exported.jobs) == (0, 0)
        assert con.execute(f"SELECT spec, key FROM '{exported.files[0]}'").fetchall() == []


def test_export_that_cannot_be(answered: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with database() as con:
        with pytest.raises(UsageError, match="no export format 'xlsx'"):
            export(answered, con, tmp_path / "out", format="xlsx")
        with pytest.raises(DestinationError, match="cannot be exported to"):
            export(answered, con, tmp_path / "file" / "out")
        (tmp_path / "out" / "rows.csv").mkdir(parents=True)
        with pytest.raises(DestinationError, match="cannot be exported to"):
            export(answered, con, tmp_path / "out", format="csv")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["rows.csv"]
