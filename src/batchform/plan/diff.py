"""The two-level diff. This module is the first level: keyed rows against the ledger, all of it in DuckDB.

Every row gets a class. Quiet classes are only counted. Candidates, whose input differs from what the ledger recorded,
go on to the second level (build.py), which renders them and compares request fingerprints: only that decides payment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from batchform.canon import FINGERPRINT_VERSION
from batchform.ledger.records import UNPARSED
from batchform.plan.changes import Decision
from batchform.rows.keyed import NARROW, KeyedRows
from batchform.rows.pages import SETS, row_key_sql, whole_sets
from batchform.rows.sql import literal
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.plan.staging import Rollout

CANDIDATES = "bf_candidates"
LEFT = "bf_left"
REREAD = "bf_reread"

# Classes of rows. Those in RENDERED become candidates.
NEW = "new"
PENDING = "pending"
CHANGED = "changed"
REQUESTED = "requested"
RETRY = "retry"
FOR_APPLY = "for_apply"  # failed in a way that only a reviewed apply pays for again: see `sent_again`
EXHAUSTED = "exhausted"
SAVED = "saved"  # exhausted, and answered since by a job that was given up on before
KEEP = "keep"
RETURNED = "returned"
IN_FLIGHT = "in_flight"
UNKNOWN = "unknown"
REPARSE = "reparse"
REDELIVER = "redeliver"
FORGET = "forget"
REMOVE = "remove"
QUIET_ABSENT = "quiet_absent"
RENDERED = (NEW, PENDING, CHANGED, REQUESTED, RETRY, FOR_APPLY, SAVED)


_SPEC_SAME = "prompt_same AND model_same AND config_same AND schema_same AND realm_same AND version_same"


_STAYS = f"row_key IN (SELECT {row_key_sql('key')} FROM {NARROW})"
"""SQL: whether the row that a part belongs to is in the source."""


class Recorded(Struct, frozen=True):
    """What the ledger says about one spec, as a plan needs it.

    relation: FROM-able row states (ROW_COLUMNS), None if the spec has none; fp_columns: distinct recorded sets;
    archived: FROM-able (key_hash, request_fp, tag, parse_digest, class, held_as) of every result ever archived, answers
    and failures, None if there is none; held_as: the key_hash under which the archive holds it;
    unknown_tags: tags of intents without a job; delivered_through: ledger serial up to which the present destination
    holds all answers, None if it does not exist or its definition changed; reruns: FROM-able (key_hash, serial) of rows
    that a person asked for, None if there are none; gone: tags of jobs whose results are archived no longer; change:
    what becomes of answered rows that an edit of the spec would send again; rollout: which rows its stages let through,
    None for all.
    """

    relation: str | None
    fp_columns: tuple[str, ...] = ()
    archived: str | None = None
    unknown_tags: tuple[str, ...] = ()
    delivered_through: int | None = None
    reruns: str | None = None
    gone: tuple[str, ...] = ()
    change: Decision = Decision("rerun")
    rollout: Rollout | None = None
    imported: tuple[str, ...] = ()  # tags of imports, whose answers rows of any key take


class Diff(Struct, frozen=True):
    """Rows per class; rows held for failures by why; whether candidate and left tables were made.

    unreadable: rows that would be read anew if their results were still archived; edited: answered rows that keep
    their answers although an edit of the spec would ask them otherwise, and the bytes of their recorded requests;
    superseded: parts that are forgotten because their row, which is still there, is asked in other parts.
    """

    counts: Mapping[str, int]
    exhausted: Mapping[str, int]
    answered_before: int  # rows of the source that have an answer: what max_changed_percent is a share of
    unreadable: int = 0
    edited: tuple[int, int] = (0, 0)
    superseded: int = 0
    parted: int = 0  # new parts of rows that have an answer in other parts

    def count(self, *classes: str) -> int:
        return sum(self.counts.get(c, 0) for c in classes)


def diff(con: DuckDBPyConnection, spec: ResolvedSpec, rows: KeyedRows, recorded: Recorded) -> Diff:
    """Classify every row of the source and of the ledger; materialise candidates (CANDIDATES) and left rows (LEFT)."""
    if recorded.relation is None:
        return Diff({NEW: rows.rows}, {}, 0)
    if recorded.reruns:
        _rerun_table(con, recorded.reruns)
    if spec.splits:
        whole_sets(con, recorded.relation)
    classed = _classed(spec, rows, recorded)
    counts, exhausted, answered = _counted(con, spec, classed)
    if exhausted and recorded.archived is not None and _find_saved(con, classed, recorded):
        saved = f"class = '{EXHAUSTED}' AND key_hash IN (SELECT key_hash FROM bf_saved)"
        classed = f"SELECT * REPLACE (CASE WHEN {saved} THEN '{SAVED}' ELSE class END AS class) FROM ({classed})"
        counts, exhausted, answered = _counted(con, spec, classed)
    if any(counts.get(c) for c in RENDERED):
        _materialise_candidates(con, classed, recorded)
        con.execute(f"ALTER TABLE {CANDIDATES} ADD COLUMN resumes VARCHAR")
    if counts.get(REPARSE):
        _materialise_reread(con, spec, classed)
    if any(counts.get(c) for c in (FORGET, REMOVE, RETURNED)):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE {LEFT} AS SELECT key_hash, class, status FROM ({classed}) "
            f"WHERE class IN ('{FORGET}', '{REMOVE}', '{RETURNED}')"
        )
    edited = _kept_by_change(con, classed) if recorded.change.kind == "keep" else (0, 0)
    superseded = 0
    if spec.splits and counts.get(FORGET):
        sql = f"SELECT count(*) FROM ({classed}) WHERE class = '{FORGET}' AND {_STAYS}"
        superseded = int(con.execute(sql).fetchall()[0][0])
    parted = _parted_anew(con, recorded.relation) if spec.splits and counts.get(NEW) else 0
    return Diff(counts, exhausted, answered, edited=edited, superseded=superseded, parted=parted)


def _parted_anew(con: DuckDBPyConnection, relation: str) -> int:
    """Parts that nothing is recorded of, of rows that have an answer in other parts: these rows would be sent again."""
    answered = f"SELECT {row_key_sql('key')} FROM {relation} WHERE answer_fp IS NOT NULL AND status <> 'gone'"
    found = con.execute(
        f"SELECT count(*) FROM {NARROW} WHERE {row_key_sql('key')} IN ({answered}) "
        f"AND key_hash NOT IN (SELECT key_hash FROM {relation})"
    ).fetchall()
    return int(found[0][0])


def _kept_by_change(con: DuckDBPyConnection, classed: str) -> tuple[int, int]:
    """Rows that only a decision keeps, and the bytes of their recorded requests."""
    quiet = ", ".join(f"'{c}'" for c in (KEEP, RETURNED, REPARSE, REDELIVER))
    rows, size = con.execute(
        f"SELECT count(*), coalesce(sum(request_bytes), 0) FROM ({classed}) "
        f"WHERE class IN ({quiet}) AND ordinal IS NOT NULL AND row_same AND realm_same AND NOT ({_SPEC_SAME})"
    ).fetchall()[0]
    return int(rows), int(size)


def _counted(con: DuckDBPyConnection, spec: ResolvedSpec, classed: str) -> tuple[dict[str, int], dict[str, int], int]:
    """Rows by class, exhausted rows by why, and how many rows of the source have an answer."""
    counted = con.execute(
        "SELECT class, CASE WHEN class = 'exhausted' THEN failure END, CASE WHEN class = 'exhausted' THEN attempt END, "
        f"count(*), count(*) FILTER (answered AND ordinal IS NOT NULL) FROM ({classed}) GROUP BY ALL"
    ).fetchall()
    counts: dict[str, int] = {}
    exhausted: dict[str, int] = {}
    for name, failure, attempt, count, _ in counted:
        counts[name] = counts.get(name, 0) + count
        if name == EXHAUSTED:
            why = _why_exhausted(spec, str(failure), int(attempt))
            exhausted[why] = exhausted.get(why, 0) + count
    return counts, exhausted, sum(int(c[4]) for c in counted)


def _find_saved(con: DuckDBPyConnection, classed: str, recorded: Recorded) -> int:
    """Temp table bf_saved(key_hash): rows that failed for good, and whose request has an answer that is not their own
    old one: a job that was given up on gave it since, or it is imported. How many."""
    imported = ", ".join(map(literal, recorded.imported)) or "''"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE bf_saved AS SELECT DISTINCT f.key_hash FROM "
        f"(SELECT key_hash, request_fp FROM ({classed}) WHERE class = '{EXHAUSTED}' AND NOT rerun "
        f"AND answer_fp IS DISTINCT FROM request_fp) f SEMI JOIN (SELECT * FROM {recorded.archived} "
        "WHERE class = 'answered') a "
        f"ON f.request_fp = a.request_fp AND (f.key_hash = a.key_hash OR a.tag IN ({imported}))"
    )
    return int(con.execute("SELECT count(*) FROM bf_saved").fetchall()[0][0])


def _materialise_reread(con: DuckDBPyConnection, spec: ResolvedSpec, classed: str) -> None:
    """Temp table REREAD(key_hash, firm, holder): answers to be read anew, and the tag of the job that has them.

    Absent rows go along. Firm are those that fail if they do not fit; the others then stay as they were read.
    """
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {REREAD} AS SELECT key_hash, "
        f"class = '{REPARSE}' AND (status = 'failed' OR coalesce({_SPEC_SAME} AND row_same, false)) AS firm, "
        f"CASE WHEN status = 'failed' THEN tag ELSE answer_tag END AS holder FROM ({classed}) "
        f"WHERE class = '{REPARSE}' OR (class IN ('{FORGET}', '{QUIET_ABSENT}') "
        f"AND status IN ('answered', 'absent') AND parse_digest <> {literal(spec.parse_digest)})"
    )


def _materialise_candidates(con: DuckDBPyConnection, classed: str, recorded: Recorded) -> None:
    names = ", ".join(f"'{c}'" for c in RENDERED)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {CANDIDATES} AS SELECT * EXCLUDE (parse_digest) FROM ({classed}) "
        f"WHERE class IN ({names})"
    )
    if recorded.archived is None:
        con.execute(f"ALTER TABLE {CANDIDATES} ADD COLUMN past VARCHAR[]")
        con.execute(f"ALTER TABLE {CANDIDATES} ADD COLUMN spent VARCHAR[]")
        con.execute(f"ALTER TABLE {CANDIDATES} ADD COLUMN fallen VARCHAR[]")
        return
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE bf_past AS SELECT key_hash, request_fp, "
        "arg_max(tag || '@' || replace(CAST(held_as AS VARCHAR), '-', '') || ' ' || parse_digest, tag) "
        "FILTER (class = 'answered') AS answer, "
        "count(*) FILTER (class <> 'answered') AS failures, "
        "string_agg(class, ',' ORDER BY class) FILTER (class <> 'answered') AS classes, "
        f"arg_max(class, tag) FILTER (class <> 'answered') AS failure FROM {recorded.archived} "
        f"WHERE key_hash IN (SELECT key_hash FROM {CANDIDATES}) GROUP BY key_hash, request_fp"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {CANDIDATES} AS SELECT c.*, p.past, p.spent, p.fallen FROM {CANDIDATES} c "
        "LEFT JOIN ("
        "SELECT key_hash, list(hex(request_fp) || ' ' || answer) FILTER (answer IS NOT NULL) AS past, "
        "list(hex(request_fp) || ' ' || failures || ' ' || failure) FILTER (failures > 0) AS spent, "
        "list(hex(request_fp) || ' ' || failures || ' ' || classes) FILTER (failures > 0) AS fallen "
        "FROM bf_past GROUP BY key_hash) p USING (key_hash)"
    )


def _rerun_table(con: DuckDBPyConnection, reruns: str) -> None:
    """Temp table bf_reruns(key_hash, serial): rows that a person asked for, with the serials that asked."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE bf_reruns AS SELECT key_hash, serial FROM {reruns} q")


def _classed(spec: ResolvedSpec, rows: KeyedRows, recorded: Recorded) -> str:
    """SELECT of (ordinal, key_hash, class, the recorded state, which components are the same)."""
    same = {
        "prompt_same": f"l.prompt_digest = {literal(spec.prompt_digest)}",
        "model_same": f"l.model = {literal(spec.model)}",
        "config_same": f"l.config_digest = {literal(spec.config_digest)}",
        "schema_same": f"l.schema_digest = {literal(spec.schema_digest)}",
        "realm_same": f"l.realm = {literal(_realm(spec))}",
        "version_same": f"l.fp_version = {FINGERPRINT_VERSION}",
        "row_same": row_same(rows.fingerprints),
    }
    flags = ", ".join(f"{sql} AS {name}" for name, sql in same.items())
    of_row = f"{row_key_sql('l.key')} AS row_key, " if spec.splits else ""
    joined = (
        f"SELECT n.rowid AS ordinal, coalesce(n.key_hash, l.key_hash) AS key_hash, l.key_hash IS NOT NULL AS known, "
        f"l.status, l.request_fp, l.answer_fp, l.answer_fp IS NOT NULL AS answered, l.tag, l.answer_tag, l.attempt, "
        f"l.failure, l.failure_parse, l.parse_digest, l.answer_serial, l.changed_serial, l.request_bytes, "
        f"{of_row}"
        f"{flags} "
        f"FROM {NARROW} n FULL JOIN {recorded.relation} l ON n.key_hash = l.key_hash"
    )
    rerun = ""
    asked = unanswered = "false"
    if recorded.reruns:
        last = "SELECT key_hash, max(serial) AS asked_serial FROM bf_reruns GROUP BY key_hash"
        rerun = f" LEFT JOIN ({last}) r USING (key_hash)"
        asked = asked_since("r.asked_serial", "j")
        unanswered = "coalesce(r.asked_serial > coalesce(j.answer_serial, -1), false)"
    return f"SELECT j.*, {unanswered} AS rerun, {_class(spec, recorded, asked)} AS class FROM ({joined}) j{rerun}"


def asked_since(serial: str, row: str) -> str:
    """SQL: whether this serial asked for a row of the alias `row`, and no apply has taken that up.

    Newer than the row's answer, or than its failure or its being queued or given back, which came of an apply that saw
    what was asked. Bookkeeping in between does not settle it.
    """
    since = f"CASE WHEN {row}.status IN ('failed', 'pending') THEN {row}.changed_serial ELSE {row}.answer_serial END"
    return f"coalesce({serial} > coalesce({since}, -1), false)"


def _class(spec: ResolvedSpec, recorded: Recorded, asked: str) -> str:
    """The decision table, first match wins."""
    idempotency, destination = spec.spec.idempotency, spec.spec.destination
    unknown = ", ".join(literal(t) for t in recorded.unknown_tags) or "NULL"
    gone = ", ".join(map(literal, recorded.gone)) or "''"
    spec_same, parse = _SPEC_SAME, literal(spec.parse_digest)
    kept, keeps_prompt = ["false"], recorded.change.kind == "keep"
    if keeps_prompt:
        kept.append(f"(row_same AND realm_same AND NOT ({spec_same}))")
    if idempotency.on_row_change == "keep":
        kept.append(f"(NOT row_same AND {spec_same})")
    if keeps_prompt and idempotency.on_row_change == "keep":
        kept.append("realm_same")
    # What parts a row was asked in before stays until it is answered in the parts that it has now.
    stays = _STAYS if spec.splits else "false"
    pruned = f"CASE WHEN status = 'absent' AND NOT {stays} THEN '{REMOVE}' ELSE '{QUIET_ABSENT}' END"
    left = f"CASE WHEN {stays} THEN '{FORGET}' ELSE '{REMOVE}' END" if destination.prune else literal(FORGET)
    by_sync = ", ".join(literal(c) for c in spec.retry.on) or "NULL"
    retryable = ", ".join(literal(c) for c in sent_again(spec))
    unchanged = f"(({spec_same} AND row_same) OR {' OR '.join(kept)})"
    through = recorded.delivered_through
    undelivered = "true" if through is None else f"answer_serial > {through}"
    if spec.splits:  # what of a row is answered waits for its other parts
        undelivered = f"key_hash IN (SELECT key_hash FROM {SETS} WHERE serial > {-1 if through is None else through})"
    return f"""CASE
        WHEN ordinal IS NULL AND status IN ('absent', 'gone') THEN
            {pruned if destination.prune else literal(QUIET_ABSENT)}
        WHEN NOT known THEN '{NEW}'
        WHEN status = 'in_flight' THEN CASE WHEN tag IN ({unknown}) THEN '{UNKNOWN}' ELSE '{IN_FLIGHT}' END
        WHEN ordinal IS NULL THEN {left}
        WHEN {asked} THEN '{REQUESTED}'
        WHEN status = 'pending' THEN '{PENDING}'
        WHEN status = 'failed' AND failure = 'invalid_output' AND tag NOT IN ({gone})
            AND (({spec_same} AND row_same AND failure_parse IS DISTINCT FROM {parse})
                OR ({unchanged} AND failure_parse = {literal(UNPARSED)})) THEN '{REPARSE}'
        WHEN status = 'failed' AND {spec_same} AND row_same THEN
            CASE WHEN failure IN ({retryable}) AND attempt < {spec.retry.max_attempts} THEN
                CASE WHEN tag = answer_tag OR failure NOT IN ({by_sync}) THEN '{FOR_APPLY}' ELSE '{RETRY}' END
            ELSE '{EXHAUSTED}' END
        WHEN status = 'failed' OR NOT answered THEN '{CHANGED}'
        WHEN status IN ('absent', 'gone') AND {unchanged} THEN '{RETURNED}'
        WHEN NOT {unchanged} THEN '{CHANGED}'
        WHEN parse_digest <> {parse} AND answer_tag NOT IN ({gone})
            AND (({spec_same} AND row_same) OR failure_parse IS DISTINCT FROM {parse}) THEN '{REPARSE}'
        WHEN {undelivered} THEN '{REDELIVER}'
        ELSE '{KEEP}' END"""


def row_same(fingerprints: Mapping[str, str], *, row: str = "n") -> str:
    """Each recorded row is compared over the very columns that its own fingerprint covers. row: alias of the source's
    row."""
    if not fingerprints:
        return "false"
    cases = " ".join(
        f"WHEN {literal(columns)} THEN coalesce({row}.{name} = l.row_fp, false)"
        for columns, name in fingerprints.items()
    )
    return f"CASE l.fp_columns {cases} ELSE false END"


def sent_again(spec: ResolvedSpec) -> tuple[str, ...]:
    """Failure classes that apply sends again: those of `retry.on`, and what a cancelled job did not come to.

    Left to apply, which somebody reviews, are the cancelled (whoever cancels a job does not want sync to send it again
    at once) and answers that fail only because they are read otherwise than when they came.
    """
    return tuple(dict.fromkeys((*spec.retry.on, "cancelled")))


def _why_exhausted(spec: ResolvedSpec, failure: str, attempt: int) -> str:
    if failure not in sent_again(spec):
        return f"failed: {failure} is not in retry.on"
    return f"failed: {failure} after {attempt} of {spec.retry.max_attempts} attempts"


def _realm(spec: ResolvedSpec) -> str:
    from batchform.spec.realm import realm_of

    return realm_of(spec.backend)
