"""Renamed specs and changed keys: rows go on under their present names, for nothing."""

from __future__ import annotations

import json
import random
import sqlite3
from typing import Any

import pytest
import yaml
from tests_e2e_kit import SPEC, Workspace

TABLE = {"type": "sqlite", "path": "results/all.db", "table": "answers"}


def become(workspace: Workspace, name: str = "support", was: Any = "triage", **changes: Any) -> None:
    """The spec under another name, in a file of its own."""
    for path in (workspace.root / "specs").glob("*.yaml"):
        path.unlink()
    moved = {"moved": {"from": was}} if was else {}
    workspace.write(f"specs/{name}.yaml", yaml.safe_dump({**SPEC, "name": name, **moved, **changes}))


def rekey(workspace: Workspace, key: Any = ("tenant", "id"), was: Any = ("id",), **changes: Any) -> None:
    written = [list(k) if isinstance(k, tuple) else k for k in (key, was)]
    workspace.spec(idempotency={"key": written[0]}, moved={"key": written[1]}, **changes)


def test_a_renamed_spec_pays_nothing_and_keeps_its_history(applied: Workspace) -> None:
    before = applied.snapshot()
    become(applied, was=None)
    assert applied.actions() == {"run": 6}  # without a word of it, all would be sent again
    become(applied)
    plan = applied.run("plan", "--json", "--detailed-exitcode")
    assert plan.code == 2
    [spec], told = plan.json["specs"], plan.json["moves"]
    assert {a: n for a, n in spec["actions"].items() if n} == {"keep": 6}
    assert (spec["reasons"], spec["cost_usd"]["high"]) == ({"key_moved": 6}, 0)
    assert told == [
        {"spec": "support", "from": "triage", "rows": 6, "jobs_at_work": 0, "keys": 0, "rows_in_flight": 0}
    ]  # fmt: skip
    assert "move triage → support: 6 rows, for nothing" in applied.run("plan").out
    assert "⇄ move triage → support: 6 rows, for nothing" in applied.run("plan", "--format", "markdown").out
    assert "6 moved" in applied.run("plan").out
    assert applied.snapshot() == before  # planning only reads
    applied.apply()
    assert applied.actions() == {"keep": 6}
    assert "moves" not in applied.run("plan", "--json").json
    assert len(applied.billed()) == 6
    assert len(applied.delivered()) == 6
    spent = applied.run("spend", "--json").json
    assert "triage" not in json.dumps(spent)
    assert applied.run("ledger", "verify").code == 0
    applied.rows([applied.row(i) for i in range(1, 8)])
    applied.apply()
    assert (len(applied.billed()), len(applied.delivered())) == (7, 7)
    applied.ok("ledger", "compact", "--keep", "0s")
    assert applied.actions() == {"keep": 7}
    become(applied, "third", ["support", "triage"])  # names in a row; the one that has rows counts
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (7, {"keep": 7})


def test_a_saved_plan_moves_what_was_reviewed(applied: Workspace) -> None:
    become(applied, prompt={"user": {"text": "Newer: {{ body }}"}})
    assert applied.actions("--out", "saved") == {"rerun": 6}
    shown = applied.ok("show", "saved").out
    assert "move triage → support" in shown
    assert "move triage → support" in applied.ok("show", "saved/plan.json").out
    applied.ok("apply", "saved", "--yes")
    assert (len(applied.billed()), applied.actions()) == (12, {"keep": 6})


def test_jobs_at_work_go_along_with_a_new_name(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "job_seconds": 2, "poll": "10ms"}})
    workspace.ok("apply", "--yes", "--detach", "--quiet")
    become(workspace)
    told = workspace.run("plan", "--json").json
    assert (told["moves"][0]["jobs_at_work"], told["specs"][0]["actions"]["in_flight"]) == (1, 6)
    workspace.apply()
    assert (len(workspace.billed()), len(workspace.delivered()), workspace.actions()) == (6, 6, {"keep": 6})


def test_answers_that_came_between_rename_and_apply_are_kept(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "job_seconds": 0, "poll": "10ms"}})
    workspace.ok("apply", "--yes", "--detach", "--quiet")
    become(workspace)
    workspace.ok("sync", "--wait", "--quiet")
    assert workspace.actions() == {"reparse": 6}
    workspace.apply()
    assert (len(workspace.billed()), len(workspace.delivered())) == (6, 6)


def test_tables_follow(applied: Workspace) -> None:
    applied.spec(destination=TABLE)
    applied.apply()
    become(applied, destination=TABLE)
    applied.apply()
    become(applied, was=None, destination=TABLE)  # once it has moved, the word for it may go
    applied.rows([applied.row(i) for i in range(1, 8)])
    applied.apply()
    with sqlite3.connect(applied.root / "results/all.db") as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (7,)
    db.close()
    assert len(applied.billed()) == 7


def test_older_files_are_refused(applied: Workspace) -> None:
    """A branch that was cut before the rename would pay for everything again."""
    become(applied)
    applied.apply()
    become(applied, "triage", was=None)
    refused = applied.run("plan")
    assert refused.code == 4
    assert "the rows of triage were moved to support, and this project has no spec support" in refused.err
    become(applied, "triage", was="support")
    applied.apply()
    assert (applied.actions(), len(applied.billed())) == ({"keep": 6}, 6)


def test_a_spec_is_given_up(applied: Workspace) -> None:
    """By a line that stands in git, and that a command writes."""
    refused = applied.run("ledger", "forget", "triage", "--reason", "replaced")
    assert refused.code == 64
    assert "its spec is still there" in refused.err
    become(applied, was=None, destination={"type": "jsonl", "path": "results/support.jsonl"})
    before = applied.snapshot()
    told = applied.ok("ledger", "forget", "triage", "--reason", "replaced: by support").out
    assert "batchform.yaml" in told
    assert "batchform plan" in told
    assert applied.snapshot() == before  # the ledger is as it was
    plan = applied.ok("plan", "--json").json
    assert (plan["moves"][0]["forgotten"], plan["moves"][0]["rows"]) == ("replaced: by support", 6)
    assert "forget triage: 6 rows given up (replaced: by support): what is delivered stays" in applied.ok("plan").out
    applied.apply()
    assert "moves" not in applied.ok("plan", "--json").json
    assert len(applied.delivered()) == 6
    assert "triage" in json.dumps(applied.ok("spend", "--json").json)  # what it cost is not forgotten
    assert applied.run("ledger", "verify").code == 0
    again = applied.run("ledger", "forget", "triage", "--reason", "again")
    assert again.code == 64


def test_a_rename_that_a_command_writes(applied: Workspace) -> None:
    before = applied.snapshot()
    told = applied.ok("ledger", "mv", "triage", "support").out
    assert "specs/triage.yaml" in told
    assert applied.snapshot() == before
    assert applied.ok("plan", "--json").json["moves"][0]["spec"] == "support"
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (6, {"keep": 6})
    assert applied.run("ledger", "mv", "support", "third").code == 64  # it has a `moved` of its own by now
    assert applied.run("ledger", "mv", "nobody", "third").code == 64


def test_two_that_have_rows_are_not_mixed(applied: Workspace) -> None:
    become(applied, was=None, destination={"type": "jsonl", "path": "results/support.jsonl"})
    applied.apply()
    become(applied, destination={"type": "jsonl", "path": "results/support.jsonl"})
    refused = applied.run("plan")
    assert refused.code == 64
    assert "rows are recorded under triage (6 rows) and support (6 rows)" in refused.err


def test_rows_take_a_new_key_for_nothing(applied: Workspace) -> None:
    rekey(applied)
    plan = applied.run("plan", "--json").json
    assert (plan["moves"][0]["keys"], plan["rows_to_send"]) == (6, 0)
    assert applied.actions() == {"redeliver": 6}
    assert "triage: 6 rows take a new key" in applied.run("plan").out
    why = applied.ok("explain", "triage", "acme|T-1").out
    assert "redeliver" in why
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (6, {"keep": 6})
    assert [r["id"] for r in applied.delivered()] == [f"T-{i}" for i in range(1, 7)]
    assert {r["tenant"] for r in applied.delivered()} == {"acme"}
    assert applied.run("ledger", "verify").code == 0
    # An edit there and back finds its answers again, under whatever key they were archived.
    applied.write("templates/triage.j2", "Other: {{ body }}\n")
    applied.apply()
    applied.write("templates/triage.j2", "Title: {{ title }}\nBody: {{ body }}\n")
    assert applied.actions() == {"reuse": 6}
    applied.apply()
    applied.spec(idempotency={"key": ["tenant", "id"]}, output={"format": "text"}, destination=TABLE)
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (12, {"keep": 6})
    assert applied.run("ledger", "verify").code == 0


@pytest.mark.parametrize("was", ["{{ id | upper }}", "{{ tenant }}-{{ id }}"])
def test_keys_that_are_expressions(applied: Workspace, was: str) -> None:
    if "tenant" in was:
        applied.spec(idempotency={"key": was}, moved={"key": ["id"]})
        applied.apply()
    rekey(applied, was=was)
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (6, {"keep": 6})


def test_name_and_key_at_once_and_rows_that_changed(applied: Workspace) -> None:
    rows = [applied.row(i) for i in range(2, 9)]
    rows[0]["body"] = "changed"
    applied.rows(rows)
    become(applied, idempotency={"key": ["tenant", "id"]}, moved={"from": "triage", "key": ["id"]})
    # T-2 changed, T-7 and T-8 are new, T-1 left under its earlier key
    assert applied.actions() == {"run": 2, "rerun": 1, "redeliver": 4, "forget": 1}
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (9, {"keep": 7})
    applied.rows([applied.row(1), *rows])
    assert applied.actions() == {"redeliver": 7, "keep": 1}  # it came back, and moves now: the file is written anew
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (9, {"keep": 8})


def test_new_keys_wait_for_rows_in_flight(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "job_seconds": 0, "poll": "10ms"}})
    workspace.ok("apply", "--yes", "--detach", "--quiet")
    rekey(workspace)
    plan = workspace.plan()
    assert plan["actions"]["held"] == 6
    assert plan["held_by"] == {"the move to a new key waits for 6 rows in flight: batchform sync --wait": 6}
    workspace.ok("apply", "--yes", "--quiet")
    assert (len(workspace.billed()), workspace.actions()) == (6, {"redeliver": 6})
    workspace.apply()
    assert (len(workspace.billed()), workspace.actions()) == (6, {"keep": 6})
    assert {r["tenant"] for r in workspace.delivered()} == {"acme"}


def test_an_earlier_key_that_is_several_rows_by_now(applied: Workspace) -> None:
    twin = {**applied.row(1), "tenant": "globex"}
    applied.rows([*[applied.row(i) for i in range(1, 7)], {**twin, "body": "of another"}])
    rekey(applied)
    assert applied.actions() == {"run": 1, "redeliver": 6}  # the one that asks what was asked is meant
    applied.rows([{**applied.row(1), "body": "edited"}, {**twin, "body": "of another"}])
    refused = applied.run("plan")
    assert refused.code != 0
    assert "1 recorded row of triage cannot take a new key" in refused.err
    assert "'acme|T-1' or 'globex|T-1'" in refused.err


def test_keys_that_change_places(applied: Workspace) -> None:
    """Rows whose new key is another row's earlier one: each keeps the answer to what it asks."""
    rows = [{**applied.row(i), "tenant": f"T-{7 - i}"} for i in range(1, 7)]
    applied.rows(rows)
    rekey(applied, key=("tenant",))
    assert applied.actions() == {"redeliver": 6}
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (6, {"keep": 6})
    assert applied.run("ledger", "verify").code == 0


def test_which_key_was_which_is_verified(applied: Workspace) -> None:
    rekey(applied)
    applied.apply()
    [keys] = (applied.root / ".batchform/archive").glob("moved-*.parquet")
    keys.unlink()
    found = applied.run("ledger", "verify")
    assert found.code == 1
    assert "which tells what keys rows had before, cannot be read: it is missing" in found.out


def test_files_with_the_earlier_key_find_the_answers_again(applied: Workspace) -> None:
    rekey(applied)
    applied.apply()
    applied.spec()
    assert "run" not in applied.actions()
    applied.apply()
    assert len(applied.billed()) == 6


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_move_are_never_sent_and_keep_their_answers(applied: Workspace, seed: int) -> None:
    """Whatever is renamed, rekeyed, synced and compacted in whatever order: six rows, six requests, their answers."""
    chance = random.Random(seed)
    names, keys = ["triage", "support", "help"], [["id"], ["tenant", "id"], "{{ id }}-{{ tenant }}", ["title"]]
    at, key = "triage", keys[0]
    texts = {r["text"] for r in applied.delivered()}
    for _ in range(4):
        to, then = chance.choice(names), chance.choice(keys)
        moved = {**({"from": at} if to != at else {}), **({"key": key} if then != key else {})}
        become(applied, to, None, idempotency={"key": then}, **({"moved": moved} if moved else {}))
        if chance.random() < 0.3:
            applied.ok("sync", "--quiet")
        applied.apply()
        at, key = to, then
        if chance.random() < 0.3:
            applied.ok("ledger", "compact", "--keep", "0s")
        assert applied.actions() == {"keep": 6}
    assert len(applied.billed()) == 6
    assert {r["text"] for r in applied.delivered()} == texts
    assert len(applied.delivered()) == 6
    assert applied.run("ledger", "verify").code == 0
