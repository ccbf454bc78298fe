"""Estimates and actual costs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.ledger.records import ROW_COLUMNS
from batchform.plan.model import Range
from batchform.plan.price import Estimator, History, Mode, Rates, history_sql, rates, usage_cost, usage_cost_sql
from batchform.plan.registry import Registry

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
REGISTRY = Registry.load()
LITE = "gemini-3.5-flash-lite"
MODELS = st.sampled_from(sorted(REGISTRY.prices))
COUNTS = st.integers(0, 2_000_000)


def estimator(model: str = LITE, **kwargs: object) -> Estimator:
    return Estimator.of(model, registry=REGISTRY, when=NOW, **kwargs)  # type: ignore[arg-type]


def test_without_history_the_rules_are_a_quarter_of_max_output_tokens_and_4_bytes_per_token() -> None:
    e = estimator(max_output_tokens=256).estimate(requests=1000, request_bytes=2_000_000)
    assert e.tokens.input == 500_000
    assert e.tokens.output == Range(13_000 - 200, 64_000, 256_000)
    assert e.tokens.basis == "no history: 25 % of max_output_tokens 256"
    assert "4 bytes of prompt per token" in e.tokens.input_basis
    assert e.cost.expected == pytest.approx(500_000 * 0.15e-6 + 64_000 * 1.25e-6)
    assert e.cost.low == pytest.approx(375_000 * 0.15e-6 + 12_800 * 1.25e-6)
    assert e.cost.high == pytest.approx(625_000 * 0.15e-6 + 256_000 * 1.25e-6)
    assert e.priced
    assert e.notes == ()


def test_what_is_not_rendered_text_counts_only_in_the_high_figure() -> None:
    e = estimator(max_output_tokens=4, fixed_bytes=500).estimate(requests=10, request_bytes=9_000)
    assert e.tokens.input == 1_000
    assert e.cost.low == pytest.approx(750 * 0.15e-6 + 10 * 1.25e-6)
    assert e.cost.high == pytest.approx((1_250 + 1_250) * 0.15e-6 + 40 * 1.25e-6)
    assert estimator(fixed_bytes=500).estimate(requests=1, request_bytes=400).tokens.input == 0


def test_without_max_output_tokens_the_basis_says_what_was_assumed() -> None:
    e = estimator().estimate(requests=1, request_bytes=400)
    assert e.tokens.output == Range(64, 512, 8192)
    assert e.tokens.basis == "no history, no max_output_tokens: 512 tokens an answer, up to 8,192"


def test_history_calibrates_input_and_output() -> None:
    past = History(488, 130_000, 500_000, 20.0, 61.0, 180.0)
    e = estimator(history=past, max_output_tokens=256).estimate(requests=100, request_bytes=200_000)
    assert e.tokens.input == 52_000
    assert e.tokens.output == Range(2_000, 6_100, 18_000)
    assert e.tokens.basis == "p50 of 488 past rows of this spec"
    assert e.tokens.input_basis == "0.260 tokens per byte in 488 past rows of this spec"


def test_a_lowered_max_output_tokens_caps_the_history() -> None:
    past = History(20, 1, 1, 20.0, 61.0, 180.0)
    e = estimator(history=past, max_output_tokens=50).estimate(requests=1, request_bytes=1)
    assert e.tokens.output == Range(20, 50, 50)


def test_too_little_history_is_said_and_not_used() -> None:
    past = History(19, 130_000, 500_000, 20.0, 61.0, 180.0)
    e = estimator(history=past, max_output_tokens=100).estimate(requests=1, request_bytes=400)
    assert e.tokens.basis == "only 19 past rows: 25 % of max_output_tokens 100"


def test_nothing_to_send_costs_nothing() -> None:
    e = estimator().estimate(requests=0, request_bytes=0)
    assert e.cost == Range(0, 0, 0)
    assert e.priced


def test_an_unknown_price_is_said_and_never_counted() -> None:
    e = estimator("house-1").estimate(requests=5, request_bytes=400)
    assert not e.priced
    assert e.cost == Range(0, 0, 0)
    assert "no price is known for house-1" in e.notes[0]
    assert e.tokens.input == 100


def test_the_high_figure_takes_the_price_that_may_hold_when_the_job_ends() -> None:
    eve = dt.datetime(2026, 12, 30, 12, tzinfo=dt.UTC)
    one = Estimator.of("gemini-3.8-flash", registry=REGISTRY, when=eve, max_output_tokens=4)
    e = one.estimate(requests=1000, request_bytes=4_000_000)
    assert e.cost.expected == pytest.approx(1e6 * 0.375e-6 + 1000 * 1.875e-6)
    assert e.cost.high == pytest.approx(1.25e6 * 0.75e-6 + 4000 * 3.75e-6)


def test_long_prompts_pay_the_tier_above_200k() -> None:
    pro = estimator("gemini-2.5-pro", max_output_tokens=8)
    e = pro.estimate(requests=1, request_bytes=1_000_000)
    assert e.cost.expected == pytest.approx(250_000 * 1.25e-6 + 2 * 7.5e-6)
    mixed = pro.estimate(requests=100, request_bytes=4_000_000, largest_bytes=1_000_000)
    assert mixed.cost.expected == pytest.approx(1_000_000 * 0.625e-6 + 200 * 5e-6)
    assert mixed.cost.high == pytest.approx(1_250_000 * 1.25e-6 + 800 * 7.5e-6)


def test_a_request_longer_than_the_model_takes_and_a_full_queue_are_noted() -> None:
    e = estimator("gemini-2.5-flash").estimate(requests=2, request_bytes=20_000_000)
    assert "takes 1,048,576" in e.notes[0]
    assert "tier 1 queues 3,000,000" in e.notes[1]


@settings(deadline=None)
@given(requests=st.integers(1, 10**6), each=st.integers(1, 10**5), model=MODELS)
def test_low_expected_and_high_are_in_order(requests: int, each: int, model: str) -> None:
    e = estimator(model, max_output_tokens=1000).estimate(requests=requests, request_bytes=requests * each)
    assert 0 <= e.cost.low <= e.cost.expected <= e.cost.high
    assert e.tokens.output.low <= e.tokens.output.expected <= e.tokens.output.high


@settings(deadline=None)
@given(st.lists(st.integers(1, 50_000), min_size=1, max_size=5))
def test_shards_add_up_to_their_spec(shards: list[int]) -> None:
    e = estimator(max_output_tokens=200)
    whole = e.estimate(requests=sum(shards), request_bytes=400 * sum(shards))
    parts = [e.estimate(requests=n, request_bytes=400 * n) for n in shards]
    added = sum(parts[1:], start=parts[0])
    assert added.cost.expected == pytest.approx(whole.cost.expected)
    assert added.tokens.input == whole.tokens.input
    assert added.tokens.basis == whole.tokens.basis


def test_thinking_bills_as_output_and_cached_input_at_the_standard_cached_rate() -> None:
    cost = usage_cost(LITE, prompt=1000, output=100, thoughts=50, cached=400, registry=REGISTRY, when=NOW)
    assert cost == pytest.approx(600 * 0.15e-6 + 400 * 0.03e-6 + 150 * 1.25e-6)
    assert usage_cost("x", prompt=1, output=1, thoughts=0, cached=0, registry=REGISTRY, when=NOW) is None


@pytest.mark.parametrize("mode", ["batch", "sync"])
def test_a_batch_costs_half_of_the_synchronous_api(mode: Mode) -> None:
    known = rates(LITE, registry=REGISTRY, when=NOW, mode=mode)
    assert known is not None
    assert known.output == pytest.approx(1.25e-6 if mode == "batch" else 2.5e-6)


def test_image_models_bill_output_at_the_image_rate() -> None:
    known = rates("gemini-3-pro-image", registry=REGISTRY, when=NOW)
    assert known == Rates(1e-6, 60e-6, 1e-6, made=2e-6)


@settings(deadline=None)
@given(model=MODELS, prompt=COUNTS, output=COUNTS, thoughts=st.none() | COUNTS, cached=st.none() | COUNTS)
def test_the_sql_expression_is_the_python_function(
    model: str, prompt: int, output: int, thoughts: int | None, cached: int | None
) -> None:
    expected = usage_cost(
        model, prompt=prompt, output=output, thoughts=thoughts or 0, cached=cached or 0, registry=REGISTRY, when=NOW
    )
    assert _by_sql(rates(model, registry=REGISTRY, when=NOW), prompt, output, thoughts, cached) == pytest.approx(
        expected
    )


def _by_sql(known: Rates | None, *usage: int | None) -> float | None:
    columns = ("prompt_tokens", "output_tokens", "thought_tokens", "cached_tokens")
    values = ", ".join(f"?::BIGINT AS {c}" for c in columns)
    with duckdb.connect() as con:
        (found,) = con.execute(f"SELECT {usage_cost_sql(known, 'a')} FROM (SELECT {values}) a", usage).fetchall()[0]
    return found


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ((100, 10, None, None), 100 * 1.0 + 10 * 2.0),
        ((100, 10, 5, 40), 60 * 1.0 + 40 * 0.1 + 15 * 2.0),
        ((100, None, None, 500), 100 * 0.1),
        ((200_001, 0, 0, 0), 200_001 * 3.0),
        ((None, 10, 0, 0), None),
    ],
)
def test_cost_of_odd_usage(usage: tuple[int | None, ...], expected: float | None) -> None:
    known = Rates(input=1.0, output=2.0, cached=0.1, above=Rates(input=3.0, output=4.0, cached=0.3))
    assert _by_sql(known, *usage) == pytest.approx(expected)


def test_an_unknown_price_is_null_in_sql() -> None:
    assert _by_sql(None, 1, 1, 1, 1) is None


@pytest.fixture
def states() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    columns = ", ".join(f'"{name}" {kind}' for name, kind in ROW_COLUMNS.items())
    con.execute(f"CREATE TABLE s ({columns})")
    return con


def add(con: duckdb.DuckDBPyConnection, rows: int, **values: object) -> None:
    row = {
        "realm": "google", "answer_fp": b"a", "request_fp": b"a", "prompt_tokens": 30, "request_bytes": 100,
        "output_tokens": 10, "thought_tokens": None, **values,
    }  # fmt: skip
    marks = ", ".join("?" for _ in row)
    con.executemany(f"INSERT INTO s ({', '.join(row)}) VALUES ({marks})", [list(row.values())] * rows)


def test_history_counts_only_answers_of_this_realm_to_the_recorded_request(
    states: duckdb.DuckDBPyConnection,
) -> None:
    add(states, 1, output_tokens=1)
    add(states, 15, output_tokens=10, thought_tokens=5)
    add(states, 3, output_tokens=100)
    add(states, 1, output_tokens=500, prompt_tokens=60)
    add(states, 50, realm="emulator", output_tokens=9999)
    add(states, 50, answer_fp=b"older", output_tokens=9999)
    add(states, 50, prompt_tokens=None, output_tokens=9999)
    add(states, 50, request_bytes=None, output_tokens=9999)
    (row,) = states.execute(history_sql("s", realm="google")).fetchall()
    assert History(*row) == History(20, 630, 2000, 1.0, 15.0, 100.0)
    states.close()


def test_history_of_nothing_is_zero_rows(states: duckdb.DuckDBPyConnection) -> None:
    (row,) = states.execute(history_sql("s", realm="it's")).fetchall()
    assert History(*row) == History(0, 0, 0, 0.0, 0.0, 0.0)
    assert not History(*row).enough
    states.close()


def test_planning_prices_without_reading_anything_but_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Registry.load().prices_dated == "2026-11-21"
