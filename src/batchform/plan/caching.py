"""What a context cache saves and costs, and what speaks against one. Pure.

Saved: the difference between the batch price of input and the price of cached input, for the tokens that all rows
share. Cost: those tokens once at the standard price of input (the service says that making a cache is billed by its
input, and not at which price: the higher reading is used), and their storage by the hour. It lasts from the first job
to the last: as long as this spec's jobs took, else a day, for each round of jobs that may be at work at once; at most
as long as the cache is made to live; or its whole `ttl`, where the spec keeps it that long.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from batchform.canon import canonical_json
from batchform.errors import Diagnostic
from batchform.ledger.records import ControlView
from batchform.plan.model import Cached, Range, Shard
from batchform.plan.price import BYTES_PER_TOKEN, Estimate, Rates, rates
from batchform.plan.registry import ModelInfo, Registry
from batchform.plan.rendered import Rendered
from batchform.plan.shard import DraftShard
from batchform.plan.work import Settings
from batchform.rows.cached import cut
from batchform.spec.realm import cloud_of, realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import money

MARGIN_HOURS: Final = 2
"""What a cache lives longer than a job may take: time to create the job, and for clocks that differ."""
_DAY: Final = 24.0
_FEWEST_BYTES: Final = 2
"""Bytes of a token of dense scripts: what is too small even so is surely too small."""


def check_cache(spec: ResolvedSpec, registry: Registry) -> list[Diagnostic]:
    """What speaks against the cache of a spec, whatever its rows. registry: of the spec's service."""
    return [*_refused(spec, registry.model(spec.model)), *_too_short(spec, registry)] if spec.cache else []


def _refused(spec: ResolvedSpec, info: ModelInfo | None) -> Iterator[Diagnostic]:
    if cloud_of(spec.backend) == "vertex":
        message = "batches of Vertex AI take no explicit cache"
        hint = "Leave it out: repeated beginnings are cached by themselves there, at the price of cached input."
        yield Diagnostic("vertex-refuses", message, spec.at("cache"), hint=hint)
    elif info is not None and info.least_cached_tokens is None:
        message = f"{info.id} is not known to take a context cache"
        hint = "Leave it out, or declare `least_cached_tokens` for it in the file that `prices:` names."
        yield Diagnostic("model-refuses", message, spec.at("cache"), hint=hint)


def _too_short(spec: ResolvedSpec, registry: Registry) -> Iterator[Diagnostic]:
    assert spec.cache is not None
    hours, ttl = registry.service.job_expires_hours, spec.cache.ttl
    if ttl is not None and ttl < hours * 3600:
        message = f"the cache may end before the job: ttl is {ttl / 3600:g} h, and a job may take {hours} h"
        hint = f"Write {hours + MARGIN_HOURS}h or more, or leave ttl out: it is then kept as long as jobs name it."
        yield Diagnostic("cache-too-short", message, spec.at("cache.ttl"), hint=hint)


def lives(spec: ResolvedSpec, registry: Registry) -> float:
    """Seconds that a cache is made to live when a job is sent with it."""
    assert spec.cache is not None
    return spec.cache.ttl or (registry.service.job_expires_hours + MARGIN_HOURS) * 3600.0


def shared_tokens(spec: ResolvedSpec, rendered: Rendered, shards: Sequence[DraftShard]) -> tuple[int, int]:
    """(about how many tokens all rows share, how many bytes of them are text), by one of the requests to be sent."""
    if spec.cache is None or rendered.longest is None:
        return 0, 0
    held, _ = cut(msgspec.json.decode(rendered.longest.request), turns=spec.cache.turns, parts=spec.cache.parts)
    files = next((s.leading for s in shards if s.leading), ())[: spec.cache.parts]
    named = len(canonical_json(held)) - _framing(held, spec.cache.parts)
    return max(0, named) // BYTES_PER_TOKEN + sum(files), named


def _framing(held: dict[str, object], parts: int) -> int:
    """Bytes that name files: they are no text."""
    contents = held.get("contents")
    last = contents[-1]["parts"] if parts and isinstance(contents, list) and contents else []
    return len(canonical_json(last)) if last else 0


def cache_complaints(
    spec: ResolvedSpec,
    rendered: Rendered,
    shards: Sequence[DraftShard],
    settings: Settings,
    *,
    all_rows: bool,
) -> Iterator[Diagnostic]:
    """What is to be said of the cache once rows are rendered, when a spec is applied: retries go without one where that
    is cheaper. all_rows: whether they are all that would be sent."""
    if spec.cache is None or settings.purpose != "apply":
        return
    registry, now = settings.registry.on(cloud_of(spec.backend)), settings.now
    info = registry.model(spec.model)
    if rendered.longest is None or info is None or info.least_cached_tokens is None:
        return
    tokens, text = shared_tokens(spec, rendered, shards)
    least = info.least_cached_tokens
    if tokens < least:
        files = tokens - text // BYTES_PER_TOKEN
        surely = text // _FEWEST_BYTES + files < least
        message = (
            f"what all rows share {'has' if surely else 'may have'} too few tokens for a cache: about {tokens:,}, and "
            f"{info.id} takes {least:,} or more"
        )
        hint = "Leave `cache` out: the service refuses a smaller one."
        yield Diagnostic(
            "cache-too-small", message, spec.at("cache"), hint=hint, severity="error" if surely else "warning"
        )
    elif all_rows:
        rows = sum(s.rows for s in shards if s.rung is None or s.rung.model == spec.model)
        known = rates(spec.model, registry=registry, when=now)
        if known is None or not rows or known.hour is None:
            return
        hours = _hours(spec, registry, None, jobs=len(shards))
        extra, saved = _extra(tokens, known, hours).expected, _saved(tokens, rows, known)
        if extra > saved:
            enough = int(extra / max(_saved(tokens, 1, known), 1e-12)) + 1
            message = (
                f"caching costs more than it saves: {money(extra)} for about {tokens:,} tokens kept for about "
                f"{hours.expected:g} h, to save {money(saved)} on {rows:,} rows"
            )
            hint = f"Leave `cache` out, or send {enough:,} rows or more at once."
            yield Diagnostic("cache-costs-more", message, spec.at("cache"), hint=hint, severity="warning")


def _saved(tokens: int, rows: int, known: Rates) -> float:
    return rows * tokens * max(0.0, known.input - known.cached)


def _extra(tokens: int, known: Rates, hours: Range) -> Range:
    """What making and keeping it costs."""
    hour = known.hour or 0.0
    return Range(*(tokens * (known.made + h * hour) for h in (hours.low, hours.expected, hours.high)))


def _hours(spec: ResolvedSpec, registry: Registry, control: ControlView | None, *, jobs: int) -> Range:
    """How long it is kept."""
    assert spec.cache is not None
    most = lives(spec, registry) / 3600
    if spec.cache.ttl is not None:
        return Range(most, most, most)
    rounds = -(-max(1, jobs) // max(1, spec.backend.max_jobs_in_flight))
    past = _took(control, spec) if control else []
    usual = sum(past) / len(past) if past else _DAY
    return Range(min(1.0, usual) * rounds, min(usual, most) * rounds, most * rounds)


def _took(control: ControlView, spec: ResolvedSpec) -> list[float]:
    """Hours that earlier jobs of the spec took, from their submission to their end."""
    found, realm = [], realm_of(spec.backend)
    for job in control.jobs.values():
        if job.intent.spec == spec.name and job.intent.realm == realm and job.submitted_at and job.ended_at:
            begun, ended = (dt.datetime.fromisoformat(t) for t in (job.submitted_at, job.ended_at))
            found.append(max(0.0, (ended - begun).total_seconds() / 3600))
    return found


def priced_cache(
    spec: ResolvedSpec,
    rendered: Rendered,
    shards: Sequence[DraftShard],
    whole: Estimate,
    *,
    registry: Registry,
    control: ControlView,
    now: dt.datetime,
    only_if_cheaper: bool,
) -> Cached | None:
    """The cache of a spec's jobs and what it changes of their cost; None where nothing is sent with one.

    whole: the estimate without it; only_if_cheaper: of retries, whose few rows need not go as the spec says.
    """
    with_it = [s for s in shards if s.rung is None or s.rung.model == spec.model]
    tokens, _ = shared_tokens(spec, rendered, shards)
    rows = sum(s.rows for s in with_it)
    if spec.cache is None or not rows or not tokens:
        return None
    known = rates(spec.model, registry=registry, when=now)
    hours = _hours(spec, registry, control, jobs=len(with_it))
    cost, made = whole.cost, 0.0
    extra, saved = Range(0.0, 0.0, 0.0), 0.0
    if known is not None and whole.priced:
        known = replace(known.of(whole.tokens.input / max(1, rows)), made=known.made, hour=known.hour)
        extra, saved, made = _extra(tokens, known, hours), _saved(tokens, rows, known), tokens * known.made
        if only_if_cheaper and extra.expected > saved:
            return None
        cost = Range(
            max(0.0, cost.low - saved) + extra.low,
            max(0.0, cost.expected - saved) + extra.expected,
            max(0.0, cost.high - saved) + extra.high,
        )
    storage = Range(extra.low - made, extra.expected - made, extra.high - made)
    return Cached(
        turns=spec.cache.turns, parts=spec.cache.parts, seconds=lives(spec, registry), kept=spec.cache.ttl is not None,
        tokens=tokens, rows=rows, hours=hours, made=made, storage=storage, saved=saved, cost=cost, without=whole.cost,
        storage_known=known is not None and known.hour is not None,
    )  # fmt: skip


def with_cache(shard: Shard, cache: Cached | None, spec: ResolvedSpec) -> Shard:
    """A shard at what it costs with the cache: its share of what is saved, made and stored."""
    if cache is None or (shard.model and shard.model != spec.model):
        return shard
    share = shard.rows / cache.rows
    by = (shard.usd.low, shard.usd.expected, shard.usd.high)
    more = (cache.storage.low, cache.storage.expected, cache.storage.high)
    figures = (max(0.0, usd - cache.saved * share) + (cache.made + m) * share for usd, m in zip(by, more, strict=True))
    return replace(shard, usd=Range(*figures), cached=True)
