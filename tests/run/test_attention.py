"""What status tells a person to look at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from batchform.ledger.records import Collected, Intent, JobRecord
from batchform.ledger.segments import timestamp
from batchform.plan.registry import Registry
from batchform.view.attention import expiring, unknown_notes

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SERVICE = Registry.load().service


def job(tag: str, *, days: float = 0, minutes: float = 0, **changes: object) -> JobRecord:
    begun = NOW - timedelta(days=days, minutes=minutes)
    intent = Intent(
        at=timestamp(begun), tag=tag, spec="triage", backend="gemini", fingerprint="f", realm="google", model="m",
        shard_digest="d", rows=3, requests=3, bytes=9, input_name=None,
        deadline=timestamp(begun + timedelta(minutes=4.5)),
    )  # fmt: skip
    known = {"status": "submitted", "job": "batches/1", "submitted_at": timestamp(begun)}
    return JobRecord(intent=intent, **(known | changes))  # type: ignore[arg-type]


def test_an_unknown_submission_is_told_with_its_age_and_what_to_do() -> None:
    open_one = {"status": "intent", "job": None, "submitted_at": None}
    [note] = unknown_notes([job("t1", minutes=5, **open_one)], now=NOW, settle={"gemini": 900.0})
    assert note.startswith("t1: begun 5 min ago, and it is not known whether its job was created.")
    assert "3 rows wait for 10 min more" in note
    assert note.endswith("batchform jobs adopt t1 JOB, or batchform jobs not-submitted t1")
    [old] = unknown_notes([job("t1", minutes=50, **open_one)], now=NOW, settle={"gemini": 900.0})
    assert "3 rows wait until the next sync" in old
    [gone] = unknown_notes([job("t1", minutes=50, **open_one)], now=NOW, settle={})
    assert "Put backend gemini back" in gone
    assert unknown_notes([job("t2")], now=NOW, settle={}) == ()


def test_results_that_nobody_collects_are_told_before_they_expire() -> None:
    kept = SERVICE.results_kept_days
    soon = job("soon", days=30, ended_at=timestamp(NOW - timedelta(days=kept - 1)))
    never_looked_at = job("blind", days=kept - 0.5)
    collected = job(
        "done", days=kept, status="collected", collected=Collected(at="x", tag="done", archive="a", answers="b")
    )
    others = [job("fresh", days=1), collected]
    error = expiring([soon, never_looked_at, *others], now=NOW, service=SERVICE, within=48)
    assert error is not None and error.exit_code == 1
    assert "2 jobs" in error.message and "soon (in 1 d 0 h), blind (in 12 h 00 min)" in error.message
    assert expiring(others, now=NOW, service=SERVICE, within=48) is None
    assert expiring([soon], now=NOW, service=SERVICE, within=12) is None
