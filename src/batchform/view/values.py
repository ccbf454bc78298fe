"""What the commands other than `plan` show, as plain values. The command line fills them; the renderings
print them.

Ages and times left are in seconds; money in US dollars; None: not known, or does not apply.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from batchform.ledger.records import JobRecord
from batchform.run.budget import BudgetLine
from batchform.spec.service_limits import ServiceLimits


class JobLine(Struct, frozen=True):
    """One job. job: the service's name for it; state: the service's word, or the ledger's when there is none
    yet.

    done, total: requests, as the service last counted them; error: the service's own message.
    """

    tag: str
    spec: str
    backend: str
    realm: str
    job: str | None
    state: str
    open: bool
    rows: int
    age: float
    done: int | None = None
    total: int | None = None
    est_usd: float = 0.0
    usd: float | None = None
    input_expires_in: float | None = None
    results_expire_in: float | None = None
    error: str = ""


class SpecLine(Struct, frozen=True):
    """One spec. rows: row states of the ledger by status (answered, in_flight, failed, pending, absent,
    gone).

    est_usd, usd: of all its collected jobs; undelivered: answers that the destination does not hold yet.
    """

    name: str
    rows: Mapping[str, int]
    est_usd: float = 0.0
    usd: float = 0.0
    undelivered: int = 0
    location: str = ""
    delivered_age: float | None = None


class StatusView(Struct, frozen=True):
    """The project's state. notes: what needs a person, as sentences; budgets: spend against what may be spent."""

    project: str
    environment: str
    ledger: str
    serial: int
    specs: tuple[SpecLine, ...]
    jobs: tuple[JobLine, ...]
    notes: tuple[str, ...] = ()
    budgets: tuple[BudgetLine, ...] = ()


class ResultsTable(Struct, frozen=True):
    """First rows of a spec's answers. total: how many there are; location: where they are delivered."""

    spec: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int
    location: str = ""


class Component(Struct, frozen=True):
    """One part of a request, by digest. before: as recorded; None: never recorded."""

    name: str
    before: str | None
    after: str | None

    @property
    def same(self) -> bool:
        return self.before == self.after


class Explanation(Struct, frozen=True):
    """Why a row has its action. action, reason: names from the plan's alphabet; symbol: the action's.

    before, after: canonical JSON of the request then and now, where they are known; facts: label → value, in
    order (status, attempts, job, failure, answered at, tokens, cost).
    """

    spec: str
    key: str
    symbol: str
    action: str
    reason: str = ""
    components: tuple[Component, ...] = ()
    before: str | None = None
    after: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def job_line(record: JobRecord, *, now: dt.datetime, service: ServiceLimits) -> JobLine:
    """A job of the ledger as a line. Inputs and results expire at the emulator as they do at Google."""
    intent, collected = record.intent, record.collected
    begun = parse_time(intent.at) or now
    ended = parse_time(record.ended_at)
    total = record.counts.get("total") or None
    settled = sum(record.counts.get(name, 0) for name in ("succeeded", "failed"))
    input_left = results_left = None
    lasting = bool(intent.place)  # inputs and results lie in a bucket or a dataset of the user
    if not lasting and not collected and record.open and ended is None and intent.input_name:
        input_left = (begun + dt.timedelta(hours=service.input_kept_hours) - now).total_seconds()
    if not lasting and not collected and ended is not None:
        results_left = (ended + dt.timedelta(days=service.results_kept_days) - now).total_seconds()
    return JobLine(
        tag=record.tag,
        spec=intent.spec,
        backend=intent.backend,
        realm=intent.realm,
        job=record.job,
        state=record.state if record.status == "submitted" and record.state else record.status.replace("_", " "),
        open=record.open,
        rows=intent.rows,
        age=(now - begun).total_seconds(),
        done=settled if total else None,
        total=total,
        est_usd=intent.est_usd,
        usd=collected.usd if collected else None,
        input_expires_in=input_left,
        results_expire_in=results_left,
        error=record.error,
    )


def parse_time(text: str | None) -> dt.datetime | None:
    """An RFC 3339 time of the ledger, None if there is none."""
    return dt.datetime.fromisoformat(text) if text else None
