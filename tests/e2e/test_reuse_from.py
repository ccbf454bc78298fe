"""Answers that one environment has bought are taken by another for nothing, by the request that they answer."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from tests_e2e_kit import Workspace

from batchform.adapters.local_blobs import LocalBlobs
from bucket_kit import Bucket

STAGING, PROD = ("--env", "staging"), ("--env", "prod")


def environments(workspace: Workspace, *, staging: str = ".batchform/staging", **changes: Any) -> None:
    """Two environments, of which prod takes the answers of staging."""
    prod = {"ledger": ".batchform/prod", "reuse_from": ["staging"], **changes}
    workspace.project(
        environments={"staging": {"ledger": staging}, "prod": {k: v for k, v in prod.items() if v is not None}}
    )


def ledger_of(workspace: Workspace, name: str) -> dict[str, bytes]:
    """Every file of an environment's ledger."""
    folder = workspace.root / ".batchform" / name
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def failing_row(number: int) -> dict[str, str]:
    return Workspace.row(number, body="[[emulator:blocked]]")


def test_what_staging_has_answered_costs_nothing_in_prod(workspace: Workspace) -> None:
    environments(workspace)
    workspace.rows([workspace.row(i) for i in range(1, 6)] + [failing_row(6), workspace.row(7)])
    assert workspace.run("apply", "--yes", "--quiet", *STAGING).code == 6
    workspace.rows([workspace.row(i) for i in range(1, 6)] + [failing_row(6)])
    workspace.run("apply", "--yes", "--quiet", *STAGING)  # T-7 has left staging
    answers, paid = {r["id"]: r["text"] for r in workspace.delivered()}, len(workspace.billed())
    staging = ledger_of(workspace, "staging")
    (workspace.root / "results/triage.jsonl").unlink()

    # Four rows ask what staging was answered, one under another key; the others ask something else, failed or left.
    rows = [workspace.row(i) for i in range(1, 4)] + [workspace.row(4, id="P-4"), workspace.row(5, body="edited")]
    workspace.rows([*rows, failing_row(6), workspace.row(7)])
    plan = workspace.ok("plan", "--json", *PROD).json
    assert {a: n for a, n in plan["specs"][0]["actions"].items() if n} == {"run": 3, "reuse": 4}
    [taken] = plan["imports"]
    assert (taken["environment"], taken["rows"], taken["used"]) == ("staging", 4, 4)
    assert taken["paid_there_usd"] > 0
    told = workspace.ok("plan", *PROD).out
    assert "reuse staging → triage: 4 rows are answered by it, for nothing ($" in told
    explained = workspace.ok("explain", "triage", "T-1", *PROD).out
    assert "reuse" in explained
    assert "answered by staging, job bf-triage-" in explained
    assert not (workspace.root / ".batchform/prod/head.json").exists()

    workspace.run("apply", "--yes", "--quiet", *PROD)
    assert len(workspace.billed()) == paid + 3
    delivered = {r["id"]: r["text"] for r in workspace.delivered()}
    assert (delivered["T-1"], delivered["P-4"]) == (answers["T-1"], answers["T-4"])
    assert workspace.actions(*PROD) == {"keep": 6, "held": 1}
    assert ledger_of(workspace, "staging") == staging, "only read"
    assert "imported from" in workspace.ok("explain", "triage", "T-1", *PROD).out

    # From here on the answers are prod's own: they are read anew without staging's ledger.
    shutil.rmtree(workspace.root / ".batchform/staging")
    workspace.spec(idempotency={"key": ["tenant", "id"]}, moved={"key": ["id"]})
    workspace.run("apply", "--yes", "--quiet", *PROD)
    assert len(workspace.billed()) == paid + 3
    assert workspace.run("ledger", "verify", *PROD).code == 0


def test_a_rerun_there_changes_nothing_here(workspace: Workspace) -> None:
    environments(workspace)
    workspace.apply(*STAGING)
    workspace.apply(*PROD)
    assert len(workspace.billed()) == 6
    workspace.ok("rerun", "triage", "--key", "T-1", "--reason", "better", *STAGING)
    workspace.apply(*STAGING)
    assert len(workspace.billed()) == 7
    assert workspace.actions(*PROD) == {"redeliver": 6}, "since staging has written there"
    workspace.ok("rerun", "triage", "--key", "T-2", "--reason", "another one", *PROD)
    assert workspace.actions(*PROD) == {"rerun": 1, "redeliver": 5}, "whoever asks again wants another answer"


def test_promote_takes_answers_and_sends_nothing(workspace: Workspace) -> None:
    environments(workspace, reuse_from=None)
    workspace.apply(*STAGING)
    workspace.rows([workspace.row(i) for i in range(1, 4)] + [workspace.row(9)])
    assert workspace.actions(*PROD) == {"run": 4}, "nobody has asked for it"
    found = workspace.ok("promote", "--from", "staging", "triage", "--json", *PROD).json
    assert {a: n for a, n in found["specs"][0]["actions"].items() if n} == {"reuse": 3, "held": 1}
    assert (found["purpose"], found["rows_to_send"]) == ("promote", 0)
    assert workspace.run("promote", "--from", "staging", "--detailed-exitcode", *PROD).code == 2
    told = workspace.ok("promote", "--from", "staging", "--out", "moved", *PROD).out
    assert "batchform apply moved --env prod" in told
    assert "reuse staging → triage: 3 rows" in workspace.ok("show", "moved").words
    shutil.rmtree(workspace.root / ".batchform/staging")  # what was reviewed has all that it takes
    workspace.ok("apply", "moved", "--yes", *PROD)
    assert len(workspace.billed()) == 6
    assert [r["id"] for r in workspace.delivered()] == ["T-1", "T-2", "T-3"]
    assert workspace.actions(*PROD) == {"keep": 3, "run": 1}
    assert workspace.run("apply", "moved", "--yes", *PROD).code == 4, "once"
    assert workspace.run("ledger", "verify", *PROD).code == 0
    for said, why in (
        (("--from", "stagin", *PROD), "no environment 'stagin'"),
        (("--from", "prod", *PROD), "have one ledger"),
    ):
        refused = workspace.run("promote", *said)
        assert (refused.code, why in refused.err) == (64, True), refused.err


class Killed(BaseException):
    pass


def test_killed_anywhere_and_run_again_comes_to_the_same(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    environments(workspace)
    workspace.apply(*STAGING)
    staging, paid = ledger_of(workspace, "staging"), len(workspace.billed())
    real: dict[str, Callable[..., Any]] = {n: getattr(LocalBlobs, n) for n in ("write_new", "swap_head")}
    ends = []
    for last in (3, 5):  # what is copied lies there without being named; in the middle of the commit
        shutil.rmtree(workspace.root / ".batchform/prod", ignore_errors=True)
        shutil.rmtree(workspace.root / "results", ignore_errors=True)
        left = last

        def step(name: str, *args: Any) -> Any:
            nonlocal left
            left -= 1
            found = real[name](*args)
            if not left:
                raise Killed
            return found

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(LocalBlobs, name, lambda *args, name=name: step(name, *args))
            with contextlib.suppress(Killed):
                workspace.run("apply", "--yes", "--quiet", *PROD)
        shutil.rmtree(workspace.root / ".batchform/prod/lease", ignore_errors=True)
        again = workspace.run("apply", "--yes", "--quiet", *PROD)
        assert again.code == 0, (last, again.err)
        ends.append(sorted(n for n in ledger_of(workspace, "prod") if n.startswith(("archive/", "answers/"))))
        assert len(workspace.delivered()) == 6
    assert left <= 0
    assert len({*map(tuple, ends)}) == 1
    assert len(workspace.billed()) == paid
    assert ledger_of(workspace, "staging") == staging


def test_answers_of_another_realm_and_ledgers_that_are_not_there(workspace: Workspace) -> None:
    environments(workspace, backends={"local": {"type": "gemini"}})
    assert "nothing to reuse: staging has no ledger yet" in workspace.plan(*PROD)["notes"]
    workspace.apply(*STAGING)
    planned = workspace.plan(*PROD)
    assert (planned["actions"]["run"], planned["actions"]["reuse"]) == (6, 0)
    assert any("6 answers of staging are of realm 'emulator'" in note for note in planned["notes"])
    head = workspace.root / ".batchform/staging/head.json"
    head.write_text(re.sub(r'"format_version": *\d+', '"format_version": 99', head.read_text()))
    newer = workspace.run("plan", *PROD)
    assert newer.code != 0
    assert ".batchform/staging" in newer.err


def test_environments_that_take_from_each_other(workspace: Workspace) -> None:
    """Top level names apply to all environments; oneself, and whoever has the same ledger, is nobody else."""
    ledgers = {"staging": {"ledger": ".batchform/staging"}, "prod": {"ledger": ".batchform/prod"}, "same": {}}
    workspace.project(environments=ledgers, reuse_from=["staging", "prod", "default", "same"])
    workspace.apply(*STAGING)
    for env in (PROD, STAGING):
        workspace.apply(*env)
    assert len(workspace.billed()) == 6
    workspace.project(environments={"a": {"reuse_from": ["a", "b"]}}, reuse_from=["c"])
    refused = workspace.run("validate")
    assert refused.err.count("BF150") + refused.out.count("BF150") >= 3, refused.err


def test_a_ledger_in_cloud_storage_and_one_of_a_variable(
    workspace: Workspace, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments(workspace, staging="${ENV:STAGING_LEDGER}", ledger=bucket.uri("prod"))
    refused = workspace.run("plan", *PROD)
    assert (refused.code != 0, "STAGING_LEDGER" in refused.err or "environment variable" in refused.err) == (True, True)
    monkeypatch.setenv("STAGING_LEDGER", bucket.uri("staging"))
    workspace.apply(*STAGING)
    there = {n: bucket.generation(n) for n in bucket.names("staging/")}
    assert workspace.actions(*PROD) == {"reuse": 6}
    workspace.apply(*PROD)
    assert (len(workspace.billed()), workspace.actions(*PROD)) == (6, {"keep": 6})
    assert {n: bucket.generation(n) for n in bucket.names("staging/")} == there


def test_sync_leaves_what_nobody_has_applied(workspace: Workspace) -> None:
    """An edit or a new row waits for an apply, also where staging has the answer; only failed rows are looked at."""
    environments(workspace)
    bad = failing_row(9)
    workspace.rows([workspace.row(1), workspace.row(2), bad])
    workspace.run("apply", "--yes", "--quiet", *PROD)
    workspace.write("templates/triage.j2", "EDITED {{ title }} {{ body }}\n")
    workspace.rows([workspace.row(1), workspace.row(2), workspace.row(3), bad])
    workspace.run("apply", "--yes", "--quiet", *STAGING)
    planned = workspace.actions(*PROD)
    assert planned["reuse"] == 3
    workspace.run("sync", *PROD)
    assert workspace.actions(*PROD) == planned


def test_a_ledger_there_that_cannot_be_read_stops_no_delivery_here(workspace: Workspace) -> None:
    environments(workspace)
    workspace.rows([workspace.row(1), failing_row(2)])
    workspace.run("apply", "--yes", "--quiet", *STAGING)
    workspace.rows([workspace.row(3), failing_row(2)])
    workspace.run("apply", "--yes", "--quiet", "--detach", *PROD)
    (workspace.root / "results/triage.jsonl").unlink()
    head = workspace.root / ".batchform/staging/head.json"
    head.write_text(re.sub(r'"format_version": *\d+', '"format_version": 99', head.read_text()))
    workspace.run("sync", "--wait", *PROD)
    assert [r["id"] for r in workspace.delivered()] == ["T-3"]


def test_results_that_stayed_in_a_bucket_which_only_the_other_environment_reads(workspace: Workspace) -> None:
    local = {"type": "emulator", "job_seconds": 0, "poll": "10ms"}
    cloud = {**local, "cloud": "vertex", "raw_results": "bucket"}
    staging = {"ledger": ".batchform/staging", "backends": {"cloud": cloud}, "defaults": {"backend": "cloud"}}
    prod = {"ledger": ".batchform/prod", "reuse_from": ["staging"]}
    for other in ({}, {"cloud": local}):
        workspace.project(backends={"local": local, **other}, environments={"staging": staging, "prod": prod})
        if not other:
            workspace.apply(*STAGING)
        planned = workspace.plan(*PROD)
        assert planned["actions"]["run"] + planned["actions"]["reuse"] == 6
        assert planned["actions"]["reuse"] or any(
            "6 answers of staging cannot be reused" in n for n in planned["notes"]
        )
