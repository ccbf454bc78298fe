"""Results that are fewer than they should be are fetched again before they are archived: afterwards it is too late."""

from __future__ import annotations

import pytest
from run_kit import World, refusal

from batchform.run.reconcile import apply_plan

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


def test_the_most_that_comes_is_kept(w: World) -> None:
    seen: list[int] = []

    def shorter(status: int, body: bytes) -> tuple[int, bytes]:
        seen.append(1)
        lines = body.splitlines(keepends=True)
        return status, b"".join(lines[: 2 if len(seen) == 2 else 1])

    w.fault("GET", DOWNLOAD, after=shorter, times=100)
    plan, bundle = w.plan({"a": "x", "b": "y", "c": "z"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.rows == {"triage": {"answered": 2, "missing": 1}} and len(seen) == 3


def test_whole_results_are_fetched_once(w: World) -> None:
    plan, bundle = w.plan({"a": "x", "b": "[[emulator:error 400]]", "c": "[[emulator:blocked]]"})
    assert apply_plan(w.run(), plan, bundle).answered == 1
    assert w.proxy.count("GET", DOWNLOAD) == 1


def test_an_upload_that_the_service_forgot_is_begun_again(w: World) -> None:
    w.fault("POST", "/upload/", before=lambda: refusal(404), times=2)
    plan, bundle = w.plan({"a": "x"})
    outcome = apply_plan(w.run(), plan, bundle)
    assert outcome.stopped is None and outcome.answered == 1
