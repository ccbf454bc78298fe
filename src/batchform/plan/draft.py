"""One spec's plan as figures and words: actions, reasons, price, previews. Judged by no limit yet."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import Diagnostic
from batchform.ledger.records import ControlView
from batchform.plan import diff as first
from batchform.plan.change_costs import change_of
from batchform.plan.diff import Diff, Recorded
from batchform.plan.ladder import Rung
from batchform.plan.model import ZERO, Action, After, Range, Reason, Sample, Shard, SpecPlan
from batchform.plan.policy import Figures
from batchform.plan.price import Estimate, Estimator, History
from batchform.plan.registry import Registry
from batchform.plan.rendered import Preview, Rendered
from batchform.plan.shard import DraftShard
from batchform.plan.tool_costs import tool_notes
from batchform.rows.keyed import KeyedRows
from batchform.rows.request import merge
from batchform.spec.image import image_size
from batchform.spec.model import Limits
from batchform.spec.realm import cloud_of, realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.service_limits import ServiceLimits
from batchform.spec.wording import counted, money

_AUTO_INLINE_ROWS = 100
_AUTO_INLINE_BYTES = 1_000_000
_LATER_SPARE = 1.25
"""What later stages may cost at least, against what is expected: the answers of earlier ones change the estimate."""

Before = Callable[[str, str], bytes | None]
"""(tag, key hash in hex) → the request that was sent then, if it is still archived."""


class Outcome(Struct, frozen=True):
    """What planning one spec came to, before it is priced."""

    rows: KeyedRows
    found: Diff
    past: Recorded
    rendered: Rendered
    shards: tuple[DraftShard, ...]
    history: History | None
    bookkeeping: str | None
    reread: str | None


class Draft(Struct, frozen=True):
    """A spec's plan before any limit is judged, what limits are judged on, and what is to be said of its rows."""

    plan: SpecPlan
    figures: Figures
    limits: Limits
    complaints: Sequence[Diagnostic] = ()


def draft_spec(
    spec: ResolvedSpec,
    outcome: Outcome,
    control: ControlView,
    *,
    registry: Registry,
    now: dt.datetime,
    before: Before | None,
    warnings: Iterable[Diagnostic],
    purpose: str = "apply",
) -> Draft:
    """Price and describe one spec's outcome. warnings: about what all its requests share; purpose: of the plan."""
    rows, found, rendered, shards = outcome.rows, outcome.found, outcome.rendered, outcome.shards
    realm, registry = realm_of(spec.backend), registry.on(cloud_of(spec.backend))
    actions = actions_of(found, rendered)
    to_send = actions[Action.RUN] + actions[Action.RERUN]
    shared = merge(spec.request_base, spec.request_overlay)
    config = shared.get("generationConfig", {})
    estimator = Estimator.of(
        spec.model,
        registry=registry,
        when=now,
        history=outcome.history,
        max_output_tokens=config.get("maxOutputTokens"),
        fixed_bytes=rendered.fixed_bytes,
        image_size=image_size(spec.spec),
        counted=rendered.counted,
    )
    largest = len(rendered.longest.request) if rendered.longest else 0
    on_rungs = [shard for shard in shards if shard.rung]
    plain = to_send - sum(shard.rows for shard in on_rungs)
    whole = estimator.estimate(
        requests=plain,
        request_bytes=rendered.request_bytes,
        largest_bytes=largest,
        file_tokens=sum(s.file_tokens for s in shards if not s.rung),
    )
    by_rung = {s.rung: _of_rung(s.rung, estimator, registry, now) for s in on_rungs if s.rung}
    climbed = {rung: _on_rung(rung, on_rungs, by_rung[rung], largest) for rung in by_rung}
    for rows_there, estimate in climbed.values():
        whole = whole + estimate if plain or whole.tokens.input else estimate
        plain += rows_there
    on_rung = sum((estimate.cost for _, estimate in climbed.values()), ZERO)

    def cost_of(requests: int, request_bytes: int) -> Range:
        """Of rows that are sent as they were asked, beside those on the retry ladder."""
        found = estimator.estimate(requests=requests, request_bytes=request_bytes, largest_bytes=largest)
        return found.cost + on_rung

    unclimbed = to_send - sum(shard.rows for shard in on_rungs)
    rollout = rendered.rollout
    held, held_bytes = (rollout.rows, rollout.size) if rollout else (0, 0)
    change = change_of(
        spec, rendered.edited, found.edited, sent=(unclimbed + held, rendered.request_bytes + held_bytes),
        others=to_send - unclimbed, priced=cost_of,
    )  # fmt: skip
    cache = None
    if spec.cache is not None and shards:
        from batchform.plan.caching import priced_cache, with_cache  # only where there is a cache

        cache = priced_cache(
            spec, rendered, shards, whole,
            registry=registry, control=control, now=now, only_if_cheaper=purpose != "apply",
        )  # fmt: skip
        whole = whole if cache is None else replace(whole, cost=cache.cost)
    priced = tuple(_priced(s, spec, by_rung[s.rung] if s.rung else estimator, largest) for s in shards)
    if cache is not None:
        priced = tuple(with_cache(s, cache, spec) for s in priced)
    said = [f"{w.code} {w.message}" for w in warnings if to_send or w.rule.startswith("model-")]
    notes = [*rows.notes, *whole.notes, *_too_much_at_once(priced, spec, registry.service), *said, *rendered.notes]
    notes += [
        f"{counted(rows_there, 'row')} on the retry ladder: {rung.words} (about {money(estimate.cost.expected)})"
        for rung, (rows_there, estimate) in climbed.items()
    ]
    notes += [*tool_notes(spec.model, shared, requests=to_send), *_attached(shards, registry.service)]
    notes += [f"{c.code} {c.message}" for c in rendered.complaints]
    if rendered.waiting:
        notes.append(f"{rendered.waiting:,} rows take the answer of another row's identical request")
    if found.unreadable:
        notes.append(f"{found.unreadable:,} rows cannot be read anew: their results are archived no longer")
    reasons = dict(rendered.reasons)
    for name in (first.FORGET, first.REMOVE):
        if found.count(name):
            reasons[Reason.KEY_LEFT_SOURCE] = reasons.get(Reason.KEY_LEFT_SOURCE, 0) + found.count(name)
    plan = SpecPlan(
        name=spec.name,
        spec_digest=spec.spec_digest,
        source=rows.relation.described,
        source_rows=rows.rows,
        backend=spec.backend_name,
        realm=realm,
        model=spec.model,
        destination=f"{spec.spec.destination.type} {spec.spec.destination.place}",
        actions=actions,
        reasons=reasons,
        rows_to_send=to_send,
        requests_to_send=to_send,
        shards=priced,
        bytes=sum(s.bytes for s in shards),
        tokens=whole.tokens,
        cost=whole.cost,
        samples=tuple(_samples(rendered, before, outcome.past)),
        held_by={**found.exhausted, **rendered.held},
        bookkeeping=outcome.bookkeeping,
        reread=outcome.reread,
        notes=tuple(dict.fromkeys(notes)),
        previous=_previous(control, spec.name),
        key_columns=rows.key_columns,
        preview=spec.spec.preview,
        waiting=rendered.waiting,
        change=change,
        cache=cache,
        rollout=rollout.planned() if rollout else None,
    )
    removed = actions[Action.REMOVE]
    left = removed + actions[Action.FORGET] - found.superseded
    figures = Figures(
        to_send=to_send,
        cost=_at_least(whole.cost, priced),
        priced=whole.priced,
        answered=found.answered_before + found.parted,
        changed=rendered.resent + found.parted,
        known=found.answered_before + (left if spec.limits.max_shrink_percent is not None else removed),
        removed=removed,
        emptied=left > 0 and rows.rows == 0,
        left=left,
    )
    draft = Draft(plan, figures, spec.limits, rendered.complaints)
    if rollout is None or not rollout.rows or purpose != "apply":
        return draft
    later = estimator.estimate(requests=rollout.rows, request_bytes=rollout.size, largest_bytes=rollout.largest)
    most = max(later.cost.high, later.cost.expected * _LATER_SPARE)
    after = After("", rollout.rows, Range(0.0, later.cost.expected, most), "", staged=rollout.rows)
    counted_too = replace(figures, changed=figures.changed + rollout.resent)
    return with_later(replace(draft, figures=counted_too), after, priced=later.priced)


def with_later(draft: Draft, after: After, *, priced: bool) -> Draft:
    """The draft with rows that are sent later within a bound, which limits count too. priced: whether their price is
    known."""
    figures, known = draft.figures, draft.plan.after
    whole = after
    if known is not None:
        basis = "; ".join(b for b in (after.basis, known.basis) if b)
        rows, staged = known.rows + after.rows, known.staged + after.staged
        whole = After(after.upstream or known.upstream, rows, known.cost + after.cost, basis, staged)
    counted_too = replace(
        figures, to_send=figures.to_send + after.rows, cost=figures.cost + after.cost, priced=figures.priced and priced
    )
    return replace(draft, plan=replace(draft.plan, after=whole), figures=counted_too)


def _attached(shards: Iterable[DraftShard], service: ServiceLimits) -> Iterator[str]:
    """What goes with the requests."""
    files, size = sum(s.files for s in shards), sum(s.file_bytes for s in shards)
    if files:
        yield f"{counted(files, 'file')} of {size:,} bytes {'go' if files > 1 else 'goes'} with the requests"
    if service.max_storage_bytes is not None and size > service.max_storage_bytes:
        yield f"attached files have {size:,} bytes, and the service keeps {service.max_storage_bytes:,}"


def _too_much_at_once(shards: Iterable[Shard], spec: ResolvedSpec, service: ServiceLimits) -> Iterator[str]:
    """Whether inputs of the jobs that may be at work at once are more than the service keeps."""
    most, jobs = service.max_storage_bytes, spec.backend.max_jobs_in_flight
    uploaded = sorted((s.bytes for s in shards if s.mode == "file"), reverse=True)
    at_once = sum(uploaded[:jobs])
    if most is not None and at_once > most:
        yield (
            f"inputs of {min(jobs, len(uploaded))} jobs at once have {at_once:,} bytes, and the service keeps {most:,} "
            "(jobs wait until there is room)"
        )


def _at_least(cost: Range, shards: Iterable[Shard]) -> Range:
    """The cost that budgets are judged on: no less than what the jobs will reserve one by one."""
    reserved = sum((s.usd for s in shards), ZERO)
    return Range(cost.low, max(cost.expected, reserved.expected), max(cost.high, reserved.high))


def actions_of(found: Diff, rendered: Rendered) -> dict[Action, int]:
    """Rows per action, zeros included."""
    actions = dict.fromkeys(Action, 0)
    actions[Action.KEEP] = found.count(first.KEEP, first.RETURNED)
    actions[Action.IN_FLIGHT] = found.count(first.IN_FLIGHT)
    actions[Action.UNKNOWN] = found.count(first.UNKNOWN)
    actions[Action.REPARSE] = found.count(first.REPARSE)
    actions[Action.REDELIVER] = found.count(first.REDELIVER)
    actions[Action.FORGET] = found.count(first.FORGET)
    actions[Action.REMOVE] = found.count(first.REMOVE)
    actions[Action.HELD] = found.count(first.EXHAUSTED)
    for action, count in rendered.actions.items():
        actions[action] += count
    return actions


def _of_rung(rung: Rung, base: Estimator, registry: Registry, now: dt.datetime) -> Estimator:
    """What estimates the rows of a rung. What answered rows used says little of rows that failed."""
    most, fixed = rung.max_output_tokens, base.fixed_bytes
    return Estimator.of(rung.model, registry=registry, when=now, max_output_tokens=most, fixed_bytes=fixed)


def _on_rung(rung: Rung, shards: Iterable[DraftShard], estimator: Estimator, largest: int) -> tuple[int, Estimate]:
    """Rows on a rung, and what they are estimated at."""
    own = [s for s in shards if s.rung == rung]
    rows, files = sum(s.rows for s in own), sum(s.file_tokens for s in own)
    size = sum(s.request_bytes for s in own)
    return rows, estimator.estimate(requests=rows, request_bytes=size, largest_bytes=largest, file_tokens=files)


def _rung(rung: Rung | None, spec: ResolvedSpec) -> dict[str, Any]:
    if rung is None:
        return {}
    return {"model": rung.model if rung.model != spec.model else "", "rung": rung.words}


def _priced(shard: DraftShard, spec: ResolvedSpec, estimator: Estimator, largest: int) -> Shard:
    estimate = estimator.estimate(
        requests=shard.rows,
        request_bytes=shard.request_bytes,
        largest_bytes=largest,
        file_tokens=shard.file_tokens,
    )
    return Shard(
        index=shard.index, tag=shard.tag, digest=shard.digest, rows=shard.rows, requests=shard.rows, bytes=shard.bytes,
        input_tokens=estimate.tokens.input, usd=estimate.cost, mode=_mode(shard, spec, estimator),
        path=shard.path, rows_path=shard.rows_path, resumes=shard.resumes, **_rung(shard.rung, spec),
        files_path=shard.files_path, files=shard.files,
    )  # fmt: skip


def _mode(shard: DraftShard, spec: ResolvedSpec, estimator: Estimator) -> str:
    """How the requests get there."""
    if cloud_of(spec.backend) == "vertex" and getattr(spec.backend, "via", "storage") == "bigquery":
        return "table"
    small = (
        spec.spec.submit == "auto"
        and cloud_of(spec.backend) != "vertex"
        and (estimator.info is None or estimator.info.kind != "image")
        and shard.rows <= _AUTO_INLINE_ROWS
        and shard.bytes <= _AUTO_INLINE_BYTES
    )
    return "inline" if spec.spec.submit == "inline" or small else "file"


def _samples(rendered: Rendered, before: Before | None, past: Recorded) -> Iterable[Sample]:
    seen: set[str] = set()
    named: tuple[tuple[str, Preview | None], ...] = (
        ("shortest", rendered.shortest), ("longest", rendered.longest), ("by key hash", rendered.chosen),
    )  # fmt: skip
    for chosen_as, preview in named:
        if preview is None or preview.key_hex in seen:
            continue
        seen.add(preview.key_hex)
        old = before(preview.tag, preview.key_hex) if before and preview.tag and past.relation else None
        yield Sample(
            key=preview.key,
            action=preview.action,
            reason=preview.reason,
            request=preview.request.decode(),
            before=old.decode() if old else None,
            chosen_as=chosen_as,
            changed=preview.changed,
        )


def _previous(control: ControlView, name: str) -> str:
    """Estimate against actual of the spec's last apply, in words."""
    jobs = [j for j in control.jobs.values() if j.intent.spec == name and j.collected]
    if not jobs:
        return ""
    last = jobs[-1].intent.plan_digest
    same = [j for j in jobs if j.intent.plan_digest == last]
    estimate = sum(j.intent.est_usd for j in same)
    actual = sum(j.collected.usd for j in same if j.collected)
    return f"last apply was estimated {money(estimate)}, cost {money(actual)}"
