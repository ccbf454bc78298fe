"""Submissions of unknown outcome, queued shards and short settle windows, as a user meets them."""

from __future__ import annotations

import json
import shutil

from tests_e2e_kit import Workspace

from batchform.adapters.local_blobs import LocalBlobs
from batchform.cli.wiring import SystemClock
from batchform.ledger.records import Intent
from batchform.ledger.segments import timestamp
from batchform.ledger.store import Ledger


def left_open(workspace: Workspace) -> str:
    """An intent whose runner was killed before it created the job, or before it could say so."""
    workspace.ok("apply", "--yes", "--detach")
    ledger = Ledger.open(LocalBlobs(workspace.root / ".batchform"), clock=SystemClock(), who="bob@laptop")
    made = next(iter(ledger.control().jobs.values())).intent
    now = timestamp(SystemClock().now())
    intent = Intent(
        at=now, tag="bf-triage-lost-a1", spec="triage", backend="local", fingerprint=made.fingerprint,
        realm=made.realm, model=made.model, shard_digest="sha256:lost", rows=2, requests=2, bytes=10,
        input_name="files/lost", deadline=now,
    )  # fmt: skip
    ledger.commit([intent])
    return intent.tag


def test_an_unknown_submission_is_shown_and_settled_by_hand(workspace: Workspace) -> None:
    tag = left_open(workspace)
    status = workspace.run("status")
    assert status.code == 8 and "it is not known whether its job was created" in " ".join(status.out.split())
    assert workspace.run("sync").code == 8
    refused = workspace.run("jobs", "adopt", tag, "batches/none")
    assert refused.code == 1 and "does not show batches/none" in refused.err and "--unseen" in refused.err
    asked = workspace.run("jobs", "not-submitted", tag)
    assert asked.code == 64 and "paid for twice" in asked.err and "--yes" in asked.err
    done = workspace.ok("jobs", "not-submitted", tag, "--yes")
    assert "taken for not submitted" in done.out
    assert workspace.run("jobs", "not-submitted", tag, "--yes").code == 64
    assert workspace.run("jobs", "cancel", tag).code == 64
    shown = json.loads(workspace.ok("jobs", "show", tag).out)
    assert shown["recorded"]["how"] == "manual"
    workspace.ok("sync", "--wait")
    workspace.ok("status", "--check")


def test_what_finds_no_room_is_sent_by_sync(workspace: Workspace) -> None:
    backend = {"type": "emulator", "job_seconds": 0, "poll": "10ms", "max_jobs_in_flight": 1, "max_rows_per_job": 2}
    workspace.project(backends={"local": backend})
    detached = workspace.ok("apply", "--yes", "--detach")
    assert "2 shards not sent yet for want of room: batchform sync sends them" in detached.out
    assert workspace.actions() == {"in_flight": 2, "run": 4}
    workspace.ok("sync", "--wait")
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


def test_a_settle_window_that_is_too_short_is_refused_with_its_place(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "settle": "500ms"}})
    found = workspace.run("validate")
    assert found.code == 1 and "`settle` of backend local is too short" in found.err + found.out
    assert " short-settle]" in found.err + found.out
    workspace.project(backends={"local": {"type": "emulator"}, "g": {"type": "gemini", "settle": "30s"}})
    found = workspace.run("validate")
    assert found.code == 1 and "At least 120s; 15m is the default" in found.err + found.out


def without_backend(workspace: Workspace) -> None:
    """The backend is renamed: what was sent by its old name cannot be asked for any more."""
    workspace.project(backends={"other": {"type": "emulator", "job_seconds": 0}}, defaults={"backend": "other"})


def test_a_person_settles_what_was_sent_by_a_backend_that_is_gone(workspace: Workspace) -> None:
    tag = left_open(workspace)
    limited = workspace.run("sync", "--wait", "--at-most", "0s")
    assert limited.code == 8 and "of unknown outcome: settled by 20" in " ".join(limited.err.split())
    assert workspace.run("sync", "--at-most", "1m").code == 64
    wrong = workspace.run("sync", "--wait", "--at-most", "soon")
    assert wrong.code == 64 and "'soon' is not a duration" in wrong.err
    without_backend(workspace)
    assert "jobs not-submitted" in " ".join(workspace.run("status").out.split())
    refused = workspace.run("jobs", "adopt", tag, "batches/one")
    assert refused.code == 1 and "is not in batchform.yaml" in refused.err and "--unseen" in refused.err
    done = workspace.ok("jobs", "not-submitted", tag, "--yes")
    assert "could not be asked" in done.err and "taken for not submitted" in done.out
    adopted = workspace.ok("jobs", "adopt", tag, "batches/one", "--unseen")
    assert f"{tag}: its job is batches/one" in adopted.out
    assert "given up" in workspace.ok("jobs", "abandon", tag, "--yes").out


def test_abandon_says_that_archived_results_were_collected(workspace: Workspace) -> None:
    ledger, before = workspace.root / ".batchform", workspace.root / "before"
    workspace.ok("apply", "--yes", "--detach")
    shutil.copytree(ledger, before)
    workspace.ok("sync", "--wait")
    [results] = (ledger / "archive").glob("*.jsonl.gz")
    shutil.copy(results, before / "archive")  # archived, and killed before it was recorded
    shutil.rmtree(ledger)
    before.rename(ledger)
    without_backend(workspace)
    tag = results.name.removesuffix(".jsonl.gz")
    done = workspace.ok("jobs", "abandon", tag)
    assert f"{tag}: its results were archived already: they were collected and nothing was given up" in done.out
    assert "6 answered" in done.out


def test_queued_rows_go_to_another_backend_by_apply_only(workspace: Workspace) -> None:
    """Nobody reviewed a sync that sends what was applied elsewhere."""
    backend = {"type": "emulator", "job_seconds": 0, "poll": "10ms", "max_jobs_in_flight": 1, "max_rows_per_job": 2}
    both = {"local": backend, "other": backend}
    workspace.project(backends=both)
    workspace.ok("apply", "--yes", "--detach")
    workspace.project(backends=both, defaults={"backend": "other"})
    synced = workspace.ok("sync", "--wait", "--json").json
    assert (synced["created"], synced["left"]) == ([], {"failed": 0, "for_apply": 4})
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 2, "run": 4}, 2)
    workspace.project(backends=both)
    assert workspace.ok("sync", "--json").json["created"], "back where they were meant to go"
    workspace.project(backends=both, defaults={"backend": "other"})
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


def test_rows_of_which_none_was_sent_yet_stay_with_their_backend(workspace: Workspace) -> None:
    backend = {"type": "emulator", "job_seconds": 0, "poll": "10ms", "max_jobs_in_flight": 1}
    both = {"local": backend, "other": backend}
    workspace.project(backends=both)
    workspace.write("specs/other.yaml", (workspace.root / "specs/triage.yaml").read_text().replace("triage", "queued"))
    workspace.write("templates/queued.j2", "Queued: {{ title }}\n")
    workspace.ok("apply", "--yes", "--detach")
    workspace.project(backends=both, defaults={"backend": "other"})
    synced = workspace.ok("sync", "--wait", "--json").json
    assert (synced["created"], synced["left"]["for_apply"], len(workspace.billed())) == ([], 6, 6)
