"""Building a plan: for each spec key, diff, render, cut, price; judge the limits. Writes nowhere but in `folder`.

recorded → prepare → diff → render → shards, bookkeeping → estimate → judge
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchform.errors import DestinationError, Diagnostic, InvalidProject
from batchform.ledger.records import ControlView, ledger_mark
from batchform.ledger.store import Ledger
from batchform.plan.bookkeeping import FreeRows, write_bookkeeping, write_reread
from batchform.plan.caching import cache_complaints, check_cache
from batchform.plan.carried import carry_answers
from batchform.plan.chains import Awaited, Chains, chain_notes, hold_back, kept
from batchform.plan.compare import compare, remembered
from batchform.plan.counting import Sample, count_tokens
from batchform.plan.diff import Diff, Recorded
from batchform.plan.digest import plan_digest
from batchform.plan.draft import Draft, Outcome, draft_spec
from batchform.plan.guards import judge_guards
from batchform.plan.ladder import check_rungs, climber_of
from batchform.plan.model import ZERO, Action, Plan, SpecPlan, Tokens, Verdict
from batchform.plan.moving import moved_on, with_moves
from batchform.plan.policy import PROJECT, by_realm, check_allow, holds, judge, judge_project, release
from batchform.plan.price import History, history_sql
from batchform.plan.recorded import attempts, check_destination, reading
from batchform.plan.registry import Registry
from batchform.plan.render import PAYING, CandidateRenderer
from batchform.plan.rendered import Rendered
from batchform.plan.row_rules import EnoughRows, row_rules
from batchform.plan.shard import DraftShard, ShardCutter
from batchform.plan.spend import Books
from batchform.plan.work import Saving, Settings, Work
from batchform.ports import BackendLimits
from batchform.rows.keyed import KeyedRows, source_digest
from batchform.rows.request import merge
from batchform.spec.chains import in_order
from batchform.spec.ignored import without_ignored
from batchform.spec.image import rows_per_job
from batchform.spec.model import Backend
from batchform.spec.realm import cloud_of, realm_of, resumes
from batchform.spec.resolved import ResolvedProject, ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.plan.attached import ShardFiles

_INLINE_SHARE = 0.3
"""Share of the service's inline limit that a job's lines may fill: the SDK escapes non-ASCII text, up to threefold."""


def build_plan(
    project: ResolvedProject,
    work: Sequence[Work],
    ledger: Ledger,
    settings: Settings,
    *,
    folder: Path,
    save: Saving,
) -> Plan:
    """The plan of the given specs. folder: for scratch, and for shards and row states when `save` asks for them."""
    said = check_models([w.spec for w in work], settings.registry, settings.now)
    allow = check_allow(settings.allow, [s.name for s in project.specs])
    with moved_on(project, work, ledger, settings, folder=folder, save=save) as (moves, settings):
        plan = _judged(project, work, ledger, settings, said, allow, folder=folder, save=save)
    plan = with_moves(plan, moves, settings.taken, save=save)
    return _with_envelope(replace(plan, digest=plan_digest(plan)), work, settings)


def _judged(
    project: ResolvedProject,
    work: Sequence[Work],
    ledger: Ledger,
    settings: Settings,
    said: Mapping[str, Sequence[Diagnostic]],
    allow: frozenset[str],
    *,
    folder: Path,
    save: Saving,
) -> Plan:
    """The specs planned, and every limit judged. said: warnings of specs by their names; allow: limits released."""
    drafts = _drafts(project, work, ledger, settings, said, folder=folder, save=save)
    if errors := [c for draft in drafts for c in draft.complaints if c.severity == "error"]:
        raise InvalidProject(errors)
    named = {w.spec.name: w.spec for w in work}
    books = Books(ledger.control(), settings.now)
    limits, figures = project.config.limits, by_realm((d.plan.realm, d.figures) for d in drafts)
    whole = judge_project(limits, figures, spend=lambda realm: books.spend(limits, realm), allow=allow)
    asking = {d.plan.name: (named[d.plan.name], d.plan) for d in drafts}
    guards = partial(judge_guards, registry=settings.registry, now=settings.now)
    whole += release(guards(PROJECT, limits, asking.values()), allow)
    specs = []
    for draft in drafts:
        name = draft.plan.name
        spent = books.spend(draft.limits, draft.plan.realm, name)
        own = judge(name, draft.limits, draft.figures, spend=spent, allow=allow)
        own += release(guards(name, draft.limits, [asking[name]]), allow)
        specs.append(_hold(replace(draft.plan, verdicts=own), [*own, *whole], folder))
    return Plan(
        digest="",
        project=project.config.project,
        environment=project.environment,
        created_at=_rfc3339(settings.now),
        lineage=ledger.lineage,
        serial=ledger.serial,
        batchform_version=settings.batchform_version,
        prices_dated=settings.registry.prices_dated,
        models_dated=settings.registry.models_dated,
        specs=tuple(specs),
        selected=settings.selected,
        partial=settings.partial,
        verdicts=whole,
        purpose=settings.purpose,
        wave_of=settings.wave_of,
        reason=settings.reason,
    )


def _with_envelope(plan: Plan, work: Sequence[Work], settings: Settings) -> Plan:
    """The plan with what somebody may approve of it."""
    if settings.spare is None or plan.purpose != "apply":
        return plan
    from batchform.plan.envelope import envelope_of, parts_of

    parts = {w.spec.name: parts_of(w.spec) for w in work}
    return replace(plan, envelope=envelope_of(plan, parts, spare=settings.spare, now=settings.now))


def check_models(specs: Iterable[ResolvedSpec], registry: Registry, now: dt.datetime) -> dict[str, list[Diagnostic]]:
    """Refuse models that are unknown, shut down, or take no batches, and requests that the service takes not. Raises
    InvalidProject with all of them; returns the warnings of each spec by its name."""
    judged = {spec.name: judge_models([spec], registry, now) for spec in specs}
    if errors := [d for found in judged.values() for d in found if d.severity == "error"]:
        raise InvalidProject(errors)
    return {name: [d for d in found if d.severity == "warning"] for name, found in judged.items()}


def judge_models(specs: Iterable[ResolvedSpec], registry: Registry, now: dt.datetime) -> list[Diagnostic]:
    """What is to be said of the models of specs, and of requests that their services do not take."""
    from batchform.plan.features import check_features, check_inline
    from batchform.plan.model_rules import check_model
    from batchform.plan.request_rules import check_request
    from batchform.plan.task_rules import check_task

    found: list[Diagnostic] = []
    for spec in specs:
        request = merge(spec.request_base, spec.request_overlay)
        there = registry.on(cloud_of(spec.backend))
        findings = there.check(spec.model, now=now, realm=realm_of(spec.backend), task=spec.task)
        findings += there.check_config(spec.model, request.get("generationConfig", {}))
        info = there.model(spec.model)
        complaints = [*(finding.at(spec.at("model")) for finding in findings), *check_task(spec, info)]
        complaints += check_model(spec, request, there, now)
        if spec.task != "embed":
            complaints += [*check_features(spec, request), *check_inline(spec, info.kind if info else "text")]
            complaints += check_request(spec, request, info)
            complaints += check_rungs(spec, request, there, now)
        complaints += check_cache(spec, there)
        if cloud_of(spec.backend) == "vertex":
            from batchform.plan.vertex import check_vertex

            complaints += check_vertex(spec, request, registry.vertex_refuses)
        found += without_ignored(complaints, spec.spec.ignore)
    return found


def _drafts(
    project: ResolvedProject,
    work: Sequence[Work],
    ledger: Ledger,
    settings: Settings,
    said: Mapping[str, Sequence[Diagnostic]],
    *,
    folder: Path,
    save: Saving,
) -> list[Draft]:
    """Every spec planned, each after the one whose answers it reads. said: warnings of specs by their names."""
    ordered = in_order([w.spec for w in work])
    chains = Chains(ordered, folder=folder, purpose=settings.purpose)
    notes = chain_notes(ordered, project.specs) if settings.purpose == "apply" else {}
    works = {w.spec.name: w for w in work}
    drafts = []
    try:
        for spec in ordered:
            draft = _plan_spec(works[spec.name], ledger, settings, chains, said[spec.name], folder=folder, save=save)
            if spec.name in notes:
                draft = replace(draft, plan=replace(draft.plan, notes=(notes[spec.name], *draft.plan.notes)))
            drafts.append(draft)
    finally:
        chains.discard()
    return drafts


def _plan_spec(
    work: Work,
    ledger: Ledger,
    settings: Settings,
    chains: Chains,
    said: Sequence[Diagnostic],
    *,
    folder: Path,
    save: Saving,
) -> Draft:
    spec, control, waits = work.spec, ledger.control(), chains.awaited(work.source)
    described = partial(draft_spec, spec, control=control, registry=settings.registry, now=settings.now, warnings=said)
    known = remembered(work, ledger, settings) if save == Saving() and not chains.reads(spec) else None
    if known is not None:
        quiet = Outcome(*known, Recorded(relation=None), Rendered(), (), None, None, None)
        return _with_destination_note(described(quiet, before=None), control, work)
    shards_kept = save.shards or chains.reads(spec)
    own = folder / "specs" / spec.name
    own.mkdir(parents=True, exist_ok=True)
    with closing(work.connect()) as con, reading(ledger, spec):
        past, rows, diffed = compare(con, replace(work, source=waits.source), ledger, settings)
        found = kept(diffed) if waits.leaves else diffed
        free = FreeRows(own / "free.parquet")
        rendered, shards, fp_columns = render_candidates(
            con,
            spec,
            rows,
            past,
            found,
            control,
            settings,
            folder=own if shards_kept else None,
            free=free,
            ledger=ledger,
            waits=waits,
        )
        if shards_kept:
            carry_answers(con, past, shards, folder)
        bookkeeping = reread = None
        if shards_kept:
            to = own / "bookkeeping.rows.parquet"
            count = write_bookkeeping(
                con, spec, past, found, free,
                realm=realm_of(spec.backend), fp_columns=fp_columns, at=_rfc3339(settings.now), to=to,
                removals="record" if settings.records_left(spec.name) and not waits.leaves else "leave",
            )  # fmt: skip
            bookkeeping = f"specs/{spec.name}/{to.name}" if count else None
            free_rows, to = to if count else None, own / "reread.rows.parquet"
            reread = f"specs/{spec.name}/{to.name}" if write_reread(con, found, free_rows, to) else None
        free.discard()
        history = _history(con, spec, past) if shards or waits.rows else None
        outcome = Outcome(rows, found, past, rendered, tuple(shards), history, bookkeeping, reread)
        draft = described(outcome, before=settings.before, purpose=settings.purpose)
        draft = chains.after(spec, waits, draft, rendered, rows, history, registry=settings.registry, now=settings.now)
        chains.add(con, spec, draft, waits, diffed, bundle=folder)
        if save.source:
            digest = source_digest(rows.relation.paths, rows.relation.identity)
            exact = replace(draft.plan, source_digest=digest, source_versions=rows.relation.versions)
            draft = replace(draft, plan=exact)
        return _with_destination_note(draft, control, work)


def _with_destination_note(draft: Draft, control: ControlView, work: Work) -> Draft:
    """What apply will refuse is said where it is reviewed. No error: plans may be made where nothing can be written."""
    if not draft.plan.delivers:
        return draft
    try:
        check_destination(control, work.spec, work.destination)
    except DestinationError as exc:
        note = f"apply will refuse: {exc.message}"
        return replace(draft, plan=replace(draft.plan, notes=(*draft.plan.notes, note)))
    return draft


def render_candidates(
    con: DuckDBPyConnection,
    spec: ResolvedSpec,
    rows: KeyedRows,
    past: Recorded,
    found: Diff,
    control: ControlView,
    settings: Settings,
    *,
    folder: Path | None,
    free: FreeRows,
    ledger: Ledger | None = None,
    most: int | None = None,
    waits: Awaited | None = None,
) -> tuple[Rendered, list[DraftShard], str]:
    """Run the second level of the diff. Returns what it came to, the shards, and the columns that fingerprints cover.

    folder: where shards are written; None only counts them; ledger: where jobs are looked up that can be resumed, None
    to render all rows; most: rows to look at, None for all; waits: answers that the rows come of, and are to come.
    """
    realm, paying = realm_of(spec.backend), PAYING[settings.purpose]
    if settings.purpose != "apply" and control.applied_to.get(spec.name, spec.backend_name) != spec.backend_name:
        paying = frozenset()  # nobody has reviewed that its rows go to this backend
    if (waits is not None and waits.wholly) or spec.name in settings.waiting:
        paying = frozenset()
    limits = backend_limits(spec.backend, submit=spec.spec.submit, registry=settings.registry)
    if spec.task == "image":
        limits = replace(limits, max_rows_per_job=min(limits.max_rows_per_job, rows_per_job(spec.spec)))
    rules = row_rules(spec, settings.registry, largest=limits.largest, most=most)
    if settings.counting is not None:
        rules.sample = Sample(settings.counting.most)
    renderer = CandidateRenderer(con, spec, rows, past, realm=realm, free=free, paying=paying, rules=rules)
    renderer.taken = settings.taken
    if settings.purpose == "retry" and settings.elsewhere is not None:  # edits and new rows are left to apply
        renderer.taking = PAYING["retry"]
    renderer.why_left = settings.waiting.get(spec.name, renderer.why_left)
    renderer.climber = climber_of(spec, settings.registry.on(cloud_of(spec.backend)))
    cutter = ShardCutter(
        spec,
        limits=limits,
        folder=folder,
        relative=f"specs/{spec.name}/",
        realm=realm,
        fp_columns=renderer.fp_columns,
        attempts_of=lambda digest: attempts(control, spec.name, digest),
        refuse=rules.too_large,
        mark=ledger_mark(control.lineage),
        at=settings.now,
        files=_files(renderer),
    )
    going_on = None
    if ledger is not None and resumes(spec.backend) and spec.task != "embed" and not spec.attachments:
        from batchform.plan.resume import GoingOn  # only where it is asked for

        going_on = GoingOn(con, spec, ledger, limits)
        going_on.choose(found, past, paying=paying, fp_columns=renderer.fp_columns)
    try:
        rendered = renderer.out
        with suppress(EnoughRows):
            renderer.run(found, cutter)
        if going_on is not None:
            going_on.cut(renderer, cutter)
        if waits is not None and waits.wholly:
            hold_back(rendered, waits)
        judged = [
            *rules.complaints(),
            *cache_complaints(spec, rendered, cutter.shards, settings, all_rows=most is None),
        ]
        rendered.complaints = without_ignored(judged, spec.spec.ignore)
        count_tokens(spec, rules.sample, rendered, settings.counting)
    finally:
        cutter.abandon()
        free.close()
    return rendered, cutter.shards, renderer.fp_columns


def _files(renderer: CandidateRenderer) -> ShardFiles | None:
    if renderer.carried is None:
        return None
    from batchform.plan.attached import ShardFiles  # only where rows have files

    return ShardFiles(renderer.carried)


def backend_limits(backend: Backend, *, submit: str, registry: Registry) -> BackendLimits:
    """What one job of this backend may hold, as its configuration and the service's own limits have it."""
    service = registry.on(cloud_of(backend)).service
    inline = service.max_inline_bytes
    largest = int(inline * _INLINE_SHARE) if submit == "inline" else service.max_input_bytes
    rows = min(backend.max_rows_per_job, service.max_rows or backend.max_rows_per_job)
    return BackendLimits(rows, min(backend.max_bytes_per_job, largest), inline, largest)


def _history(con: DuckDBPyConnection, spec: ResolvedSpec, past: Recorded) -> History | None:
    if past.relation is None:
        return None
    rows = con.execute(history_sql(past.relation, realm=realm_of(spec.backend))).fetchall()
    return History(*rows[0])


def _hold(plan: SpecPlan, verdicts: Iterable[Verdict], folder: Path) -> SpecPlan:
    """The plan with the rows that a failed verdict holds moved to HELD: nothing of them is sent or removed."""
    failed = [v for v in verdicts if not v.ok]
    stopped = frozenset[Action]().union(*(holds(v) for v in failed))
    count = sum(plan.actions[a] for a in stopped)
    if not count:
        return plan
    shutil.rmtree(folder / "specs" / plan.name, ignore_errors=True)
    actions = {a: 0 if a in stopped else n for a, n in plan.actions.items()}
    actions[Action.HELD] += count
    return replace(
        plan, actions=actions, rows_to_send=0, requests_to_send=0, shards=(), bytes=0, cost=ZERO, bookkeeping=None,
        reread=None, cache=None,
        tokens=Tokens(0, ZERO, plan.tokens.basis, plan.tokens.input_basis),
        held_by={**plan.held_by, f"limit {', '.join(v.name for v in failed)}": count},
    )  # fmt: skip


def _rfc3339(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
