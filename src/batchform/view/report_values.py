"""What the report page shows, as plain values. Money in US dollars, times UTC; a job takes from creation to end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from msgspec import Struct

from batchform.run.budget import BudgetLine


class SpentOn(Struct, frozen=True):
    """What was settled in a period. day: its first; spec: "others" stands for those with little spend."""

    day: dt.date
    spec: str
    usd: float


class SpecState(Struct, frozen=True):
    """One spec. rows: by status of the ledger; failures: class → rows; usd: of all its collected jobs."""

    name: str
    rows: Mapping[str, int]
    failures: Mapping[str, int]
    usd: float
    jobs: int
    location: str = ""
    undelivered: int = 0


class JobSpan(Struct, frozen=True):
    """One job that was created. state: `at work`, `collected`, or `unknown`; minutes: None while it is at work."""

    tag: str
    spec: str
    model: str
    state: str
    said: str  # the service's word for its state
    begun: dt.datetime
    ended: dt.datetime
    minutes: float | None
    rows: int
    usd: float | None
    error: str = ""


class Latency(Struct, frozen=True):
    """Minutes that the ended jobs of a spec took."""

    spec: str
    jobs: int
    least: float
    median: float
    p90: float
    most: float


class Sample(Struct, frozen=True):
    """One answered row of a spec that says `preview: public`. prompt: "" if what was sent is not archived."""

    spec: str
    key: str
    prompt: str
    answer: str


class Report(Struct, frozen=True):
    """Everything on the page. period: what a bar of spend is of, "day", "week" or "month"; day_limit: `max_usd` of the
    project, per day; left_out: what the page does not list for want of room, in words."""

    project: str
    environment: str
    made: dt.datetime
    version: str
    ledger: str
    serial: int
    realms: tuple[str, ...]
    notes: tuple[str, ...]
    budgets: tuple[BudgetLine, ...]
    day_limit: float | None
    period: str
    spend: tuple[SpentOn, ...]
    specs: tuple[SpecState, ...]
    jobs: tuple[JobSpan, ...]
    latency: tuple[Latency, ...]
    samples: tuple[Sample, ...]
    private: int
    usd: float
    in_flight_usd: float
    left_out: tuple[str, ...] = ()
