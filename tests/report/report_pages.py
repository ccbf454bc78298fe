"""Reports as values: of an empty ledger, of one that has everything, and of hostile text."""

from __future__ import annotations

import datetime as dt

from batchform.run.budget import BudgetLine
from batchform.view.report_values import JobSpan, Latency, Report, Sample, SpecState, SpentOn

NOW = dt.datetime(2026, 11, 22, 9, 30, tzinfo=dt.UTC)
NASTY = (
    "</script><script>document.title='taken'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='taken'\">"
    "'\"&{{ 7*7 }}\u202e\x1b[31m"
)


def empty() -> Report:
    return Report(
        project="acme-support",
        environment="",
        made=NOW,
        version="0.1.0",
        ledger=".batchform",
        serial=0,
        realms=("google",),
        notes=(),
        budgets=(),
        day_limit=None,
        period="day",
        spend=(),
        specs=(SpecState("triage", {}, {}, 0.0, 0),),
        jobs=(),
        latency=(),
        samples=(),
        private=1,
        usd=0.0,
        in_flight_usd=0.0,
    )


def full(*, specs: int = 6, jobs: int = 30, text: str = "") -> Report:
    """A project that has been at work for a month. text: stands in for every text that comes from outside."""
    names = [
        text + n for n in ("triage", "summarise", "translate-reviews", "classify", "embed-catalogue", "extract-fields")
    ]
    names = (names + [f"{text}spec-{i}" for i in range(specs)])[:specs]
    days = [NOW.date() - dt.timedelta(days=d) for d in range(30, -1, -1)]
    spend = [
        SpentOn(day, name, round((i + 1) * (1 + (day.toordinal() * 7 + i * 3) % 5) * 0.83, 4))
        for day in days
        for i, name in enumerate(names[:6])
        if (day.toordinal() + i) % 3 or i < 2
    ]
    states = [
        SpecState(
            name,
            {
                "answered": 9_000 // (i + 1),
                "failed": 40 * (i % 3),
                "in_flight": 500 * (i % 2),
                "pending": 20 * (i % 4 == 1),
                "absent": 12,
            },
            {"truncated": 25, text + "invalid_output": 15}
            if i % 3 == 1
            else {"blocked": 60, "truncated": 20}
            if i % 3
            else {},
            120.5 / (i + 1),
            5 + i,
            f"parquet {text}results/{i}.parquet",
            undelivered=3 * (i == 2),
        )
        for i, name in enumerate(names)
    ]
    spans = []
    for i in range(jobs):
        begun = NOW - dt.timedelta(hours=3.1 * i + 0.2)
        minutes = None if i < 2 else 3.0 * (1 + (i * 37) % 90)
        ended = NOW if minutes is None else begun + dt.timedelta(minutes=minutes)
        name = names[i % min(len(names), 6)]
        spans.append(
            JobSpan(
                f"bf-{name}-{i:012x}-a1"[-90:],
                name,
                "gemini-3.5-flash-lite",
                "at work" if i < 2 else "unknown" if i == 5 else "collected",
                text + ("JOB_STATE_RUNNING" if i < 2 else "JOB_STATE_SUCCEEDED"),
                begun,
                ended,
                minutes,
                500 + 7 * i,
                None if i < 2 else 1.21,
                error=text if i == 4 else "",
            )
        )
    took = [Latency(n, 5, 3.0, 42.0, 200.0, 260.0) for n in names]
    samples = [
        Sample(
            names[0],
            f"{text}T-00{i}",
            f"[user]\nTicket: {text}my invoice is wrong\nAnswer with a category.",
            '{"category": "billing"}' + text,
        )
        for i in range(3)
    ]
    return Report(
        project=text + "acme-support",
        environment="prod",
        made=NOW,
        version="0.1.0",
        ledger="gs://acme-batch/ledger" + text,
        serial=812,
        realms=("google",),
        notes=(text + "1 submission of unknown outcome: it settles in 12 min.",),
        budgets=(
            BudgetLine("project", "max_usd", "google", 50.0, 31.2, 4.0, "today"),
            BudgetLine(names[0], "max_usd_per_month", "google", 300.0, 290.0, 2.0, "this month"),
        ),
        day_limit=50.0,
        period="day",
        spend=tuple(spend),
        specs=tuple(states),
        jobs=tuple(spans),
        latency=tuple(took),
        samples=tuple(samples),
        private=2,
        usd=sum(s.usd for s in spend),
        in_flight_usd=2.42,
        left_out=("3 jobs more",),
    )
