"""Budgets: what counts as spent, and that no order of intents, collections and days gets past one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from run_kit import START, World, make_spec, refusal

from batchform.errors import LimitExceeded
from batchform.ledger.fold import fold
from batchform.ledger.records import (
    AnyEvent,
    Collected,
    ControlView,
    Intent,
    JobDeleted,
    NotSubmitted,
    Spent,
    StateSeen,
    Submitted,
)
from batchform.plan.model import Plan, Range, Verdict
from batchform.plan.policy import Figures, judge_budgets
from batchform.plan.spend import Basis, Spend, spend_of
from batchform.run.budget import TrialBudget, budget_lines
from batchform.run.context import RunContext
from batchform.run.reconcile import apply_plan, sync
from batchform.spec.model import Limits
from batchform.view.attention import trial_notes
from examples_kit import examples

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def stamp(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


def intent(tag: str, usd: float = 1.0, high: float = 2.0, *, at: datetime = NOON, **changes: Any) -> Intent:
    made = Intent(
        at=stamp(at), tag=tag, spec="triage", backend="b", fingerprint="f", realm="google", model="m",
        shard_digest=tag, rows=4, requests=4, bytes=9, input_name=None, deadline=stamp(at), est_usd=usd,
        est_usd_high=high,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def submitted(tag: str, how: str = "created") -> Submitted:
    return Submitted(at=stamp(NOON), tag=tag, job=f"batches/{tag}", how=how)


def collected(tag: str, usd: float, *, at: datetime = NOON, archive: str | None = "a", **rows: int) -> Collected:
    return Collected(at=stamp(at), tag=tag, archive=archive, answers=archive, rows=rows, usd=usd)


def seen(tag: str, state: str, **counts: int) -> StateSeen:
    return StateSeen(at=stamp(NOON), tag=tag, state=state, counts=counts)


def view(*events: AnyEvent) -> ControlView:
    return fold(enumerate(events, 1))


JOB = (intent("t"), submitted("t"))
YESTERDAY, LAST_MONTH, TOMORROW = NOON - timedelta(days=1), NOON - timedelta(days=31), NOON + timedelta(days=1)


@pytest.mark.parametrize(
    ("events", "spend"),
    [
        ((), Spend()),
        ((JOB[0],), Spend(in_flight=1)),
        (JOB, Spend(in_flight=1)),
        ((*JOB, seen("t", "RUNNING")), Spend(in_flight=1)),
        ((*JOB, seen("t", "SUCCEEDED")), Spend(in_flight=1)),
        ((JOB[0], NotSubmitted(at="", tag="t", reason="refused")), Spend()),
        ((*JOB, collected("t", 0.25)), Spend(0.25, 0.25, 0.25)),
        ((*JOB, collected("t", 0.25, at=YESTERDAY)), Spend(0, 0.25, 0.25)),
        ((*JOB, collected("t", 0.25, at=LAST_MONTH)), Spend(0, 0, 0.25)),
        ((*JOB, collected("t", 0.25, at=TOMORROW)), Spend(0.25, 0.25, 0.25)),  # another machine's clock is fast
        ((*JOB, collected("t", 0.25, answered=3, missing=1)), Spend(0.5, 0.5, 0.5)),
        ((*JOB, seen("t", "FAILED"), collected("t", 0, archive=None)), Spend()),
        ((*JOB, seen("t", "EXPIRED"), collected("t", 0, archive=None)), Spend()),
        ((*JOB, seen("t", "CANCELLED"), collected("t", 0, archive=None)), Spend()),
        ((*JOB, seen("t", "CANCELLED", total=4), collected("t", 0, archive=None)), Spend()),
        ((*JOB, seen("t", "EXPIRED", succeeded=1), collected("t", 0, archive=None)), Spend(1, 1, 1)),
        ((*JOB, seen("t", "CANCELLED", succeeded=4), collected("t", 0, archive=None)), Spend(1, 1, 1)),
        ((*JOB, seen("t", "FAILED", succeeded=1), collected("t", 0, archive=None)), Spend(1, 1, 1)),
        ((*JOB, seen("t", "RUNNING"), collected("t", 0, archive=None)), Spend(1, 1, 1)),  # gone: 404
        ((*JOB, seen("t", "SUCCEEDED"), collected("t", 0, archive=None)), Spend(1, 1, 1)),  # its results are gone
        ((*JOB, seen("t", "SUCCEEDED"), collected("t", 0, archive=None), collected("t", 0.7)), Spend(0.7, 0.7, 0.7)),
        (
            (*JOB, seen("t", "RUNNING"), collected("t", 0, archive=None), submitted("t", how="reopened")),
            Spend(in_flight=1),
        ),
        ((*JOB, JobDeleted(at="", tag="t")), Spend(in_flight=1)),  # open, until sync finds it gone
        ((*JOB, collected("t", 0.25), JobDeleted(at="", tag="t")), Spend(0.25, 0.25, 0.25)),
        ((intent("t", realm="emulator"),), Spend()),
        ((intent("t", spec="other"),), Spend()),
        (
            (
                Spent(at=stamp(NOON), spec="triage", realm="google", model="m", requests=2, usd=0.5),
                Spent(at=stamp(NOON), spec="triage", realm="emulator", model="m", requests=2, usd=7),
                Spent(at=stamp(NOON), spec="other", realm="google", model="m", requests=2, usd=9),
            ),
            Spend(0.5, 0.5, 0.5),
        ),
    ],
)  # fmt: skip
def test_what_a_ledger_says_was_spent(events: tuple[AnyEvent, ...], spend: Spend) -> None:
    assert spend_of(view(*events), now=NOON, realm="google", spec="triage") == spend


def test_a_project_counts_every_spec_of_its_realm() -> None:
    control = view(intent("a", 1), intent("b", 2, spec="other"), intent("c", 4, realm="emulator"))
    assert spend_of(control, now=NOON, realm="google").in_flight == 3
    assert spend_of(control, now=NOON, realm="emulator").in_flight == 4


def test_the_upper_basis_reserves_upper_estimates_and_never_less_than_the_expected_ones() -> None:
    control = view(intent("a", 1, 2), intent("of an earlier version", 4, 0))
    assert spend_of(control, now=NOON, realm="google", basis="high").in_flight == 6


def test_midnight_and_the_first_of_a_month_are_those_of_utc() -> None:
    eve = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    control = view(*JOB, collected("t", 3, at=eve))
    here = eve.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+02:00").tzinfo)
    assert spend_of(control, now=here, realm="google") == Spend(3, 3, 3)
    assert spend_of(control, now=here + timedelta(minutes=2), realm="google") == Spend(0, 0, 3)


# --- a law ---------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        # What two runners want to send: each cost expected, its upper estimate and what it will cost, as shares of it.
        st.tuples(st.just("send"), st.floats(0, 6), st.floats(1, 3), st.floats(0, 1), st.sampled_from(["s", "t"])),
        st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(["answers", "nothing", "gone", "refused"])),
        st.tuples(st.just("later"), st.integers(1, 60)),
    ),
    max_size=40,
)


@given(steps=STEPS, basis=st.sampled_from(["expected", "high"]), daily=st.floats(0, 10), total=st.floats(5, 40))
@settings(max_examples=examples(150), deadline=None)
def test_no_history_spends_more_than_a_budget(steps: list[Any], basis: Basis, daily: float, total: float) -> None:
    """On the upper basis no day, month or history passes a budget; on the expected one, by no more than the estimates
    were wrong."""
    project = Limits(max_usd=daily, max_usd_total=total, max_usd_basis=basis)
    own = Limits(max_usd_per_month=daily * 2, max_usd_basis=basis)
    events: list[AnyEvent] = []
    cost: dict[str, float] = {}
    wrong, now = 0.0, NOON

    def fits(figures: Figures, spec: str) -> bool:
        control = view(*events)
        return all(
            verdict.ok
            for limits, name in ((project, None), (own, spec))
            for verdict in judge_budgets(
                "x", limits, figures, spend=spend_of(control, now=now, realm="google", basis=basis, spec=name)
            )
        )

    for number, step in enumerate(steps):
        if step[0] == "later":
            now += timedelta(hours=step[1])
        elif step[0] == "send":
            _, expected, spread, share, spec = step
            tag, high = f"t{number}", expected * spread
            if fits(Figures(to_send=1, cost=Range(0, expected, high)), spec):
                events += [intent(tag, expected, high, at=now, spec=spec), submitted(tag)]
                cost[tag] = high * share
        else:
            open_ = [j.tag for j in view(*events).jobs.values() if j.open]
            if not open_:
                continue
            tag = open_[step[1] % len(open_)]
            if step[2] == "answers":
                events.append(collected(tag, cost[tag], at=now))
                wrong += max(0.0, cost[tag] - view(*events).jobs[tag].intent.est_usd)
            elif step[2] == "refused":
                events.append(seen(tag, "FAILED"))
                events.append(collected(tag, 0, at=now, archive=None))
            else:
                events.append(seen(tag, "RUNNING" if step[2] == "gone" else "EXPIRED"))
                events.append(collected(tag, 0, at=now, archive=None))
        spend = spend_of(view(*events), now=now, realm="google", basis=basis)
        slack = 1e-6 if basis == "high" else wrong + 1e-6
        assert spend.today <= daily + slack
        assert spend.total + spend.in_flight <= total + slack
        for spec in ("s", "t"):
            of_spec = spend_of(view(*events), now=now, realm="google", basis=basis, spec=spec)
            assert of_spec.month <= daily * 2 + slack


# --- runs ----------------------------------------------------------------------------------------------------------


def limited(ctx: RunContext, **limits: Any) -> RunContext:
    """The run under limits of the project."""
    config = ctx.project.config.model_copy(update={"limits": Limits(**limits)})
    return replace(ctx, project=replace(ctx.project, config=config))


def priced(made: tuple[Plan, Path], usd: float, high: float = 0.0) -> tuple[Plan, Path]:
    """A plan by hand, each of whose shards is expected to cost this much."""
    plan, bundle = made
    each = Range(usd, usd, max(usd, high))
    specs = []
    for s in plan.specs:
        shards = tuple(replace(shard, usd=each) for shard in s.shards)
        specs.append(replace(s, shards=shards, cost=sum((x.usd for x in shards), Range(0, 0, 0))))
    return replace(plan, specs=tuple(specs)), bundle


def another_runner_sends(w: World, usd: float) -> Callable[[int, bytes], tuple[int, bytes]]:
    """Lets another runner's intent, of another spec, into the ledger while a call of ours is under way."""

    def between(status: int, body: bytes) -> tuple[int, bytes]:
        made = intent("theirs", usd, at=w.clock.now(), spec="other", realm="emulator", backend="elsewhere")
        w.run().ledger.commit([made, submitted("theirs")])
        return status, body

    return between


def test_an_intent_that_has_lost_its_room_to_another_runner_is_not_committed(w: World) -> None:
    ctx = limited(w.run(), max_usd=1)
    plan, bundle = priced(w.plan({"a": "x"}), 0.6)
    w.fault("POST", "upload", after=another_runner_sends(w, 0.6))
    outcome = apply_plan(ctx, plan, bundle, wait="submitted")
    assert (outcome.created, w.charged(), w.proxy.count("POST", ":batchGenerateContent")) == ([], 0, 0)
    error = outcome.error({}, detached=True)
    assert error is not None and error.exit_code == 3
    assert error.message == (
        "1 row not sent: project: expected cost $0.60 (up to $0.60) + $0.60 in flight is above $1.00; "
        "--allow max_usd releases it"
    )
    assert "00:00 UTC" in error.hint
    assert list(ctx.ledger.control().jobs) == ["theirs"]


def test_what_another_runner_leaves_room_for_is_sent(w: World) -> None:
    plan, bundle = priced(w.plan({"a": "x"}), 0.6)
    w.fault("POST", "upload", after=another_runner_sends(w, 0.4))
    outcome = apply_plan(limited(w.run(), max_usd=1), plan, bundle, wait="submitted")
    assert len(outcome.created) == 1 and not outcome.refused


def test_a_released_limit_is_not_judged_again_and_the_others_are(w: World) -> None:
    plan, bundle = priced(w.plan({"a": "x"}), 0.6)
    freed = replace(
        plan, verdicts=(Verdict("max_usd", "project", ok=True, limit=0.5, actual=0.6, message="", allowed=True),)
    )
    with pytest.raises(LimitExceeded, match="max_usd_total"):
        apply_plan(limited(w.run(), max_usd=0.5, max_usd_total=0.5), freed, bundle)
    assert w.charged() == 0
    assert apply_plan(limited(w.run(), max_usd=0.5), freed, bundle).answered == 1


def test_a_plan_that_passed_its_budget_since_it_was_made_sends_nothing(w: World) -> None:
    plan, bundle = priced(w.plan({"a": "x", "b": "y"}, shards=2), 0.6)
    with pytest.raises(LimitExceeded, match=r"nothing was sent: project: expected cost \$1.20 .* is above \$1.00"):
        apply_plan(limited(w.run(), max_usd=1), plan, bundle)
    assert w.run().ledger.control().jobs == {}


def test_a_shard_without_room_is_held_and_the_others_are_collected(w: World) -> None:
    """The first job costs more than it was expected to. Nothing more is sent then, and what was sent is collected."""
    w.config = w.config.model_copy(update={"max_jobs_in_flight": 1})
    plan, bundle = priced(w.plan({"a": "x" * 40, "b": "y"}, shards=2), 1e-6)
    outcome = apply_plan(limited(w.run(), max_usd=3e-6), plan, bundle)
    assert outcome.rows == {"triage": {"answered": 1}} and outcome.usd > 3e-6
    assert [r.rows for r in outcome.refused] == [1]
    error = outcome.error({})
    assert error is not None and error.exit_code == 3 and "spent today" in error.message
    assert w.charged() == 1 and w.deliveries == ["triage"]


def ended_as(state: str) -> Callable[[int, bytes], tuple[int, bytes]]:
    """An answer of a job that was cut short and says nothing of how far it came, with results all the same."""

    def after(status: int, body: bytes) -> tuple[int, bytes]:
        operation = json.loads(body)
        operation["metadata"] |= {"state": f"BATCH_STATE_{state}", "batchStats": {}}
        return status, json.dumps(operation).encode()

    return after


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED"])
def test_a_job_whose_results_are_gone_settles_at_its_estimate(w: World, state: str) -> None:
    """Else a budget could be passed without end: each such job would count as nothing."""
    plan, bundle = priced(w.plan({"a": "x"}), 0.6)
    apply_plan(limited(w.run(), max_usd=1), plan, bundle, wait="submitted")
    w.fault("GET", "/v1/batches/", after=ended_as(state), times=1000)
    w.fault("GET", ":download", before=lambda: refusal(404), times=1000)
    for _ in range(3):
        w.clock.sleep(1000)
        ctx = limited(w.run(), max_usd=1)
        sync(ctx, ctx.project.specs)
    assert w.rows(ctx)["a"]["failure"] == "expired"
    assert spend_of(ctx.ledger.control(), now=w.clock.now(), realm="emulator").total == 0.6
    again, bundle = priced(w.plan({"b": "y"}, serial=ctx.ledger.serial), 0.6)
    with pytest.raises(LimitExceeded, match="nothing was sent"):
        apply_plan(ctx, again, bundle)


def test_the_budget_of_a_day_is_new_on_the_next_utc_day(w: World) -> None:
    first, second = priced(w.plan({"a": "x"}), 0.6), priced(w.plan({"b": "y"}), 0.6)
    budget = {"max_usd": 0.6}
    assert apply_plan(limited(w.run(), **budget), *first).answered == 1
    ctx = limited(w.run(), **budget)
    with pytest.raises(LimitExceeded, match="spent today"):
        apply_plan(ctx, replace(second[0], serial=ctx.ledger.serial), second[1])
    w.clock.at = START.replace(hour=0) + timedelta(days=1)
    outcome = apply_plan(ctx, replace(second[0], serial=ctx.ledger.serial), second[1])
    assert outcome.answered == 1 and w.charged() == 2


def test_a_spec_has_a_budget_of_its_own(w: World) -> None:
    spec = make_spec(limits=Limits(max_usd_total=1, max_usd_basis="high"))
    plan, bundle = priced(w.plan({"a": "x"}), 0.6, high=1.1)
    with pytest.raises(LimitExceeded, match="triage: cost of up to") as caught:
        apply_plan(w.run(spec), plan, bundle)
    assert "--allow triage.max_usd_total releases it" in str(caught.value)


def test_the_upper_estimate_is_recorded_with_the_intent(w: World) -> None:
    ctx = w.run()
    apply_plan(ctx, *priced(w.plan({"a": "x"}), 0.6, high=1.1), wait="submitted")
    (job,) = ctx.ledger.control().jobs.values()
    assert (job.intent.est_usd, job.intent.est_usd_high) == (0.6, 1.1)


def test_a_retry_that_would_pass_the_budget_is_held_by_sync_too(w: World) -> None:
    """Its plan was made a moment ago and still passed: the intent is what counts."""
    apply_plan(w.run(), *priced(w.plan({"a": "x"}), 0.1))
    ctx = limited(w.run(), max_usd=0.5)
    plan, bundle = priced(w.plan({"b": "y"}, serial=ctx.ledger.serial), 0.6)
    outcome = sync(ctx, ctx.project.specs, retry=iter([(plan, bundle)]).__next__)
    error = outcome.error({})
    assert error is not None and error.exit_code == 3
    assert w.charged() == 1 and len(ctx.ledger.control().jobs) == 1


# --- try -----------------------------------------------------------------------------------------------------------


def trial(ctx: RunContext, **options: Any) -> TrialBudget:
    return TrialBudget(ctx.project, ctx.project.specs[0], ctx.ledger, ctx.clock, **options)


def spends(ctx: RunContext) -> list[Spent]:
    """What the ledger counts, whoever asks."""
    ctx.ledger.refresh()
    return [spent for _, spent in ctx.ledger.control().spent if spent.requests]


def test_a_trial_counts_what_it_spent_so_far_and_records_it(w: World) -> None:
    ctx = limited(w.run(), max_usd=1)
    budget = trial(ctx)
    budget.reserve(Range(0, 0.6, 0.6), priced=True)
    budget.settle(0.7)
    with pytest.raises(LimitExceeded, match="above"):
        budget.reserve(Range(0, 0.6, 0.6), priced=True)
    budget.record()
    [spent] = spends(ctx)
    assert (spent.usd, spent.requests, spent.spec, spent.realm) == (0.7, 1, "triage", "emulator")
    with pytest.raises(LimitExceeded, match=r"\$0.70 spent today"):
        trial(ctx).reserve(Range(0, 0.6, 0.6), priced=True)
    (line,) = budget_lines(ctx.project, ctx.project.specs, ctx.ledger, ctx.clock)
    assert (line.scope, line.name, line.limit, line.settled, line.in_flight) == ("project", "max_usd", 1, 0.7, 0)


def test_a_trial_of_which_nothing_was_heard_counts_as_it_was_reserved(w: World) -> None:
    ctx = w.run()
    budget = trial(ctx)
    budget.reserve(Range(0, 0.6, 0.9), priced=True)
    budget.record()
    [spent] = spends(ctx)
    assert (spent.usd, spent.requests) == (0.6, 1)


def test_a_trial_that_cost_nothing_records_nothing_and_a_released_limit_is_recorded(w: World) -> None:
    ctx = limited(w.run(), max_usd=0)
    trial(ctx).record()
    assert ctx.ledger.serial == 0
    freed = trial(ctx, allow=["project.max_usd"])
    freed.reserve(Range(0, 1, 1), priced=False)
    freed.settle(0.5)
    freed.record()
    assert [a.limit for a in ctx.ledger.control().allowed] == ["project.max_usd"]


def test_a_trial_that_is_killed_counts_as_it_was_reserved(w: World) -> None:
    """The reservation is durable before the request is sent; another trial, and another process, sees it."""
    ctx = limited(w.run(), max_usd=1)
    killed = trial(ctx)
    killed.reserve(Range(0, 0.3, 0.3), priced=True)
    killed.settle(0.2)
    killed.reserve(Range(0, 0.4, 0.4), priced=True)
    after = limited(w.run(), max_usd=1)
    assert [(s.usd, s.requests, s.reserved) for s in spends(after)] == [(0.3, 1, True), (0.4, 1, True)]
    (line,) = budget_lines(after.project, after.project.specs, after.ledger, after.clock)
    assert line.settled == pytest.approx(0.7)
    with pytest.raises(LimitExceeded, match=r"\$0.70 spent today"):
        trial(after).reserve(Range(0, 0.6, 0.6), priced=True)
    (note,) = trial_notes(after.ledger.control().spent, specs=["triage"])
    assert "2 requests count as spent, at their estimate, $0.70" in note
    assert trial_notes(after.ledger.control().spent, specs=["other"]) == ()


def test_what_a_trial_cost_replaces_what_it_reserved_and_nothing_else(w: World) -> None:
    ctx, beside = w.run(), w.run()
    one, other = trial(ctx), trial(beside)
    one.reserve(Range(0, 0.3, 0.3), priced=True)
    other.reserve(Range(0, 0.4, 0.4), priced=True)
    one.settle(0.0)
    one.record()
    assert [(s.usd, s.reserved) for s in spends(ctx)] == [(0.4, True), (0.0, False)]
    other.settle(0.1)
    other.record()
    assert [(s.usd, s.reserved) for s in spends(ctx)] == [(0.0, False), (0.1, False)]
    assert trial_notes(ctx.ledger.control().spent, specs=["triage"]) == ()


def test_two_trials_that_fit_alone_do_not_pass_a_budget_together(w: World) -> None:
    ctx, beside = limited(w.run(), max_usd=1), limited(w.run(), max_usd=1)
    trial(ctx).reserve(Range(0, 0.6, 0.6), priced=True)
    with pytest.raises(LimitExceeded):
        trial(beside).reserve(Range(0, 0.6, 0.6), priced=True)
