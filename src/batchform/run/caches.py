"""Context caches of jobs: made before the first job that names one, kept while any does, dropped after the last.

A cache is found again by its title, which comes from what it holds, its model and the ledger: a run that was killed
after it was made makes no second one. The lines of a job are cut when they are staged; planned, fingerprinted and
archived are whole requests, so that whether they are sent with a cache is nobody's business but the bill's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from batchform.canon import canonical_json, digest_of, short
from batchform.errors import BackendError, BatchformError, NotCreated, NotFound, StalePlan
from batchform.ledger.records import CacheUse, Intent, JobRecord, Spent, ledger_mark
from batchform.ledger.segments import timestamp
from batchform.plan.attached import listed_files
from batchform.plan.model import Cached
from batchform.plan.shard import shard_line, split_line
from batchform.plan.spend import settled_caches
from batchform.ports import Backend, Caches, KeptContext
from batchform.rows.attached import names_in, with_places
from batchform.rows.cached import cut
from batchform.run.attachments import place_files
from batchform.run.context import NOT_FOUND, RunContext, call_again, parse_stamp
from batchform.run.kept_inputs import may_turn_up
from batchform.run.submission import Work
from batchform.spec.wording import money

UNNAMED_FOR: Final = timedelta(hours=6)
"""How old a cache is before it counts as left over, when no job of the ledger names it: another run may be staging the
input of the first that does."""
_PREFIX: Final = "bf-cache"


def cached_lines_path(ctx: RunContext, tag: str) -> Path:
    """The lines of a shard with the name of its cache."""
    return ctx.work_dir / f"{tag}.cached.jsonl"


def with_cache(ctx: RunContext, backend: Backend, work: Work, bundle: Path) -> tuple[Path, CacheUse]:
    """The lines of a shard that name its cache, which is there from now on, and how it is used. Safe to repeat.

    Raises StalePlan when rows of the shard do not share what was planned, BackendError.
    """
    planned, shard = work.plan.cache, work.shard
    assert planned is not None
    to, lines = cached_lines_path(ctx, shard.tag), bundle / shard.path
    with lines.open("rb") as source:
        held = _held(split_line(source.readline())[1], planned)
    kept = _kept(ctx, backend, work, bundle, planned, held)
    with lines.open("rb") as source, to.open("wb") as out:
        for line in source:
            key, request = split_line(line)
            shared, own = cut(msgspec.json.decode(request), turns=planned.turns, parts=planned.parts)
            if canonical_json(shared) != held:
                hint = "Plan again; if that does not help, leave `cache` out of the spec."
                raise StalePlan(f"{lines}: its rows do not begin alike, and a cache holds one beginning.", hint=hint)
            out.write(shard_line(key.hex(), canonical_json({**own, "cachedContent": kept.name})))
    until = timestamp(ctx.clock.now() + timedelta(seconds=planned.seconds))
    use = CacheUse(
        kept.name, kept.title, planned.turns, planned.parts, until, kept.tokens or planned.tokens, planned.kept
    )
    return to, use


def _held(request: bytes, planned: Cached) -> bytes:
    return canonical_json(cut(msgspec.json.decode(request), turns=planned.turns, parts=planned.parts)[0])


def title_of(ctx: RunContext, model: str, held: bytes) -> str:
    """The title of the cache of this ledger that holds this for a model."""
    return f"{_own_prefix(ctx)}-{short(digest_of('cache', [model, held.decode()]), 32)}"


def _own_prefix(ctx: RunContext) -> str:
    return f"{_PREFIX}-{ledger_mark(ctx.ledger.lineage)}"


def _kept(ctx: RunContext, backend: Backend, work: Work, bundle: Path, planned: Cached, held: bytes) -> KeptContext:
    """The cache of a shard, prolonged; made if there is none."""
    caches, model = _caches(backend, work.plan.name), work.model
    title = title_of(ctx, model, held)
    for known in _living(ctx, caches, title):
        with suppress(NotFound):
            return _prolonged(ctx, caches, known.name, planned.seconds)
    content = _placed(ctx, backend, work, bundle, held)
    try:
        made = caches.make(model=model, title=title, content=content, seconds=planned.seconds)
    except BackendError as error:
        if 400 <= error.status < 500 and error.status not in (408, 429):
            hint = "Mend what it complains of, or leave `cache` out of the spec: the same requests go without it."
            raise BackendError(error.message, hint=hint, status=error.status) from None
        found = _living(ctx, caches, title)  # nobody knows whether it was made
        if not found:
            raise
        return found[0]
    ctx.progress.note(f"Made {made.name} of {made.tokens or planned.tokens:,} tokens for {work.plan.name}.")
    return made


def _prolonged(ctx: RunContext, caches: Caches, name: str, seconds: float) -> KeptContext:
    """A cache that lives so long from now, and no shorter than another spec keeps the same one. Raises NotFound."""
    now, others = ctx.clock.now(), (r.intent.cache for r in ctx.ledger.control().jobs.values())
    kept = [parse_stamp(use.until) - now for use in others if use and use.name == name and use.kept]
    longest = max([seconds, *(span.total_seconds() for span in kept)])
    return call_again(ctx, lambda: caches.prolong(name, seconds=longest))


def _caches(backend: Backend, spec: str) -> Caches:
    if backend.caches is None:
        raise BackendError(f"The backend of {spec} has no context caches.", hint="Leave `cache` out of the spec.")
    return backend.caches


def _living(ctx: RunContext, caches: Caches, title: str) -> list[KeptContext]:
    """Caches of this title, the oldest first: of several every run takes the same."""
    now = ctx.clock.now()
    found = call_again(ctx, lambda: [c for c in caches.find() if c.title == title and c.expires_at > now])
    return sorted(found, key=lambda c: (c.created_at, c.name))


def _placed(ctx: RunContext, backend: Backend, work: Work, bundle: Path, held: bytes) -> dict[str, Any]:
    """What a cache holds, its files where the service can read them."""
    wanted = set(names_in(held))
    if wanted:
        files = [f for f in listed_files(bundle / work.shard.files_path) if f.identity in wanted]
        held = with_places(held, place_files(ctx, backend, files, what=f"the cache of {work.plan.name}"))
    content: dict[str, Any] = msgspec.json.decode(held)
    return content


# --- while jobs name it ------------------------------------------------------------------------------------------


def named_from_now(ctx: RunContext, work: Work, use: CacheUse | None) -> CacheUse | None:
    """How a job that is about to be created uses its cache: its time begins now, however long the upload took."""
    planned = work.plan.cache
    if use is None or planned is None:
        return None
    share = work.shard.rows / max(1, planned.rows) * (planned.made + planned.storage.expected)
    return replace(use, until=timestamp(ctx.clock.now() + timedelta(seconds=planned.seconds)), usd=share)


def still_there(ctx: RunContext, intent: Intent) -> bool:
    """Whether the cache that a job is about to name lives, which it does for as long as that job may take from now on.

    Asked after the intent is recorded: from then on no run drops it. Raises NotCreated when it cannot be known.
    """
    if intent.cache is None:
        return True
    caches, name = _caches(ctx.backend_of(intent), intent.spec), intent.cache.name
    try:
        _prolonged(ctx, caches, name, _seconds(intent, intent.cache))
    except NotFound:
        ctx.progress.note(f"{name} is gone before {intent.tag} could name it; it is made again.")
        return False
    except BackendError as error:
        hint = error.hint or "Run apply again: nothing of this job was sent."
        after = error.retry_after
        raise NotCreated(error.message, hint=hint, status=error.status, retry_after=after) from error
    return True


def _seconds(intent: Intent, use: CacheUse) -> float:
    return (parse_stamp(use.until) - parse_stamp(intent.at)).total_seconds()


def prolong_caches(ctx: RunContext) -> None:
    """Let caches of open jobs live on whose second half of life has begun. Asked for at most once an hour of a run."""
    now = ctx.clock.now()
    for name, record in _in_use(ctx).items():
        use, hour = record.intent.cache, f"prolonged {name} {now:%Y-%m-%dT%H}"
        assert use is not None
        life = timedelta(seconds=_seconds(record.intent, use))
        if parse_stamp(use.until) - now > life / 2 or hour in ctx.told:
            continue
        ctx.told.add(hour)
        try:
            caches = ctx.backend_of(record.intent).caches
            if caches is not None:
                _prolonged(ctx, caches, name, life.total_seconds())
        except BatchformError as error:
            ctx.progress.note(f"{name}, which {record.tag} names, could not be prolonged: {error}")


def _in_use(ctx: RunContext) -> dict[str, JobRecord]:
    """Name of a cache → the open job that names it and was submitted last."""
    jobs = ctx.ledger.control().jobs.values()
    return {r.intent.cache.name: r for r in jobs if r.open and r.intent.cache is not None}


# --- when none does ----------------------------------------------------------------------------------------------


def drop_caches(ctx: RunContext) -> None:
    """Drop caches that no open job names, and record what caches that ended have cost. A failure is told and tried by
    the next run."""
    for (name, fingerprint), users in _unsettled(ctx).items():
        try:
            backend = ctx.backend_of(users[-1].intent)
            if backend.caches is not None and backend.fingerprint == fingerprint:
                _drop(ctx, backend.caches, name, users)
        except BatchformError as error:
            ctx.progress.note(f"Caches of backend {name} could not be looked at, the next run tries again: {error}")


def _unsettled(ctx: RunContext) -> dict[tuple[str, str], list[JobRecord]]:
    """(backend, its fingerprint) → jobs that name caches of which it is not recorded what they cost."""
    control, found = ctx.ledger.control(), dict[tuple[str, str], list[JobRecord]]()
    settled = settled_caches(control)
    for record in control.jobs.values():
        use = record.intent.cache
        if use is not None and use.name not in settled:
            found.setdefault((record.intent.backend, record.intent.fingerprint), []).append(record)
    return found


def _drop(ctx: RunContext, caches: Caches, backend: str, users: list[JobRecord]) -> None:
    now, uses = ctx.clock.now(), _uses(users)
    there = {c.name: c for c in call_again(ctx, lambda: [c for c in caches.find() if _is_own(ctx, c)])}
    ended = {name: there.get(name) for name in uses if name not in there}
    ctx.ledger.refresh()
    needed = _needed(ctx)
    if ctx.settings(backend).cleanup:
        everywhere = {name for several in _unsettled(ctx).values() for name in _uses(several)}
        for name, one in there.items():
            left_over = name not in everywhere and now - one.created_at > UNNAMED_FOR
            unused = name in uses and not any(kept for _, kept in uses[name])
            if name not in needed and (left_over or unused):
                caches.drop(name)
                ended |= {name: one} if name in uses else {}
    if spent := [_spent(ctx, [r for r, _ in uses[n]], one, now) for n, one in ended.items() if n not in needed]:
        ctx.ledger.commit(spent)


def _is_own(ctx: RunContext, one: KeptContext) -> bool:
    return one.title.startswith(_own_prefix(ctx))


def _uses(records: Iterable[JobRecord]) -> dict[str, list[tuple[JobRecord, bool]]]:
    """Name of a cache → the jobs that name it, and whether each keeps it when it has ended."""
    found: dict[str, list[tuple[JobRecord, bool]]] = {}
    for record in records:
        if (use := record.intent.cache) is not None:
            found.setdefault(use.name, []).append((record, use.kept))
    return found


def _needed(ctx: RunContext) -> set[str]:
    """Names of caches that a job reads or may yet read: one that is open, that was taken for lost, or that was given up
    on and may be found alive; and of those whose rows were just given back, since the next run sends them."""
    since = ctx.clock.now() - UNNAMED_FOR
    return {
        r.intent.cache.name
        for r in ctx.ledger.control().jobs.values()
        if r.intent.cache and (r.open or _gave_up(ctx, r) or _given_back(r, since) or may_turn_up(ctx, r))
    }


def _given_back(record: JobRecord, since: datetime) -> bool:
    return record.status == "not_submitted" and parse_stamp(record.intent.at) > since


def _gave_up(ctx: RunContext, record: JobRecord) -> bool:
    lost = record.collected is not None and record.collected.archive is None and record.state == NOT_FOUND
    return lost and record.intent.cache is not None and parse_stamp(record.intent.cache.until) > ctx.clock.now()


def _spent(ctx: RunContext, users: list[JobRecord], known: KeptContext | None, now: datetime) -> Spent:
    """What a cache has cost that is no more. known: as it was when it was dropped; None: it ended unseen, at the latest
    when its last job let it, or ended itself."""
    intent = users[-1].intent
    use = intent.cache
    assert use is not None
    ends = [r.intent.cache.until for r in users if r.intent.cache] + [r.ended_at for r in users if r.ended_at]
    begun = known.created_at if known else parse_stamp(users[0].intent.at)
    end = now if known else min(now, max(map(parse_stamp, ends)))
    hours = max(0.0, (end - begun).total_seconds() / 3600)
    rates = ctx.rates(intent.model, intent.backend)
    usd = use.tokens * (rates.made + hours * (rates.hour or 0.0)) if rates else 0.0
    ctx.progress.note(
        f"{use.name} of {use.tokens:,} tokens was kept for {hours:.1f} h"
        + (f": {money(usd)}." if rates and intent.realm != "emulator" else ".")
    )
    return Spent(
        at=ctx.now(), by=ctx.who, spec=intent.spec, realm=intent.realm, model=intent.model, requests=0, usd=usd,
        cache=use.name,
    )  # fmt: skip
