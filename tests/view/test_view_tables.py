"""Status, jobs, results and explanations."""

from __future__ import annotations

import datetime as dt
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len
from view_plans import EVIL, check_golden, request

from batchform.ledger.records import Collected, Intent, JobRecord
from batchform.plan.registry import Registry
from batchform.run.budget import BudgetLine
from batchform.view.console import make_console
from batchform.view.tables import cell_text, print_explanation, print_jobs, print_results, print_status
from batchform.view.values import Component, Explanation, JobLine, ResultsTable, SpecLine, StatusView, job_line

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
SERVICE = Registry.load().service
HOUR = 3600.0

RUNNING = JobLine(
    tag="triage-ab12cd34ef56-s000-a1", spec="triage", backend="gemini", realm="google", job="batches/9b2d5b14a46d4fbd",
    state="RUNNING", open=True, rows=1_204, age=11_100, done=600, total=1_204, est_usd=0.57,
    input_expires_in=40 * HOUR,
)  # fmt: skip
JOBS = (
    RUNNING,
    replace(
        RUNNING, tag="triage-0011", job=None, state="intent", age=50, rows=1, done=None, total=None,
        input_expires_in=None,
    ),
    replace(
        RUNNING, tag="summary-77", spec="summary", state="FAILED", open=True, done=0, total=5, input_expires_in=None,
        error=f"quota exceeded {EVIL}", results_expire_in=5 * HOUR,
    ),
    replace(
        RUNNING, tag="summary-78", spec="summary", state="collected", open=False, done=5, total=5, usd=0.0012,
        input_expires_in=None, realm="emulator", age=20 * 86_400,
    ),
)  # fmt: skip
STATUS = StatusView(
    project="acme-support",
    environment="prod",
    ledger=".batchform",
    serial=41,
    specs=(
        SpecLine("triage", {"answered": 488, "in_flight": 1_204, "failed": 12, "gone": 0}, 3.1, 2.96, 12),
        SpecLine("summary", {"answered": 420}, 0.04, 0.04, 0, "jsonl results/summary.jsonl", 7_300),
        SpecLine("extract", {}),
    ),
    jobs=JOBS,
    notes=("1 submission has no job yet: batchform sync looks for it.",),
    budgets=(
        BudgetLine("project", "max_usd", "google", 50.0, 3.2, 0.57, "today"),
        BudgetLine("triage", "max_usd", "google", 3.5, 2.96, 0.57, "today"),
        BudgetLine("summary", "max_usd_total", "emulator", 1.0, 0.0, 0.0, "in all"),
    ),
)
RESULTS = ResultsTable(
    spec="triage",
    columns=("ticket_id", "response", "text", "total_tokens", "ok", "when", "model_version"),
    rows=(
        ("007", {"category": "printer"}, "line\none", 61, True, dt.date(2026, 11, 21), "gemini-3.5-flash-lite"),
        ("T-2", None, EVIL + "x" * 200, 7, False, None, "emulator"),
    ),
    total=488,
    location="results/triage.parquet",
)
EXPLANATION = Explanation(
    spec="triage",
    key="T-1881",
    symbol="~",
    action="rerun",
    reason="prompt_changed",
    components=(
        Component("prompt", "sha256:" + "a1" * 32, "sha256:" + "b2" * 32),
        Component("model", "gemini", "gemini"),
        Component("schema", None, "sha256:" + "c3" * 32),
        Component("row", "x", "x"),
    ),
    before=request("Ticket: fire.\nWhich team?"),
    after=request(f"Ticket: fire.\nWhich team? {EVIL}"),
    facts={"status": "answered", "attempts": "1", "cost": "$0.0003"},
    notes=("its answer is 3 days old",),
)


def shown(printer: object, value: object, width: int) -> str:
    out = io.StringIO()
    printer(value, make_console(file=out, width=width, color=False))  # type: ignore[operator]
    return out.getvalue()


CASES = [
    (print_status, STATUS, "status"),
    (print_jobs, JOBS, "jobs"),
    (print_results, RESULTS, "results"),
    (print_explanation, EXPLANATION, "explain"),
]


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize(("printer", "value", "name"), CASES, ids=[c[2] for c in CASES])
def test_they_look_as_agreed(printer: object, value: object, name: str, width: int) -> None:
    text = shown(printer, value, width)
    check_golden(f"{name}-{width}.txt", text)
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert all(c == "\n" or c.isprintable() for c in text)


def test_tags_and_money_are_whole_beside_the_long_names_of_vertex() -> None:
    long = "projects/acme-support/locations/us-central1/batchPredictionJobs/5190123456789"
    sent = replace(
        RUNNING, tag="bf-triage-90ac67ba16c7-530071-a1", job=long, state="collected", done=None, total=None,
        usd=0.000069, est_usd=0.0000694, input_expires_in=None,
    )  # fmt: skip
    for width in (80, 110, 140, 200):
        text = shown(print_jobs, (sent, replace(sent, job=None)), width)
        row = text.splitlines()[1]
        assert row.startswith(f"{sent.tag}  collected  ") and "$0.000069" in row, width
        assert ("name at the service" in text) == (width > 110)
        assert width <= 110 or row.endswith("Jobs/5190123456789"), "its end tells one from another"
        assert all(cell_len(line) <= width for line in text.splitlines())


def test_nothing_yet_is_said_in_a_sentence() -> None:
    empty = StatusView("acme", "", ".batchform", 0, (), ())
    assert "Nothing was applied yet." in shown(print_status, empty, 80)
    assert shown(print_jobs, (), 80) == "No jobs.\n"
    assert shown(print_results, ResultsTable("triage", ("a",), (), 0), 80) == "triage has no answers yet.\n"


def test_columns_that_do_not_fit_are_named_and_never_squeezed() -> None:
    text = shown(print_results, RESULTS, 60)
    assert "not shown: " in text
    assert "model_version" in text.splitlines()[-1] + text.splitlines()[-2]


@settings(deadline=None)
@given(st.none() | st.text() | st.binary() | st.integers() | st.floats() | st.lists(st.text()) | st.booleans())
def test_any_cell_is_one_printable_line(value: object) -> None:
    assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f]*", cell_text(value))


def record(**changes: object) -> JobRecord:
    intent = Intent(
        at="2026-11-21T09:00:00.000000Z", tag="t-1", spec="triage", backend="gemini", fingerprint="f", realm="google",
        model="m", shard_digest="d", rows=10, requests=10, bytes=1, input_name="files/x",
        deadline="2026-11-21T09:10:00Z", est_usd=0.5,
    )  # fmt: skip
    return JobRecord(intent=intent, **changes)  # type: ignore[arg-type]


def test_a_job_at_work_says_how_long_its_input_lives() -> None:
    line = job_line(
        record(status="submitted", job="batches/1", state="RUNNING", counts={"total": 10, "succeeded": 3, "failed": 1}),
        now=NOW,
        service=SERVICE,
    )
    assert (line.state, line.age, line.done, line.total, line.open) == ("RUNNING", 3 * HOUR, 4, 10, True)
    assert line.input_expires_in == 45 * HOUR
    assert line.results_expire_in is None
    assert line.usd is None


def test_an_ended_job_says_how_long_its_results_live_until_they_are_collected() -> None:
    ended = {"status": "submitted", "job": "batches/1", "state": "SUCCEEDED", "ended_at": "2026-11-21T11:00:00Z"}
    line = job_line(record(**ended), now=NOW, service=SERVICE)
    assert line.input_expires_in is None
    assert line.results_expire_in == 42 * 86_400 - HOUR
    collected = Collected(at="2026-11-21T11:30:00Z", tag="t-1", archive="a", answers="b", usd=0.4)
    done = job_line(record(**{**ended, "status": "collected"}, collected=collected), now=NOW, service=SERVICE)
    assert (done.state, done.usd, done.open, done.results_expire_in) == ("collected", 0.4, False, None)


def test_inputs_expire_at_the_emulator_too_and_an_intent_has_no_state_yet() -> None:
    made = record()
    intent = made.intent
    emulated = JobRecord(
        intent=Intent(**{f: getattr(intent, f) for f in intent.__struct_fields__} | {"realm": "emulator"})
    )
    line = job_line(emulated, now=NOW, service=SERVICE)
    assert (line.state, line.input_expires_in, line.total) == ("intent", 45 * HOUR, None)
