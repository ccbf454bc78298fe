"""The fold of control events: what a history means, and that compaction does not change it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import database, intent, open_ledger

from batchform.ledger.compact import compact
from batchform.ledger.fold import fold
from batchform.ledger.records import (
    Allowed,
    AnyEvent,
    Collected,
    ControlView,
    DeliveredTo,
    Disowned,
    InputDeleted,
    JobDeleted,
    JobRecord,
    NotSubmitted,
    Refreshed,
    Reparsed,
    RerunRequested,
    Spent,
    StateSeen,
    Submitted,
)

AT = "2026-03-01T12:00:00Z"
LATER = "2026-03-01T13:00:00Z"

SUBMITTED = Submitted(at=AT, tag="t", job="batches/1")
ADOPTED = Submitted(at=LATER, tag="t", job="batches/1", how="adopted")
NOT_SUBMITTED = NotSubmitted(at=AT, tag="t", reason="no job within the settle window")
RUNNING = StateSeen(at=AT, tag="t", state="RUNNING", counts={"total": 3})
EXPIRED = StateSeen(at=LATER, tag="t", state="EXPIRED", error="too late", ended_at=LATER)
EMPTY = Collected(at=LATER, tag="t", archive=None, answers=None, rows={"expired": 3})
FULL = Collected(at=LATER, tag="t", archive="archive/t.jsonl.gz", answers="answers/t.a.parquet", rows={"answered": 3})
DELETED = JobDeleted(at=LATER, tag="t")


def job(*events: AnyEvent) -> JobRecord:
    return fold(enumerate([intent("t"), *events], 1)).jobs["t"]


@pytest.mark.parametrize(
    ("events", "status", "is_open"),
    [
        ([], "intent", True),
        ([SUBMITTED], "submitted", True),
        ([SUBMITTED, RUNNING, EXPIRED], "submitted", True),
        ([NOT_SUBMITTED], "not_submitted", False),
        ([NOT_SUBMITTED, ADOPTED], "submitted", True),  # late truth
        ([SUBMITTED, NOT_SUBMITTED], "submitted", True),  # a known job is not doubted away
        ([SUBMITTED, intent("t")], "submitted", True),
        ([NOT_SUBMITTED, intent("t")], "intent", True),
        ([SUBMITTED, FULL], "collected", False),
        ([SUBMITTED, FULL, DELETED], "collected", False),
        ([SUBMITTED, FULL, intent("t"), SUBMITTED], "collected", False),
        ([SUBMITTED, DELETED], "submitted", True),  # its rows wait for it: sync finds it gone
        ([SUBMITTED, DELETED, FULL], "collected", False),
    ],
)
def test_the_life_of_a_job(events: list[AnyEvent], status: str, is_open: bool) -> None:
    record = job(*events)
    assert (record.status, record.open) == (status, is_open)


def test_what_is_known_of_a_job() -> None:
    record = job(SUBMITTED, RUNNING, EXPIRED, RUNNING, InputDeleted(at=AT, tag="t", input_name="files/x"))
    assert (record.job, record.how, record.submitted_at) == ("batches/1", "created", AT)
    assert (record.state, record.counts, record.ended_at, record.error) == ("RUNNING", {"total": 3}, LATER, "")
    assert record.input_deleted


def test_collected_results_are_not_lost_to_an_empty_collection() -> None:
    assert job(SUBMITTED, EMPTY, FULL).collected == FULL
    assert job(SUBMITTED, FULL, EMPTY).collected == FULL


def test_what_is_known_of_specs() -> None:
    first = DeliveredTo(at=AT, spec="s", destination_digest="a", through=1, rows=1, location="x")
    last = DeliveredTo(at=LATER, spec="s", destination_digest="a", through=4, rows=2, location="x")
    rerun, more = (
        RerunRequested(at=AT, spec="s", chosen="archive/rerun-1.parquet", rows=1, keys=(key,)) for key in "ab"
    )
    allowed = Allowed(at=AT, limit="max_usd", plan_digest="p")
    spent = Spent(at=AT, spec="s", realm="google", model="m", requests=2, usd=0.5)
    quiet = [Refreshed(at=AT, spec="s"), Reparsed(at=AT, spec="s", parse_digest="x")]
    left = Disowned(at=AT, job="batches/1", tag="t")
    view = fold(enumerate([first, rerun, allowed, *quiet, last, more, spent, left], 1), lineage="l", serial=9)
    assert view == ControlView(
        lineage="l",
        serial=9,
        deliveries={"s": last},
        reruns={"s": [(2, rerun), (7, more)]},
        allowed=[allowed],
        spent=[(8, spent)],
        disowned={"batches/1"},
    )


def test_what_a_cache_cost_counts_once_also_when_two_runs_record_it() -> None:
    spent = Spent(at=AT, spec="s", realm="google", model="m", requests=0, usd=0.5, cache="cachedContents/1")
    trials = Spent(at=AT, spec="s", realm="google", model="m", requests=1, usd=0.25)
    other = Spent(at=AT, spec="s", realm="google", model="m", requests=0, usd=1.0, cache="cachedContents/2")
    view = fold(enumerate([spent, trials, spent, trials, other], 1))
    assert [s.usd for _, s in view.spent] == [0.5, 0.25, 0.0, 0.25, 1.0]


def test_events_of_unknown_jobs_are_left_out() -> None:
    assert fold([(1, SUBMITTED), (2, FULL)]).jobs == {}


TAGS = st.sampled_from(["t1", "t2", "t3"])
EVENTS: st.SearchStrategy[AnyEvent] = st.one_of(
    TAGS.map(intent),
    st.builds(Submitted, at=st.just(AT), tag=TAGS, job=st.sampled_from(["batches/1", "batches/ü"])),
    st.builds(NotSubmitted, at=st.just(AT), tag=TAGS, reason=st.text(max_size=5)),
    st.builds(StateSeen, at=st.just(AT), tag=TAGS, state=st.sampled_from(["RUNNING", "SUCCEEDED", "odd"])),
    st.builds(Collected, at=st.just(AT), tag=TAGS, archive=st.none() | st.just("a"), answers=st.none()),
    st.builds(JobDeleted, at=st.just(AT), tag=TAGS),
    st.builds(Disowned, at=st.just(AT), job=st.sampled_from(["batches/1", "batches/2"]), tag=TAGS),
    st.builds(InputDeleted, at=st.just(AT), tag=TAGS, input_name=st.just("files/x")),
    st.builds(RerunRequested, at=st.just(AT), spec=st.sampled_from("ab"), keys=st.tuples(st.text(max_size=3))),
    st.builds(Allowed, at=st.just(AT), limit=st.just("max_usd"), plan_digest=st.just("x")),
    st.builds(
        Spent,
        at=st.just(AT),
        spec=st.just("s"),
        realm=st.just("google"),
        model=st.just("m"),
        requests=st.just(1),
        usd=st.floats(0, 9),
    ),
)


@given(history=st.lists(st.one_of(st.lists(EVENTS, min_size=1, max_size=4), st.just("compact")), max_size=7))
@settings(max_examples=40, deadline=None)
def test_compaction_does_not_change_the_fold(history: list[list[AnyEvent] | str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder) / "ledger", who="")
        numbered: list[tuple[int, AnyEvent]] = []
        for step in history:
            if isinstance(step, str):
                compact(ledger, database)
                continue
            serial = ledger.commit(step).serial
            numbered += [(serial, event) for event in step]
        for reader in (ledger, open_ledger(Path(folder) / "ledger")):
            assert reader.control() == fold(numbered, lineage=ledger.lineage, serial=ledger.serial)
