"""What a person settles is recorded as theirs, and wrong things are refused before anything is."""

from __future__ import annotations

from typing import Any

import pytest
from run_kit import World, refusal

from batchform.errors import BackendError, UsageError
from batchform.plan.model import Plan
from batchform.ports import Staged
from batchform.run.by_hand import (
    abandon,
    adopt_by_hand,
    check_abandon,
    check_not_submitted,
    not_submitted_by_hand,
)
from batchform.run.context import RunContext
from batchform.run.reconcile import apply_plan, sync
from batchform.run.recover import recover

CREATE = ":batchGenerateContent"


def tag_of(plan: Plan) -> str:
    return plan.specs[0].shards[0].tag


def unknown(w: World, prompts: dict[str, str], **options: Any) -> tuple[RunContext, Plan, str]:
    """A job that exists, though its intent does not know it; and its name."""
    ctx = w.run()
    w.fault("POST", CREATE, after=lambda *_: refusal(504))
    plan, bundle = w.plan(prompts, serial=ctx.ledger.serial, **options)
    with w.hidden_list():
        apply_plan(ctx, plan, bundle, wait="submitted")
    [job] = [j.name for j in ctx.backend("local").list_jobs() if j.tag == tag_of(plan)]
    return ctx, plan, job


def test_adopting_a_job(w: World) -> None:
    _, plan, job = unknown(w, {"a": "x"})
    with w.hidden_list():
        adopt_by_hand(w.run(), tag_of(plan), job)
        ctx = w.run()
        record = ctx.ledger.control().jobs[tag_of(plan)]
        assert (record.status, record.job, record.how) == ("submitted", job, "manual")
        assert '"by":"ann@desk"' in w.event_lines()[-1]
        assert sync(ctx, ctx.project.specs, wait="done").answered == 1
    assert w.charged() == 1


def test_adopting_a_job_that_was_given_up(w: World) -> None:
    _, plan, job = unknown(w, {"a": "x"})
    with w.hidden_list():
        w.clock.sleep(2000)
        assert recover(w.run()).returned
        adopt_by_hand(w.run(), tag_of(plan), job)
        ctx = w.run()
        assert w.rows(ctx)["a"]["status"] == "in_flight"
        assert sync(ctx, ctx.project.specs, wait="done").answered == 1
    assert w.charged() == 1


def test_wrong_jobs_are_not_adopted(w: World) -> None:
    first = w.run()
    known, bundle = w.plan({"k": "z"})
    apply_plan(first, known, bundle, wait="submitted")
    taken = first.ledger.control().jobs[tag_of(known)].job
    ctx, plan, job = unknown(w, {"a": "x", "b": "y"})
    inline = Staged(bundle / known.specs[0].shards[0].path, None)
    model = known.specs[0].model
    stranger = ctx.backend("local").create(model=model, tag="another", staged=inline)
    nameless = ctx.backend("local").create(model=model, tag=tag_of(plan), staged=inline)
    other_model = ctx.backend("local").create(model="gemini-2.5-flash", tag=tag_of(plan), staged=inline)
    for tag, name, error, words in [
        ("nonsense", job, UsageError, "no job has the tag 'nonsense'"),
        (tag_of(known), job, UsageError, "is settled already: submitted as"),
        (tag_of(plan), str(taken), UsageError, f"is the job of {tag_of(known)}"),
        (tag_of(plan), stranger, UsageError, "is named another"),
        (tag_of(plan), nameless, UsageError, "holds 1 requests"),
        (tag_of(plan), other_model, UsageError, "asks gemini-2.5-flash"),
        (tag_of(plan), "batches/nothere", BackendError, "does not show batches/nothere"),
    ]:
        before = w.run().ledger.serial
        with pytest.raises(error, match=words):
            adopt_by_hand(w.run(), tag, name)
        assert w.run().ledger.serial == before
    adopt_by_hand(w.run(), tag_of(plan), job)
    with pytest.raises(UsageError, match="settled already"):
        adopt_by_hand(w.run(), tag_of(plan), job)


def test_a_job_of_another_credential_is_adopted_on_a_persons_word(w: World) -> None:
    _, plan, job = unknown(w, {"a": "x"})
    with pytest.raises(BackendError, match="does not show"):
        adopt_by_hand(w.run(key="another"), tag_of(plan), job)
    adopt_by_hand(w.run(key="another"), tag_of(plan), job, look="trust")
    ctx = w.run()
    assert sync(ctx, ctx.project.specs, wait="done").answered == 1 and w.charged() == 1


def test_a_person_who_names_a_job_that_is_none_loses_nothing(w: World) -> None:
    """The true job is not taken for its double, and its rows are not sent again when the other is not found."""
    ctx, plan, job = unknown(w, {"a": "x"})
    adopt_by_hand(w.run(), tag_of(plan), "batches/nothere", look="trust")
    unknown(w, {"b": "y"})
    recover(w.run())
    assert ctx.backend("local").get(job).state != "CANCELLED"
    assert sync(w.run(), ctx.project.specs, wait="done").answered == 2 and w.charged() == 2
    assert w.run().ledger.control().jobs[tag_of(plan)].job == job and "batches/nothere is none" in w.log.notes


def test_saying_that_there_was_no_job(w: World) -> None:
    w.fault("POST", CREATE, before=lambda: refusal(503))
    plan, bundle = w.plan({"a": "x"})
    ctx = w.run()
    assert apply_plan(ctx, plan, bundle).unknown
    not_submitted_by_hand(w.run(), check_not_submitted(w.run(), tag_of(plan)))
    assert (w.rows(ctx)["a"]["status"], w.rows(ctx)["a"]["attempt"]) == ("pending", 0)
    record = w.run().ledger.control().jobs[tag_of(plan)]
    assert (record.status, record.how) == ("not_submitted", "manual") and "ann@desk" in record.reason
    with pytest.raises(UsageError, match="settled already: not submitted"):
        check_not_submitted(w.run(), tag_of(plan))
    again, bundle = w.plan({"a": "x"}, attempt=2, serial=w.run().ledger.serial)
    assert apply_plan(w.run(), again, bundle).answered == 1 and w.charged() == 1


def test_saying_so_of_a_job_that_is_listed(w: World) -> None:
    ctx, plan, job = unknown(w, {"a": "x"})
    with pytest.raises(UsageError, match=f"the service has it as {job}"):
        check_not_submitted(w.run(), tag_of(plan))
    assert w.rows(ctx)["a"]["status"] == "in_flight"


def test_a_person_may_be_wrong_and_the_late_job_counts(w: World) -> None:
    ctx, plan, _ = unknown(w, {"a": "x"})
    with w.hidden_list():
        not_submitted_by_hand(w.run(), check_not_submitted(w.run(), tag_of(plan)))
    assert sync(w.run(), ctx.project.specs, wait="done").answered == 1 and w.charged() == 1


def test_giving_up_a_job_of_a_lost_credential(w: World) -> None:
    ctx = w.run(key="lost")
    plan, bundle = w.plan({"a": "x"})
    apply_plan(ctx, plan, bundle, wait="submitted")
    mine = w.run()
    assert abandon(mine, check_abandon(mine, tag_of(plan))).rows == {"expired": 1}
    row = w.rows(ctx)["a"]
    assert (row["status"], row["failure"]) == ("failed", "expired") and "given up by ann@desk" in row["failure_message"]
    outcome = sync(w.run(), ctx.project.specs, wait="done")
    assert outcome.error({}) is None and not outcome.reopened
    back = sync(w.run(key="lost"), ctx.project.specs, wait="done")
    assert back.reopened == [tag_of(plan)] and back.answered == 1


def test_a_job_that_is_there_is_not_given_up(w: World) -> None:
    ctx = w.run()
    plan, bundle = w.plan({"a": "x"})
    apply_plan(ctx, plan, bundle, wait="submitted")
    with pytest.raises(UsageError, match="is there, in state PENDING"):
        check_abandon(w.run(), tag_of(plan))
    sync(w.run(), ctx.project.specs, wait="done")
    with pytest.raises(UsageError, match="there is no open job"):
        check_abandon(w.run(), tag_of(plan))
