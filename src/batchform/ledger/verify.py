"""Looking at everything in the ledger: files against the head, records against each other, blobs against events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batchform.errors import BatchformError
from batchform.ledger import segments as seg
from batchform.ledger.fold import JobEvent
from batchform.ledger.records import ControlView, Intent, JobRecord, Segment, answers_name
from batchform.ledger.relation import Part, create_rows_view
from batchform.ledger.stored import AGAIN, answers_problem, archive_problem
from batchform.rows.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.ledger.store import Ledger

_ORDER: Final = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold. severity: "error" (answers or money at risk), "warning" or "info"."""

    severity: str
    message: str
    hint: str = ""


def verify(ledger: Ledger, con: DuckDBPyConnection) -> list[Finding]:
    """All findings, worst first. A damaged file ends the checks that need it, not the others."""
    if ledger.head is None:
        return []
    damaged: set[str] = set()
    findings = list(_files(ledger, damaged))
    intact = [s for s in ledger.head.segments if s.name not in damaged]
    if all(s in intact for s in ledger.event_segments()):
        view = ledger.control()
        findings += _events(ledger, view)
        findings += _blobs(ledger, view)
    else:
        view = None
    for spec in ledger.specs():
        if all(s in intact for s in ledger.row_segments(spec)):
            findings += _rows(ledger, con, spec, view)
    findings += _strangers(ledger)
    return sorted(findings, key=lambda f: _ORDER[f.severity])


def _files(ledger: Ledger, damaged: set[str]) -> Iterator[Finding]:
    """Every live segment: there, whole, unaltered, readable."""
    for segment in ledger.head.segments if ledger.head else ():
        try:
            if segment.kind == "events":
                ledger.log.events_of(segment)
            else:
                seg.check_digest(ledger.blobs, segment, ledger.log.path_of(segment))
        except BatchformError as error:
            damaged.add(segment.name)
            yield Finding("error", error.message, error.hint)


def _events(ledger: Ledger, view: ControlView) -> Iterator[Finding]:
    """Every event of a job follows an intent; a serial lies within the ledger's."""
    intents: set[str] = set()
    for segment in ledger.event_segments():
        if segment.serial > ledger.serial:
            yield Finding("error", f"{segment.name} has serial {segment.serial}, the ledger is at {ledger.serial}.")
        for _, event in ledger.log.events_of(segment):
            if isinstance(event, Intent):
                intents.add(event.tag)
            elif isinstance(event, JobEvent) and event.tag not in intents:
                yield Finding(
                    "error", f"{segment.name}: {type(event).__name__} of {event.tag}, which was never intended."
                )
    for job in view.jobs.values():
        if job.status == "submitted" and not job.job:
            yield Finding("error", f"Job {job.tag} was submitted without a name.")


def _blobs(ledger: Ledger, view: ControlView) -> Iterator[Finding]:
    """Raw results and parsed answers that events name are stored."""
    there = {*ledger.blobs.list("archive/"), *ledger.blobs.list("answers/")}
    for job in view.jobs.values():
        if not job.collected:
            continue
        archive, answers = job.collected.archive, job.collected.answers
        no_archive, no_answers = bool(archive) and archive not in there, bool(answers) and answers not in there
        if no_archive and (no_answers or not answers):
            yield Finding(
                "error", f"The answers of job {job.tag} are gone: {archive} is missing.", f"Restore it. {seg.RESTORE}"
            )
        elif no_archive:
            yield Finding(
                "warning",
                f"{archive} is missing: answers of job {job.tag} cannot be parsed anew.",
                "Fine if its retention has ended; else restore it.",
            )
        elif no_answers:
            yield Finding("warning", f"{answers} is missing.", AGAIN)
        if archive and not no_archive and (problem := archive_problem(ledger.blob(archive))):
            yield Finding("error", f"{archive} is damaged: {problem}.", f"Restore it. {seg.RESTORE}")
            no_archive = True
        if answers and not no_answers and (problem := answers_problem(ledger.blob(answers))):
            hint = seg.RESTORE if no_archive or not archive else f"Delete it: {AGAIN}"
            yield Finding("error", f"{answers} is damaged: {problem}.", hint)


def _rows(ledger: Ledger, con: DuckDBPyConnection, spec: str, view: ControlView | None) -> Iterator[Finding]:
    """Records of one spec, each segment by itself and all together against the jobs."""
    import duckdb

    try:
        for index, segment in enumerate(ledger.row_segments(spec)):
            yield from _segment_rows(ledger, con, segment, f"bf_verify_{spec}_{index}")
        if view is not None:
            yield from _rows_and_jobs(ledger, con, spec, view)
    except duckdb.Error as error:
        yield Finding("error", f"Rows of spec {spec} cannot be read: {str(error).splitlines()[0]}", seg.RESTORE)


def _segment_rows(ledger: Ledger, con: DuckDBPyConnection, segment: Segment, name: str) -> Iterator[Finding]:
    view = create_rows_view(con, name, [Part(ledger.log.path_of(segment), segment.serial, base=segment.base)])
    statuses = ", ".join(literal(s) for s in seg.STATUSES)
    found = con.execute(
        f"SELECT count(*) - {segment.rows}, count(*) - count(DISTINCT key_hash), "
        f"count(*) FILTER (key_hash IS DISTINCT FROM left(sha256(key), 32)::UUID), "
        f"count(*) FILTER (status IS NULL OR status NOT IN ({statuses})), "
        f"count(*) FILTER (changed_serial IS NULL OR changed_serial > {segment.serial} "
        f"OR answer_serial > {segment.serial}) FROM {view}"
    ).fetchone()
    texts = (
        "rows more than the head says",
        "keys that occur twice",
        "rows whose hash is not their key's",
        "rows of unknown status",
        "rows with a serial beyond their segment's",
    )
    for count, text in zip(found or (), texts, strict=True):
        if count:
            yield Finding("error", f"{segment.name}: {text}: {count:,}.", seg.RESTORE)


def _rows_and_jobs(ledger: Ledger, con: DuckDBPyConnection, spec: str, view: ControlView) -> Iterator[Finding]:
    rows = ledger.rows_relation(con, spec)
    waiting = dict(
        con.execute(f"SELECT tag, count(*) FROM {rows} WHERE status = 'in_flight' GROUP BY tag ORDER BY tag").fetchall()
    )
    for tag, count in waiting.items():
        if (job := view.jobs.get(tag)) is None:
            yield Finding(
                "error", f"{count:,} rows of {spec} wait for job {tag}, which was never intended.", seg.RESTORE
            )
        elif not job.open:
            yield Finding("error", f"{count:,} rows of {spec} wait for job {tag}, which is {job.status}.", _FREE_ROWS)
    for job in view.jobs.values():
        if job.intent.spec == spec and job.open and waiting.get(job.tag, 0) != job.intent.rows:
            yield _short_job(job, waiting.get(job.tag, 0))
    for tag, parse, count in con.execute(
        f"SELECT answer_tag, parse_digest, count(*) FROM {rows} WHERE answer_tag IS NOT NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        answering = view.jobs.get(tag)
        if answering is None or answering.collected is None:
            yield Finding("error", f"{count:,} rows of {spec} are answered by job {tag}, which was not collected.")
        elif parse is not None and answers_name(tag, parse) != answering.collected.answers:
            yield from _read_again(ledger, answers_name(tag, parse))


def _read_again(ledger: Ledger, answers: str) -> Iterator[Finding]:
    """Answers that were parsed anew after they were collected."""
    if not ledger.has_blob(answers):
        yield Finding("warning", f"{answers} is missing.", AGAIN)
    elif problem := answers_problem(ledger.blob(answers)):
        yield Finding("error", f"{answers} is damaged: {problem}.", f"Delete it: {AGAIN}")


_FREE_ROWS: Final = "`batchform sync` looks at every job again; if they stay, `batchform rerun` sends the rows anew."


def _short_job(job: JobRecord, count: int) -> Finding:
    return Finding("warning", f"Job {job.tag} is open with {job.intent.rows:,} rows, but {count:,} rows wait for it.")


def _strangers(ledger: Ledger) -> Iterator[Finding]:
    """Segments that no head names: harmless."""
    assert ledger.head is not None
    known = {s.name for s in ledger.head.segments} | {r.name for r in ledger.head.retired}
    strangers = [n for n in ledger.blobs.list(seg.FOLDER) if n not in known]
    if strangers:
        yield Finding(
            "info",
            f"{len(strangers)} segments belong to commits that were interrupted, such as {strangers[0]}.",
            "Harmless: compaction removes them after a day.",
        )
