"""Which rows of a spec its rollout lets through, found from the ledger and the rows: asked once, before they are
rendered into shards.

Where every row that waits is new, the hashes of keys are enough. Else the rows are rendered beforehand, since one whose
request stays the same is sent to nobody and takes no place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.ledger.records import ControlView, JobRecord
from batchform.plan import diff as first
from batchform.plan.approved_rest import left_of
from batchform.plan.diff import CANDIDATES, Diff, Recorded
from batchform.plan.owed import HELD, waits
from batchform.plan.rollout import Sent, Standing, edit_of, reached_by, stand
from batchform.plan.spend import settled_cost
from batchform.plan.stages import StagePlan
from batchform.plan.work import Settings
from batchform.rows.keyed import NARROW, KeyedRows
from batchform.rows.sql import literal
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SURVEYED: Final = "bf_surveyed"
_SAMPLES: Final = 5


class Rollout(Struct):
    """The rollout of a spec, in one plan.

    reached: the furthest stage that was released before; tags: jobs that were sent with the edit; upto: the last key
    hash, in hex, of the rows that are let through; None: all are; "": none is; passive: whether this plan sends nothing
    of what a stage holds, in any case; only_waiting: whether it sends nothing else, which nobody has reviewed; rows,
    size, largest: rows that were held, the bytes of their requests and of the longest; resent: those that have an
    answer.
    """

    edit: str
    standing: Standing
    sent: Sent
    reached: int = 1
    tags: frozenset[str] = frozenset()
    upto: str | None = None
    rows: int = 0
    size: int = 0
    largest: int = 0
    resent: int = 0
    passive: bool = False
    only_waiting: bool = False

    def lets(self, key_hex: str, state: Mapping[str, Any]) -> bool:
        """Whether a row may be sent: it was sent with the edit before, or the stage has a place for it."""
        return self.seats(key_hex) or not waits(state, self.tags)

    def leaves(self, state: Mapping[str, Any]) -> bool:
        """Whether a row is none of this plan's: it was sent with the edit, and has changed or was asked for since."""
        return self.only_waiting and not waits(state, self.tags)

    def seats(self, key_hex: str) -> bool:
        """Whether the stage has a place for a row that needs one."""
        return self.upto is None or key_hex <= self.upto

    def planned(self) -> StagePlan:
        """What a plan says of it, once rows are rendered."""
        at, sent = self.standing, self.sent
        return StagePlan(
            edit=self.edit, stage=at.stage, of=at.of, before=self.reached, state=at.state, size=at.size, sent=sent.rows,
            held=self.rows, gate=at.gate, failed=sent.failed, samples=sent.samples,
        )  # fmt: skip

    def hold(self, request: bytes, state: Mapping[str, Any]) -> str:
        """Count a row that is held; why, in words."""
        self.rows += 1
        self.size += len(request)
        self.largest = max(self.largest, len(request))
        self.resent += bool(state["answered"])
        return self.standing.held_words


def rollout_of(
    con: DuckDBPyConnection,
    spec: ResolvedSpec,
    rows: KeyedRows,
    past: Recorded,
    found: Diff,
    control: ControlView,
    settings: Settings,
) -> Rollout | None:
    """The rollout of a spec as this plan finds it; None where it has none, or all its stages are released."""
    stages = spec.spec.rollout
    if not stages:
        return None
    edit, wave = edit_of(spec), settings.purpose == "wave"
    reached, approved = reached_by(control, spec)
    if reached >= len(stages) and not wave:
        return None
    tags = tags_of(control, spec.name, edit)
    sent = sent_with(con, spec, past.relation, control, tags)
    if not wave and settings.purpose != "apply":  # nothing of what a stage holds is sent by it
        standing = stand(stages, sent=sent, waiting=0, reached=reached, approved=approved)
        return Rollout(edit, standing, sent, reached, tags, upto="", passive=True)
    waiting = _waiting(con, spec, rows, past, found, settings, tags)
    standing = stand(stages, sent=sent, waiting=waiting.rows, reached=reached, approved=approved)
    places = standing.places
    if wave:
        left = left_of_approval(control, spec.name, settings.wave_of)
        places = left if places is None else min(places, left)
    upto = None if places is None or places >= waiting.rows > 0 else waiting.upto(con, places)
    return Rollout(edit, standing, sent, reached, tags, upto=upto, only_waiting=wave and spec.upstream is None)


def tags_of(control: ControlView, spec: str, edit: str) -> frozenset[str]:
    """The jobs that rows of a spec were sent in with an edit."""
    return frozenset(j.tag for j in control.jobs.values() if j.intent.spec == spec and j.intent.edit == edit)


def left_of_approval(control: ControlView, spec: str, wave_of: str) -> int:
    """Rows that may still be sent of what was approved of a spec."""
    approved = control.approved.get(spec)
    return max(0, left_of(control, approved)[0]) if approved and approved.plan_digest == wave_of else 0


def sent_with(
    con: DuckDBPyConnection, spec: ResolvedSpec, relation: str | None, control: ControlView, tags: Iterable[str]
) -> Sent:
    """What became of the rows that were sent with the edit as the spec is now."""
    if relation is None:
        return Sent()
    listed = ", ".join(map(literal, sorted(tags))) or "NULL"
    mine = (
        f"prompt_digest = {literal(spec.prompt_digest)} AND model = {literal(spec.model)} AND config_digest = "
        f"{literal(spec.config_digest)} AND schema_digest = {literal(spec.schema_digest)} AND realm = "
        f"{literal(realm_of(spec.backend))} AND (status = 'pending' OR tag IN ({listed}))"
    )
    by_sync = ", ".join(map(literal, spec.retry.on)) or "NULL"
    again = f"failure IN ({by_sync}) AND attempt < {spec.retry.max_attempts} AND tag IS DISTINCT FROM answer_tag"
    answered = "status IN ('answered', 'absent', 'gone') AND answer_fp = request_fp"
    groups = con.execute(
        f"SELECT CASE WHEN {answered} THEN 'answered' WHEN status IN ('in_flight', 'pending') THEN 'under_way' "
        "ELSE coalesce(failure, status) END AS became, count(*), count(*) FILTER "
        f"(status = 'failed' AND {again}), count(*) FILTER ({answered} AND cost_usd IS NULL) "
        f"FROM {relation} WHERE {mine} GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    counts = {str(became): int(rows) for became, rows, *_ in groups}
    failed = {name: rows for name, rows in counts.items() if name not in ("answered", "under_way")}
    samples: list[tuple[str, str]] = []
    if failed:
        samples = con.execute(
            f"SELECT key, coalesce(failure, status) FROM {relation} WHERE {mine} AND NOT ({answered}) "
            f"AND status NOT IN ('in_flight', 'pending') ORDER BY key_hash LIMIT {_SAMPLES}"
        ).fetchall()
    unpriced = any(g[3] for g in groups) or any(_untold(control.jobs[tag]) for tag in tags)
    return Sent(
        rows=sum(counts.values()),
        answered=counts.get("answered", 0),
        under_way=counts.get("under_way", 0),
        again=sum(int(g[2]) for g in groups),
        failed=failed,
        usd=None if unpriced else _spent(control, tags),
        samples=tuple((str(key), str(cls)) for key, cls in samples),
    )


def _spent(control: ControlView, tags: Iterable[str]) -> float:
    jobs = (control.jobs[tag] for tag in tags)
    return sum(settled_cost(job, job.collected) for job in jobs if job.collected is not None)


def _untold(job: JobRecord) -> bool:
    """Whether all rows of a job failed, and what was used has no price: no row's answer says so."""
    told = job.collected
    return told is not None and not told.rows.get("answered") and told.output_tokens > 0 and not told.usd


class _Waiting(Struct, frozen=True):
    """Rows that wait for a place. relation: FROM-able, with their `key_hash`."""

    rows: int
    relation: str

    def upto(self, con: DuckDBPyConnection, places: int) -> str:
        """The hash, in hex, of the last row that has one of so many places."""
        if places <= 0 or not self.rows:
            return ""
        found = con.execute(
            f"SELECT replace(CAST(key_hash AS VARCHAR), '-', '') FROM {self.relation} ORDER BY key_hash "
            f"LIMIT 1 OFFSET {places - 1}"
        ).fetchall()
        return str(found[0][0])


def _waiting(
    con: DuckDBPyConnection,
    spec: ResolvedSpec,
    rows: KeyedRows,
    past: Recorded,
    found: Diff,
    settings: Settings,
    tags: frozenset[str],
) -> _Waiting:
    shares = spec.spec.idempotency.reuse_identical or bool(past.imported)
    if past.relation is None and not shares:
        return _Waiting(rows.rows, NARROW)
    # A row that is queued is one that has changed, and waits, when it would be asked otherwise by now.
    may_wait = found.count(*HELD, first.PENDING)
    if not may_wait:
        return _Waiting(0, NARROW)
    if may_wait == found.count(first.NEW) and not shares:
        return _Waiting(found.count(first.NEW), f"(SELECT key_hash FROM {CANDIDATES} WHERE class = '{first.NEW}')")
    from batchform.plan.survey import Survey  # only where rows must be rendered to be known

    survey = Survey(con, spec, rows, past, registry=settings.registry, tags=tags)
    return _Waiting(survey.look_at(found), SURVEYED)
