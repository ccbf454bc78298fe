"""Answers that another ledger holds, such as that of staging: read there, and copied as a job that is over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchform.canon import digest_of, short
from batchform.errors import LedgerCorrupt, UsageError
from batchform.ledger.raw import open_lines, reading_results, results_missing
from batchform.ledger.records import answers_name
from batchform.ledger.segments import RESTORE
from batchform.ledger.stored import is_whole
from batchform.plan.importing import Elsewhere, Importing
from batchform.plan.recorded import reading
from batchform.rows.sql import literal
from batchform.run.answers import write_answers
from batchform.run.archive import pack
from batchform.run.classify import key_of
from batchform.run.parse import decode_line, key_hash_of, parse_file, parser_for
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.ledger.store import Ledger

_HELD: Final = "bf_elsewhere"
_KEY: Final = "CAST(left(lower(hex(h.request_fp)), 32) AS UUID)"
"""SQL: the key of an answer that is taken by its request, as that of any import."""
_DROPPED: Final = frozenset({"key", "metadata", "request"})
"""Of a result line, what says which row it was asked for."""


def read_elsewhere(
    ledger: Ledger,
    environment: str,
    spec: ResolvedSpec,
    *,
    known: Collection[str],
    connect: Callable[[], DuckDBPyConnection],
    folder: Path,
    scratch: Path,
) -> Elsewhere:
    """What the ledger of another environment holds of a spec: the answer of each answered row, none of others.

    known: tags that need no reading; folder: where answers are written, and, of what a plan takes, archives; scratch:
    for files that are no part of the plan. Reads only there.
    """
    named = next((n for n in (spec.name, *_earlier(spec)) if n in ledger.specs()), "")
    if ledger.head is None or not named:
        what = "has no ledger yet" if ledger.head is None else f"has recorded no rows of {spec.name}"
        return Elsewhere(environment, notes=(f"nothing to reuse: {environment} {what}",))
    own = folder / "imports"
    own.mkdir(parents=True, exist_ok=True)
    costs = scratch / f"elsewhere-{spec.name}-{environment}.parquet"
    found: list[Importing] = []
    lines: dict[str, tuple[str, Path]] = {}
    notes: list[str] = []
    with closing(connect()) as con, reading(ledger, spec):
        notes += _held(con, ledger, named, environment, realm_of(spec.backend), costs)
        jobs = con.execute(f"SELECT tag, parse_digest, count(*) FROM {_HELD} GROUP BY ALL ORDER BY ALL").fetchall()
        for job, parse, rows in jobs:
            answers = answers_name(job, parse)
            why = _missing(ledger, job) or ("" if is_whole(ledger, answers) else "its answers are not there")
            if why:
                notes.append(f"{counted(rows, 'answer')} of {environment} cannot be reused: job {job}: {why}")
                continue
            chosen = scratch / f"elsewhere-{spec.name}-{environment}-{job}-{short(parse, 8)}.parquet"
            tag = _choose(con, ledger, spec, job, parse, chosen)
            if tag in known:
                continue
            one = Importing(
                spec=spec.name, tag=tag, source=f"{environment}, job {job}", lines=rows, answers=rows,
                parse_digest=spec.parse_digest, archive=f"imports/{tag}.jsonl.gz",
                parsed=f"imports/{tag}.answers.parquet", environment=environment,
            )  # fmt: skip
            to = folder / one.parsed
            if parse == spec.parse_digest:
                _copy_answers(con, ledger.blob(answers), chosen, tag, to)
            else:
                _read_anew(con, ledger, spec, job, chosen, tag, to)
            lines[tag] = job, chosen
            found.append(one)

    def complete(taken: Mapping[str, Collection[str]], *, archives: bool) -> dict[str, float]:
        used = [tag for tag in lines if taken.get(tag)]
        for tag in used if archives else ():
            job, chosen = lines[tag]
            raw = scratch / f"{tag}.jsonl"
            _write_lines(ledger, job, chosen, raw)
            pack(raw, own / f"{tag}.jsonl.gz")
            raw.unlink()
        if archives:
            for tag in lines.keys() - used:
                (own / f"{tag}.answers.parquet").unlink()
        with closing(connect()) as con:
            return {tag: _paid(con, costs, taken[tag]) for tag in used}

    return Elsewhere(environment, tuple(found), tuple(notes), complete)


def _missing(ledger: Ledger, job: str) -> str:
    """Why the raw results of a job cannot be read. Those that stayed in a bucket are read by a backend that this
    environment may not have."""
    try:
        return results_missing(ledger, job)
    except (LedgerCorrupt, UsageError) as error:
        return error.message.rstrip(".")


def _earlier(spec: ResolvedSpec) -> tuple[str, ...]:
    return spec.spec.moved.names if spec.spec.moved else ()


def _held(
    con: DuckDBPyConnection, ledger: Ledger, name: str, environment: str, realm: str, costs: Path
) -> Sequence[str]:
    """Temp table of the answers of answered rows, one a request: (tag, key_hash, request_fp, parse_digest, cost_usd);
    its costs as a file. Returns why others are not among them."""
    rows = ledger.rows_relation(con, name)
    others = con.execute(
        f"SELECT realm, count(*) FROM {rows} WHERE status = 'answered' AND realm <> {literal(realm)} GROUP BY 1"
    ).fetchall()
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {_HELD} AS SELECT answer_tag AS tag, answer_key_hash AS key_hash, "
        f"answer_fp AS request_fp, parse_digest, coalesce(cost_usd, 0) AS cost_usd FROM {rows} "
        f"WHERE status = 'answered' AND realm = {literal(realm)} AND answer_fp IS NOT NULL AND answer_tag IS NOT NULL "
        "QUALIFY row_number() OVER (PARTITION BY answer_fp ORDER BY answered_at DESC, key_hash) = 1"
    )
    con.execute(
        f"COPY (SELECT left(lower(hex(request_fp)), 32) AS key_hash, cost_usd FROM {_HELD}) "
        f"TO {literal(str(costs))} (FORMAT parquet)"
    )
    return [
        f"{counted(count, 'answer')} of {environment} {'is' if count == 1 else 'are'} of realm {theirs!r}, and never "
        f"{'answers' if count == 1 else 'answer'} rows of realm {realm!r}"
        for theirs, count in others
    ]


def _choose(con: DuckDBPyConnection, ledger: Ledger, spec: ResolvedSpec, job: str, parse: str, to: Path) -> str:
    """Write which lines of a job are taken: (line, key_hash, request_fp). Returns what this ledger calls them: the same
    for the same content."""
    con.execute(
        f"COPY (SELECT a.line, h.key_hash, h.request_fp FROM {_HELD} h "
        f"JOIN read_parquet({literal(str(ledger.blob(answers_name(job, parse))))}) a ON a.key_hash = h.key_hash "
        f"WHERE h.tag = {literal(job)} AND h.parse_digest = {literal(parse)} AND a.class = 'answered' "
        f"ORDER BY a.line) TO {literal(str(to))} (FORMAT parquet)"
    )
    content = con.execute(
        "SELECT md5(string_agg(line || ' ' || hex(request_fp), ',' ORDER BY line)) "
        f"FROM read_parquet({literal(str(to))})"
    ).fetchall()[0][0]
    return f"import-{spec.name}-{short(digest_of('elsewhere', [ledger.lineage, job, content, spec.parse_digest]))}"


def _copy_answers(con: DuckDBPyConnection, answers: Path, chosen: Path, tag: str, to: Path) -> None:
    """Answers as they were read there, under keys of their requests."""
    con.execute(
        f"COPY (SELECT a.* REPLACE ({literal(tag)} AS tag, {_KEY} AS key_hash, "
        "row_number() OVER (ORDER BY a.line) AS line) "
        f"FROM read_parquet({literal(str(answers))}) a JOIN read_parquet({literal(str(chosen))}) h ON a.line = h.line "
        f"ORDER BY a.line) TO {literal(str(to))} (FORMAT parquet, COMPRESSION zstd)"
    )


def _read_anew(
    con: DuckDBPyConnection, ledger: Ledger, spec: ResolvedSpec, job: str, chosen: Path, tag: str, to: Path
) -> None:
    """Answers that were read otherwise there, read as the spec says here."""
    raw, readings = chosen.with_suffix(".jsonl"), chosen.with_suffix(".readings")
    _write_lines(ledger, job, chosen, raw)
    parsed = parse_file(raw, readings, parser=parser_for(spec.output_format, spec.output_schema))
    asked = f"(SELECT {_KEY} AS key_hash, h.request_fp FROM read_parquet({literal(str(chosen))}) h)"
    write_answers(
        con, readings, to, tag=tag, parse_digest=spec.parse_digest, requests=asked, known=asked,
        moved="(SELECT NULL::UUID AS key_hash WHERE false)", parsed=parsed,
    )  # fmt: skip
    raw.unlink()
    readings.unlink()


def _write_lines(ledger: Ledger, job: str, chosen: Path, to: Path) -> None:
    """The chosen lines of a job's results, under keys of their requests. The whole archive is read, so that one that is
    damaged is found. Raises LedgerCorrupt."""
    import pyarrow.parquet as pq

    wanted = {line: (key.hex, fp) for line, key, fp in zip(*pq.read_table(chosen).to_pydict().values(), strict=True)}
    with reading_results(ledger, job) as raw, open_lines(raw) as lines, to.open("wb") as out:
        for number, line in enumerate(lines, start=1):
            if (asked := wanted.pop(number, None)) is None:
                continue
            value = decode_line(line)
            if not isinstance(value, dict) or not _fits(value, asked[0]):
                raise _unfit(ledger, job)
            kept: dict[str, Any] = {k: v for k, v in value.items() if k not in _DROPPED}
            out.write(msgspec.json.encode({"key": f"k{asked[1][:16].hex()}", **kept}) + b"\n")
    if wanted:
        raise _unfit(ledger, job)


def _fits(line: Mapping[str, Any], key_hash: str) -> bool:
    """Whether a line may be the answer of a row; one that came without a key says nothing against it."""
    found = key_hash_of(key_of(dict(line)))
    return found is None or found.hex() == key_hash


def _unfit(ledger: Ledger, job: str) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"The results of {job} in {ledger.place} are not those that its answers were read from.", hint=RESTORE
    )


def _paid(con: DuckDBPyConnection, costs: Path, taken: Collection[str]) -> float:
    import pyarrow as pa

    con.register("bf_taken", pa.table({"key_hash": pa.array(list(taken), pa.string())}))
    try:
        return float(
            con.execute(
                f"SELECT coalesce(sum(cost_usd), 0) FROM read_parquet({literal(str(costs))}) SEMI JOIN bf_taken "
                "USING (key_hash)"
            ).fetchall()[0][0]
        )
    finally:
        con.unregister("bf_taken")
