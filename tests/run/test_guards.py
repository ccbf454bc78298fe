"""Guards on what is asked: named verdicts with their numbers, which pass when nothing is sent."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from msgspec.structs import replace
from run_kit import make_spec

from batchform.plan.guards import judge_guards
from batchform.plan.model import ZERO, Shard, SpecPlan, Tokens, Verdict
from batchform.plan.policy import GUARDS, NAMES, PROJECT, release
from batchform.plan.registry import Registry
from batchform.spec.model import Limits
from batchform.spec.resolved import ResolvedSpec

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)


def planned(spec: ResolvedSpec, rows: int, *shards: Shard) -> SpecPlan:
    return SpecPlan(
        name=spec.name, spec_digest="", source="", source_rows=rows, backend="local", realm="emulator",
        model=spec.model, destination="", actions={}, reasons={}, rows_to_send=rows, requests_to_send=rows,
        shards=shards, bytes=0, tokens=Tokens(0, ZERO, ""), cost=ZERO,
    )  # fmt: skip


def judged(limits: dict[str, Any], *specs: tuple[ResolvedSpec, SpecPlan]) -> Verdict:
    (verdict,) = judge_guards(PROJECT, Limits.model_validate(limits), specs, registry=Registry.load(), now=NOW)
    return verdict


def test_models_that_no_pattern_names_are_held() -> None:
    spec = make_spec()
    assert judged({"allowed_models": ["gemini-3.5-*"]}, (spec, planned(spec, 3))).ok
    wrong = judged({"allowed_models": ["gemini-2*"]}, (spec, planned(spec, 3)))
    assert (wrong.ok, wrong.limit, wrong.actual) == (False, 1, 1)
    assert wrong.message == "triage asks gemini-3.5-flash-lite, and allowed are gemini-2*"
    assert judged({"allowed_models": []}, (spec, planned(spec, 0))).ok
    rung = Shard(0, "t", "d", 1, 1, 1, 1, ZERO, "file", "", "", model="gemini-3.5-pro", rung="model gemini-3.5-pro")
    climbed = judged({"allowed_models": [spec.model]}, (spec, planned(spec, 1, rung)))
    assert (climbed.ok, "triage asks gemini-3.5-pro" in climbed.message) == (False, True)


def test_labels_that_are_not_there_hold_their_spec() -> None:
    bare, named = make_spec("bare"), make_spec("named")
    named = replace(named, spec=named.spec.model_copy(update={"labels": {"team": "support"}}))
    both = ((bare, planned(bare, 1)), (named, planned(named, 1)))
    wrong = judged({"required_labels": ["team"]}, *both)
    assert (wrong.ok, wrong.message) == (False, "bare has no label team")
    assert judged({"required_labels": ["team"]}, both[1]).ok


def test_a_model_must_live_for_so_long() -> None:
    registry = Registry.load()
    ends = sorted((info.shutdown, name) for name, info in registry.models.items() if info.shutdown is not None)
    end, name = next((at, n) for at, n in ends if at > NOW.date())
    left = (end - NOW.date()).days
    spec = make_spec(model=name)
    assert judged({"min_model_days": left}, (spec, planned(spec, 1))).ok
    wrong = judged({"min_model_days": left + 1}, (spec, planned(spec, 1)))
    assert (wrong.ok, wrong.limit, wrong.actual) == (False, left + 1, left)
    assert f"{name} is shut down in {left:,} day" in wrong.message


@pytest.mark.parametrize("name", GUARDS)
def test_each_guard_is_released_by_its_own_name(name: str) -> None:
    assert name in NAMES
    failed = Verdict(name, "triage", ok=False, limit=0, actual=1, message="no")
    assert not release([failed], {"max_rows"})[0].ok
    assert f"--allow triage.{name} releases it" in release([failed], ())[0].message
    for given in (name, f"triage.{name}"):
        (free,) = release([failed], {given})
        assert (free.ok, free.allowed) == (True, True)
