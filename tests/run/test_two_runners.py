"""Two runners over one ledger: whoever commits first decides, whatever the lease says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from run_kit import Log, World, refusal, world

from batchform.errors import StalePlan
from batchform.plan.model import Plan, Shard
from batchform.run.outcome import Outcome
from batchform.run.reconcile import apply_plan, sync
from batchform.run.recover import recover

CREATE = ":batchGenerateContent"


def tag_of(plan: Plan) -> str:
    return plan.specs[0].shards[0].tag


class Meanwhile(Log):
    """Progress that lets another runner act when the first shard is staged, with no lease in its way."""

    def __init__(self, w: World) -> None:
        super().__init__()
        self.w = w
        self.act = lambda: None

    def staged(self, spec: str, shard: Shard) -> None:
        super().staged(spec, shard)
        act, self.act = self.act, lambda: None
        self.w.end_lease()
        act()


@pytest.fixture
def meanwhile(w: World) -> Meanwhile:
    w.log = Meanwhile(w)
    return w.log


def test_a_shard_that_another_runner_sent_meanwhile_is_not_sent_again(w: World, meanwhile: Meanwhile) -> None:
    """Own commits lie on top of the other's: being at the newest serial does not mean that nothing changed."""
    mine, bundle = w.plan({"a": "x", "b": "y"}, shards=2)
    theirs, beside = w.plan({"b": "y"})
    meanwhile.act = lambda: sent.append(apply_plan(w.run(), theirs, beside, wait="submitted"))
    sent: list[Outcome] = []
    with pytest.raises(StalePlan, match="1 rows of triage changed"):
        apply_plan(w.run(), mine, bundle)
    assert sent[0].created == [tag_of(theirs)]
    sync(w.run(), w.run().project.specs, wait="done")
    assert w.charged() == 2 and w.proxy.count("POST", CREATE) == 2


def test_jobs_in_flight_are_bounded_over_all_runners(w: World, meanwhile: Meanwhile) -> None:
    w.config = w.config.model_copy(update={"max_jobs_in_flight": 1})
    mine, bundle = w.plan({"a": "x"})
    theirs, beside = w.plan({"b": "y"})
    meanwhile.act = lambda: at_work.append(apply_plan(w.run(), theirs, beside, wait="submitted").created)
    at_work: list[list[str]] = []
    outcome = apply_plan(w.run(), mine, bundle, wait="submitted")
    assert at_work == [[tag_of(theirs)]] and not outcome.created and outcome.not_sent == 1
    assert w.proxy.count("POST", CREATE) == 1
    assert w.rows(w.run())["a"]["status"] == "pending"


def test_enqueued_tokens_are_bounded_over_all_runners(w: World, meanwhile: Meanwhile) -> None:
    w.config = w.config.model_copy(update={"max_enqueued_tokens": 150})
    mine, bundle = w.plan({"a": "x"})
    theirs, beside = w.plan({"b": "y"})
    meanwhile.act = lambda: apply_plan(w.run(), theirs, beside, wait="submitted")  # type: ignore[assignment,return-value]
    outcome = apply_plan(w.run(), mine, bundle, wait="done")  # waits until the other's job has ended
    assert outcome.created == [tag_of(mine)] and w.charged() == 2
    jobs = {r.tag: r for r in w.run().ledger.control().jobs.values()}
    ended, begun = jobs[tag_of(theirs)].collected, jobs[tag_of(mine)].submitted_at
    assert ended is not None and begun is not None and ended.at <= begun


def test_a_cancelled_job_holds_its_room_until_its_end_was_seen(w: World) -> None:
    w.config = w.config.model_copy(update={"max_jobs_in_flight": 1})
    ctx = w.run()
    plan, bundle = w.plan({"a": "x"})
    apply_plan(ctx, plan, bundle, wait="submitted")
    ctx.backend("local").cancel(str(ctx.ledger.control().jobs[tag_of(plan)].job))
    other, beside = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    assert apply_plan(w.run(), other, beside, wait="submitted").not_sent == 1


def test_jobs_of_another_credential_take_no_room(w: World) -> None:
    w.config = w.config.model_copy(update={"max_jobs_in_flight": 1})
    ctx = w.run(key="another")
    plan, bundle = w.plan({"a": "x"})
    apply_plan(ctx, plan, bundle, wait="submitted")
    other, beside = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    assert apply_plan(w.run(), other, beside, wait="submitted").created == [tag_of(other)]


def test_a_runner_that_waits_for_room_sleeps_meanwhile(w: World) -> None:
    """An intent of unknown outcome that another run left takes room too, and is looked for, but not all the time."""
    w.config = w.config.model_copy(update={"max_jobs_in_flight": 1, "poll": 120.0})
    w.fault("POST", CREATE, before=lambda: refusal(503))
    plan, bundle = w.plan({"a": "x"})
    ctx = w.run()
    assert apply_plan(ctx, plan, bundle).unknown
    before = len(w.proxy.calls)
    other, beside = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    outcome = apply_plan(w.run(), other, beside)
    assert outcome.answered == 1 and not outcome.unknown
    assert len(w.proxy.calls) - before < 40  # settle is 900 s, poll 120 s


def test_a_runner_that_returns_from_create_after_it_was_given_up(w: World) -> None:
    """It slept inside the call. Meanwhile another runner concluded that there was no job, and its rows still wait."""

    def asleep(status: int, body: bytes) -> tuple[int, bytes]:
        w.clock.at += timedelta(hours=1)
        with w.hidden_list():
            assert recover(w.run()).returned == (tag_of(plan),)
        return status, body

    w.fault("POST", CREATE, after=asleep)
    plan, bundle = w.plan({"a": "x"})
    ctx = w.run()
    outcome = apply_plan(ctx, plan, bundle)
    assert outcome.created == [tag_of(plan)] and outcome.answered == 1 and w.charged() == 1
    assert w.rows(ctx)["a"]["attempt"] == 1


def test_a_runner_that_returns_from_create_after_its_rows_were_sent_again(tmp_path: Path) -> None:
    """It slept longer than any promise holds. Its job is a double: cancelled while that helps, and told."""
    again: list[Plan] = []
    with world(tmp_path, job_seconds=1500, poll="2m") as w:

        def asleep(status: int, body: bytes) -> tuple[int, bytes]:
            w.clock.at += timedelta(seconds=1000)
            other = w.run()
            with w.hidden_list():
                assert recover(other).returned
                plan, bundle = w.plan({"a": "x"}, attempt=2, serial=other.ledger.serial)
                again.append(plan)
                w.end_lease()
                assert apply_plan(other, plan, bundle, wait="submitted").created == [tag_of(plan)]
            return status, body

        w.fault("POST", CREATE, after=asleep)
        plan, bundle = w.plan({"a": "x"})
        apply_plan(w.run(), plan, bundle, wait="submitted")
        assert "was a double of" in w.log.notes and "was cancelled" in w.log.notes
        ctx = w.run()
        sync(ctx, ctx.project.specs, wait="done")
        row = w.rows(ctx)["a"]
        assert (row["status"], row["tag"]) == ("answered", tag_of(again[0])) and w.charged() == 1
