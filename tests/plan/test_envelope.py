"""Laws of envelopes: a plan lies inside its own, and nothing that asks for more does."""

from __future__ import annotations

import datetime as dt

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from batchform.plan.bounds import Envelope, Spare, Used
from batchform.plan.envelope import envelope_digest, envelope_of, outside
from batchform.plan.model import ZERO, Action, After, Plan, Range, SpecPlan, Tokens

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
PARTS = {"a": {"spec": "s", "template": "t", "config": "c", "schema": "x", "parse": "p"}}


def planned(run: int = 0, rerun: int = 0, after: int = 0, usd: float = 0.01, remove: int = 0) -> Plan:
    """usd: of each row."""
    cost = Range(0, usd * (run + rerun), 2 * usd * (run + rerun))
    spec = SpecPlan(
        name="a", spec_digest="s", source="", source_rows=9, backend="local", realm="google", model="m",
        destination="", actions={Action.RUN: run, Action.RERUN: rerun, Action.REMOVE: remove}, reasons={},
        rows_to_send=run + rerun, requests_to_send=run + rerun, shards=(), bytes=0, tokens=Tokens(0, ZERO, ""),
        cost=cost, after=After("up", after, Range(0, usd * after, usd * after), "") if after else None,
    )  # fmt: skip
    return Plan(
        digest="sha256:1", project="p", environment="", created_at="2026-11-22T00:00:00Z", lineage="l", serial=1,
        batchform_version="0", prices_dated="", specs=(spec,), selected=("a",), partial=False,
    )  # fmt: skip


def around(plan: Plan, *, percent: float = 0.0, rows: int = 0) -> Envelope:
    return envelope_of(plan, PARTS, spare=Spare(60.0, percent, rows), now=NOW)


def held(envelope: Envelope, plan: Plan, used: Used | None = None, at: dt.datetime = NOW) -> list[str]:
    return outside(envelope, plan, PARTS, now=at, used=used or Used())


_rows = st.integers(0, 10_000)
_usd = st.floats(1e-7, 10, allow_nan=False)


@settings(max_examples=50)
@given(_rows, _rows, _rows, _rows, _usd, st.integers(0, 100))
def test_a_plan_lies_inside_its_own_envelope_and_more_of_it_does_not(
    run: int, rerun: int, after: int, remove: int, usd: float, spare: int
) -> None:
    plan = planned(run, rerun, after, usd, remove)
    envelope = around(plan, percent=spare, rows=spare)
    assert held(envelope, plan) == []
    bound = envelope.specs[0]
    assert envelope_digest(envelope) == envelope.digest
    assert envelope_digest(replace(envelope, usd=envelope.usd + 1)) != envelope.digest
    assert held(envelope, planned(bound.rows + 1, 0, 0, usd))
    assert held(envelope, planned(run, rerun, after, usd, remove + 1))
    if run + rerun:
        assert held(envelope, planned(run, rerun, after, usd * 3 * (2 + spare), remove))
        assert held(envelope, plan, Used({"a": (bound.rows, 0.0)}))


@given(_rows, st.integers(1, 10_000))
def test_rows_that_have_become_known_are_taken_from_what_was_to_come(run: int, after: int) -> None:
    envelope = around(planned(run, after=after))
    assert held(envelope, planned(run + after)) == []
    assert held(envelope, planned(run, rerun=after)) == []
    assert held(envelope, planned(run + after, after=1))


def test_what_is_outside_is_said_with_its_numbers() -> None:
    envelope = around(planned(10), rows=2)
    assert held(envelope, planned(13)) == [
        "a: 13 rows to run, and 12 were approved at most",
        "a: 13 rows to send, and 12 were approved at most",
        "a: $0.13, and $0.12 was approved at most",
    ]
    spent = Used({"a": (10, 0.1)})
    assert held(envelope, planned(3), spent) == [
        "a: 3 rows to send, and 12 were approved at most, 10 of them sent before",
        "a: $0.03, and $0.12 was approved at most, $0.10 of that spent before",
    ]
    late = held(envelope, planned(1), at=NOW + dt.timedelta(minutes=2))
    assert late == ["it was approved until 2026-11-22T00:01:00Z, and it is 2026-11-22T00:02:00Z"]
    other = replace(planned(1), lineage="another", environment="prod")
    assert held(envelope, other) == [
        "it was approved for project p, and this is project p in environment prod",
        "the ledger is another one (lineage another, approved on l)",
    ]
