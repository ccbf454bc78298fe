"""What a ledger says was spent, and what its open jobs hold back. Pure: a control view and the time in, dollars out.

A job reserves its estimate from its intent on. It settles at what its answers cost, when they are collected. What may
have been billed unseen is never given back: a job that the service does not have any more, or whose results are gone,
settles at its estimate, and so does the share of rows that a job's results leave out. Only a job that the service
itself ended without results, and without rows that succeeded, cost nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

from batchform.ledger.records import Collected, ControlView, Intent, JobRecord
from batchform.spec.model import Limits

Basis = Literal["expected", "high"]
_COST_NOTHING: Final = frozenset({"FAILED", "CANCELLED", "EXPIRED"})


class Spend(Struct, frozen=True):
    """US dollars of one spec, or of a whole project, in one realm.

    today, month, total: settled in the UTC day, in its calendar month, ever; in_flight: reserved by open jobs.
    """

    today: float = 0.0
    month: float = 0.0
    total: float = 0.0
    in_flight: float = 0.0


NOTHING: Final = Spend()


class Books(Struct, frozen=True):
    """The ledger's control view at a time."""

    control: ControlView
    now: dt.datetime

    def spend(self, limits: Limits, realm: str, spec: str | None = None) -> Spend:
        """The spend that these limits, of a spec or of the project (None), are judged on."""
        return spend_of(self.control, now=self.now, realm=realm, basis=limits.max_usd_basis, spec=spec)


def spend_of(
    control: ControlView, *, now: dt.datetime, realm: str, basis: Basis = "expected", spec: str | None = None
) -> Spend:
    """The spend of a spec, or of all specs (None), whose answers are of this realm. basis: what open jobs reserve."""
    day = now.astimezone(dt.UTC).date()
    first = day.replace(day=1)
    today = month = total = in_flight = 0.0
    jobs = [j for j in control.jobs.values() if j.intent.realm == realm and spec in (None, j.intent.spec)]
    for on, usd in _days(jobs, control, realm, basis, spec):
        total += usd
        # Not "on that very day": what a machine with a fast clock recorded belongs to no later budget than this one.
        month += usd if on >= first else 0.0
        today += usd if on >= day else 0.0
    for job in jobs:
        in_flight += _reserved(job.intent, basis) if job.open else 0.0
    return Spend(today, month, total, in_flight + _kept_caches(jobs, control, now))


def settled_caches(control: ControlView) -> set[str]:
    """Names of the context caches whose cost is recorded."""
    return {spent.cache for _, spent in control.spent if spent.cache}


def _kept_caches(jobs: list[JobRecord], control: ControlView, now: dt.datetime) -> float:
    """What caches hold back that outlive jobs which were collected: those shares of them, until what they cost is
    recorded, or they must have ended. Of runs that used the same one, the run that holds back most counts."""
    settled = settled_caches(control) if any(j.intent.cache for j in jobs) else set()
    shares: dict[tuple[str, str], float] = {}
    for job in jobs:
        use = job.intent.cache
        if use and use.name not in settled and job.collected and dt.datetime.fromisoformat(use.until) > now:
            named = use.name, job.intent.plan_digest
            shares[named] = shares.get(named, 0.0) + use.usd
    most: dict[str, float] = {}
    for (name, _), usd in shares.items():
        most[name] = max(most.get(name, 0.0), usd)
    return sum(most.values())


def settled_by_day(control: ControlView, *, realm: str) -> dict[tuple[dt.date, str], float]:
    """US dollars that were settled in this realm, as budgets count them, by UTC day and spec."""
    specs: dict[str, list[JobRecord]] = {spent.spec: [] for _, spent in control.spent}
    for job in control.jobs.values():
        if job.intent.realm == realm:
            specs.setdefault(job.intent.spec, []).append(job)
    found: dict[tuple[dt.date, str], float] = {}
    for spec, jobs in specs.items():
        for on, usd in _days(jobs, control, realm, "expected", spec):
            found[on, spec] = found.get((on, spec), 0.0) + usd
    return found


def _days(
    jobs: list[JobRecord], control: ControlView, realm: str, basis: Basis, spec: str | None
) -> Iterator[tuple[dt.date, float]]:
    for when, usd in (*_settled(jobs, basis), *_without_job(control, realm, spec)):
        yield dt.datetime.fromisoformat(when).astimezone(dt.UTC).date(), usd


def _settled(jobs: list[JobRecord], basis: Basis) -> Iterator[tuple[str, float]]:
    """(when, US dollars) of the jobs that have ended."""
    for job in jobs:
        if job.collected is not None:
            yield job.collected.at, settled_cost(job, job.collected, basis)


def settled_cost(job: JobRecord, collected: Collected, basis: Basis = "expected") -> float:
    """US dollars that a job which has ended counts as. basis: what it had reserved."""
    reserved = _reserved(job.intent, basis)
    if collected.archive is None:
        return 0.0 if job.state in _COST_NOTHING and not job.counts.get("succeeded") else reserved
    return collected.usd + reserved * collected.rows.get("missing", 0) / max(job.intent.rows, 1)


def _without_job(control: ControlView, realm: str, spec: str | None) -> Iterator[tuple[str, float]]:
    for _, spent in control.spent:
        if spent.realm == realm and spec in (None, spent.spec):
            yield spent.at, spent.usd


def _reserved(intent: Intent, basis: Basis) -> float:
    """What a job holds back. An intent of an earlier version has no upper estimate."""
    return max(intent.est_usd, intent.est_usd_high) if basis == "high" else intent.est_usd
