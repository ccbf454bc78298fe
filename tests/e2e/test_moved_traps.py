"""What could make a move pay twice, or bring an answer to another row: names and keys that are used again."""

from __future__ import annotations

from typing import Any

import yaml
from tests_e2e_kit import SPEC, Workspace

OWN = {"type": "jsonl", "path": "results/again.jsonl"}


def write(workspace: Workspace, *specs: dict[str, Any]) -> None:
    """These specs, each in a file of its own, and no others."""
    for path in (workspace.root / "specs").glob("*.yaml"):
        path.unlink()
    for spec in specs:
        whole = {**SPEC, **spec}
        workspace.write(f"specs/{whole['name']}.yaml", yaml.safe_dump(whole))


def test_an_earlier_name_that_is_used_again_has_jobs_of_its_own(applied: Workspace) -> None:
    write(applied, {"name": "support", "moved": {"from": "triage"}})
    applied.apply()
    write(applied, {"name": "support"}, {"name": "triage", "destination": OWN})
    applied.apply()  # the very rows that the name stood for before: the same shard
    assert len(applied.billed()) == 12
    assert len(applied.delivered("results/again.jsonl")) == 6
    assert applied.run("ledger", "verify").code == 0


def test_a_plan_that_was_saved_before_a_move_is_stale(applied: Workspace) -> None:
    applied.rows([applied.row(i) for i in range(1, 8)])
    applied.run("plan", "--out", "saved")
    write(applied, {"name": "support", "moved": {"from": "triage"}})
    applied.apply()
    assert len(applied.billed()) == 7
    write(applied, {})
    late = applied.run("apply", "saved", "--yes")
    assert (late.code, len(applied.billed())) == (4, 7), late.err


def test_rows_asked_for_again_are_those_that_were_named(applied: Workspace) -> None:
    """Orders of reruns name keys: they go along with the rows, and concern no row that takes such a key since."""
    applied.ok("rerun", "triage", "--key", "T-1", "--reason", "once")
    applied.apply()
    assert len(applied.billed()) == 7
    applied.ok("rerun", "triage", "--key", "T-2", "--reason", "twice")
    applied.rows([{**applied.row(i), "tenant": f"T-{7 - i}"} for i in range(1, 7)])
    write(applied, {"idempotency": {"key": ["tenant"]}, "moved": {"key": ["id"]}})
    assert applied.actions() == {"rerun": 1, "redeliver": 5}
    assert "T-5" in applied.ok("explain", "triage", "T-5").out
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (8, {"keep": 6})
    by = {r["tenant"]: r for r in applied.delivered()}
    assert sorted(by) == [f"T-{i}" for i in range(1, 7)]


def test_columns_whose_names_hold_a_dot(applied: Workspace) -> None:
    rows = [{"main.id": f"T-{i}", "n.to": f"T-{7 - i}", "title": f"t{i}", "body": "b"} for i in range(1, 7)]
    applied.rows(rows)
    applied.write("templates/triage.j2", "{{ row['main.id'] }} {{ title }} {{ body }}\n")
    write(applied, {"name": "fresh", "destination": OWN, "idempotency": {"key": ["main.id"]}})
    applied.apply()
    rows.append({"main.id": "T-1", "n.to": "T-9", "title": "other", "body": "c"})
    applied.rows(rows)
    moved = {"idempotency": {"key": ["n.to"]}, "moved": {"key": ["main.id"]}}
    write(applied, {"name": "fresh", "destination": OWN, **moved})
    assert applied.actions() == {"run": 1, "redeliver": 6}


def test_swapped_keys_deliver_own_answers(applied: Workspace) -> None:
    before = {r["id"]: r["text"] for r in applied.delivered()}
    applied.rows([{**applied.row(i), "tenant": f"T-{7 - i}"} for i in range(1, 7)])
    write(applied, {"idempotency": {"key": ["tenant"]}, "moved": {"key": ["id"]}})
    applied.apply()
    after = {f"T-{7 - int(r['tenant'][2:])}": r["text"] for r in applied.delivered()}
    assert before == after


def test_answers_that_nobody_could_read_are_read_under_their_new_keys(workspace: Workspace) -> None:
    """They came while the spec of that name was not in the project, and their keys move before they are read. Keys
    change places, too: what one row was answered is never what another one is shown."""
    workspace.rows([{**workspace.row(i), "tenant": f"T-{7 - i}"} for i in range(1, 7)])
    workspace.ok("apply", "--yes", "--detach", "--quiet")
    moved: dict[str, Any] = {"name": "support", "moved": {"from": "triage", "key": ["id"]}}
    write(workspace, {**moved, "idempotency": {"key": ["tenant"]}})
    workspace.ok("sync", "--wait", "--quiet")
    assert workspace.run("ledger", "verify").code == 0
    assert workspace.actions() == {"reparse": 6}
    workspace.apply()
    assert (len(workspace.billed()), workspace.actions()) == (6, {"keep": 6})
    texts = {r["tenant"]: r["text"] for r in workspace.delivered()}
    assert texts == {f"T-{7 - i}": f"Emulated answer to: Title: ticket {i} Body: text {i}" for i in range(1, 7)}
    assert workspace.run("ledger", "verify").code == 0


def test_only_names_and_texts_that_the_files_may_hold_are_written(applied: Workspace) -> None:
    before = (applied.root / "specs/triage.yaml").read_bytes()
    for name in ("a b", "x\nsource: 3", "UPPER", "support # x", ""):
        refused = applied.run("ledger", "mv", "triage", name)
        assert (refused.code, "is no name of a spec" in refused.err) == (64, True), name
    assert (applied.root / "specs/triage.yaml").read_bytes() == before
    write(applied, {"name": "other", "destination": OWN})
    reason = "x: [y] \x7f \u2028 'q' \"q\" \U0001f600 #"
    applied.ok("ledger", "forget", "triage", "--reason", reason)
    assert applied.ok("plan", "--json").json["moves"][0]["forgotten"] == reason


def test_a_canary_stays_as_large_when_keys_move(applied: Workspace) -> None:
    edit: dict[str, Any] = {"prompt": {"user": {"text": "Newer: {{ body }}"}}}
    write(applied, edit)
    applied.apply("--on-change", "triage=canary:2")
    assert len(applied.billed()) == 8
    key = {"key": ["tenant", "id"], "on_prompt_change": "rerun"}
    write(applied, {**edit, "name": "support", "idempotency": key, "moved": {"from": "triage", "key": ["id"]}})
    assert applied.actions() == {"redeliver": 2, "held": 4}
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (8, {"keep": 2, "held": 4})
