"""Results of a finished job: archived, parsed, joined by key, recorded. In that order, so that no answer is lost.

The raw results are stored before anything reads them. What comes after can be done again from the archive for nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import BackendError, BatchformError, NotFound
from batchform.ledger.raw import Raw, results_name
from batchform.ledger.records import UNPARSED, AnyEvent, Collected, JobRecord, answers_name
from batchform.ledger.segments import timestamp
from batchform.ledger.store import RowsFile
from batchform.plan.price import usage_cost_sql
from batchform.plan.sent import sent_lines
from batchform.ports import RemoteJob
from batchform.rows.sql import literal
from batchform.run.answers import OUTCOME, Answers, unjudged, write_answers
from batchform.run.archive import archive
from batchform.run.attempts import keep_attempts
from batchform.run.context import (
    RESULTS_NOT_FOUND,
    RunContext,
    commit_together,
    described,
    missing_for_long,
    state_seen,
)
from batchform.run.inputs import sent_requests
from batchform.run.row_states import WAITING, sent_again, write_states

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.run.parse import Parsed, Parser

# State of a job → class of its rows that have no result.
_REST: Final = {"CANCELLED": "cancelled", "EXPIRED": "expired", "FAILED": "job_failed"}


CUT_SHORT: Final = frozenset((*_REST, "PARTIALLY_SUCCEEDED"))
"""States of jobs that ended before all of their rows had run."""


class Finished(Struct, frozen=True):
    """A job that will not change any more. remote: None if the service has it no longer; gone: a sentence on that."""

    record: JobRecord
    remote: RemoteJob | None
    gone: str = ""


class _Read(Struct, frozen=True):
    """Raw results, and a Parquet of what they say."""

    archived: Raw
    readings: Path
    parsed: Parsed


class _Rest(Struct, frozen=True):
    """What becomes of rows without a result."""

    cls: str
    message: str


class _Ready(Struct, frozen=True):
    """Results that are archived and read, on their way into the ledger. scratch: a folder of their own."""

    finished: Finished
    rest: _Rest
    read: _Read | None
    scratch: Path


def collect(ctx: RunContext, finished: Finished) -> Collected | None:
    """Archive, parse and record a finished job. None if another runner was faster, or if its results are not found and
    it is too early to believe that they are gone.

    Raises BackendError when the results cannot be fetched now; nothing is recorded then.
    """

    def failed(_: Finished, error: BackendError) -> None:
        raise error

    return collect_together(ctx, [finished], failed=failed).get(finished.record.tag)


def collect_together(
    ctx: RunContext, several: Sequence[Finished], *, failed: Callable[[Finished, BackendError], None]
) -> dict[str, Collected]:
    """Archive and parse finished jobs, and record them in one commit. Returns those that this runner recorded, by tag.

    failed: told of each job whose results cannot be fetched now; nothing is recorded of it.
    """
    recorded: dict[str, Collected] = {}
    with ExitStack() as folders:
        ready: list[_Ready] = []
        for finished in several:
            try:
                found = _prepare(ctx, finished, folders.enter_context(scratch_folder(ctx, finished.record.tag)))
                ready += [found] if found else []
            except BackendError as error:
                failed(finished, error)
        ctx.ledger.refresh()
        commit_together(
            ctx,
            [partial(_record, ctx, one, recorded) for one in ready],
            what=f"the results of {', '.join(r.finished.record.tag for r in ready)}; they are archived",
            hint="Run `batchform sync`: it goes on from the archive.",
        )
    for one in (r for r in ready if r.finished.record.tag in recorded):
        record = one.finished.record
        ctx.progress.collected(ctx.ledger.control().jobs[record.tag], recorded[record.tag])
        _tell(ctx, record, recorded[record.tag], one.read.parsed if one.read else None)
    return recorded


def _prepare(ctx: RunContext, finished: Finished, scratch: Path) -> _Ready | None:
    """Archive and read a job's results. None if they are not found, and it is too early to call them gone."""
    record, rest = finished.record, _rest(finished)
    try:
        archived = archive(ctx, record, finished.remote, scratch)
    except NotFound as error:
        if not missing_for_long(ctx, record, RESULTS_NOT_FOUND, str(error)):
            ctx.progress.note(f"The results of {record.tag} were not found; they are looked for again: {error}")
            return None
        archived = None
        # Its state stays RESULTS_NOT_FOUND in the ledger: whatever the service calls its end, it may have cost.
        finished = Finished(record, None, f"The results of job {record.job} are gone: {error}")
        rest = _rest(finished)
    read = None
    if archived is not None:
        readings = scratch / "readings.parquet"
        state = finished.remote.state if finished.remote else record.state
        read = _Read(archived, readings, _parse(ctx, record, archived, readings, state=state))
    return _Ready(finished, rest, read, scratch)


def _rest(finished: Finished) -> _Rest:
    record, remote = finished.record, finished.remote
    if remote is None:
        return _Rest("expired", finished.gone)
    cls = _REST.get(remote.state)
    said = f": {remote.error}" if remote.error else ""
    if cls is None:
        return _Rest("missing", f"The results of job {record.job} hold no line for this row{said}")
    return _Rest(cls, f"Job {record.job} ended as {remote.state}{said}")


# --- parse -----------------------------------------------------------------------------------------------------


def spec_parser(ctx: RunContext, name: str) -> tuple[Parser, str]:
    """How the answers of a spec are read now, and the digest of that."""
    from batchform.run.parse import Parser, parser_for

    spec = ctx.spec(name)
    if spec is None:
        return Parser(), UNPARSED
    return parser_for(spec.output_format, spec.output_schema), spec.parse_digest


def _parse(ctx: RunContext, record: JobRecord, raw: Raw, readings: Path, *, state: str) -> Parsed:
    from batchform.run.parse import parse_file

    parser, _ = spec_parser(ctx, record.intent.spec)
    return parse_file(
        raw, readings, parser=parser, sent=lambda: sent_lines(ctx.ledger, record.tag), cut_short=state in CUT_SHORT,
        cache=record.intent.cache,
    )  # fmt: skip


# --- record ----------------------------------------------------------------------------------------------------


def _record(
    ctx: RunContext, ready: _Ready, recorded: dict[str, Collected]
) -> tuple[list[AnyEvent], list[RowsFile]] | None:
    """Join with the ledger as it is. The event is put into `recorded`."""
    finished, tag = ready.finished, ready.finished.record.tag
    now = ctx.ledger.control().jobs.get(tag)
    if now is None or now.status == "collected":
        recorded.pop(tag, None)
        return None
    if now.intent.spec != finished.record.intent.spec:
        ready = _of_renamed(ctx, ready, now)
        finished = ready.finished
    with closing(ctx.connect()) as con:
        answers = _join(ctx, con, finished.record, ready.read, ready.scratch)
        rows = _row_states(ctx, con, finished, answers, ready.rest, ready.scratch / "rows.parquet")
        keep_attempts(ctx, con, tag, rows.path, answers)
        recorded[tag] = _event(ctx, con, finished, answers, rows)
    seen = state_seen(ctx, finished.record, finished.remote) if finished.remote else []
    return [*seen, recorded[tag]], [rows]


def _of_renamed(ctx: RunContext, ready: _Ready, now: JobRecord) -> _Ready:
    """Results that were read before their spec was renamed, read as the spec of the new name says."""
    finished, read = replace(ready.finished, record=now), ready.read
    if read is not None:
        state = finished.remote.state if finished.remote else now.state
        read = replace(read, parsed=_parse(ctx, now, read.archived, read.readings, state=state))
    return replace(ready, finished=finished, read=read)


def _join(
    ctx: RunContext,
    con: DuckDBPyConnection,
    record: JobRecord,
    read: _Read | None,
    scratch: Path,
) -> Answers | None:
    if read is None:
        return None
    readings, parsed = read.readings, read.parsed
    spec, tag = record.intent.spec, record.tag
    _, parse_digest = spec_parser(ctx, spec)
    requests, apart = _carried(ctx, con, record, scratch), None
    if record.intent.resumes:
        from batchform.run.resume import set_apart

        apart = set_apart(ctx, con, record, read.archived, readings, requests)
        readings = apart.own
    about = ctx.ledger.rows_of(con, spec, f"read_parquet({literal(str(readings))})")
    answers = write_answers(
        con,
        readings,
        scratch / "answers.parquet",
        tag=tag,
        parse_digest=parse_digest,
        requests=requests,
        known=about,
        moved=sent_again(about, tag),
        parsed=parsed,
    )
    ctx.ledger.put_blob(answers_name(tag, parse_digest), answers.path)
    if apart is not None:
        answers = replace(answers, anomalies={**answers.anomalies, **apart.anomalies}, run_again=apart.again)
    return answers


def _carried(ctx: RunContext, con: DuckDBPyConnection, record: JobRecord, scratch: Path) -> str:
    """FROM-able (key_hash, request_fp) of what a job carried. Rows that wait for it say so; where some moved on, so
    does the archived input: a late answer was paid for, and is found again by its request."""
    rows = ctx.ledger.tag_rows(con, record.intent.spec, record.tag)
    waiting = f"(SELECT key_hash, request_fp FROM {rows} r WHERE {WAITING})"
    count = int(con.execute(f"SELECT count(*) FROM {waiting}").fetchall()[0][0])
    if count >= record.intent.requests or (sent := sent_requests(ctx.ledger, record.intent, scratch)) is None:
        return waiting
    others = f"SELECT key_hash, request_fp FROM read_parquet({literal(str(sent))}) ANTI JOIN {waiting} USING (key_hash)"
    return f"(SELECT * FROM {waiting} UNION ALL {others})"


def _row_states(
    ctx: RunContext,
    con: DuckDBPyConnection,
    finished: Finished,
    answers: Answers | None,
    rest: _Rest,
    to: Path,
) -> RowsFile:
    """The new states of the rows that wait for this job. Rows that have moved on to another job keep theirs."""
    record, remote = finished.record, finished.remote
    spec, tag = record.intent.spec, record.tag
    rows = ctx.ledger.tag_rows(con, spec, tag)
    found = f"read_parquet({literal(str(answers.path if answers else _no_answers(con, to)))})"
    if ctx.spec(spec) is None:
        found = unjudged(found)
    ended = remote.ended_at if remote and remote.ended_at else ctx.clock.now()
    values = {
        "status": "CASE WHEN a.class = 'answered' THEN 'answered' ELSE 'failed' END",
        "failure": f"CASE WHEN a.class = 'answered' THEN NULL ELSE coalesce(a.class, {literal(rest.cls)}) END",
        "failure_message": "CASE WHEN a.class = 'answered' THEN NULL "
        f"WHEN a.class IS NULL THEN {literal(rest.message)} ELSE a.message END",
        "failure_parse": "CASE WHEN a.class = 'invalid_output' THEN a.parse_digest END",
        **answered_values(
            answer_fp="r.request_fp",
            tag=literal(tag),
            answered_at=literal(timestamp(ended)),
            cost=usage_cost_sql(ctx.rates(record.intent.model, record.intent.backend), "a"),
        ),
        "at": literal(ctx.now()),
    }
    source = f"{rows} r LEFT JOIN {found} a USING (key_hash) WHERE {WAITING}"
    return RowsFile(spec, to, write_states(con, values, source, to))


def answered_values(*, answer_fp: str, tag: str, answered_at: str, cost: str) -> dict[str, str]:
    """SQL of the answer columns: from alias `a` where it answered, else what the row had. The arguments are SQL."""
    taken = {
        "answer_fp": answer_fp,
        "answer_tag": tag,
        "answer_key_hash": "a.key_hash",
        "answer_serial": "NULL",
        "parse_digest": "a.parse_digest",
        "answered_at": answered_at,
        "finish_reason": "a.finish_reason",
        "model_version": "a.model_version",
        "prompt_tokens": "a.prompt_tokens",
        "output_tokens": "a.output_tokens",
        "thought_tokens": "a.thought_tokens",
        "cached_tokens": "a.cached_tokens",
        "cost_usd": cost,
    }
    return {c: f"CASE WHEN a.class = 'answered' THEN {sql} ELSE r.{c} END" for c, sql in taken.items()}


def _no_answers(con: DuckDBPyConnection, beside: Path) -> Path:
    from batchform.run.answers import write_no_answers

    path = beside.with_name("no_answers.parquet")
    write_no_answers(con, path)
    return path


def _event(
    ctx: RunContext, con: DuckDBPyConnection, finished: Finished, answers: Answers | None, rows: RowsFile
) -> Collected:
    record = finished.record
    counted = con.execute(
        f"SELECT {OUTCOME}, count(*) FROM read_parquet({literal(str(rows.path))}) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    usage = answers.usage(con, ctx.rates(record.intent.model, record.intent.backend)) if answers else (0, 0, 0.0)
    return Collected(
        at=ctx.now(),
        by=ctx.who,
        tag=record.tag,
        archive=results_name(ctx.ledger, record.tag) if answers else None,
        answers=answers_name(record.tag, answers.parse_digest) if answers else None,
        rows={str(name): int(count) for name, count in counted},
        anomalies={name: count for name, count in answers.anomalies.items() if count} if answers else {},
        prompt_tokens=usage[0],
        output_tokens=usage[1],
        usd=usage[2],
    )


def _tell(ctx: RunContext, record: JobRecord, collected: Collected, parsed: Parsed | None) -> None:
    """What a person should know about odd results."""
    words = {
        "duplicate": "lines repeat a row that was already answered",
        "conflicting": "rows have several different results; the first answer was taken",
        "unknown_key": "lines belong to no row of this spec",
        "unreadable": "lines are not JSON",
        "moved": "rows were sent again since; their answers of this job are archived",
        "run_again": "rows that had an answer before it was resumed came back with another one: the service ran them "
        "again, which counts as spent; their first answers stay, and no job of this backend is resumed any more",
        "not_handed_on": "answers that were there before it was resumed are not among its results; they stay archived",
    }
    for name, count in collected.anomalies.items():
        shown = f" ({', '.join(parsed.examples)})" if name == "unknown_key" and parsed and parsed.examples else ""
        ctx.progress.note(f"{described(record.intent)}: {count} {words.get(name, name)}{shown}.")


@contextmanager
def scratch_folder(ctx: RunContext, tag: str) -> Iterator[Path]:
    """A folder of this collection's own files. A full disk is said in a sentence."""
    folder = ctx.work_dir / f"collect-{tag}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise BatchformError(
            f"Collecting {tag} stopped: {error.strerror or error} ({folder}).",
            hint="Make room, then run `batchform sync`: nothing that was archived is lost.",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
