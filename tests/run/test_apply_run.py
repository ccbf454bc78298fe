"""A plan, all the way: submitted, tracked, collected, recorded, delivered; and charged once."""

from __future__ import annotations

import json

import duckdb
import pytest
from msgspec.structs import replace
from run_kit import JSON_OUTPUT, RATES, World, make_spec

from batchform.canon import wire_key
from batchform.ledger.records import archive_name
from batchform.run.reconcile import apply_plan, sync


@pytest.mark.parametrize("mode", ["file", "inline"])
def test_a_plan_is_applied_and_everything_recorded(w: World, mode: str) -> None:
    ctx = w.run()
    plan, bundle = w.plan({f"row-{i}": f"text {i}" for i in range(5)}, shards=2, mode=mode)
    outcome = apply_plan(ctx, plan, bundle)
    assert len(outcome.created) == 2 and outcome.collected == outcome.created
    assert outcome.rows == {"triage": {"answered": 5}} and outcome.answered == 5
    assert not outcome.running and not outcome.unknown and outcome.error({}) is None
    assert w.charged() == 5 and w.deliveries == ["triage"]
    rows = w.rows(ctx)
    assert len(rows) == 5
    for row in rows.values():
        assert row["status"] == "answered" and row["answer_fp"] == row["request_fp"] and row["answer_tag"] == row["tag"]
        assert row["answer_key_hash"] == row["key_hash"] and row["parse_digest"] == make_spec().parse_digest
        assert row["finish_reason"] == "STOP" and row["failure"] is None and row["prompt_tokens"] > 0
        usage = row["output_tokens"] + (row["thought_tokens"] or 0)
        assert row["cost_usd"] == pytest.approx(row["prompt_tokens"] * RATES.input + usage * RATES.output)
        assert row["answer_serial"] == row["changed_serial"]
    assert outcome.usd == pytest.approx(sum(r["cost_usd"] for r in rows.values()))


def test_the_ledger_tells_the_whole_story(w: World) -> None:
    ctx = w.run()
    plan, bundle = w.plan({"a": "x"})
    apply_plan(ctx, plan, bundle)
    record = ctx.ledger.control().jobs[plan.specs[0].shards[0].tag]
    assert record.status == "collected" and record.state == "SUCCEEDED" and record.how == "created"
    assert record.job is not None and record.job.startswith("batches/") and record.counts["total"] == 1
    assert record.collected is not None and record.collected.rows == {"answered": 1} and record.input_deleted
    assert ctx.ledger.has_blob(archive_name(record.tag)) and record.collected.answers is not None
    path = ctx.ledger.blob(record.collected.answers)
    found = duckdb.sql(f"SELECT tag, class, text, line, request_fp IS NOT NULL FROM '{path}'").fetchall()
    assert found[0][:2] == (record.tag, "answered") and found[0][2] and found[0][3:] == (1, True)


def test_detached_then_synced_by_another_process(w: World) -> None:
    first = w.run()
    plan, bundle = w.plan({"a": "x", "b": "y"})
    outcome = apply_plan(first, plan, bundle, wait="submitted")
    assert len(outcome.created) == 1 and outcome.running == outcome.created
    assert outcome.error({}, detached=True) is None
    error = outcome.error({})
    assert error is not None and error.exit_code == 7
    second = w.run()
    assert sync(second, second.project.specs).running == outcome.created  # too early
    w.clock.sleep(90)
    done = sync(w.run(), second.project.specs)
    assert done.answered == 2 and not done.running
    again = sync(w.run(), second.project.specs)
    assert not again.collected and w.charged() == 2


def test_every_kind_of_result_is_told_apart(w: World) -> None:
    prompts = {
        "fine": "hello",
        "blocked": "[[emulator:blocked]]",
        "long": "[[emulator:max_tokens]]",
        "busy": "[[emulator:error 503]]",
        "quota": "[[emulator:error 429]]",
        "wrong": "[[emulator:error 400]]",
        "lost": "[[emulator:missing]]",
        "twice": "[[emulator:duplicate]]",
        "stray": "[[emulator:unknown_key]]",
        "nothing": "[[emulator:empty]]",
        "garbled": "[[emulator:invalid_json]]",
    }
    schema = {"type": "OBJECT", "properties": {"category": {"type": "STRING"}}, "required": ["category"]}
    ctx = w.run(make_spec(**JSON_OUTPUT))
    plan, bundle = w.plan(prompts, generation_config={"responseMimeType": "application/json", "responseSchema": schema})
    outcome = apply_plan(ctx, plan, bundle)
    rows = w.rows(ctx)
    assert {k: r["failure"] for k, r in rows.items()} == {
        "fine": None,
        "blocked": "blocked",
        "long": "truncated",
        "busy": "internal",
        "quota": "rate_limited",
        "wrong": "invalid_request",
        "lost": "missing",
        "twice": None,
        "stray": None,
        "nothing": "empty",
        "garbled": "invalid_output",
    }
    assert all(r["failure_message"] for r in rows.values() if r["failure"])
    record = next(iter(ctx.ledger.control().jobs.values()))
    assert record.collected is not None and record.collected.anomalies == {"duplicate": 1, "unknown_key": 1}
    error = outcome.error({"triage": 0.5})
    assert error is not None and error.exit_code == 6 and "8 of 11 rows of triage failed" in error.message
    assert outcome.error({"triage": 0.9}) is None
    assert outcome.failed == 8


def test_answers_hold_the_parsed_json(w: World) -> None:
    ctx = w.run(make_spec(**JSON_OUTPUT))
    schema = {"type": "OBJECT", "properties": {"category": {"type": "STRING"}}, "required": ["category"]}
    plan, bundle = w.plan(
        {"a": "x"}, generation_config={"responseMimeType": "application/json", "responseSchema": schema}
    )
    apply_plan(ctx, plan, bundle)
    record = next(iter(ctx.ledger.control().jobs.values()))
    assert record.collected is not None and record.collected.answers is not None
    found = duckdb.sql(f"SELECT response FROM '{ctx.ledger.blob(record.collected.answers)}'").fetchall()
    assert set(json.loads(found[0][0])) == {"category"}


def test_jobs_in_flight_are_bounded(w: World) -> None:
    w.config = w.config.model_copy(update={"max_jobs_in_flight": 2})
    ctx = w.run()
    plan, bundle = w.plan({f"row-{i}": "x" for i in range(5)}, shards=5)
    most = 0

    def watch() -> None:
        nonlocal most
        most = max(most, sum(1 for r in ctx.ledger.control().jobs.values() if r.open))

    w.clock.alarm = watch
    assert apply_plan(ctx, plan, bundle).answered == 5
    assert most == 2 and w.charged() == 5


def test_enqueued_tokens_are_bounded_but_a_large_job_goes_alone(w: World) -> None:
    w.config = w.config.model_copy(update={"max_enqueued_tokens": 250})
    for tokens, expected in ((100, 2), (400, 1)):
        ctx = w.run()
        plan, bundle = w.plan(
            {f"{tokens}-{i}": "x" for i in range(3)}, shards=3, tokens=tokens, serial=ctx.ledger.serial
        )
        most: list[int] = []
        w.clock.alarm = lambda ctx=ctx, most=most: most.append(  # type: ignore[misc]
            sum(1 for r in ctx.ledger.control().jobs.values() if r.open)
        )
        assert apply_plan(ctx, plan, bundle).answered == 3
        assert max(most) == expected


@pytest.mark.parametrize("cleanup", [True, False])
def test_inputs_are_no_more_bytes_than_the_service_keeps(w: World, cleanup: bool) -> None:
    """Neither those of jobs at work, nor with those of jobs that have ended."""
    plan, bundle = w.plan({f"row-{i}": "x" for i in range(6)}, shards=6)
    size = max(shard.bytes for shard in plan.specs[0].shards)
    (w.root / "prices.yaml").write_text(f"service: {{max_storage_bytes: {2 * size}}}\n")
    w.config = w.config.model_copy(update={"cleanup": cleanup})
    ctx = w.run()
    ctx = replace(
        ctx, project=replace(ctx.project, config=ctx.project.config.model_copy(update={"prices": "prices.yaml"}))
    )
    kept: list[int] = []

    def watch() -> None:
        jobs = ctx.ledger.control().jobs.values()
        kept.append(sum(r.intent.bytes for r in jobs if not r.input_deleted and (cleanup or r.open)))

    w.clock.alarm = watch
    assert apply_plan(ctx, plan, bundle).answered == 6
    assert max(kept) <= 2 * size and w.charged() == 6
    assert max(kept) > size or not cleanup


def test_detached_apply_leaves_what_finds_no_room(w: World) -> None:
    w.config = w.config.model_copy(update={"max_jobs_in_flight": 1})
    plan, bundle = w.plan({"a": "x", "b": "y"}, shards=2)
    outcome = apply_plan(w.run(), plan, bundle, wait="submitted")
    assert len(outcome.created) == 1 and outcome.not_sent == 1


def test_wire_keys_map_back(w: World) -> None:
    ctx = w.run()
    plan, bundle = w.plan({"0007": "x", "ключ/🔑": "y"})
    apply_plan(ctx, plan, bundle)
    assert {c.key for c in w.emulator.bill()} == {wire_key("0007"), wire_key("ключ/🔑")}
    assert set(w.rows(ctx)) == {"0007", "ключ/🔑"}
