"""Results that are fewer than they should be are fetched again before they are archived: afterwards it is too late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from run_kit import START, World, refusal

from batchform.run.reconcile import apply_plan, sync

DOWNLOAD = ":download"


@pytest.mark.parametrize(
    "odd",
    [b"", b"null", b"<html><body>busy</body></html>\n", b"[1, 2]\n", b"{}\n", b'{"key": "row-1", "response": {}}\n'],
)
def test_another_body_than_results_loses_no_answer(w: World, odd: bytes) -> None:
    w.fault("GET", DOWNLOAD, after=lambda *_: (200, odd), times=2)
    plan, bundle = w.plan({"a": "x", "b": "y"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.answered == 2 and not outcome.failed
    assert w.proxy.count("GET", DOWNLOAD) == 3 and w.charged() == 2


def cut_to(lines: int) -> Callable[[int, bytes], tuple[int, bytes]]:
    return lambda status, body: (status, b"".join(body.splitlines(keepends=True)[:lines]))


def test_the_most_that_comes_is_kept(w: World) -> None:
    seen: list[int] = []

    def shorter(status: int, body: bytes) -> tuple[int, bytes]:
        seen.append(1)
        return cut_to(1 + len(seen) % 2)(status, body)

    w.fault("GET", DOWNLOAD, after=shorter, times=100)
    plan, bundle = w.plan({"a": "x", "b": "y", "c": "z"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.rows == {"triage": {"answered": 2, "missing": 1}}
    assert timedelta(minutes=15) < w.clock.now() - START < timedelta(minutes=19)
    assert len(seen) < 15, "looks become rarer"


def test_results_that_are_whole_later_are_not_paid_again(w: World) -> None:
    """Short in each look of the first seconds: they have the settle window, and no longer than they need."""
    w.fault("GET", DOWNLOAD, after=cut_to(1), times=4)
    plan, bundle = w.plan({"a": "x", "b": "y"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.rows == {"triage": {"answered": 2}} and w.charged() == 2
    assert w.clock.now() - START < timedelta(minutes=5)
    assert "hold 1 row of 2; the others may still come" in w.log.notes


def test_a_step_leaves_short_results_for_a_second_look(w: World) -> None:
    plan, bundle = w.plan({"a": "x", "b": "y"})
    apply_plan(w.run(), plan, bundle, wait="submitted")
    w.clock.sleep(100_000)
    short = w.fault("GET", DOWNLOAD, after=cut_to(1), times=3)
    ctx = w.run()
    assert sync(ctx, ctx.project.specs).running and not short.times
    assert {r["status"] for r in w.rows(ctx).values()} == {"in_flight"}
    short.times = 3
    assert sync(w.run(), ctx.project.specs).rows == {"triage": {"answered": 1, "missing": 1}}


def test_a_job_given_up_whose_results_come_in_part_is_taken_up_again(w: World) -> None:
    plan, bundle = w.plan({"a": "x", "b": "y"})
    apply_plan(w.run(), plan, bundle, wait="submitted")
    gone = w.fault("GET", DOWNLOAD, before=lambda: refusal(403, "it may not exist"), times=1000)
    w.clock.sleep(90)
    ctx = w.run()
    for _ in range(2):
        sync(w.run(), ctx.project.specs)
        w.clock.sleep(1000)
    assert {r["failure"] for r in w.rows(ctx).values()} == {"expired"}
    gone.times = 0
    w.fault("GET", DOWNLOAD, after=cut_to(1), times=6)
    assert sync(w.run(), ctx.project.specs).reopened == [plan.specs[0].shards[0].tag]
    assert sync(w.run(), ctx.project.specs).answered == 2 and w.charged() == 2


def test_whole_results_are_fetched_once(w: World) -> None:
    plan, bundle = w.plan({"a": "x", "b": "[[emulator:error 400]]", "c": "[[emulator:blocked]]"})
    assert apply_plan(w.run(), plan, bundle).answered == 1
    assert w.proxy.count("GET", DOWNLOAD) == 1


def test_an_upload_that_the_service_forgot_is_begun_again(w: World) -> None:
    w.fault("POST", "/upload/", before=lambda: refusal(404), times=2)
    plan, bundle = w.plan({"a": "x"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.stopped is None and outcome.answered == 1
