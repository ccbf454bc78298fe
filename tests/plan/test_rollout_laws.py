"""The laws of a rollout: stages are nested and together all rows, rows are sent once, nothing passes a failed gate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchform.plan.rollout import Sent, judge_gate, required_of, sizes, stand
from batchform.spec.model_rollout import Require, Stage, stage_problems

GATE = Require(answered=0.9)


@st.composite
def rollouts(draw: st.DrawFn) -> list[Stage]:
    rows = sorted(draw(st.sets(st.integers(1, 12), max_size=2)))
    percents = sorted(draw(st.sets(st.sampled_from([1e-12, 1.0, 2.5, 10.0, 33.3, 50.0, 99.9]), max_size=3)))
    gates = st.sampled_from([None, GATE, Require()])
    stages = [Stage(rows=n, require=draw(gates)) for n in rows]
    stages += [Stage(percent=p, require=draw(gates), manual=draw(st.booleans()) and bool(stages)) for p in percents]
    return [*stages, Stage(percent=100, manual=draw(st.booleans()) and bool(stages))]


@given(rollouts(), st.integers(0, 3_000))
def test_stages_are_nested_and_the_last_one_is_all(stages: list[Stage], population: int) -> None:
    assert list(stage_problems(stages)) == []
    found = sizes(stages, population)
    assert found == sorted(found) and found[-1] == population and len(found) == len(stages)
    assert found[0] >= min(1, population), "a stage of no rows would wait for ever"
    for size, stage in zip(found, stages, strict=True):
        share = stage.rows if stage.rows is not None else population * (stage.percent or 0) / 100
        assert size >= min(population, share) - 1e-6
        assert size == population or size - share < 1 or size in found[: found.index(size)] or size > share


@given(rollouts(), st.data())
def test_rows_that_come_go_and_fail_send_nothing_twice_and_nothing_past_a_gate(
    stages: list[Stage], data: st.DataObject
) -> None:
    """A world of keys, ordered by their hash: what `stand` says is sent, and what comes of it is told to it."""
    waiting = set(range(0, 400, data.draw(st.integers(3, 40))))
    sent: dict[int, str] = {}
    approved: set[int] = set()
    reached, fails = 1, data.draw(st.sets(st.integers(0, 400), max_size=60))
    for _ in range(data.draw(st.integers(1, 14))):
        told = Sent(
            rows=len(sent), answered=sum(v == "answered" for v in sent.values()),
            under_way=sum(v == "under way" for v in sent.values()),
            failed={"blocked": sum(v == "blocked" for v in sent.values())},
        )  # fmt: skip
        at = stand(stages, sent=told, waiting=len(waiting), reached=reached, approved=approved)
        assert at.stage >= reached, "a stage that was released stays so"
        if at.stage > reached:
            assert not told.under_way
            for stage in range(reached, at.stage):
                assert all(m.ok for m in judge_gate(required_of(stages, stage), told)), "past a gate that failed"
                assert not stages[stage].manual or stage + 1 in approved, "past a person"
        places = len(waiting) if at.places is None else at.places
        chosen = sorted(waiting)[:places]
        assert not set(chosen) & set(sent), "sent twice"
        assert at.state != "failed" or not chosen
        assert at.stage == len(stages) or len(sent) + len(chosen) <= max(at.size, len(sent))
        if at.state == "complete":
            assert set(chosen) == waiting, "the last stage is all"
        sent |= dict.fromkeys(chosen, "under way")
        waiting -= set(chosen)
        reached = at.stage
        match data.draw(st.sampled_from(["answers", "comes", "goes", "approve", "mend"])):
            case "answers":
                done = {k: "blocked" if k in fails else "answered" for k, v in sent.items() if v == "under way"}
                sent |= done
            case "comes":
                waiting |= data.draw(st.sets(st.integers(0, 400), max_size=9)) - set(sent)
            case "goes":
                waiting = set(sorted(waiting)[1::2])
            case "approve" if at.state == "manual":
                approved.add(at.stage + 1)
            case "mend":
                fails = set()
                sent |= {k: "answered" for k, v in sent.items() if v == "blocked"}


def test_a_gate_says_what_was_measured() -> None:
    sent = Sent(rows=50, answered=42, failed={"invalid_output": 6, "blocked": 2}, usd=0.5)
    gate = judge_gate(Require(answered=0.95, valid=0.8, max_usd_per_row=0.002), sent)
    assert [(m.name, m.ok) for m in gate] == [("answered", False), ("valid", True), ("max_usd_per_row", False)]
    assert [m.words for m in gate] == [
        "answered 0.84, required 0.95", "valid 0.875, required 0.8", "max_usd_per_row $0.01, at most $0.002",
    ]  # fmt: skip
    assert judge_gate(Require(max_usd_per_row=1), Sent(rows=3, usd=None))[0].words == (
        "max_usd_per_row unknown, at most $1.00"
    )
    assert not judge_gate(Require(max_usd_per_row=1), Sent(rows=3, usd=None))[0].ok
    assert not judge_gate(Require(valid=0.0), Sent(rows=3, failed={"blocked": 3}))[0].ok, "nothing came back"
    cut_off = Sent(rows=9, answered=3, failed={"truncated": 1, "blocked": 5})
    assert judge_gate(Require(valid=0.8), cut_off)[0].words == "valid 0.75, required 0.8"


def test_a_gate_holds_for_later_stages_until_one_says_another() -> None:
    stages = [Stage(rows=5, require=GATE), Stage(percent=10), Stage(percent=50, require=Require()), Stage(percent=100)]
    assert [required_of(stages, n).answered for n in (1, 2, 3)] == [0.9, 0.9, None]


def test_a_gate_is_judged_once_nothing_is_under_way_or_sent_again() -> None:
    stages = [Stage(rows=4, require=GATE), Stage(percent=100)]
    sent = Sent(rows=4, answered=2, under_way=1, failed={"internal": 1}, again=1)
    assert stand(stages, sent=sent, waiting=9).state == "waiting"
    sent = Sent(rows=4, answered=3, failed={"internal": 1}, again=1)
    assert stand(stages, sent=sent, waiting=9).state == "waiting"
    passes = [Stage(rows=4, require=Require(valid=0.9)), Stage(percent=100)]
    assert stand(passes, sent=sent, waiting=9).state == "waiting", "what comes of the rest may be invalid"
    sent = Sent(rows=4, answered=3, failed={"internal": 1})
    at = stand(stages, sent=sent, waiting=9)
    assert (at.state, at.places, at.held_words) == ("failed", 0, "rollout: the gate of stage 1 of 2 failed")
