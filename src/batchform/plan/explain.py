"""Why one row has its action: the very stages of a plan, run on that row alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from batchform.canon import key_hash
from batchform.errors import UsageError
from batchform.ledger.records import ROW_COLUMNS, ControlView
from batchform.ledger.rekeyed import first_keys
from batchform.ledger.store import Ledger
from batchform.plan.bookkeeping import FreeRows
from batchform.plan.build import render_candidates
from batchform.plan.changes import kept_words, with_canary
from batchform.plan.diff import Diff, Recorded
from batchform.plan.draft import actions_of
from batchform.plan.importing import IMPORTED
from batchform.plan.ladder import Rung
from batchform.plan.model import Action, Reason
from batchform.plan.recorded import diff_recorded, recorded
from batchform.plan.rendered import Rendered
from batchform.plan.work import Settings, Work
from batchform.rows.keyed import (
    NARROW,
    WIDE,
    KeyedRows,
    fingerprint_sql,
    fp_columns_text,
    prepare,
    rendered_columns,
    template_columns,
)
from batchform.rows.request import RequestRenderer
from batchform.rows.sql import literal
from batchform.rows.stream import stream, values_sql
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import money

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.plan.staging import Rollout

_COMPONENTS = (
    ("prompt", "prompt_digest"), ("model", "model"), ("config", "config_digest"), ("schema", "schema_digest"),
    ("realm", "realm"), ("row", "row_fp"),
)  # fmt: skip


class RowExplanation(Struct, frozen=True):
    """action and reason as the next plan has them; components: (name, before, after); before, after: requests, as they
    were and would be sent."""

    action: Action
    reason: Reason | None
    components: tuple[tuple[str, str | None, str | None], ...]
    before: str | None
    after: str | None
    facts: Mapping[str, str]
    notes: tuple[str, ...]


def explain_row(work: Work, ledger: Ledger, settings: Settings, key: str) -> RowExplanation:
    """Explain one row. Raises UsageError if neither the source nor the ledger has the key."""
    spec = work.spec
    con = work.connect()
    try:
        past = recorded(con, ledger, spec, destination=work.destination, said=settings.on_change)
        rows = prepare(con, spec, work.source, recorded_fp_columns=past.fp_columns)
        change = with_canary(con, spec, past.change, past.relation, first_keys=first_keys(ledger, spec.name))
        past = replace(past, change=change)
        if spec.spec.rollout:
            past = replace(past, rollout=_rollout(con, spec, rows, past, ledger, settings))
        past = replace(past, relation=_only(past.relation, key))
        con.execute(f"DELETE FROM {NARROW} WHERE key <> {literal(key)}")
        state = _state(con, past)
        now = _request_now(con, spec, rows, key)
        if state is None and now is None:
            raise UsageError(f"{spec.name} has no row with key {key!r}", hint=_near(con, key))
        found = diff_recorded(con, ledger, spec, rows, past)
        rendered, shards, _ = render_candidates(
            con, spec, rows, past, found, ledger.control(), settings, folder=None, free=FreeRows(None)
        )
        explained = _explanation(spec, settings, past, found, rendered, state, now, key)
        explained = _with_origin(explained, ledger.control(), settings, state)
        return _on_rung(explained, rendered, next((s.rung for s in shards if s.rung), None))
    finally:
        con.close()


def _rollout(
    con: DuckDBPyConnection, spec: ResolvedSpec, rows: KeyedRows, past: Recorded, ledger: Ledger, settings: Settings
) -> Rollout | None:
    """Which rows its stages let through: of all rows, since one alone would be in every stage."""
    from batchform.plan.staging import rollout_of

    found = diff_recorded(con, ledger, spec, rows, past)
    return rollout_of(con, spec, rows, past, found, ledger.control(), settings)


def _only(relation: str | None, key: str) -> str:
    """The recorded state of this key alone, as a relation, so that the plan's own stages see one row."""
    if relation is not None:
        return f"(SELECT * FROM {relation} WHERE key = {literal(key)})"
    return "(SELECT " + ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in ROW_COLUMNS.items()) + " LIMIT 0)"


def _state(con: DuckDBPyConnection, past: Recorded) -> dict[str, Any] | None:
    # Times as text: DuckDB hands TIMESTAMPTZ to Python only where pytz is installed.
    columns = ", ".join(f'CAST("{n}" AS VARCHAR)' if t == "TIMESTAMPTZ" else f'"{n}"' for n, t in ROW_COLUMNS.items())
    found = con.execute(f"SELECT {columns} FROM {past.relation}").fetchall()
    return dict(zip(ROW_COLUMNS, found[0], strict=True)) if found else None


def _request_now(con: DuckDBPyConnection, spec: ResolvedSpec, rows: KeyedRows, key: str) -> tuple[str, bytes] | None:
    """(input fingerprint, canonical request) of the row as it stands; None if the source has it no longer."""
    names, read = template_columns(spec, rows.columns), rendered_columns(spec, rows.columns)
    print_sql = fingerprint_sql(fp_columns_text(names, rows.columns), rows.columns)
    sql = f"SELECT CAST({print_sql} AS VARCHAR){values_sql(read, rows.columns, 'w')} FROM {WIDE} w "
    found = [row for batch in stream(con, sql + f"WHERE w.bf_key = {literal(key)}") for row in batch]
    if not found:
        return None
    return found[0][0], RequestRenderer(spec, read).render(key, found[0][1:])


def _explanation(
    spec: ResolvedSpec,
    settings: Settings,
    past: Recorded,
    found: Diff,
    rendered: Rendered,
    state: dict[str, Any] | None,
    now: tuple[str, bytes] | None,
    key: str,
) -> RowExplanation:
    action = next((a for a, n in actions_of(found, rendered).items() if n), Action.KEEP)
    reason = next(iter(rendered.reasons), None)
    if action in (Action.FORGET, Action.REMOVE):
        reason = Reason.KEY_LEFT_SOURCE
    current = {
        "prompt_digest": spec.prompt_digest, "model": spec.model, "config_digest": spec.config_digest,
        "schema_digest": spec.schema_digest, "realm": realm_of(spec.backend), "row_fp": now[0] if now else None,
    }  # fmt: skip
    components = tuple(
        (name, None if state is None or state[column] is None else str(state[column]), current[column])
        for name, column in _COMPONENTS
    )
    before = None
    if state is not None and state["tag"] and settings.before is not None:
        before = settings.before(state["tag"], key_hash(key).hex())
    held = [*found.exhausted, *rendered.held]
    if found.edited[0]:
        held.append(kept_words(past.change))
    return RowExplanation(
        action=action,
        reason=reason,
        components=components,
        before=before.decode() if before else None,
        after=now[1].decode() if now else None,
        facts=_facts(state),
        notes=tuple(held) + (("the source has no row with this key any more",) if now is None else ()),
    )


def _on_rung(explained: RowExplanation, rendered: Rendered, rung: Rung | None) -> RowExplanation:
    """What is sent is the request as the retry ladder changes it, if it does."""
    if rung is None or rendered.shortest is None:
        return explained
    said = f"sent on the retry ladder, as: {rung.words}"
    return replace(explained, after=rendered.shortest.request.decode(), notes=(*explained.notes, said))


def _facts(state: dict[str, Any] | None) -> dict[str, str]:
    if state is None:
        return {"status": "never sent"}
    labels = (
        ("status", "status"), ("attempt", "attempts"), ("tag", "job"), ("failure", "failure"),
        ("failure_message", "message"), ("answered_at", "answered at"), ("finish_reason", "finish reason"),
        ("model_version", "model version"), ("prompt_tokens", "input tokens"), ("output_tokens", "output tokens"),
    )  # fmt: skip
    facts = {label: str(state[column]) for column, label in labels if state[column] is not None}
    if state["cost_usd"] is not None:
        facts["cost"] = money(state["cost_usd"])
    return facts


def _with_origin(
    explained: RowExplanation, control: ControlView, settings: Settings, state: dict[str, Any] | None
) -> RowExplanation:
    """Where an answer comes from that no job of this ledger gave."""
    taken = [control.jobs[tag].job for tag in settings.taken]
    if taken:
        return replace(explained, notes=(*explained.notes, f"answered by {taken[0]}"))
    job = control.jobs.get(str(state["answer_tag"])) if state else None
    if job is None or job.how != IMPORTED:
        return explained
    return replace(explained, facts={**explained.facts, "imported from": str(job.job)})


def _near(con: DuckDBPyConnection, key: str) -> str:
    """Keys of the source that look most like this one."""
    found = con.execute(
        f"SELECT bf_key FROM {WIDE} ORDER BY jaro_winkler_similarity(bf_key, {literal(key)}) DESC, bf_key LIMIT 3"
    ).fetchall()
    return f"Keys like it: {', '.join(repr(f[0]) for f in found)}." if found else ""
