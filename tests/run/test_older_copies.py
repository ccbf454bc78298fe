"""A ledger's folder that was put back to an older copy, or copied with its project, does not pay again for what it has
forgotten: its jobs bear its mark."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import pytest
from run_kit import World, refusal

from batchform.errors import UnknownJobs, UsageError
from batchform.plan.importing import Importing, import_events
from batchform.run.outcome import Outcome
from batchform.run.reconcile import apply_plan, sync
from batchform.run.strangers import disown, strangers

LIST = "/v1/batches?"


@pytest.fixture
def copied(w: World) -> World:
    """A world whose ledger sent rows after it was copied; the copy is at work from here on."""
    older = w.root / "older"
    plan, bundle = w.plan({"z": "first"})
    apply_plan(w.run(), plan, bundle)
    shutil.copytree(w.ledger_at, older)
    plan, bundle = w.plan({"a": "x", "b": "y"}, serial=w.run().ledger.serial)
    assert len(apply_plan(w.run(), plan, bundle).created) == 1
    w.ledger_at = older
    w.clock.sleep(7200)
    return w


def sent(w: World, prompts: Mapping[str, str]) -> Outcome:
    plan, bundle = w.plan(prompts, serial=w.run().ledger.serial)
    return apply_plan(w.run(), plan, bundle)


def test_rows_that_were_sent_already_are_taken_over(copied: World) -> None:
    done = sent(copied, {"a": "x", "b": "y"})
    assert (done.error({}), done.created, len(done.adopted), done.answered) == (None, [], 1, 2)
    assert copied.charged() == 3 and "is at the service already" in copied.log.notes
    assert {r["status"] for r in copied.rows(copied.run()).values()} == {"answered"}


def test_other_rows_are_not_sent_until_the_job_is_settled(copied: World) -> None:
    """In other groups, rows cannot be told to be those of the job: nothing is sent."""
    done = sent(copied, {"a": "x", "b": "y", "c": "w"})
    error = done.error({})
    assert isinstance(error, UnknownJobs) and error.exit_code == 8
    assert "This ledger sent 1 job at backend local that it does not know: batches/" in error.message
    assert "jobs disown" in error.hint and copied.charged() == 3
    assert copied.proxy.count("POST", ":batchGenerateContent") == 2
    assert set(copied.rows(copied.run())) == {"z"}
    again = sync(copied.run(), copied.run().project.specs, wait="done")
    assert again.error({}) is None  # it is the sending that stops


def test_a_job_whose_answers_were_imported_is_no_stranger(copied: World) -> None:
    """It bears the mark of this ledger, which knows it under another tag."""
    ctx = copied.run()
    backend = ctx.backend("local")
    [job] = strangers(ctx, backend, 0)
    one = Importing("triage", "import-triage-1", job.name, 2, 2)
    ctx.ledger.commit(import_events(one, ctx.project.specs[0], "emulator", at=ctx.now()))
    assert strangers(ctx, backend, 0) == []


def test_a_job_that_is_left_to_itself_is_in_nobodys_way(copied: World) -> None:
    [job] = [j for j in copied.run().backend("local").list_jobs() if j.tag not in copied.run().ledger.control().jobs]
    ctx = copied.run()
    for wrong in ("batches/none", next(iter(ctx.ledger.control().jobs))):
        with pytest.raises(UsageError):
            disown(ctx, wrong)
    ctx.ledger.commit([disown(ctx, job.tag)])
    assert copied.run().ledger.control().disowned == {job.name}
    assert len(sent(copied, {"a": "x", "b": "y", "c": "w"}).created) == 1


def test_a_list_that_breaks_off_hinders_nobody(copied: World) -> None:
    copied.fault("GET", LIST, before=lambda: refusal(403))
    assert len(sent(copied, {"c": "w"}).created) == 1
    assert "jobs that this ledger forgot could not be looked at" in copied.log.notes


def test_as_little_is_listed_as_need_be(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page, once a job of it is known for long, however many there are before it."""
    monkeypatch.setattr("batchform.run.strangers._LEAST", 2)
    monkeypatch.setattr("batchform.adapters.gemini_http.PAGE_SIZE", 1)
    for number in range(4):
        assert len(sent(w, {f"k{number}": "x"}).created) == 1
        w.clock.sleep(7200)
    before = w.proxy.count("GET", LIST)
    sent(w, {"last": "x"})
    assert w.proxy.count("GET", LIST) - before == 2
