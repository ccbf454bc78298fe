"""The fold: control events, in order, to what they mean together. Pure, total, the same before and after compaction.

A fact that is known is never hidden by a later doubt: a job that was seen is not unseen by `NotSubmitted` or by a late
`Intent`, collected results are not lost to a later empty `Collected`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from batchform.ledger.moves import Forgotten, Moved, fold_move
from batchform.ledger.records import (
    Admitted,
    Allowed,
    AnyEvent,
    ApprovalEnded,
    Approved,
    ChangeDecided,
    Collected,
    ControlView,
    DeliveredTo,
    Disowned,
    InputDeleted,
    Intent,
    JobDeleted,
    JobRecord,
    NotSubmitted,
    Reached,
    Refreshed,
    RerunRequested,
    Spent,
    StageApproved,
    StageReached,
    StateSeen,
    Submitted,
)

JobEvent = Submitted | NotSubmitted | StateSeen | Collected | InputDeleted | JobDeleted


def fold(events: Iterable[tuple[int, AnyEvent]], *, lineage: str = "", serial: int = 0) -> ControlView:
    """The view of all (serial, event) pairs, in order of commit. Events of unknown jobs are left out."""
    view = ControlView(lineage=lineage, serial=serial)
    for at, event in events:
        if isinstance(event, Intent | Refreshed) and event.backend:
            view.applied_to[event.spec] = event.backend
        if isinstance(event, Refreshed):
            for plan in {event.plan_digest, event.wave_of} - {""}:
                view.refreshed.setdefault(plan, []).append(event)
        if isinstance(event, Intent):
            _intend(view, event)
        elif isinstance(event, JobEvent):
            if job := view.jobs.get(event.tag):
                _apply(job, event)
        elif isinstance(event, DeliveredTo):
            view.deliveries[event.spec] = event
        elif isinstance(event, RerunRequested):
            view.reruns.setdefault(event.spec, []).append((at, event))
        elif isinstance(event, Allowed):
            view.allowed.append(event)
        elif isinstance(event, Approved):
            view.approved[event.spec] = event
        elif isinstance(event, ApprovalEnded):
            held = view.approved.get(event.spec)
            if held is not None and held.plan_digest == event.plan_digest:
                del view.approved[event.spec]
        elif isinstance(event, Admitted):
            view.admitted.append(event)
        elif isinstance(event, ChangeDecided):
            view.changes[event.spec] = event
        elif isinstance(event, StageReached | StageApproved):
            _release(view, event)
        elif isinstance(event, Spent):
            _spend(view, at, event)
        elif isinstance(event, Disowned):
            view.disowned.add(event.job)
        elif isinstance(event, Moved | Forgotten):
            fold_move(view, at, event)
    return view


def _spend(view: ControlView, at: int, event: Spent) -> None:
    """What a trial cost takes the place of what it reserved, which stays as an entry of nothing. What a cache cost
    counts once, also when two runs that saw its end recorded it at the same time."""
    if event.trial and not event.reserved:
        for index, (serial, before) in enumerate(view.spent):
            if before.trial == event.trial and before.reserved:
                view.spent[index] = serial, msgspec.structs.replace(before, requests=0, usd=0.0, reserved=False)
    if event.cache and any(before.cache == event.cache for _, before in view.spent):
        event = msgspec.structs.replace(event, usd=0.0)
    view.spent.append((at, event))


def _release(view: ControlView, event: StageReached | StageApproved) -> None:
    """A stage that was released stays so, for the edit and among the stages that it was released for."""
    known = view.rollouts.setdefault(event.spec, {}).setdefault((event.edit, event.stages), Reached())
    if isinstance(event, StageReached):
        known.stage = max(known.stage, event.stage)
    elif event.stage not in known.approved:
        known.approved.append(event.stage)


def _intend(view: ControlView, event: Intent) -> None:
    """A second intent of one tag starts it anew, unless a job of that tag is known."""
    known = view.jobs.get(event.tag)
    if known is None or known.status in ("intent", "not_submitted"):
        view.jobs.pop(event.tag, None)
        view.jobs[event.tag] = JobRecord(intent=event)


def _apply(job: JobRecord, event: JobEvent) -> None:
    match event:
        case Submitted():
            job.job, job.how, job.submitted_at = event.job, event.how, event.at
            if job.status in ("intent", "not_submitted"):
                job.status = "submitted"
            elif event.how == "reopened" and job.collected is not None and job.collected.archive is None:
                job.status, job.collected = "submitted", None
        case NotSubmitted():
            if job.status == "intent":
                job.status, job.how, job.reason = "not_submitted", event.how, event.reason
        case StateSeen():
            job.state, job.state_at, job.error = event.state, event.at, event.error
            job.counts = dict(event.counts)
            job.ended_at = event.ended_at or job.ended_at
        case Collected():
            if job.collected is None or job.collected.archive is None or event.archive is not None:
                job.collected = event
            job.status = "collected"
        case InputDeleted():
            job.input_deleted = True
        case JobDeleted():
            pass  # of a job that is open again by then, sync finds that it is gone, and gives its rows back
