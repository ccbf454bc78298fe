"""What was given up on and comes after all: collected, and not sent again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from run_kit import START, World, refusal, world

from batchform.ledger.records import JobDeleted
from batchform.plan.model import Plan
from batchform.run.context import RunContext
from batchform.run.reconcile import apply_plan, settle_past, sync
from batchform.run.recover import recover

CREATE = ":batchGenerateContent"
JOBS = "/v1/batches/"


def tag_of(plan: Plan) -> str:
    return plan.specs[0].shards[0].tag


def started(w: World, prompts: dict[str, str]) -> tuple[RunContext, Plan]:
    ctx = w.run()
    plan, bundle = w.plan(prompts)
    apply_plan(ctx, plan, bundle, wait="submitted")
    return ctx, plan


def said_to_have(state: str, *, stats: dict[str, str] | None = None) -> Callable[[int, bytes], tuple[int, bytes]]:
    """An answer that ends a job in this state, without results; by these counts none of its rows succeeded."""

    def after(status: int, body: bytes) -> tuple[int, bytes]:
        operation = json.loads(body)
        operation["metadata"] |= {"state": f"BATCH_STATE_{state}", "batchStats": stats or {"requestCount": "2"}}
        operation["metadata"].pop("output", None)
        operation.pop("response", None)
        return status, json.dumps(operation).encode()

    return after


@pytest.mark.parametrize("state", ["CANCELLED", "FAILED", "EXPIRED"])
def test_a_job_that_ended_without_results_succeeds_later(w: World, state: str) -> None:
    ctx, plan = started(w, {"a": "x", "b": "y"})
    wrong = w.fault("GET", JOBS, after=said_to_have(state), times=1000)
    w.clock.sleep(90)
    sync(w.run(), ctx.project.specs)
    assert {r["status"] for r in w.rows(ctx).values()} == {"failed"}
    sync(w.run(), ctx.project.specs)  # looks again, and sees the same
    assert {r["status"] for r in w.rows(ctx).values()} == {"failed"}
    wrong.times = 0
    outcome = sync(w.run(), ctx.project.specs)
    assert outcome.reopened == [tag_of(plan)] and outcome.answered == 2
    assert {(r["status"], r["attempt"], r["failure"]) for r in w.rows(ctx).values()} == {("answered", 1, None)}
    assert "was given up on, and is there after all" in w.log.notes and w.charged() == 2
    assert not sync(w.run(), ctx.project.specs).reopened


@pytest.mark.parametrize("state", ["CANCELLED", "FAILED", "EXPIRED"])
def test_results_that_counts_promise_have_the_settle_window(w: World, state: str) -> None:
    """Rows succeeded before the job was cut short: one look that does not show their results proves nothing."""
    ctx, plan = started(w, {"a": "x", "b": "y"})
    counts = {"requestCount": "2", "successfulRequestCount": "2"}
    hidden = w.fault("GET", JOBS, after=said_to_have(state, stats=counts), times=1)
    w.clock.sleep(90)
    assert sync(w.run(), ctx.project.specs).running == [tag_of(plan)]
    w.clock.sleep(5000)
    hidden.times = 1
    later = sync(w.run(), ctx.project.specs)
    assert later.failures == {"triage": {w.rows(ctx)["a"]["failure"]: 2}} and not later.running
    assert sync(w.run(), ctx.project.specs).reopened == [tag_of(plan)]
    assert {r["status"] for r in w.rows(ctx).values()} == {"answered"} and w.charged() == 2


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED"])
def test_a_job_cut_short_that_does_not_say_how_far_it_came_is_looked_at_twice(w: World, state: str) -> None:
    ctx, plan = started(w, {"a": "x"})
    w.fault("GET", JOBS, after=said_to_have(state, stats={"odd": "x"}), times=1000)
    assert sync(w.run(), ctx.project.specs).running == [tag_of(plan)]
    assert not sync(w.run(), ctx.project.specs).running and w.rows(ctx)["a"]["status"] == "failed"


def test_a_job_that_was_not_found_for_long_is_at_work_after_all(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    lost = w.fault("GET", JOBS, before=lambda: refusal(404, "no such job"), times=1000)
    assert sync(w.run(), ctx.project.specs).running and w.rows(ctx)["a"]["status"] == "in_flight"
    assert ctx.ledger.control().jobs[tag_of(plan)].state in ("", "NOT_FOUND")
    w.clock.sleep(1000)
    sync(w.run(), ctx.project.specs)
    assert w.rows(ctx)["a"]["failure"] == "expired" and "its rows are given back" in w.log.notes
    lost.times = 0
    settle_past(w.run())  # what apply does before it plans
    assert w.rows(ctx)["a"]["status"] == "in_flight"
    assert sync(w.run(), ctx.project.specs, wait="done").answered == 1 and w.charged() == 1


def test_a_job_that_is_deleted_while_a_sync_reopens_it_gives_its_rows_back(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    wrong = w.fault("GET", JOBS, after=said_to_have("FAILED"), times=1000)
    sync(w.run(), ctx.project.specs)
    assert w.rows(ctx)["a"]["failure"] == "job_failed"
    wrong.times = 0
    settle_past(w.run())  # between another command's look and its commit
    job = w.run().ledger.control().jobs[tag_of(plan)].job or ""
    for end in (ctx.backend("local").cancel, ctx.backend("local").delete):
        end(job)
    ctx.ledger.refresh()
    ctx.ledger.commit([JobDeleted(at=ctx.now(), tag=tag_of(plan))])
    assert w.rows(ctx)["a"]["status"] == "in_flight"
    sync(w.run(), ctx.project.specs, wait="done")
    row = w.rows(ctx)["a"]
    assert (row["status"], row["failure"]) == ("failed", "expired")


def test_one_look_that_does_not_find_a_job_proves_nothing(w: World) -> None:
    ctx, _ = started(w, {"a": "x"})
    w.clock.sleep(100_000)
    w.fault("GET", JOBS, before=lambda: refusal(404, "no such job"), times=1)
    assert sync(w.run(), ctx.project.specs).running
    assert sync(w.run(), ctx.project.specs).answered == 1


def test_results_that_were_gone_are_back(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    gone = w.fault("GET", ":download", before=lambda: refusal(403, "it may not exist"), times=1000)
    w.clock.sleep(90)
    for _ in range(2):
        sync(w.run(), ctx.project.specs)
        w.clock.sleep(1000)
    assert w.rows(ctx)["a"]["failure"] == "expired"
    sync(w.run(), ctx.project.specs)
    assert w.rows(ctx)["a"]["status"] == "failed"  # and not back and forth
    gone.times = 0
    outcome = sync(w.run(), ctx.project.specs)
    assert outcome.reopened == [tag_of(plan)] and outcome.answered == 1 and w.charged() == 1


def test_rows_that_were_sent_again_keep_their_new_job(w: World) -> None:
    """Both are paid for, and both are seen: the late answer is archived, and counted as of rows that moved on."""
    ctx, plan = started(w, {"a": "x"})
    wrong = w.fault("GET", JOBS, after=said_to_have("FAILED"), times=1000)
    w.clock.sleep(90)
    sync(w.run(), ctx.project.specs)
    wrong.times = 0
    again, bundle = w.plan({"a": "x"}, attempt=2, serial=w.run().ledger.serial)
    w.fault("GET", JOBS, after=said_to_have("FAILED"), times=1)  # not yet, when apply looks again
    outcome = apply_plan(w.run(), again, bundle)
    assert outcome.answered == 1
    late = sync(w.run(), ctx.project.specs)
    assert late.reopened == [tag_of(plan)]
    record = w.run().ledger.control().jobs[tag_of(plan)].collected
    assert record is not None and record.archive and record.anomalies == {"moved": 1}
    row = w.rows(ctx)["a"]
    assert (row["status"], row["tag"], row["answer_tag"]) == ("answered", tag_of(again), tag_of(again))
    assert "were sent again since" in w.log.notes and w.charged() == 2
    answers = ctx.ledger.blob(record.answers or "")
    assert w.query(f"SELECT request_fp FROM '{answers}'") == [(row["request_fp"],)]


def test_an_intent_given_up_is_looked_for_without_another_reason(w: World) -> None:
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    plan, bundle = w.plan({"a": "x"})
    with w.hidden_list():
        apply_plan(w.run(), plan, bundle)
        w.clock.sleep(2000)
        assert recover(w.run()).returned == (tag_of(plan),)
    ctx = w.run()
    outcome = sync(ctx, ctx.project.specs)
    assert outcome.adopted == [tag_of(plan)] and outcome.answered == 1 and w.charged() == 1


def test_an_input_stays_while_its_job_may_turn_up(w: World) -> None:
    """A job that was taken for lost may be queued for hours, and reads its input when it begins."""
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    plan, bundle = w.plan({"a": "x"})
    with w.hidden_list():
        assert apply_plan(w.run(), plan, bundle).unknown
        w.clock.sleep(2000)
        ctx = w.run()
        assert sync(ctx, ctx.project.specs).returned == [tag_of(plan)]
        assert w.proxy.count("DELETE", "/files/") == 0
    ctx = w.run()
    assert sync(ctx, ctx.project.specs, wait="done").answered == 1
    assert w.proxy.count("DELETE", "/files/") == 1 and w.charged() == 1


def test_a_refused_intent_is_not_looked_for(w: World) -> None:
    w.fault("POST", CREATE, before=lambda: refusal(400))
    plan, bundle = w.plan({"a": "x"})
    apply_plan(w.run(), plan, bundle)
    before = w.proxy.count("GET", "/v1/batches?")
    recover(w.run())
    assert w.proxy.count("GET", "/v1/batches?") == before


def test_a_late_job_whose_rows_were_sent_again(w: World) -> None:
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    plan, bundle = w.plan({"a": "x"})
    with w.hidden_list():
        apply_plan(w.run(), plan, bundle)
        w.clock.sleep(2000)
        assert recover(w.run()).returned
        again, bundle = w.plan({"a": "x"}, attempt=2, serial=w.run().ledger.serial)
        apply_plan(w.run(), again, bundle, wait="submitted")
    ctx = w.run()
    sync(ctx, ctx.project.specs, wait="done")
    assert "turned up after its rows were sent again" in w.log.notes
    assert w.rows(ctx)["a"]["tag"] == tag_of(again) and w.rows(ctx)["a"]["status"] == "answered"
    jobs = w.run().ledger.control().jobs
    assert {r.status for r in jobs.values()} == {"collected"} and jobs[tag_of(plan)].how == "adopted"


def test_a_queued_row_is_still_found_by_its_first_job(w: World) -> None:
    """Given up, planned again, and left without room: its first job turns up, and it is not sent again."""
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    plan, bundle = w.plan({"a": "x"})
    with w.hidden_list():
        apply_plan(w.run(), plan, bundle)
        w.clock.sleep(2000)
        assert recover(w.run()).returned
        w.fault("POST", CREATE, before=lambda: refusal(429, "quota"), times=1)
        again, bundle = w.plan({"a": "x", "b": "y"}, shards=2, attempt=2, serial=w.run().ledger.serial)
        assert apply_plan(w.run(), again, bundle, wait="submitted").not_sent == 2
    ctx = w.run()
    assert {r["status"] for r in w.rows(ctx).values()} == {"pending"}
    assert sync(w.run(), ctx.project.specs).adopted == [tag_of(plan)]
    rows = w.rows(ctx)
    assert (rows["a"]["status"], rows["a"]["answer_tag"]) == ("answered", tag_of(plan))
    assert rows["b"]["status"] == "pending" and w.charged() == 1


def test_no_timer_ever_cancels_or_deletes_a_job(tmp_path: Path) -> None:
    with world(tmp_path, job_seconds=30 * 3600, poll="1h", cleanup=False) as w:
        plan, bundle = w.plan({"a": "x"})
        assert apply_plan(w.run(), plan, bundle).answered == 1
        assert w.clock.now() - START > timedelta(hours=30)
        assert w.proxy.count("POST", ":cancel") == w.proxy.count("DELETE", "/") == 0


# --- waiting for what is unknown ------------------------------------------------------------------------------------


def unanswered(w: World) -> tuple[RunContext, Plan]:
    """A submission that no answer came to; no job came of it."""
    w.fault("POST", CREATE, before=lambda: refusal(503))
    plan, bundle = w.plan({"a": "x"})
    ctx = w.run()
    assert apply_plan(ctx, plan, bundle).unknown == [tag_of(plan)]
    return ctx, plan


def test_sync_waits_until_what_is_unknown_is_settled(w: World) -> None:
    ctx, plan = unanswered(w)
    outcome = sync(w.run(), ctx.project.specs, wait="done")
    assert not outcome.unknown and outcome.returned == [tag_of(plan)] and outcome.error({}) is None
    assert timedelta(minutes=10) < w.clock.now() - START < timedelta(minutes=16)
    assert w.rows(ctx)["a"]["status"] == "pending" and "of unknown outcome: settled by" in w.log.notes


def test_a_wait_that_is_limited_leaves_it_unknown(w: World) -> None:
    ctx, plan = unanswered(w)
    outcome = sync(w.run(), ctx.project.specs, wait="done", at_most=60.0)
    error = outcome.error({})
    assert outcome.unknown == [tag_of(plan)] and error is not None and error.exit_code == 8
    assert w.clock.now() - START < timedelta(minutes=3)
    assert sync(w.run(), ctx.project.specs).unknown == [tag_of(plan)], "one step waits for nothing"


def test_a_wait_that_is_limited_leaves_jobs_at_work(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    outcome = sync(w.run(), ctx.project.specs, wait="done", at_most=1.0)
    error = outcome.error({})
    assert outcome.running == [tag_of(plan)] and error is not None and error.exit_code == 7
    assert w.clock.now() - START < timedelta(seconds=30)


def test_what_another_credential_left_open_is_not_waited_for(w: World) -> None:
    ctx, plan = unanswered(w)
    before = w.clock.now()
    assert sync(w.run(key="another"), ctx.project.specs, wait="done").unknown == [tag_of(plan)]
    assert w.clock.now() - before < timedelta(minutes=1)
