"""Whatever goes wrong around a create call, each request is charged once and no answer is lost."""

from __future__ import annotations

import _thread
import json
from datetime import datetime, timedelta

import pytest
from run_kit import HandClock, World, refusal

from batchform.errors import BackendError, NotCreated, StalePlan
from batchform.plan.model import Plan
from batchform.ports import Staged
from batchform.run.reconcile import apply_plan, sync
from batchform.run.recover import recover

CREATE = ":batchGenerateContent"
LIST = "/v1/batches?"


def tag_of(plan: Plan) -> str:
    return plan.specs[0].shards[0].tag


@pytest.mark.parametrize(
    "after", [lambda *_: refusal(504), lambda *_: refusal(500), lambda *_: None, lambda *_: (200, b"{}")],
    ids=["504", "500", "dropped", "empty answer"],
)  # fmt: skip
def test_a_job_whose_creation_was_not_answered_is_found_and_adopted(w: World, after: object) -> None:
    w.fault("POST", CREATE, after=after)
    plan, bundle = w.plan({"a": "x"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.adopted == [tag_of(plan)] and not outcome.created and outcome.answered == 1
    assert w.charged() == 1 and w.proxy.count("POST", CREATE) == 1


def test_a_job_that_is_listed_late_is_adopted_later(w: World) -> None:
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    w.fault("GET", LIST, before=lambda: (200, b"{}"), times=6)
    plan, bundle = w.plan({"a": "x", "b": "y"}, shards=2)
    ctx = w.run()
    outcome = apply_plan(ctx, plan, bundle)
    assert outcome.adopted == [tag_of(plan)] and len(outcome.created) == 1 and outcome.answered == 2
    assert w.charged() == 2 and w.proxy.count("POST", CREATE) == 2


def test_a_job_that_never_came_to_be_is_sent_again_only_after_the_settle_window(w: World) -> None:
    w.fault("POST", CREATE, before=lambda: refusal(503))
    plan, bundle = w.plan({"a": "x"})
    ctx = w.run()
    outcome = apply_plan(ctx, plan, bundle)
    error = outcome.error({})
    assert outcome.unknown == [tag_of(plan)] and error is not None and error.exit_code == 8
    assert w.rows(ctx)["a"]["status"] == "in_flight"
    early = recover(w.run())
    assert early.unknown == (tag_of(plan),) and not early.returned
    w.clock.sleep(900)
    late = recover(w.run())
    assert late.returned == (tag_of(plan),)
    row = w.rows(ctx)["a"]
    assert (row["status"], row["attempt"]) == ("pending", 0)
    again, other = w.plan({"a": "x"}, attempt=2, serial=ctx.ledger.serial)
    assert apply_plan(w.run(), again, other).answered == 1
    assert w.charged() == 1


def test_a_job_given_up_too_early_is_still_collected(w: World) -> None:
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    hidden = w.fault("GET", LIST, before=lambda: (200, b"{}"), times=100)
    plan, bundle = w.plan({"a": "x"})
    apply_plan(w.run(), plan, bundle)
    w.clock.sleep(2000)
    assert recover(w.run()).returned == (tag_of(plan),)
    hidden.times = 0
    w.fault("POST", CREATE, before=lambda: refusal(503))  # another unknown submission makes the next run look
    other, bundle = w.plan({"b": "y"}, serial=w.run().ledger.serial)
    ctx = w.run()
    outcome = apply_plan(ctx, other, bundle)
    assert outcome.adopted == [tag_of(plan)] and outcome.unknown == [tag_of(other)]
    assert w.rows(ctx)["a"]["status"] == "answered" and w.charged() == 1


def test_ctrl_c_while_a_job_is_being_created(w: World) -> None:
    def interrupt(*_: object) -> None:
        _thread.interrupt_main()

    w.fault("POST", CREATE, after=interrupt)
    plan, bundle = w.plan({"a": "x", "b": "y"}, shards=2)
    outcome = apply_plan(w.run(), plan, bundle)
    error = outcome.error({})
    assert outcome.interrupted and error is not None and error.exit_code == 130
    assert outcome.unknown == [tag_of(plan)]
    ctx = w.run()
    done = sync(ctx, ctx.project.specs, wait="done")
    assert done.adopted == [tag_of(plan)] and done.answered == 1 and w.charged() == 1


def test_ctrl_c_while_waiting_detaches(w: World) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    w.clock.alarm = interrupt
    plan, bundle = w.plan({"a": "x"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.interrupted and outcome.running == outcome.created == [tag_of(plan)]
    w.clock.alarm = lambda: None
    ctx = w.run()
    assert sync(ctx, ctx.project.specs, wait="done").answered == 1


def test_doubles_are_cancelled_and_the_oldest_is_kept(w: World) -> None:
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    w.fault("GET", LIST, before=lambda: (200, b"{}"), times=4)
    plan, bundle = w.plan({"a": "x"})
    ctx = w.run()
    assert apply_plan(ctx, plan, bundle, wait="submitted").unknown == [tag_of(plan)]
    record = ctx.ledger.control().jobs[tag_of(plan)]
    staged = Staged(bundle / plan.specs[0].shards[0].path, record.intent.input_name)
    w.clock.sleep(1)
    double = ctx.backend("local").create(model=plan.specs[0].model, tag=record.tag, staged=staged)
    assert recover(w.run()).adopted == (tag_of(plan),)
    assert ctx.backend("local").get(double).state == "CANCELLED"
    assert f"Job {double} was a double" in w.log.notes
    done = sync(w.run(), ctx.project.specs, wait="done")
    assert done.answered == 1 and w.charged() == 1


def test_a_job_without_its_name_is_known_by_its_input(w: World) -> None:
    def anonymous(status: int, body: bytes) -> tuple[int, bytes]:
        return status, body.replace(b'"displayName"', b'"forgottenName"')

    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    w.fault("GET", LIST, after=anonymous, times=2)
    plan, bundle = w.plan({"a": "x"})
    assert apply_plan(w.run(), plan, bundle).adopted == [tag_of(plan)]


# --- refusals ----------------------------------------------------------------------------------------------------


def test_a_full_quota_waits_as_long_as_asked_and_charges_no_attempt(w: World) -> None:
    w.fault("POST", CREATE, before=lambda: refusal(429, "quota"), times=2, headers={"Retry-After": "100"})
    plan, bundle = w.plan({"a": "x", "b": "y"}, shards=2)
    ctx = w.run()
    outcome = apply_plan(ctx, plan, bundle)
    assert outcome.answered == 2 and w.charged() == 2
    assert sum(w.clock.naps) >= 200
    assert {r["attempt"] for r in w.rows(ctx).values()} == {1}


def test_a_quota_that_stays_full_leaves_the_rows_queued(w: World) -> None:
    full = w.fault("POST", CREATE, before=lambda: refusal(429, "quota"), times=1000)
    plan, bundle = w.plan({"a": "x", "b": "y"}, shards=2)
    ctx = w.run()
    outcome = apply_plan(ctx, plan, bundle)
    error = outcome.error({})
    assert outcome.not_sent == 2 and error is not None and error.exit_code == 7 and "2 shards not sent" in error.message
    assert {(r["status"], r["attempt"]) for r in w.rows(ctx).values()} == {("pending", 0)}
    assert "quota" in w.log.notes and "stay queued" in w.log.notes
    full.times = 0
    again, bundle = w.plan({"a": "x", "b": "y"}, shards=2, attempt=2, serial=ctx.ledger.serial)
    assert apply_plan(w.run(), again, bundle).answered == 2 and w.charged() == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_gives_the_rows_back_and_is_told(w: World, status: int) -> None:
    w.fault("POST", CREATE, before=lambda: refusal(status, "not like this"))
    plan, bundle = w.plan({"a": "x", "b": "y"}, shards=2)
    ctx = w.run()
    outcome = apply_plan(ctx, plan, bundle)
    assert isinstance(outcome.stopped, NotCreated) and "not like this" in outcome.stopped.message
    assert outcome.error({}) is outcome.stopped and outcome.not_sent == 1
    rows = w.rows(ctx)
    assert set(rows) == {"a"} and (rows["a"]["status"], rows["a"]["attempt"]) == ("pending", 0)
    assert ctx.ledger.control().jobs[tag_of(plan)].status == "not_submitted"


def test_what_is_refused_in_a_sync_holds_up_no_answer(w: World) -> None:
    ctx = w.run()
    plan, bundle = w.plan({"a": "x"})
    apply_plan(ctx, plan, bundle, wait="submitted")
    w.clock.sleep(90)
    w.fault("POST", CREATE, before=lambda: refusal(400, "not like this"), times=10)
    outcome = sync(w.run(), ctx.project.specs, retry=lambda: w.plan({"b": "y"}, serial=w.run().ledger.serial))
    assert outcome.answered == 1 and w.deliveries == ["triage"]
    assert outcome.stopped is not None and "not like this" in outcome.stopped.message


def test_a_create_that_never_begins_in_time_is_an_error(w: World) -> None:
    """Else it would be tried for ever."""
    w.config = w.config.model_copy(update={"settle": 0.0})
    plan, bundle = w.plan({"a": "x"})
    slow = w.run()
    asked = slow.clock.now

    def later() -> datetime:
        w.clock.at += timedelta(milliseconds=1)
        return asked()

    w.clock.now = later  # type: ignore[method-assign]
    outcome = apply_plan(slow, plan, bundle)
    assert outcome.stopped is not None and "could not be begun" in outcome.stopped.message
    assert w.proxy.count("POST", CREATE) == 0 and w.rows(slow)["a"]["status"] == "pending"


def test_an_upload_that_fails_is_tried_again_and_leaves_no_trace(w: World) -> None:
    w.fault("POST", "/upload/", before=lambda: refusal(503), times=1)
    plan, bundle = w.plan({"a": "x"})
    assert apply_plan(w.run(), plan, bundle).answered == 1
    w.fault("POST", "/upload/", before=lambda: refusal(503), times=100)
    ctx = w.run()
    other, bundle = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    assert isinstance(apply_plan(ctx, other, bundle).stopped, BackendError)
    assert "b" not in w.rows(ctx)


class SleepyClock(HandClock):
    """A machine that is suspended once, just after the intent was recorded."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.slept = False

    def now(self) -> datetime:
        segments = self.world.root / "ledger" / "segments"
        if not self.slept and segments.exists() and any(segments.glob("rows-*")) and self.world.head_has_rows():
            self.slept = True
            self.at += timedelta(hours=1)
        return self.at


def test_a_runner_that_wakes_after_the_deadline_does_not_create(w: World) -> None:
    w.clock = SleepyClock(w)
    plan, bundle = w.plan({"a": "x"})
    ctx = w.run()
    outcome = apply_plan(ctx, plan, bundle, wait="submitted")
    assert outcome.created == [tag_of(plan)]
    reasons = [json.loads(line) for line in w.event_lines()]
    assert [e["type"] for e in reasons] == ["Intent", "NotSubmitted", "Intent", "Submitted"]
    assert "deadline" in reasons[1]["reason"] and w.proxy.count("POST", CREATE) == 1


# --- several runners ---------------------------------------------------------------------------------------------


def test_the_same_plan_applied_twice_is_refused_the_second_time(w: World) -> None:
    plan, bundle = w.plan({"a": "x", "b": "y"})
    apply_plan(w.run(), plan, bundle, wait="submitted")
    with pytest.raises(StalePlan, match="2 rows of triage changed"):
        apply_plan(w.run(), plan, bundle)
    assert w.charged() <= 2 and w.proxy.count("POST", CREATE) == 1


def test_a_ledger_that_moves_for_other_rows_stops_nothing(w: World) -> None:
    first, second = w.run(), w.run()
    plan, bundle = w.plan({"a": "x"})
    other, beside = w.plan({"b": "y"})
    apply_plan(first, plan, bundle, wait="submitted")
    assert apply_plan(second, other, beside).answered == 2
    assert w.charged() == 2


# --- credentials -------------------------------------------------------------------------------------------------


def test_another_credential_settles_nothing(w: World) -> None:
    w.fault("POST", CREATE, before=lambda: refusal(503))
    plan, bundle = w.plan({"a": "x"})
    apply_plan(w.run(), plan, bundle)
    w.clock.sleep(5000)
    ctx = w.run(key="another")
    assert recover(ctx).foreign == (tag_of(plan),) and "made with another credential" in w.log.notes
    error = sync(ctx, ctx.project.specs).error({})
    assert error is not None and error.exit_code == 8 and w.rows(ctx)["a"]["status"] == "in_flight"
    other, beside = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    assert apply_plan(w.run(key="another"), other, beside).answered == 1  # what the other key left open stops nothing
    assert recover(w.run()).returned


def test_a_job_that_another_credential_does_not_see_is_not_dead(w: World) -> None:
    plan, bundle = w.plan({"a": "x"})
    apply_plan(w.run(), plan, bundle, wait="submitted")
    w.clock.sleep(5000)
    ctx = w.run(key="another")
    other, bundle = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    outcome = apply_plan(ctx, other, bundle)
    error = outcome.error({})
    assert outcome.answered == 1 and list(outcome.unseen) == [tag_of(plan)]
    assert error is not None and error.exit_code == 1 and "made with another credential" in error.message
    assert sync(w.run(key="another"), ctx.project.specs, wait="done").unseen  # does not wait for what it cannot see
    assert w.rows(ctx)["a"]["status"] == "in_flight"
    assert sync(w.run(), ctx.project.specs).answered == 1
