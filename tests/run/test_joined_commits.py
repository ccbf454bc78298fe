"""A ledger whose head is swapped once a second: shards and jobs share commits, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from run_kit import Spaced, World, make_spec

from batchform.errors import BackendError, LedgerMoved
from batchform.ledger.records import StateSeen
from batchform.ledger.store import Ledger
from batchform.plan.model import Range
from batchform.run.context import RunContext, commit_together
from batchform.run.reconcile import apply_plan, sync
from batchform.spec.model import Limits

SHARDS = 6


@pytest.fixture
def spaced(w: World) -> World:
    w.spaced = True
    return w


def commits(ctx: RunContext) -> dict[str, list[int]]:
    """Kind of event → how many of them each commit holds."""
    found: dict[str, dict[int, int]] = {}
    for segment in ctx.ledger.event_segments():
        for _, event in ctx.ledger.log.events_of(segment):
            of_kind = found.setdefault(type(event).__name__, {})
            of_kind[segment.serial] = of_kind.get(segment.serial, 0) + 1
    return {kind: list(counts.values()) for kind, counts in found.items()}


@pytest.mark.parametrize("spacing", ["spaced", "as fast as they come"])
def test_shards_and_jobs_share_commits_where_the_head_is_slow(w: World, spacing: str) -> None:
    w.spaced = spacing == "spaced"
    ctx = w.run()
    plan, bundle = w.plan({f"row-{i:02}": f"text {i}" for i in range(SHARDS)}, shards=SHARDS)
    begun = ctx.ledger.serial
    outcome = apply_plan(ctx, plan, bundle)
    assert len(outcome.created) == len(outcome.collected) == SHARDS
    assert outcome.answered == w.charged() == SHARDS
    found = commits(ctx)
    if w.spaced:
        assert [found[kind] for kind in ("Intent", "Submitted", "Collected")] == [[SHARDS]] * 3
        assert ctx.ledger.serial - begun <= 6
        assert len(ctx.ledger.row_segments("triage")) == 2, "small files of rows become one"
    else:
        assert [found[kind] for kind in ("Intent", "Submitted", "Collected")] == [[1] * SHARDS] * 3
    assert {row["status"] for row in w.rows(ctx).values()} == {"answered"}
    again = sync(w.run(), ctx.project.specs)
    assert not again.collected and not again.running


def test_every_intent_is_durable_before_the_first_create(spaced: World) -> None:
    plan, bundle = spaced.plan({f"row-{i}": "x" for i in range(4)}, shards=4)
    seen: list[int] = []

    def look() -> None:
        ledger = Ledger.open(Spaced(spaced.ledger_at), clock=spaced.clock, who="bob")
        seen.append(len(ledger.control().jobs))

    spaced.fault("POST", ":batchGenerateContent", after=lambda status, body: (look(), (status, body))[1], times=4)
    apply_plan(spaced.run(), plan, bundle)
    assert seen == [4, 4, 4, 4]


def test_a_budget_is_judged_with_the_shards_before_in_the_same_commit(spaced: World) -> None:
    """Each fits alone; the second would pass it with the first."""
    ctx = spaced.run(make_spec(limits=Limits(max_usd=1.0)))
    plan, bundle = spaced.plan({f"row-{i}": "x" for i in range(4)}, shards=4)
    dear = tuple(replace(s, usd=Range(0.4, 0.4, 0.4)) for s in plan.specs[0].shards)
    plan = replace(plan, specs=(replace(plan.specs[0], shards=dear),))
    outcome = apply_plan(ctx, plan, bundle, wait="submitted")
    assert len(outcome.created) == 2
    assert sum(refused.rows for refused in outcome.refused) == 2
    assert sum(commits(ctx)["Intent"]) == 2
    assert spaced.proxy.count("POST", ":batchGenerateContent") == 2


def test_room_is_judged_with_the_shards_before_in_the_same_commit(spaced: World) -> None:
    spaced.config = spaced.config.model_copy(update={"max_jobs_in_flight": 3})
    plan, bundle = spaced.plan({f"row-{i}": "x" for i in range(8)}, shards=8)
    ctx = spaced.run()
    most = 0
    ctx.progress.submitted = lambda *_: None  # type: ignore[method-assign]
    real = ctx.progress.staged

    def staged(*args: object) -> None:
        nonlocal most
        most = max(most, sum(r.open for r in ctx.ledger.control().jobs.values()))
        real(*args)  # type: ignore[arg-type]

    ctx.progress.staged = staged  # type: ignore[method-assign]
    outcome = apply_plan(ctx, plan, bundle)
    assert outcome.answered == spaced.charged() == 8
    assert commits(ctx)["Intent"] == [3, 3, 2]
    assert most <= 3


def test_what_a_refusal_stops_is_given_back_at_once(spaced: World) -> None:
    """The third create is refused for good: two jobs are recorded, and nobody waits for those that were never begun."""
    plan, bundle = spaced.plan({f"row-{i}": "x" for i in range(5)}, shards=5)
    body = b'{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}'
    creates = iter(range(5))

    def answer(status: int, was: bytes) -> tuple[int, bytes]:
        return (status, was) if next(creates) < 2 else (400, body)

    spaced.fault("POST", ":batchGenerateContent", after=answer, times=2)
    spaced.fault("POST", ":batchGenerateContent", before=lambda: (400, body), times=1)
    ctx = spaced.run()
    outcome = apply_plan(ctx, plan, bundle)
    assert isinstance(outcome.stopped, BackendError)
    assert len(outcome.created) == 2 and not outcome.unknown
    jobs = ctx.ledger.control().jobs.values()
    assert sorted((r.status, r.how) for r in jobs if r.status == "not_submitted") == [
        ("not_submitted", "refused"), ("not_submitted", "stopped"), ("not_submitted", "stopped"),
    ]  # fmt: skip
    waiting = [row for row in spaced.rows(ctx).values() if row["status"] == "pending"]
    assert [row["attempt"] for row in waiting] == [0, 0, 0]
    assert spaced.proxy.count("POST", ":batchGenerateContent") == 3


def test_a_quota_refusal_leaves_the_rest_for_later(spaced: World) -> None:
    plan, bundle = spaced.plan({f"row-{i}": "x" for i in range(4)}, shards=4)
    body = b'{"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}'
    spaced.fault("POST", ":batchGenerateContent", before=lambda: (429, body), times=1)
    ctx = spaced.run()
    outcome = apply_plan(ctx, plan, bundle)
    assert outcome.answered == spaced.charged() == 4
    assert spaced.proxy.count("POST", ":batchGenerateContent") == 5, "the others were not tried meanwhile"
    assert {row["attempt"] for row in spaced.rows(ctx).values()} == {1}


@pytest.mark.parametrize("lost", [1, 3, 5])
def test_killed_between_creates_every_job_is_found(spaced: World, lost: int) -> None:
    """Some jobs of one commit were created, one is being created, the rest was not begun: then the process is gone."""
    plan, bundle = spaced.plan({f"row-{i}": "x" for i in range(5)}, shards=5)

    class Killed(BaseException):
        pass

    creates = iter(range(1, 6))

    def after(status: int, body: bytes) -> tuple[int, bytes] | None:
        return None if next(creates) == lost else (status, body)

    spaced.fault("POST", ":batchGenerateContent", after=after, times=5)
    ctx = spaced.run()

    def dead(*_: object, **__: object) -> None:
        raise Killed

    calls = 0
    real: Callable[..., object] = ctx.ledger.commit

    def until_intents(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs) if calls == 1 else dead()

    ctx.ledger.commit = until_intents  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        apply_plan(ctx, plan, bundle)
    spaced.proxy.faults.clear()
    spaced.end_lease()
    first = sync(spaced.run(), ctx.project.specs)
    assert first.adopted, "those that were created"
    spaced.clock.sleep(16 * 60)
    sync(spaced.run(), ctx.project.specs, wait="done")
    final = spaced.run()
    states = {row["status"] for row in spaced.rows(final).values()}
    assert states <= {"answered", "pending"}
    assert spaced.charged() == sum(row["status"] == "answered" for row in spaced.rows(final).values())


def test_a_decision_made_on_another_ledger_is_made_again(spaced: World) -> None:
    """Another writer commits while the second decides: both are made again, on what is there by then."""
    ctx = spaced.run()
    ctx.ledger.commit([])
    other = Ledger.open(Spaced(spaced.ledger_at), clock=spaced.clock, who="bob")
    seen: list[tuple[str, int]] = []

    def decide(name: str) -> tuple[list[StateSeen], list[object]]:
        seen.append((name, ctx.ledger.serial))
        if name == "second" and len(seen) == 2:
            other.commit([StateSeen(at="2026-03-01T12:00:00Z", tag="theirs", state="RUNNING")])
        return [StateSeen(at="2026-03-01T12:00:00Z", tag=name, state="RUNNING")], []

    def nothing() -> None:
        return None

    made = commit_together(
        ctx,
        [lambda: decide("first"), nothing, lambda: decide("second")],  # type: ignore[arg-type, return-value, list-item]
        what="it",
        hint="again",
    )
    assert made == [True, False, True]
    assert seen == [("first", 0), ("second", 0), ("first", 1), ("second", 1)]
    assert ctx.ledger.serial == 2


def test_who_is_always_too_late_is_told(spaced: World) -> None:
    ctx = spaced.run()
    ctx.ledger.commit([])
    other = Ledger.open(Spaced(spaced.ledger_at), clock=spaced.clock, who="bob")

    def decide() -> tuple[list[StateSeen], list[object]]:
        other.commit([StateSeen(at="2026-03-01T12:00:00Z", tag="theirs", state="RUNNING")])
        return [StateSeen(at="2026-03-01T12:00:00Z", tag="mine", state="RUNNING")], []

    with pytest.raises(LedgerMoved, match="too busy to record the states"):
        commit_together(ctx, [decide], what="the states", hint="Run again.")  # type: ignore[list-item]
