"""Row states of one spec: each segment by itself, all together against jobs, and against the answers they speak of.

Everything is counted inside DuckDB, which spills to disk: memory does not grow with the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from batchform.ledger import segments as seg
from batchform.ledger.findings import ERROR, REPAIR, SYNC, WARNING, Finding
from batchform.ledger.records import UNPARSED, Collected, ControlView, JobRecord, Segment, answers_name
from batchform.ledger.relation import Part, create_rows_view
from batchform.ledger.stored import AGAIN, answers_problem
from batchform.rows.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.ledger.store import Ledger

_FREE_ROWS: Final = "`batchform sync` looks at every job again; if they stay, `batchform rerun` sends the rows anew."


def check_rows(ledger: Ledger, con: DuckDBPyConnection, spec: str, view: ControlView | None) -> Iterator[Finding]:
    """view: None if the events cannot be read; then rows are compared among themselves alone."""
    import duckdb

    try:
        for index, segment in enumerate(ledger.row_segments(spec)):
            yield from _segment(ledger, con, segment, f"bf_verify_{spec}_{index}")
        if view is not None:
            rows = ledger.rows_relation(con, spec)
            yield from _waiting(con, rows, spec, view)
            yield from _collected(ledger, con, spec)
            yield from _answered(ledger, con, rows, spec, view)
    except duckdb.Error as error:
        yield Finding(ERROR, f"Rows of spec {spec} cannot be read: {str(error).splitlines()[0]}", seg.RESTORE)


def _segment(ledger: Ledger, con: DuckDBPyConnection, segment: Segment, name: str) -> Iterator[Finding]:
    view = create_rows_view(con, name, [Part(ledger.log.path_of(segment), segment.serial, base=segment.base)])
    statuses = ", ".join(literal(s) for s in seg.STATUSES)
    found = con.execute(
        f"SELECT count(*) - {segment.rows}, "
        f"count(*) - (SELECT count(*) FROM (SELECT key_hash FROM {view} GROUP BY 1)), "
        f"count(*) FILTER (key_hash IS DISTINCT FROM left(sha256(key), 32)::UUID), "
        f"count(*) FILTER (status IS NULL OR status NOT IN ({statuses})), "
        f"count(*) FILTER (status = 'in_flight' AND tag IS NULL), "
        f"count(*) FILTER (changed_serial IS NULL OR changed_serial > {segment.serial} "
        f"OR answer_serial > {segment.serial}) FROM {view}"
    ).fetchone()
    texts = (
        "rows more than the head says",
        "keys that occur twice",
        "rows whose hash is not their key's",
        "rows of unknown status",
        "rows that wait for no job",
        "rows with a serial beyond their segment's",
    )
    for count, text in zip(found or (), texts, strict=True):
        if count:
            yield Finding(ERROR, f"{segment.name}: {text}: {count:,}.", seg.RESTORE, segment.name)


def _waiting(con: DuckDBPyConnection, rows: str, spec: str, view: ControlView) -> Iterator[Finding]:
    """Rows in flight have an open job, and an open job has its rows."""
    waiting = dict(
        con.execute(
            f"SELECT tag, count(*) FROM {rows} WHERE status = 'in_flight' AND tag IS NOT NULL GROUP BY tag ORDER BY tag"
        ).fetchall()
    )
    for tag, count in waiting.items():
        text = f"{count:,} rows of {spec} wait for job {tag}, which "
        if (job := view.jobs.get(tag)) is None:
            yield Finding(ERROR, f"{text}was never intended.", seg.RESTORE)
        elif not job.open:
            yield Finding(ERROR, f"{text}is {job.status}.", _FREE_ROWS, repair=SYNC)
    for job in view.jobs.values():
        if job.intent.spec == spec and job.open and waiting.get(job.tag, 0) != job.intent.rows:
            yield _other_number(job, waiting.get(job.tag, 0))


def _other_number(job: JobRecord, count: int) -> Finding:
    text = f"Job {job.tag} is open with {job.intent.rows:,} rows, but {count:,} rows wait for it."
    return Finding(WARNING, text, "Fine if the others were sent anew since; its answers are collected in any case.")


def _collected(ledger: Ledger, con: DuckDBPyConnection, spec: str) -> Iterator[Finding]:
    """What a collection counted is what it recorded, as long as its own segment is there."""
    control = ledger.control()
    own = {s.serial: s for s in ledger.row_segments(spec) if not s.base}
    for segment in ledger.event_segments():
        for serial, event in ledger.log.events_of(segment) if segment.serial in own or segment.base else ():
            if not isinstance(event, Collected) or serial not in own or event.tag not in control.jobs:
                continue
            if control.jobs[event.tag].intent.spec != spec:
                continue
            path = literal(str(ledger.log.path_of(own[serial])))
            unread = f"failure_parse = {literal(UNPARSED)}"
            recorded = con.execute(
                f"SELECT CASE WHEN {unread} THEN 'unread' ELSE coalesce(failure, 'answered') END, count(*) "
                f"FROM read_parquet({path}) WHERE tag = {literal(event.tag)} GROUP BY 1"
            ).fetchall()
            if Counter(dict(recorded)) != Counter(event.rows):
                text = f"Job {event.tag} was collected as {_shown(event.rows)}, its rows say {_shown(dict(recorded))}."
                yield Finding(ERROR, text, seg.RESTORE, own[serial].name)


def _shown(classes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(classes.items())) or "nothing"


def _answered(ledger: Ledger, con: DuckDBPyConnection, rows: str, spec: str, view: ControlView) -> Iterator[Finding]:
    """Each answered row's job was collected, and the answers hold its key, under the request that it answers."""
    held = []
    for tag, parse, count in con.execute(
        f"SELECT answer_tag, parse_digest, count(*) FROM {rows} WHERE answer_tag IS NOT NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        job = view.jobs.get(tag)
        if job is None or job.collected is None:
            text = f"{count:,} rows of {spec} are answered by job {tag}, which was not collected."
            yield Finding(ERROR, text, seg.RESTORE)
            continue
        name = answers_name(tag, parse) if parse is not None else job.collected.answers
        if name is None:
            yield Finding(ERROR, f"{count:,} rows of {spec} are answered by job {tag}, which has no answers.")
            continue
        problem = "it is missing" if not ledger.has_blob(name) else answers_problem(ledger.blob(name))
        if problem and name != job.collected.answers:
            yield _read_again(name, problem)
        if not problem:
            held.append(str(ledger.blob(name)))
    if held:
        yield from _keys_held(con, rows, spec, held)


def _read_again(name: str, problem: str) -> Finding:
    """Answers that were parsed anew after they were collected."""
    if problem == "it is missing":
        return Finding(WARNING, f"{name} is missing.", AGAIN, name, SYNC)
    hint = f"`{REPAIR}` sets it aside, then {AGAIN}"
    return Finding(ERROR, f"{name} is damaged: {problem}.", hint, name, f"{REPAIR} && {SYNC}")


def _keys_held(con: DuckDBPyConnection, rows: str, spec: str, paths: list[str]) -> Iterator[Finding]:
    """Only answers in readable files are looked for: the others have findings of their own."""
    files = f"read_parquet([{', '.join(literal(p) for p in paths)}])"
    answers = f"SELECT tag, key_hash, parse_digest, request_fp FROM {files} WHERE class = 'answered'"
    wanted = (
        f"SELECT answer_tag, answer_key_hash, parse_digest, answer_fp FROM {rows} WHERE answer_tag IS NOT NULL "
        f"AND (answer_tag, parse_digest) IN (SELECT DISTINCT tag, parse_digest FROM {files})"
    )
    for tag, absent, other in con.execute(
        "SELECT answer_tag, count(*) FILTER (a.tag IS NULL), count(*) FILTER (a.request_fp <> w.answer_fp) "
        f"FROM ({wanted}) w LEFT JOIN ({answers}) a ON a.tag = w.answer_tag AND a.key_hash = w.answer_key_hash "
        "AND a.parse_digest = w.parse_digest GROUP BY 1 HAVING count(a.tag) < count(*) "
        "OR count(*) FILTER (a.request_fp <> w.answer_fp) > 0 ORDER BY 1"
    ).fetchall():
        for count, what in ((absent, "are not in its answers"), (other, "have answers to another request there")):
            if count:
                text = f"{count:,} rows of {spec} are answered by job {tag}, but {what}."
                yield Finding(ERROR, text, seg.RESTORE)
