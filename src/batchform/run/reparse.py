"""Archived results, parsed again as the spec reads them now. Costs nothing, sends nothing."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.ledger.raw import reading_results, results_missing
from batchform.ledger.records import Reparsed, answers_name
from batchform.ledger.rekeyed import asked_rows, under_all_keys
from batchform.ledger.store import RowsFile
from batchform.ledger.stored import answers_problem, is_whole
from batchform.plan.diff import asked_since
from batchform.plan.price import usage_cost_sql
from batchform.plan.sent import sent_lines
from batchform.rows.sql import literal
from batchform.run.answers import write_answers
from batchform.run.collect import CUT_SHORT, answered_values
from batchform.run.context import RunContext, commit_decided
from batchform.run.inputs import sent_requests
from batchform.run.parse import parse_file, parser_for
from batchform.run.resume import only_own
from batchform.run.row_states import sent_again, write_states
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def reparse(ctx: RunContext, spec: ResolvedSpec, *, keys: Path | None = None) -> Reparsed | None:
    """Read the spec's archived answers under its current parse digest, and record what they are now.

    Concerns answered rows that were parsed otherwise, and rows that failed for their output alone. None if there are
    none. Rows whose archive is gone keep what they have. So do those that someone asked to send again: what is
    recorded after that would settle it.
    keys: Parquet of the rows that a plan reads anew (key_hash, firm); None: all. Those that are not firm stay as they
    were read if they do not fit: kept answers, which were not asked for like this, and rows that left the source.
    """
    folder = ctx.work_dir / f"reparse-{spec.name}"
    folder.mkdir(parents=True, exist_ok=True)

    def decide() -> tuple[Reparsed, list[RowsFile]] | None:
        with closing(ctx.connect()) as con:
            return _parse_again(ctx, con, spec, keys, folder)

    try:
        ctx.ledger.refresh()
        return commit_decided(ctx, decide, what=f"the answers of {spec.name}", hint="Run again.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# A failed row's output is in the archive of its last job; an answered row's in that of its answer.
_HOLDER = "CASE WHEN r.status = 'failed' THEN r.tag ELSE r.answer_tag END"
_REFUSED = "r.status = 'failed' AND r.tag IS DISTINCT FROM r.answer_tag"
_KEY = f"CASE WHEN {_REFUSED} THEN r.key_hash ELSE r.answer_key_hash END"
_FIRST = "row_number() OVER (PARTITION BY r.key_hash ORDER BY a.key_hash) = 1"


def _parse_again(
    ctx: RunContext, con: DuckDBPyConnection, spec: ResolvedSpec, keys: Path | None, folder: Path
) -> tuple[Reparsed, list[RowsFile]] | None:
    known = ctx.ledger.rows_relation(con, spec.name)
    chosen = f"read_parquet({literal(str(keys))})" if keys else _all_keys(spec, known, ctx.ledger.control().changes)
    rows, parse = f"{known} r JOIN {chosen} k ON r.key_hash = k.key_hash", literal(spec.parse_digest)
    stale = (
        f"((r.status IN ('answered', 'absent') AND r.parse_digest <> {parse} "
        f"AND (k.firm OR r.failure_parse IS DISTINCT FROM {parse})) "
        f"OR (r.status = 'failed' AND r.failure = 'invalid_output' AND r.failure_parse IS DISTINCT FROM {parse}))"
        f"{_not_asked_for(ctx, spec, known)}"
    )
    found = con.execute(f"SELECT DISTINCT {_HOLDER} FROM {rows} WHERE {stale} ORDER BY 1").fetchall()
    files = [path for (tag,) in found if tag and (path := answers_of(ctx, con, spec, str(tag), folder))]
    if not files:
        return None
    source = f"{rows} JOIN {_held(ctx, spec, files)} WHERE {stale} QUALIFY {_FIRST}"
    to = folder / "rows.parquet"
    count = write_states(con, _values(ctx, spec), source, to)
    if not count:
        return None
    classes = con.execute(
        f"SELECT CASE WHEN status = 'failed' THEN failure WHEN parse_digest = {parse} THEN 'answered' ELSE 'kept' END, "
        f"count(*) FROM read_parquet({literal(str(to))}) WHERE status <> 'absent' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    counts = {str(name): int(n) for name, n in classes}
    if kept := counts.pop("kept", 0):
        ctx.tell_once(
            f"{counted(kept, 'kept answer')} of {spec.name} cannot be read as the spec says now and stay as they were: "
            "`batchform rerun` sends such rows again."
        )
    event = Reparsed(at=ctx.now(), by=ctx.who, spec=spec.name, parse_digest=spec.parse_digest, rows=counts)
    return event, [RowsFile(spec.name, to, count)]


def _held(ctx: RunContext, spec: ResolvedSpec, files: Sequence[Path]) -> str:
    """Answers as `a`, with the condition that joins rows `r`. An answered row knows under which key its answer is held;
    a refused one may have had another key since: then its request tells its result from that of another row."""
    answers = f"SELECT * FROM read_parquet([{', '.join(literal(str(path)) for path in files)}])"
    if not ctx.ledger.control().keys.get(spec.name):
        return f"({answers}) a ON a.key_hash = {_KEY} AND a.tag = {_HOLDER}"
    named = under_all_keys(ctx.ledger, spec.name, answers)
    held = f"(SELECT * EXCLUDE (held_as) REPLACE (held_as AS key_hash), key_hash AS named FROM ({named}))"
    own = f"CASE WHEN {_REFUSED} THEN a.request_fp = r.request_fp ELSE a.key_hash = a.named END"
    return f"{held} a ON a.named = {_KEY} AND a.tag = {_HOLDER} AND {own}"


def _all_keys(spec: ResolvedSpec, known: str, changed: Collection[str]) -> str:
    """Every row of the ledger, as a plan gives them. Without the source, what may be a kept answer counts as one.
    changed: specs of which somebody has said what becomes of their answered rows."""
    keeps = spec.spec.idempotency
    kept = "false"
    if keeps.on_row_change == "keep":
        kept = "true"
    elif keeps.on_prompt_change != "rerun" or spec.name in changed:
        now = (spec.prompt_digest, spec.model, spec.config_digest, spec.schema_digest)
        kept = f"(prompt_digest, model, config_digest, schema_digest) <> ({', '.join(map(literal, now))})"
    return f"(SELECT key_hash, status = 'failed' OR (status = 'answered' AND NOT ({kept})) AS firm FROM {known})"


def _not_asked_for(ctx: RunContext, spec: ResolvedSpec, known: str) -> str:
    """SQL that leaves out rows that someone asked to send again since their answer, or their failure, was recorded."""
    asked = asked_rows(ctx.ledger, spec.name)
    return (
        f" AND r.key_hash NOT IN (SELECT q.key_hash FROM {asked} q JOIN {known} s ON q.key_hash = s.key_hash "
        f"WHERE {asked_since('q.serial', 's')})"
        if asked
        else ""
    )


def answers_of(ctx: RunContext, con: DuckDBPyConnection, spec: ResolvedSpec, tag: str, folder: Path) -> Path | None:
    """The answers of a job under the current parse digest, made from its archive if need be."""
    name = answers_name(tag, spec.parse_digest)
    if is_whole(ctx.ledger, name):
        return ctx.ledger.blob(name)
    if why := results_missing(ctx.ledger, tag):
        ctx.progress.note(f"The raw results of {tag} cannot be read ({why}): its answers stay as they were read.")
        return None
    readings, to = folder / f"{tag}.readings.parquet", folder / f"{tag}.answers.parquet"
    record = ctx.ledger.control().jobs.get(tag)
    with reading_results(ctx.ledger, tag) as results:
        parsed = parse_file(
            results, readings, parser=parser_for(spec.output_format, spec.output_schema),
            sent=lambda: sent_lines(ctx.ledger, tag), cut_short=_state(ctx, tag) in CUT_SHORT,
            cache=record.intent.cache if record else None,
        )  # fmt: skip
    known = ctx.ledger.rows_relation(con, spec.name)
    requests = _requests(ctx, known, tag, folder)
    if record is not None and record.intent.resumes:
        readings = only_own(con, readings, requests)
    write_answers(
        con, readings, to, tag=tag, parse_digest=spec.parse_digest, requests=requests, known=known,
        moved=sent_again(known, tag), parsed=parsed,
    )  # fmt: skip
    ctx.ledger.put_blob(name, to)
    readings.unlink()
    return to


def _state(ctx: RunContext, tag: str) -> str:
    """The last state of a job."""
    record = ctx.ledger.control().jobs.get(tag)
    return record.state if record else ""


def _requests(ctx: RunContext, known: str, tag: str, folder: Path) -> str:
    """Which requests a job answered: its earlier answers say so, else what was sent, else the rows that hold them."""
    record = ctx.ledger.control().jobs.get(tag)
    earlier = record.collected.answers if record and record.collected else None
    if earlier and is_whole(ctx.ledger, earlier) and not answers_problem(ctx.ledger.blob(earlier)):
        return f"read_parquet({literal(str(ctx.ledger.blob(earlier)))})"
    if record is not None and (sent := sent_requests(ctx.ledger, record.intent, folder)) is not None:
        return f"read_parquet({literal(str(sent))})"
    held = f"SELECT DISTINCT answer_key_hash AS key_hash, answer_fp AS request_fp FROM {known}"
    return f"({held} WHERE answer_tag = {literal(tag)})"


def _values(ctx: RunContext, spec: ResolvedSpec) -> dict[str, str]:
    """An answered row only changes how it was read; a failed one that can be read now gets its answer."""
    again = answered_values(
        answer_fp="r.request_fp",
        tag=_HOLDER,
        answered_at=literal(ctx.now()),
        cost=usage_cost_sql(ctx.rates(spec.model, spec.backend_name), "a"),
    )
    own = {c: f"CASE WHEN r.status = 'failed' THEN {sql} ELSE r.{c} END" for c, sql in again.items()}
    return {
        **own,
        "status": "CASE WHEN a.class = 'answered' AND r.status = 'failed' THEN 'answered' "
        "WHEN a.class <> 'answered' AND k.firm THEN 'failed' ELSE r.status END",
        "failure": "CASE WHEN a.class = 'answered' THEN NULL WHEN k.firm THEN a.class ELSE r.failure END",
        "failure_message": "CASE WHEN a.class = 'answered' THEN NULL WHEN k.firm THEN a.message "
        "ELSE r.failure_message END",
        # Of a row that keeps its answer: the reading that was tried in vain, so that it is not tried again.
        "failure_parse": "CASE WHEN a.class = 'invalid_output' OR (a.class <> 'answered' AND NOT k.firm) "
        "THEN a.parse_digest END",
        "answer_serial": "CASE WHEN a.class = 'answered' THEN NULL ELSE r.answer_serial END",
        "parse_digest": "CASE WHEN a.class = 'answered' THEN a.parse_digest ELSE r.parse_digest END",
        "at": literal(ctx.now()),
    }
