"""What a run says while it is at work."""

from __future__ import annotations

import io

from view_plans import shard

from batchform.ledger.records import Collected, Intent, JobRecord
from batchform.ports import Delivered, RemoteJob
from batchform.run.context import Progress
from batchform.view.console import make_console
from batchform.view.progress import BarProgress, LineProgress, make_progress

RECORD = JobRecord(
    intent=Intent(
        at="2026-11-21T09:00:00Z", tag="triage-ab12-0-a1", spec="triage", backend="gemini", fingerprint="f",
        realm="google", model="m", shard_digest="d", rows=10, requests=10, bytes=1, input_name="files/x",
        deadline="2026-11-21T09:10:00Z",
    ),
    job="batches/1",
)  # fmt: skip
COLLECTED = Collected(
    at="x", tag="triage-ab12-0-a1", archive="a", answers="b", rows={"answered": 8, "invalid_output": 2, "blocked": 0},
    anomalies={"unknown_key": 1}, usd=0.0123,
)  # fmt: skip


def remote(state: str, done: int) -> RemoteJob:
    return RemoteJob("batches/1", RECORD.tag, state, counts={"total": 10, "succeeded": done, "failed": 0})


def tell(progress: Progress) -> None:
    progress.staged("triage", shard(0, 1_000))
    progress.submitted(RECORD, "created")
    for done in (0, 0, 5, 5, 10):
        progress.state(RECORD, remote("RUNNING" if done < 10 else "SUCCEEDED", done))
    progress.state(RECORD, RemoteJob("batches/1", RECORD.tag, "SUCCEEDED"))
    progress.collected(RECORD, COLLECTED)
    progress.delivered("triage", Delivered(8, "results/triage.parquet"))
    progress.note("Job \x1b[2Jx was a double and was cancelled.")


def test_elsewhere_each_event_is_one_plain_line_and_what_did_not_move_is_not_repeated() -> None:
    out = io.StringIO()
    with make_progress(out) as progress:
        assert isinstance(progress, LineProgress)
        tell(progress)
    assert out.getvalue().splitlines() == [
        "triage: staged triage-ab12-0-a1, 1,000 rows, 9.0 MB",
        "triage: submitted triage-ab12-0-a1 as batches/1",
        "triage: triage-ab12-0-a1 is RUNNING, 0 of 10 requests",
        "triage: triage-ab12-0-a1 is RUNNING, 5 of 10 requests",
        "triage: triage-ab12-0-a1 is SUCCEEDED, 10 of 10 requests",
        "triage: triage-ab12-0-a1 is SUCCEEDED",
        "triage: collected triage-ab12-0-a1: 8 answered, 2 invalid output, 1 unknown key; $0.01",
        "triage: delivered 8 rows to results/triage.parquet",
        "Job \\x1b[2Jx was a double and was cancelled.",
    ]


def test_in_a_terminal_a_job_has_a_bar_until_it_is_collected() -> None:
    out = io.StringIO()
    with BarProgress(make_console(file=out, width=120, color=True)) as progress:
        tell(progress)
    text = out.getvalue()
    for words in ("submitted triage-ab12-0-a1 as batches/1", "8 answered", "delivered 8 rows"):
        assert words in text
    assert "━" in text
    assert "\\x1b[2Jx" in text


def test_a_job_adopted_by_its_tag_is_said_so() -> None:
    out = io.StringIO()
    LineProgress(out).submitted(RECORD, "adopted")
    assert out.getvalue() == "triage: adopted triage-ab12-0-a1 as batches/1\n"
