"""Going on with a job that was cut short, where Vertex AI can: a new job whose input is what the old one wrote.

The service runs what has no answer there and hands on the rest. So it is all or nothing: each row that it would run
must be one that this plan sends anyway, with the very request that it had. Nothing is rendered for that: inputs and
spec are as they were, and the archived lines have the fingerprints that the ledger recorded.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from batchform.canon import RequestHasher
from batchform.errors import NotFound
from batchform.ledger.raw import Raw, open_lines, raw_results, results_missing
from batchform.ledger.records import ControlView, JobRecord
from batchform.ledger.store import Ledger
from batchform.plan import diff as first
from batchform.plan.diff import CANDIDATES, Diff, Recorded
from batchform.plan.model import Resumed
from batchform.plan.sent import sent_lines
from batchform.plan.shard import split_line
from batchform.ports import BackendLimits
from batchform.rows.sql import literal
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.plan.render import CandidateRenderer
    from batchform.plan.shard import ShardCutter

CUT_SHORT: Final = ("CANCELLED", "EXPIRED", "FAILED", "PARTIALLY_SUCCEEDED")
"""States of jobs that ended before all of their rows had run."""
RUN_AGAIN: Final = "run_again"
"""Anomaly of a resumed job: rows that had an answer came back with another one, so that the service ran them again."""

_UNANSWERED: Final = "bf_unanswered"
_UNRUN: Final = "bf_unrun"
_CLASSES: Final = (first.RETRY, first.FOR_APPLY, first.PENDING)
_SAME: Final = ("prompt_same", "model_same", "config_same", "schema_same", "realm_same", "row_same")
_STATE: Final = ("class", "failure", "known", "answered", "attempt", "tag")
_EMPTY: Final = (b"", b"{}", b"null")


class _Line(Struct):
    key: Any = None
    status: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")


class Output(Struct, frozen=True):
    """A result line as the service would go on with it. key: the row's key hash, None if it is no key of ours, or no
    result line; response: its JSON if the row counts as answered, else nothing; size: bytes of the line;
    line: its number, from 1."""

    key: bytes | None
    response: bytes
    size: int
    line: int


def outputs(raw: Raw) -> Iterator[Output]:
    """The lines of a job's raw results."""
    decode = msgspec.json.Decoder(_Line).decode
    with open_lines(raw) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found = decode(line)
            except (ValueError, RecursionError):
                found = _Line()
            response = b"" if found.status else bytes(found.response).strip()
            yield Output(_key_hash(found.key), b"" if response in _EMPTY else response, len(line), number)


def _key_hash(key: Any) -> bytes | None:
    try:
        return bytes.fromhex(key[1:]) if isinstance(key, str) and len(key) == 33 and key[0] == "k" else None
    except ValueError:
        return None


class GoingOn:
    """The jobs that the plan of one spec resumes. limits: of one job."""

    def __init__(self, con: DuckDBPyConnection, spec: ResolvedSpec, ledger: Ledger, limits: BackendLimits) -> None:
        self._con, self._spec, self._ledger, self._limits = con, spec, ledger, limits
        self._jobs: list[Resumed] = []
        self._notes: list[str] = []

    def choose(self, found: Diff, past: Recorded, *, paying: Collection[str], fp_columns: str) -> None:
        """Decide which jobs are resumed, and mark their rows in CANDIDATES. Reads the archived results of jobs that
        were cut short, and of no other."""
        classes = [c for c in _CLASSES if c in paying]
        if self._spec.spec.idempotency.reuse_identical or not found.count(*classes):
            return
        con, control = self._con, self._ledger.control()
        _unanswered(con, past, classes, fp_columns, changes=self._spec.retry.changes)
        tags = con.execute(f"SELECT DISTINCT tag FROM {_UNANSWERED} WHERE tag IS NOT NULL ORDER BY tag").fetchall()
        sought: dict[str, list[str]] = {}
        for (tag,) in tags:
            if (base := _base(self._spec, control, str(tag))) is not None:
                sought.setdefault(base.tag, []).append(str(tag))
        if sought and (told := _distrusted(self._spec, control)):
            self._notes.append(told)
            return
        for base_tag, rows_of in sought.items():
            judged = _judge(con, self._spec, self._ledger, control.jobs[base_tag], rows_of, self._limits)
            if isinstance(judged, str):
                self._notes.append(f"job {base_tag} is not resumed: {judged}")
                continue
            marked = f"key_hash IN (SELECT key_hash FROM {_UNRUN})"
            con.execute(f"UPDATE {CANDIDATES} SET resumes = {literal(base_tag)} WHERE {marked}")
            self._jobs.append(judged)

    def cut(self, renderer: CandidateRenderer, cutter: ShardCutter) -> None:
        """One shard for each job that is resumed, of its archived lines."""
        renderer.out.notes += self._notes
        for job in self._jobs:
            rows = self._rows(job)
            for key, fingerprint, request in _carried(self._spec, self._ledger, job.tag, rows):
                key_hex, name, row_fp, *recorded = rows[key]
                state = dict(zip(_STATE, recorded, strict=True)) | dict.fromkeys(_SAME, True)
                attempt = int(state["attempt"] or 0) + 1
                renderer.take(name, key_hex, row_fp, request, fingerprint, state, attempt, cutter)
            cutter.close_shard(resumes=job)

    def _rows(self, job: Resumed) -> dict[bytes, tuple[Any, ...]]:
        """Key hash → (key hash in hex, key, input fingerprint in hex, state) of the rows that a job is resumed for."""
        found = self._con.execute(
            "SELECT replace(CAST(e.key_hash AS VARCHAR), '-', ''), e.key, replace(CAST(e.row_fp AS VARCHAR), '-', ''), "
            f"{', '.join(f'e.{name}' for name in _STATE)} FROM {_UNANSWERED} e JOIN {CANDIDATES} c "
            f"ON e.key_hash = c.key_hash WHERE c.resumes = {literal(job.tag)}"
        ).fetchall()
        return {bytes.fromhex(row[0]): row for row in found}


def _unanswered(
    con: DuckDBPyConnection, past: Recorded, classes: Sequence[str], fp_columns: str, *, changes: Collection[str]
) -> None:
    """Temp table of the rows that may be sent as they were without being rendered."""
    names = ", ".join(map(literal, classes))
    same = " AND ".join(f"coalesce(c.{flag}, false)" for flag in _SAME)
    climbing = ", ".join(map(literal, changes))
    # Rows on the retry ladder are sent with other requests than the job that was cut short had.
    plain = (
        f"AND coalesce(c.failure, '') NOT IN ({climbing}) AND NOT regexp_matches("
        f"coalesce(array_to_string(c.fallen, ' '), ''), '\\b({'|'.join(map(re.escape, changes))})\\b') "
        if changes
        else ""
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {_UNANSWERED} AS SELECT c.key_hash, c.request_fp, l.key, l.row_fp, "
        f"l.request_bytes, {', '.join(f'c.{name}' for name in _STATE)} "
        f"FROM {CANDIDATES} c JOIN {past.relation} l ON c.key_hash = l.key_hash "
        f"WHERE c.class IN ({names}) AND c.status IN ('failed', 'pending') AND {same} AND NOT c.rerun {plain}"
        f"AND l.fp_columns = {literal(fp_columns)} AND c.answer_fp IS DISTINCT FROM c.request_fp "
        "AND NOT contains(coalesce(array_to_string(c.past, ' '), ''), hex(c.request_fp))"
    )


def _base(spec: ResolvedSpec, control: ControlView, tag: str) -> JobRecord | None:
    """The job that rows of this tag may be resumed from, if it is of the kind; that of a resume that came to nothing is
    the one before."""
    record = control.jobs.get(tag)
    if record is not None and record.status == "not_submitted" and record.intent.resumes:
        record = control.jobs.get(record.intent.resumes)
    if record is None or record.collected is None or record.status != "collected" or not record.job:
        return None
    intent, place = record.intent, f"projects/{_of(spec, 'project')}/locations/{_of(spec, 'location')}"
    same = (intent.backend, intent.place, intent.model, intent.realm) == (
        spec.backend_name, place, spec.model, realm_of(spec.backend),
    )  # fmt: skip
    return record if same and record.collected.archive and record.state in CUT_SHORT else None


def _of(spec: ResolvedSpec, name: str) -> str:
    return str(getattr(spec.backend, name, ""))


def _distrusted(spec: ResolvedSpec, control: ControlView) -> str:
    """Why no job of this backend is resumed any more; "" if nothing speaks against it."""
    for record in control.jobs.values():
        again = record.collected.anomalies.get(RUN_AGAIN, 0) if record.collected else 0
        if again and record.intent.resumes and record.intent.backend == spec.backend_name:
            return (
                f"no job is resumed: {record.tag}, which was, came back with other answers for {counted(again, 'row')} "
                "that had one"
            )
    return ""


def _judge(
    con: DuckDBPyConnection,
    spec: ResolvedSpec,
    ledger: Ledger,
    record: JobRecord,
    tags: Sequence[str],
    limits: BackendLimits,
) -> Resumed | str:
    """The job to be resumed, its rows without an answer in the temp table _UNRUN; or why it is not."""
    if results_missing(ledger, record.tag):
        return "its results are archived no longer"
    read = read_results(raw_results(ledger, record.tag))
    if isinstance(read, str):
        return read
    unrun, results, handed_on, size = read
    if results > limits.max_rows_per_job or size > limits.max_bytes_per_job:
        return f"its {counted(results, 'result')} are more than one job may have"
    _register(con, unrun)
    wanted = f"(SELECT * FROM {_UNANSWERED} WHERE tag IN ({', '.join(map(literal, tags))}))"
    known, saved = con.execute(
        f"SELECT count(e.key_hash), coalesce(sum(e.request_bytes), 0) FROM {_UNRUN} u LEFT JOIN {wanted} e "
        "ON u.key_hash = e.key_hash"
    ).fetchall()[0]
    if not unrun:
        return "all of its results are answers"
    if known < len(unrun):
        return (
            f"of its {counted(len(unrun), 'row')} without an answer {len(unrun) - known} would not be sent as they were"
        )
    if handed_on > saved:
        return f"its {counted(results - len(unrun), 'answer')} are more to read again than there is to upload"
    if not _whole(con, spec, ledger, record.tag):
        return "what it carried is not archived whole"
    return Resumed(tag=record.tag, job=record.job or "", results=results)


def read_results(raw: Raw) -> tuple[list[bytes], int, int, int] | str:
    """(rows without an answer, results, bytes of the others, bytes of all); or why nothing can go on with it."""
    unrun: set[bytes] = set()
    answered: set[bytes] = set()
    results = handed_on = size = 0
    try:
        for output in outputs(raw):
            results, size = results + 1, size + output.size
            if output.key is None:
                return "some of its results do not say whose they are"
            if output.response:
                answered.add(output.key)
                handed_on += output.size
            else:
                unrun.add(output.key)
    except (OSError, EOFError, zlib.error, NotFound):
        return "its archived results cannot be read"
    if len(unrun) + len(answered) < results or not answered.isdisjoint(unrun):
        return "some of its rows have several results"
    return list(unrun), results, handed_on, size


def _register(con: DuckDBPyConnection, keys: Sequence[bytes]) -> None:
    import pyarrow as pa

    con.register("bf_unrun_arrow", pa.table({"key": pa.array([key.hex() for key in keys], pa.string())}))
    con.execute(f"CREATE OR REPLACE TEMP TABLE {_UNRUN} AS SELECT CAST(key AS UUID) AS key_hash FROM bf_unrun_arrow")
    con.unregister("bf_unrun_arrow")


def _whole(con: DuckDBPyConnection, spec: ResolvedSpec, ledger: Ledger, tag: str) -> bool:
    """Whether the archived lines of a job have all rows of _UNRUN, with the requests that the ledger recorded."""
    found = con.execute(
        f"SELECT replace(CAST(key_hash AS VARCHAR), '-', ''), request_fp FROM {_UNANSWERED} "
        f"WHERE key_hash IN (SELECT key_hash FROM {_UNRUN})"
    ).fetchall()
    wanted = {bytes.fromhex(key): request_fp for key, request_fp in found}
    try:
        for key, fingerprint, _ in _carried(spec, ledger, tag, wanted):
            if wanted.pop(key) != fingerprint:
                return False
    except (OSError, KeyError):
        return False
    return not wanted


def _carried(
    spec: ResolvedSpec, ledger: Ledger, tag: str, keys: Collection[bytes]
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(key hash, request fingerprint, request) of these rows, as a job carried them."""
    fingerprint = RequestHasher(model=spec.model, realm=realm_of(spec.backend)).fingerprint
    for line in sent_lines(ledger, tag):
        key, request = split_line(line + b"\n")
        if key in keys:
            yield key, fingerprint(request), request
