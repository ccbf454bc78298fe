"""A list that lags, is cut, repeats itself or breaks off proves nothing about a job that it leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from run_kit import World, refusal

from batchform.plan.model import Plan
from batchform.ports import Staged
from batchform.run.context import RunContext
from batchform.run.reconcile import apply_plan, sync
from batchform.run.recover import recover

CREATE = ":batchGenerateContent"
LIST = "/v1/batches?"


def tag_of(plan: Plan) -> str:
    return plan.specs[0].shards[0].tag


def unknown(w: World, prompts: dict[str, str], **options: Any) -> tuple[RunContext, Plan]:
    """A job that exists although its creation was not answered and no list shows it."""
    ctx = w.run()
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    plan, bundle = w.plan(prompts, serial=ctx.ledger.serial, **options)
    with w.hidden_list():
        assert apply_plan(ctx, plan, bundle, wait="submitted").unknown == [tag_of(plan)]
    return ctx, plan


def listed(w: World, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Every page of the list has its jobs changed."""

    def after(status: int, body: bytes) -> tuple[int, bytes]:
        page = json.loads(body)
        page["operations"] = change(page.get("operations", []))
        return status, json.dumps(page).encode()

    w.fault("GET", LIST, after=after, times=1000)


def test_a_job_that_is_listed_twice_is_no_double_of_itself(w: World) -> None:
    ctx, plan = unknown(w, {"a": "x"})
    listed(w, lambda jobs: [*jobs, *jobs])
    assert recover(w.run()).adopted == (tag_of(plan),)
    assert sync(w.run(), ctx.project.specs, wait="done").answered == 1
    assert w.proxy.count("POST", ":cancel") == 0 and w.charged() == 1


def test_a_list_that_breaks_off_settles_nothing_and_stops_nothing(w: World) -> None:
    ctx, plan = unknown(w, {"a": "x"})
    w.clock.sleep(5000)
    w.fault("GET", LIST, before=lambda: refusal(500), times=1000)
    other, bundle = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    outcome = apply_plan(w.run(), other, bundle)
    error = outcome.error({})
    assert outcome.answered == 1 and outcome.unknown == [tag_of(plan)]
    assert error is not None and error.exit_code == 8 and "could not be asked" in w.log.notes
    w.proxy.faults.clear()
    assert recover(w.run()).adopted == (tag_of(plan),)


def test_a_list_that_leaves_out_what_is_known_to_exist_is_not_believed(w: World) -> None:
    ctx, plan = unknown(w, {"a": "x"})
    other, bundle = w.plan({"b": "y"}, serial=ctx.ledger.serial)
    w.clock.sleep(5)
    with w.hidden_list():
        apply_plan(w.run(), other, bundle, wait="submitted")
        w.clock.sleep(5000)
        assert recover(w.run()).unknown == (tag_of(plan),)
    assert "the service's list is incomplete" in w.log.notes
    assert w.rows(ctx)["a"]["status"] == "in_flight"
    assert recover(w.run()).adopted == (tag_of(plan),)


def test_only_the_newest_jobs_are_listed(w: World) -> None:
    """The job was created long ago, and newer ones have pushed it out of the list."""
    ctx = w.run()
    early, bundle = w.plan({"early": "z"})
    apply_plan(ctx, early, bundle)
    w.clock.sleep(5)
    ctx, plan = unknown(w, {"a": "x"})
    w.clock.sleep(5000)
    late, bundle = w.plan({"late": "y"}, serial=ctx.ledger.serial)
    listed(w, lambda jobs: [j for j in jobs if j["metadata"]["displayName"] == tag_of(late)])
    apply_plan(w.run(), late, bundle)
    w.clock.sleep(5000)
    assert recover(w.run()).unknown == (tag_of(plan),)
    w.proxy.faults.clear()
    assert recover(w.run()).adopted == (tag_of(plan),)


@pytest.mark.parametrize("mode", ["file", "inline"])
def test_a_job_that_lost_its_name_and_input_may_be_the_one(w: World, mode: str) -> None:
    ctx, plan = unknown(w, {"a": "x"}, mode=mode)

    def anonymous(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for job in jobs:
            job["metadata"].pop("displayName", None)
            job["metadata"].pop("inputConfig", None)
        return jobs

    w.clock.sleep(5000)
    listed(w, anonymous)
    assert recover(w.run()).unknown == (tag_of(plan),)
    assert "may be it (`batchform jobs adopt" in w.log.notes and w.rows(ctx)["a"]["status"] == "in_flight"


def test_a_nameless_job_of_another_size_is_not_the_one(w: World) -> None:
    ctx = w.run()
    plan, bundle = w.plan({"b": "1", "c": "2"})
    apply_plan(ctx, plan, bundle)  # leaves an input to name
    w.fault("POST", CREATE, before=lambda: refusal(503))
    lost, bundle = w.plan({"a": "x"}, serial=ctx.ledger.serial)
    apply_plan(ctx, lost, bundle)
    inline = Staged(path=bundle.parent / "bundle-0" / plan.specs[0].shards[0].path, name=None)
    ctx.backend("local").create(model=plan.specs[0].model, tag="x", staged=inline)
    listed(w, lambda jobs: [{**j, "metadata": {**j["metadata"], "displayName": "", "inputConfig": {}}} for j in jobs])
    w.clock.sleep(5000)
    assert recover(w.run()).returned == (tag_of(lost),)


def test_a_job_known_under_one_tag_is_not_taken_for_another(w: World) -> None:
    """Both read the same input, and the list names neither: the known one is not adopted twice."""
    ctx = w.run()
    w.fault("POST", CREATE, before=lambda: refusal(503))
    first, bundle = w.plan({"a": "x"})
    apply_plan(ctx, first, bundle)
    w.clock.sleep(1000)
    assert recover(w.run()).returned
    again, bundle = w.plan({"a": "x"}, attempt=2, serial=w.run().ledger.serial)
    apply_plan(w.run(), again, bundle, wait="submitted")
    listed(w, lambda jobs: [{**j, "metadata": {**j["metadata"], "displayName": ""}} for j in jobs])
    assert recover(w.run()) == type(recover(w.run()))()
    done = sync(w.run(), ctx.project.specs, wait="done")
    assert done.answered == 1 and w.charged() == 1


def test_doubles_of_a_known_job_are_cancelled(w: World) -> None:
    """Found whenever the list is read for another reason."""
    ctx = w.run()
    plan, bundle = w.plan({"a": "x"})
    apply_plan(ctx, plan, bundle, wait="submitted")
    record = ctx.ledger.control().jobs[tag_of(plan)]
    staged = Staged(bundle / plan.specs[0].shards[0].path, record.intent.input_name)
    double = ctx.backend("local").create(model=plan.specs[0].model, tag=record.tag, staged=staged)
    unknown(w, {"b": "y"})
    recover(w.run())
    assert ctx.backend("local").get(double).state == "CANCELLED" and f"Job {double} was a double of" in w.log.notes
    assert sync(w.run(), ctx.project.specs, wait="done").answered == 2 and w.charged() == 2
