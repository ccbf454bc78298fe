"""Two ledgers with one credential and the same rows: neither takes, nor cancels, the other's job. And jobs whose names
the service does not keep are found all the same."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from run_kit import MODEL, World, refusal

from batchform.errors import UsageError
from batchform.ledger.records import Intent, bears_mark
from batchform.ledger.segments import timestamp
from batchform.ports import Staged
from batchform.run.by_hand import adopt_by_hand
from batchform.run.reconcile import apply_plan, settle_past, sync
from batchform.run.recover import recover

CREATE = ":batchGenerateContent"
LIST = "/v1/batches?"


@pytest.mark.parametrize("mode", ["file", "inline"])
def test_two_clones_on_their_first_apply_keep_their_own_jobs(w: World, mode: str) -> None:
    """Both were planned before there was a ledger, so both plans are the same to the letter."""
    mine, other = w.root / "mine", w.root / "other"
    w.ledger_at = mine
    w.fault("POST", CREATE, after=lambda *_: None)
    plan, bundle = w.plan({"a": "x", "b": "y"}, mode=mode, mark="")
    with w.hidden_list():
        assert apply_plan(w.run(), plan, bundle, wait="submitted").unknown
    w.ledger_at = other
    again, beside = w.plan({"a": "x", "b": "y"}, mode=mode, mark="")
    assert apply_plan(w.run(), again, beside, wait="submitted").created
    for ledger in (mine, other):
        w.ledger_at = ledger
        settle_past(w.run())
    w.clock.sleep(2000)
    for ledger in (mine, other):
        w.ledger_at = ledger
        ctx = w.run()
        assert sync(ctx, ctx.project.specs, wait="done").error({}) is None
        assert {r["status"] for r in w.rows(ctx).values()} == {"answered"}
        [record] = ctx.ledger.control().jobs.values()
        assert bears_mark(record.tag, ctx.ledger.lineage) and {r["tag"] for r in w.rows(ctx).values()} == {record.tag}
    assert w.proxy.count("POST", ":cancel") == 0 and w.charged() == 4


def old_intent(w: World, input_name: str | None) -> tuple[str, str]:
    """An intent as a ledger may hold it whose tag has no mark; and another ledger's job of that very tag."""
    plan, bundle = w.plan({"a": "x"}, mark="")
    shard, ctx = plan.specs[0].shards[0], w.run()
    backend, lines = ctx.backend("local"), bundle / shard.path
    intent = Intent(
        at=ctx.now(), by=ctx.who, tag=shard.tag, spec="triage", backend="local", fingerprint=backend.fingerprint,
        realm=backend.realm, model=MODEL, shard_digest=shard.digest, rows=1, requests=1, bytes=shard.bytes,
        input_name=input_name, deadline=timestamp(w.clock.now() + timedelta(minutes=5)), est_input_tokens=1,
        est_usd=0.0, est_usd_high=0.0, key_columns=(), plan_digest=plan.digest, place=backend.place,
    )  # fmt: skip
    ctx.ledger.commit([intent])
    mode = "file" if input_name else "inline"
    staged = backend.stage(lines, digest="sha256:" + "ab" * 32, tag=shard.tag, mode=mode)
    return shard.tag, backend.create(model=MODEL, tag=shard.tag, staged=staged)


def test_a_job_of_our_tag_that_reads_another_input_is_not_ours(w: World) -> None:
    tag, _ = old_intent(w, "files/bf-ours")
    assert recover(w.run()).unknown == (tag,)
    w.clock.sleep(2000)
    assert recover(w.run()).returned == (tag,)
    assert w.proxy.count("POST", ":cancel") == 0


def test_a_job_that_nothing_tells_apart_is_left_to_a_person(w: World) -> None:
    tag, job = old_intent(w, None)
    w.clock.sleep(2000)
    assert recover(w.run()).unknown == (tag,)
    assert f"{job} has its name, but another ledger may have made it" in w.log.notes
    assert f"`batchform jobs adopt {tag} {job}`" in w.log.notes and w.proxy.count("POST", ":cancel") == 0
    adopt_by_hand(w.run(), tag, job)
    assert w.run().ledger.control().jobs[tag].job == job


# --- names that the service does not keep ---------------------------------------------------------------------------


def cut(status: int, body: bytes) -> tuple[int, bytes]:
    said = json.loads(body)
    for operation in said.get("operations", [said]):
        operation["metadata"]["displayName"] = operation["metadata"].get("displayName", "")[:20]
    return status, json.dumps(said).encode()


def lost_with_a_cut_name(w: World, mode: str) -> str:
    w.fault("GET", LIST, after=cut, times=1000)
    w.fault("GET", "/v1/batches/", after=cut, times=1000)
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    plan, bundle = w.plan({"a": "x", "b": "y"}, mode=mode)
    apply_plan(w.run(), plan, bundle, wait="submitted")
    w.clock.sleep(2000)
    settle_past(w.run())
    return plan.specs[0].shards[0].tag


def test_a_job_whose_name_was_cut_is_known_by_its_input(w: World) -> None:
    tag = lost_with_a_cut_name(w, "file")
    ctx = w.run()
    assert ctx.ledger.control().jobs[tag].how == "adopted"
    sync(ctx, ctx.project.specs, wait="done")
    assert {r["status"] for r in w.rows(ctx).values()} == {"answered"} and w.charged() == 2


def test_a_job_whose_name_was_cut_and_that_names_no_input_keeps_its_rows_from_being_sent(w: World) -> None:
    tag = lost_with_a_cut_name(w, "inline")
    ctx = w.run()
    assert ctx.ledger.control().jobs[tag].status == "intent"
    [job] = [j.name for j in ctx.backend("local").list_jobs()]
    assert f"job {job} has only a part of its name and may be it" in w.log.notes
    adopt_by_hand(w.run(), tag, job)
    assert sync(w.run(), ctx.project.specs, wait="done").answered == 2 and w.charged() == 2


def test_a_person_may_not_adopt_a_job_of_another_name(w: World) -> None:
    tag = lost_with_a_cut_name(w, "inline")
    ctx = w.run()
    path = next(w.root.glob("bundle-*/specs/triage/*.jsonl"))
    other = ctx.backend("local").create(model=MODEL, tag="other", staged=Staged(path, None))
    with pytest.raises(UsageError, match="is named other"):
        adopt_by_hand(w.run(), tag, other)
