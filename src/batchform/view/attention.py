"""What a person should look at: submissions of unknown outcome, and results that nobody collects before they expire."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping

from batchform.errors import BatchformError
from batchform.ledger.records import JobRecord, Spent
from batchform.run.settle import settles_at
from batchform.spec.service_limits import ServiceLimits
from batchform.spec.wording import counted, money
from batchform.view.text import duration
from batchform.view.values import parse_time


def unknown_notes(jobs: Iterable[JobRecord], *, now: dt.datetime, settle: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for each submission of unknown outcome: its age, when it settles, what to do.

    settle: seconds by backend, of those that the project has.
    """
    return tuple(_unknown(j, now, settle.get(j.intent.backend)) for j in jobs if j.status == "intent")


def trial_notes(spent: Iterable[tuple[int, Spent]], *, specs: Collection[str]) -> tuple[str, ...]:
    """A sentence for each run of `try` of these specs that reserved money and has not said what it cost."""
    trials: dict[str, list[Spent]] = {}
    for _, event in spent:
        if event.reserved and event.spec in specs:
            trials.setdefault(event.trial, []).append(event)
    return tuple(
        f"`try` of {events[0].spec}, begun {events[0].at}, has not recorded what it cost (at work, or killed): "
        f"{counted(sum(e.requests for e in events), 'request')} count as spent, at their estimate, "
        f"{money(sum(e.usd for e in events))}."
        for events in trials.values()
    )


def _unknown(record: JobRecord, now: dt.datetime, settle: float | None) -> str:
    tag, begun = record.tag, parse_time(record.intent.at) or now
    age = duration((now - begun).total_seconds())
    rows = counted(record.intent.rows, "row")
    if settle is None:
        when = f"Put backend {record.intent.backend} back, so that `batchform sync` can look for it."
    else:
        left = (settles_at(record.intent, settle) - now).total_seconds()
        held = f"for {duration(left)} more" if left > 0 else "until the next sync"
        when = f"`batchform sync` looks for it; {rows} wait {held}, then they may be sent again if it is not found."
    return (
        f"{tag}: begun {age} ago, and it is not known whether its job was created. {when} To settle it by hand: "
        f"batchform jobs adopt {tag} JOB, or batchform jobs not-submitted {tag}"
    )


def expiring(
    jobs: Iterable[JobRecord], *, now: dt.datetime, service: ServiceLimits, within: float
) -> BatchformError | None:
    """An error that names jobs whose results nobody collected and that expire within so many hours; None if none does.

    A job whose end was never seen may have ended at once.
    """
    kept, soon = dt.timedelta(days=service.results_kept_days), now + dt.timedelta(hours=within)
    found = []
    for record in jobs:
        if record.status != "submitted" or record.intent.place:  # results that lie with the user do not expire
            continue
        ended = parse_time(record.ended_at) or parse_time(record.submitted_at) or now
        if ended + kept <= soon:
            left = (ended + kept - now).total_seconds()
            found.append(f"{record.tag} ({'in ' + duration(left) if left > 0 else 'gone by now'})")
    if not found:
        return None
    named = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
    return BatchformError(
        f"Results of {counted(len(found), 'job')} expire before long and are not collected: {named}.",
        hint="Collect them: batchform sync",
    )
