"""Looking at everything in the ledger: head and copies, files against the head, events, then rows and blobs.

Nothing is changed, and no lock is taken. A damaged file ends the checks that need it, not the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from batchform.errors import BatchformError, LedgerCorrupt
from batchform.ledger import heads
from batchform.ledger import segments as seg
from batchform.ledger.findings import (
    COMPACT,
    ERROR,
    FROM_BACKUP,
    INFO,
    REPAIR,
    RESTORE_FILE,
    SYNC,
    WARNING,
    Finding,
    worst_first,
)
from batchform.ledger.fold import JobEvent
from batchform.ledger.records import ControlView, Head, Intent, tag_of_results
from batchform.ledger.verify_blobs import check_blobs
from batchform.ledger.verify_rows import check_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.ledger.store import Ledger

__all__ = ["Finding", "verify"]

WENT_BACK: Final = (
    "An older ledger was put in its place. Restore the newest copy of the whole folder, and until then apply nothing: "
    "rows that were sent since would be paid for again."
)


def verify(ledger: Ledger, con: DuckDBPyConnection) -> list[Finding]:
    """All findings, worst first. Raises LedgerCorrupt only for a ledger that a newer batchform wrote."""
    try:
        ledger.refresh()
    except seg.FromNewer:
        raise
    except LedgerCorrupt as error:
        repair = REPAIR if heads.copies(ledger.blobs) else ""
        return [Finding(ERROR, error.message, error.hint, "head.json", repair)]
    if ledger.head is None:
        return []
    damaged: set[str] = set()
    findings = [*_head(ledger, ledger.head), *_files(ledger, damaged)]
    intact = [s for s in ledger.head.segments if s.name not in damaged]
    view = None
    if all(s in intact for s in ledger.event_segments()):
        view = ledger.control()
        findings += _events(ledger, view)
        findings += check_blobs(ledger, view)
        findings += _unknown_results(ledger, view)
    for spec in ledger.specs():
        if all(s in intact for s in ledger.row_segments(spec)):
            findings += check_rows(ledger, con, spec, view)
    findings += _strangers(ledger, ledger.head, view)
    return worst_first(findings)


# --- head --------------------------------------------------------------------------------------------------------


def _head(ledger: Ledger, head: Head) -> Iterator[Finding]:
    """The head by itself, and against the copies of earlier ones."""
    names = [s.name for s in head.segments]
    for name in sorted({n for n in names if names.count(n) > 1} if len(set(names)) < len(names) else ()):
        yield Finding(ERROR, f"head.json names {name} twice.", seg.RESTORE, "head.json")
    for segment in head.segments:
        if not 0 < segment.serial <= head.serial:
            text = f"{segment.name} has serial {segment.serial}, the ledger is at {head.serial}."
            yield Finding(ERROR, text, seg.RESTORE, segment.name)
    if head.serial and head.writer not in head.recent[:1]:
        yield Finding(ERROR, "head.json does not name its own writer as the last one.", seg.RESTORE, "head.json")
    for copy in heads.copies(ledger.blobs):
        kept = heads.read(ledger.blobs, copy)
        if kept is None:
            yield Finding(WARNING, f"{copy.name} is damaged: no copy of that head is left.", _GOES, copy.name)
        elif kept.lineage != head.lineage:
            text = f"{copy.name} is of another ledger: lineage {kept.lineage}, this one is {head.lineage}."
            yield Finding(ERROR, text, f"Two ledgers were put into one folder. {seg.RESTORE}", copy.name)
        elif copy.serial > head.serial:
            text = (
                f"{copy.name} was made ready, but is not the head: its commit was interrupted, or head.json put back."
            )
            yield Finding(WARNING, text, "The next commit takes it up; so does the repair.", copy.name, REPAIR)
        elif not heads.descends(head, kept) and kept.serial < head.serial:
            text = f"{copy.name} is not in the history of head.json: two histories were mixed."
            yield Finding(WARNING, text, "A commit that lost is removed by the next one; else look into it.", copy.name)


_GOES: Final = "Nothing to do: the next commits write new ones and remove it."


# --- segments ----------------------------------------------------------------------------------------------------


def _files(ledger: Ledger, damaged: set[str]) -> Iterator[Finding]:
    """Every live segment: there, whole, unaltered, readable."""
    for segment in ledger.head.segments if ledger.head else ():
        try:
            if segment.kind == "events":
                ledger.log.events_of(segment)
            else:
                seg.check_digest(ledger.blobs, segment, ledger.log.path_of(segment))
        except seg.FromNewer:
            raise
        except BatchformError as error:
            damaged.add(segment.name)
            yield Finding(ERROR, error.message, RESTORE_FILE, segment.name, FROM_BACKUP)


def _strangers(ledger: Ledger, head: Head, view: ControlView | None) -> Iterator[Finding]:
    """Segments that no head names: of commits that were interrupted, or of a later ledger than this one."""
    known = {s.name for s in head.segments} | {r.name for r in head.retired}
    ready = heads.ready(ledger.blobs, head)
    known |= {s.name for s in ready.segments} if ready else set()
    strangers = [n for n in ledger.blobs.list(seg.FOLDER) if n not in known]
    harmless = []
    for name in strangers:
        if seg.written_at(name) is None:
            yield Finding(INFO, f"{name} is none of batchform's files.", "Move it elsewhere.", name)
        elif view is not None and (tag := _later_tag(ledger, name, view)):
            text = f"{name} tells of job {tag}, which this ledger does not know: the ledger went back."
            yield Finding(ERROR, text, WENT_BACK, name)
        else:
            harmless.append(name)
    if harmless:
        text = f"{len(harmless)} segments belong to commits that were interrupted, such as {harmless[0]}."
        yield Finding(INFO, text, "Harmless: compaction removes them after a day.", harmless[0], COMPACT)


def _later_tag(ledger: Ledger, name: str, view: ControlView) -> str:
    """A job that events in a segment presuppose, and that was never intended here; "" if there is none."""
    if not name.endswith(".jsonl"):
        return ""
    events = seg.readable_events(ledger.blobs, name)
    intended = {e.tag for e in events if isinstance(e, Intent)} | set(view.jobs)
    return next((e.tag for e in events if isinstance(e, JobEvent) and e.tag not in intended), "")


def _unknown_results(ledger: Ledger, view: ControlView) -> Iterator[Finding]:
    """Results of jobs that were never intended here: an intent comes first, always."""
    for name in ledger.blobs.list("archive/"):
        tag = tag_of_results(name)
        if tag and tag not in view.jobs:
            text = f"{name} holds results of a job that this ledger does not know: the ledger went back."
            yield Finding(ERROR, text, WENT_BACK, name)


# --- events ------------------------------------------------------------------------------------------------------


def _events(ledger: Ledger, view: ControlView) -> Iterator[Finding]:
    """Serials do not go back, every event of a job follows its intent, and no job is intended while it may exist."""
    status: dict[str, str] = {}
    for segment in ledger.event_segments():
        last = 0
        for serial, event in ledger.log.events_of(segment):
            if serial < last or serial > segment.serial:
                text = f"{segment.name}: {type(event).__name__} of serial {serial} is out of order."
                yield Finding(ERROR, text, seg.RESTORE, segment.name)
            last = serial
            if isinstance(event, Intent):
                if status.get(event.tag) not in (None, "NotSubmitted"):
                    text = f"{segment.name}: job {event.tag} was intended again after {status[event.tag]}."
                    yield Finding(ERROR, text, _LOOK, segment.name)
                status[event.tag] = "Intent"
            elif isinstance(event, JobEvent):
                if event.tag not in status:
                    text = f"{segment.name}: {type(event).__name__} of {event.tag}, which was never intended."
                    yield Finding(ERROR, text, seg.RESTORE, segment.name)
                elif status[event.tag] in ("Intent", "NotSubmitted") or not _undone(event):
                    status[event.tag] = type(event).__name__
    for job in view.jobs.values():
        if job.status == "submitted" and not job.job:
            yield Finding(ERROR, f"Job {job.tag} was submitted without a name.", _LOOK, repair=SYNC)


def _undone(event: JobEvent) -> bool:
    """Whether this event alone would say that there is no job: it does not, once one was seen."""
    return type(event).__name__ == "NotSubmitted"


_LOOK: Final = "`batchform jobs list` shows what is known of it; the service's own list shows what exists."
