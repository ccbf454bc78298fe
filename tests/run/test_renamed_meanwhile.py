"""Another process records that a spec is renamed, while this one sends and collects under the earlier name."""

from __future__ import annotations

import pytest
from run_kit import World, make_spec

from batchform.errors import StalePlan
from batchform.ledger.records import Moved
from batchform.run.reconcile import apply_plan, sync
from batchform.run.reparse import reparse

PROMPTS = {"a": "one", "b": "two"}


def rename(w: World, before: str = "triage", name: str = "support") -> None:
    """What an apply of newer files records."""
    other = w.run().ledger
    other.commit([Moved(at="2026-11-21T12:00:00Z", by="bob@ci", spec=name, before=before)])


def after_rename(w: World, status: int, body: bytes) -> tuple[int, bytes]:
    rename(w)
    return status, body


def finished(w: World) -> None:
    """What the newer files' sync comes to: both rows answered, once."""
    w.clock.sleep(600)
    ctx = w.run(make_spec("support"))
    sync(ctx, ctx.project.specs)
    reparse(ctx, ctx.project.specs[0])  # what came while the spec of that name was not in the project
    assert [r["status"] for r in w.rows(ctx, "support").values()] == ["answered", "answered"]
    assert w.charged() == 2
    assert ctx.ledger.specs() == ["support"]


def test_a_job_that_was_created_meanwhile_is_no_double(w: World) -> None:
    plan, bundle = w.plan(PROMPTS)
    w.fault("POST", ":batchGenerateContent", after=lambda *said: after_rename(w, *said))
    outcome = apply_plan(w.run(), plan, bundle, wait="submitted")
    assert (len(outcome.created), outcome.unknown) == (1, [])
    assert "double" not in w.log.notes
    finished(w)


def test_results_that_were_fetched_meanwhile_find_their_rows(w: World) -> None:
    plan, bundle = w.plan(PROMPTS)
    apply_plan(w.run(), plan, bundle, wait="submitted")
    w.clock.sleep(600)
    w.fault("GET", ":download", after=lambda *said: after_rename(w, *said))
    ctx = w.run()
    sync(ctx, ctx.project.specs)
    assert len(w.rows(ctx, "support")) == 2
    finished(w)


def test_rows_that_were_sent_under_another_name_meanwhile_are_not_sent(w: World) -> None:
    first, bundle = w.plan({"a": "one"})
    apply_plan(w.run(), first, bundle, wait="submitted")
    plan, bundle = w.plan({"b": "two"})
    w.fault("POST", "upload", after=lambda *said: after_rename(w, *said))
    with pytest.raises(StalePlan, match="rows of triage moved to another name or key"):
        apply_plan(w.run(), plan, bundle, wait="submitted")
    assert w.charged() <= 1
