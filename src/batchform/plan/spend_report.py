"""What was spent, by spec, model, day or approver, as the ledger has it. Pure: a control view in, rows out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from batchform.ledger.records import ControlView, JobRecord
from batchform.plan.spend import settled_cost

GROUPS: Final = ("spec", "model", "day", "approver", "realm")


class SpendRow(Struct, frozen=True):
    """group: values of what is grouped by, in that order; jobs: begun; rows: in them; estimated: US dollars of jobs
    that are settled; usd: what those cost; in_flight: estimates of jobs at work; tokens: of collected answers."""

    group: tuple[str, ...]
    jobs: int = 0
    rows: int = 0
    estimated: float = 0.0
    usd: float = 0.0
    in_flight: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: SpendRow) -> SpendRow:
        own, more = self, other
        return SpendRow(
            own.group, own.jobs + more.jobs, own.rows + more.rows, own.estimated + more.estimated, own.usd + more.usd,
            own.in_flight + more.in_flight, own.prompt_tokens + more.prompt_tokens,
            own.output_tokens + more.output_tokens,
        )  # fmt: skip


class _Entry(Struct, frozen=True):
    """One job, or one run of `try`: what it can be grouped by, and its figures."""

    spec: str
    model: str
    day: str
    approver: str
    realm: str
    figures: SpendRow


def spend_report(
    control: ControlView,
    *,
    by: Sequence[str],
    since: dt.date | None = None,
    keep: Callable[[str], bool] = lambda _: True,
) -> list[SpendRow]:
    """Rows by GROUPS, sorted. since: jobs begun on that day (UTC) or later; keep: which specs."""
    found: dict[tuple[str, ...], SpendRow] = {}
    for entry in _entries(control):
        if not keep(entry.spec) or (since is not None and entry.day < since.isoformat()):
            continue
        group = tuple(getattr(entry, name) for name in by)
        found[group] = found.get(group, SpendRow(group)) + entry.figures
    return [found[group] for group in sorted(found)]


def total_of(rows: Sequence[SpendRow]) -> SpendRow:
    """All of them together."""
    whole = SpendRow(())
    for row in rows:
        whole += row
    return whole


def _entries(control: ControlView) -> Iterator[_Entry]:
    admitted = {a.plan_digest: a.approver or a.by for a in control.admitted}
    for job in control.jobs.values():
        if job.status == "not_submitted":
            continue
        intent = job.intent
        plan = intent.wave_of or intent.plan_digest
        approver = admitted.get(plan) or admitted.get(intent.plan_digest) or intent.by
        yield _Entry(intent.spec, intent.model, _day(intent.at), approver, intent.realm, _figures(job))
    for _, spent in control.spent:
        if spent.requests or spent.cache:
            figures = SpendRow((), 0, spent.requests, 0.0, spent.usd)
            yield _Entry(spent.spec, spent.model, _day(spent.at), spent.by or "", spent.realm, figures)


def _figures(job: JobRecord) -> SpendRow:
    intent, collected = job.intent, job.collected
    if collected is None:
        return SpendRow((), 1, intent.rows, 0.0, 0.0, intent.est_usd)
    cost = settled_cost(job, collected)
    return SpendRow((), 1, intent.rows, intent.est_usd, cost, 0.0, collected.prompt_tokens, collected.output_tokens)


def _day(at: str) -> str:
    return dt.datetime.fromisoformat(at).astimezone(dt.UTC).date().isoformat()
