"""How jobs end: cancelled, expired, gone, in words nobody knows; and what becomes of their rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import pytest
from run_kit import JSON_OUTPUT, World, make_spec, refusal, world

from batchform.canon import wire_key
from batchform.errors import DestinationError
from batchform.ledger.records import archive_name
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.store import RowsFile
from batchform.plan.model import Plan
from batchform.plan.price import Rates
from batchform.ports import Delivered
from batchform.run.context import RunContext
from batchform.run.reconcile import apply_plan, sync
from batchform.run.reparse import reparse
from batchform.spec.resolved import ResolvedSpec


def tag_of(plan: Plan) -> str:
    return plan.specs[0].shards[0].tag


def job_of(ctx: RunContext, plan: Plan) -> str:
    job = ctx.ledger.control().jobs[tag_of(plan)].job
    assert job is not None
    return job


def started(w: World, prompts: dict[str, str]) -> tuple[RunContext, Plan]:
    ctx = w.run()
    plan, bundle = w.plan(prompts)
    apply_plan(ctx, plan, bundle, wait="submitted")
    return ctx, plan


def rewritten(w: World, **changes: object) -> None:
    """Every look at a job shows these fields of its metadata changed."""

    def after(status: int, body: bytes) -> tuple[int, bytes]:
        operation = json.loads(body)
        operation["metadata"] |= changes
        return status, json.dumps(operation).encode()

    w.fault("GET", "/v1/batches/", after=after, times=1000)


def test_a_cancelled_job(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    ctx.backend("local").cancel(job_of(ctx, plan))
    outcome = sync(w.run(), ctx.project.specs, wait="done")
    row = w.rows(ctx)["a"]
    assert outcome.rows == {"triage": {"cancelled": 1}} and row["failure"] == "cancelled"
    assert "CANCELLED" in row["failure_message"] and w.charged() == 0


def test_an_expired_job(tmp_path: Path) -> None:
    with world(tmp_path, job_seconds=1e7) as w:
        ctx, _ = started(w, {"a": "x"})
        w.clock.sleep(49 * 3600)
        sync(w.run(), ctx.project.specs, wait="done")
        assert w.rows(ctx)["a"]["failure"] == "expired"


def test_a_failed_job_says_why(w: World) -> None:
    rewritten(w, state="BATCH_STATE_FAILED", error={"code": 13, "message": "it broke", "details": [{"odd": 1}]})
    ctx, _ = started(w, {"a": "x"})
    sync(w.run(), ctx.project.specs, wait="done")
    assert w.rows(ctx)["a"]["failure"] == "job_failed" and "it broke" in w.rows(ctx)["a"]["failure_message"]


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"])
def test_what_a_job_finished_before_its_end_is_kept(w: World, state: str) -> None:
    ctx, _ = started(w, {"done": "x", "not done": "[[emulator:missing]]"})
    w.clock.sleep(90)
    rewritten(w, state=f"JOB_STATE_{state}")
    outcome = sync(w.run(), ctx.project.specs, wait="done")
    expected = {"CANCELLED": "cancelled", "EXPIRED": "expired", "PARTIALLY_SUCCEEDED": "missing"}[state]
    assert outcome.rows == {"triage": {"answered": 1, expected: 1}}
    assert w.rows(ctx)["done"]["status"] == "answered" and w.rows(ctx)["not done"]["failure"] == expected


def test_a_job_that_the_service_has_no_longer(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    ctx.backend("local").cancel(job_of(ctx, plan))
    ctx.backend("local").delete(job_of(ctx, plan))
    assert sync(w.run(), ctx.project.specs).running  # too young to believe it
    w.clock.sleep(1000)
    sync(w.run(), ctx.project.specs)
    assert w.rows(ctx)["a"]["failure"] == "expired" and "no longer" in w.rows(ctx)["a"]["failure_message"]


def test_results_that_the_service_has_no_longer(w: World) -> None:
    w.fault("GET", ":download", before=lambda: refusal(403, "it may not exist"), times=100)
    ctx, _ = started(w, {"a": "x"})
    w.clock.sleep(90)
    assert sync(w.run(), ctx.project.specs).running  # one refusal proves nothing
    assert w.rows(ctx)["a"]["status"] == "in_flight" and "were not found" in w.log.notes
    w.clock.sleep(1000)
    sync(w.run(), ctx.project.specs)
    row = w.rows(ctx)["a"]
    assert row["failure"] == "expired" and "are gone" in row["failure_message"]


def test_results_that_cannot_be_fetched_now_are_fetched_later(w: World) -> None:
    fault = w.fault("GET", ":download", before=lambda: refusal(500), times=100)
    ctx, plan = started(w, {"a": "x"})
    w.clock.sleep(90)
    assert sync(w.run(), ctx.project.specs).running == [tag_of(plan)]
    assert "it is tried again" in w.log.notes and w.rows(ctx)["a"]["status"] == "in_flight"
    fault.times = 0
    assert sync(w.run(), ctx.project.specs).answered == 1


def test_a_state_that_nobody_knows_is_told_once_and_watched_on(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    w.clock.sleep(90)
    rewritten(w, state="JOB_STATE_DREAMING")
    for _ in range(3):
        assert sync(w.run(), ctx.project.specs).running == [tag_of(plan)]
    assert w.log.notes.count("DREAMING") == 1
    w.proxy.faults.clear()
    assert sync(w.run(), ctx.project.specs).answered == 1


def test_success_without_results_waits_for_them(w: World) -> None:
    def without_output(status: int, body: bytes) -> tuple[int, bytes]:
        operation = json.loads(body)
        operation["metadata"].pop("output", None)
        operation.pop("response", None)
        return status, json.dumps(operation).encode()

    fault = w.fault("GET", "/v1/batches/", after=without_output, times=100)
    ctx, plan = started(w, {"a": "x"})
    w.clock.sleep(90)
    assert sync(w.run(), ctx.project.specs).running == [tag_of(plan)]
    w.clock.sleep(90)
    assert sync(w.run(), ctx.project.specs).running == [tag_of(plan)]
    fault.times = 0
    assert sync(w.run(), ctx.project.specs).answered == 1


# --- archive first -----------------------------------------------------------------------------------------------


def test_a_run_that_dies_after_archiving_downloads_nothing_again(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    w.clock.sleep(90)

    def die(model: str, _: str) -> Rates:
        raise KeyboardInterrupt(model)

    assert sync(msgspec.structs.replace(w.run(), rates=die), ctx.project.specs).interrupted
    assert ctx.ledger.has_blob(archive_name(tag_of(plan))) and w.rows(ctx)["a"]["status"] == "in_flight"
    assert sync(w.run(), ctx.project.specs).answered == 1
    assert w.proxy.count("GET", ":download") == 1


def test_the_archive_holds_what_the_service_sent(w: World) -> None:
    ctx, plan = started(w, {"a": "x", "b": "[[emulator:duplicate]]"})
    w.clock.sleep(90)
    sync(ctx, ctx.project.specs)
    lines = gzip.decompress(ctx.ledger.blob(archive_name(tag_of(plan))).read_bytes()).splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == sorted([wire_key("a"), wire_key("b"), wire_key("b")])
    assert not list((w.root / "work").iterdir())


def test_rows_that_moved_on_keep_their_state(w: World) -> None:
    ctx, plan = started(w, {"a": "x", "b": "y"})
    moved = w.root / "moved.parquet"
    record = w.rows(ctx)["a"]
    with RowStateWriter(moved, constants={"status": "in_flight", "attempt": 2, "tag": "another"}) as writer:
        writer.append({"key": ["a"], "key_hash": [record["key_hash"]], "request_fp": [b"1" * 32]})
    ctx.ledger.commit([], [RowsFile("triage", moved, 1)])
    w.clock.sleep(90)
    sync(w.run(), ctx.project.specs)
    rows = w.rows(ctx)
    assert (rows["a"]["status"], rows["a"]["tag"]) == ("in_flight", "another") and rows["b"]["status"] == "answered"
    record_of = ctx.ledger.control().jobs[tag_of(plan)]
    assert record_of.collected is not None and record_of.collected.anomalies == {"moved": 1}


def test_a_spec_that_is_gone_still_gets_its_answers_archived(w: World) -> None:
    ctx, _ = started(w, {"a": "x"})
    w.clock.sleep(90)
    elsewhere = w.run(make_spec("other"))
    collected = sync(elsewhere, elsewhere.project.specs)
    assert not collected.answered and not any(collected.failures.values())  # nobody there can judge the answer
    row = w.rows(ctx)["a"]
    assert row["status"] == "failed" and row["parse_digest"] != make_spec().parse_digest
    back = w.run()
    done = reparse(back, back.project.specs[0])
    assert done is not None and done.rows == {"answered": 1}
    assert w.rows(ctx)["a"]["parse_digest"] == make_spec().parse_digest


# --- reparse -----------------------------------------------------------------------------------------------------


def test_answers_are_parsed_again_for_nothing(w: World) -> None:
    ctx, plan = started(w, {"a": "x", "b": "y"})
    w.clock.sleep(90)
    sync(ctx, ctx.project.specs)
    before = w.rows(ctx)
    calls = len(w.proxy.calls)
    as_json = make_spec(**JSON_OUTPUT)
    done = reparse(w.run(as_json), as_json)
    assert done is not None and done.rows == {"invalid_output": 2}  # echo text is no JSON
    rows = w.rows(ctx)
    assert {r["status"] for r in rows.values()} == {"failed"} and rows["a"]["answer_fp"] == before["a"]["answer_fp"]
    assert reparse(w.run(as_json), as_json) is None
    again = reparse(w.run(), make_spec())
    assert again is not None and again.rows == {"answered": 2}
    back = w.rows(ctx)["a"]
    same = ("status", "answer_fp", "answer_tag", "parse_digest", "prompt_tokens", "cost_usd", "finish_reason")
    assert all(back[c] == before["a"][c] for c in same) and back["answer_serial"] > before["a"]["answer_serial"]
    assert reparse(w.run(), make_spec()) is None
    assert len(w.proxy.calls) == calls and w.charged() == 2 and tag_of(plan) == back["tag"]


# --- the end of a run --------------------------------------------------------------------------------------------


def test_one_destination_that_fails_does_not_hold_up_the_others(w: World) -> None:
    started(w, {"a": "x"})
    w.clock.sleep(90)

    def deliver(ctx: RunContext, spec: ResolvedSpec) -> Delivered:
        if spec.name == "triage":
            raise DestinationError(f"{ctx.project.root} is full")
        return Delivered(1, "there")

    specs = (make_spec(), make_spec("other"))
    run = msgspec.structs.replace(w.run(*specs), deliver=deliver)
    with pytest.raises(DestinationError, match="is full"):
        sync(run, specs)
    assert ("delivered", "other 1") in w.log.lines
    assert sync(w.run(*specs), specs).running == []


def test_inputs_are_deleted_once_and_only_when_asked(w: World) -> None:
    ctx, plan = started(w, {"a": "x"})
    w.clock.sleep(90)
    sync(ctx, ctx.project.specs)
    assert ctx.ledger.control().jobs[tag_of(plan)].input_deleted
    deletes = w.proxy.count("DELETE", "/files/")
    sync(w.run(), ctx.project.specs)
    assert w.proxy.count("DELETE", "/files/") == deletes == 1
    w.config = w.config.model_copy(update={"cleanup": False})
    run = w.run()
    other, bundle = w.plan({"b": "y"}, serial=run.ledger.serial)
    apply_plan(run, other, bundle)
    assert w.proxy.count("DELETE", "/files/") == 1
