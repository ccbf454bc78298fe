"""Edits that would send answered rows again: what becomes of those rows is said by the spec or by the command line."""

from __future__ import annotations

from typing import Any

import pytest
from tests_e2e_kit import Workspace

NEW = {"user": {"text": "New prompt: {{ body }}"}}


def key(way: Any) -> dict[str, Any]:
    return {"key": ["id"], "on_prompt_change": way}


def more(workspace: Workspace, count: int = 7) -> None:
    workspace.rows([workspace.row(i) for i in range(1, count + 1)])


def test_ask_holds_answered_rows_until_the_command_line_keeps_them(applied: Workspace) -> None:
    more(applied)
    applied.spec(prompt=NEW, idempotency=key("ask"))
    plan = applied.plan()
    assert {a: n for a, n in plan["actions"].items() if n} == {"run": 1, "held": 6}
    assert plan["held_by"] == {"on_prompt_change: ask (prompt_changed)": 6}
    change = plan["change"]
    assert (change["decision"], change["rows"], change["held"], change["source"]) == ("ask", 6, 6, "spec")
    options = {o["decision"]: o for o in change["options"]}
    assert {n: o["rows_to_send"] for n, o in options.items()} == {"rerun": 7, "keep": 1, "canary": 7}
    assert options["keep"]["cost_usd"] == plan["cost_usd"]
    assert options["rerun"]["cost_usd"]["expected"] > options["keep"]["cost_usd"]["expected"]

    text = applied.run("plan").out
    assert "this edit concerns 6 answered rows: all are held until somebody decides" in text
    assert "decide: --on-change triage=rerun | keep | canary:6" in text
    applied.apply()  # new rows use the new prompt, whatever is decided
    assert len(applied.billed()) == 7
    assert applied.actions() == {"held": 6, "keep": 1}

    applied.apply("--on-change", "triage=keep")
    assert (len(applied.billed()), applied.actions()) == (7, {"keep": 7})
    kept = applied.plan()["change"]
    assert (kept["decision"], kept["source"], kept["rows"]) == ("keep", "recorded", 6)
    why = applied.ok("explain", "triage", "T-1").out
    assert "keeps its answer to an earlier prompt" in why
    assert "decided by " in why

    more(applied, 8)  # the decision stays, for this prompt
    assert applied.actions() == {"run": 1, "keep": 7}
    applied.spec(prompt={"user": {"text": "Newer: {{ body }}"}}, idempotency=key("ask"))
    assert applied.actions() == {"run": 1, "held": 7}

    applied.spec(prompt=NEW, idempotency=key("rerun"))  # the spec has the last word, if it is said later
    assert applied.actions() == {"run": 1, "rerun": 6, "keep": 1}
    applied.spec(prompt=NEW, idempotency=key("ask"))
    assert applied.actions() == {"run": 1, "keep": 7}
    assert applied.actions("--on-change", "triage=rerun") == {"run": 1, "rerun": 6, "keep": 1}
    applied.apply("--on-change", "triage=rerun")
    assert (len(applied.billed()), applied.actions()) == (14, {"keep": 8})


def test_a_canary_is_sent_first_and_the_rest_waits(applied: Workspace) -> None:
    applied.spec(prompt=NEW, idempotency=key({"canary": 2}))
    plan = applied.plan()
    assert {a: n for a, n in plan["actions"].items() if n} == {"rerun": 2, "held": 4}
    assert plan["held_by"] == {"not in the canary of 2 (prompt_changed)": 4}
    assert {o["decision"]: o["rows_to_send"] for o in plan["change"]["options"]} == {"rerun": 6, "keep": 0, "canary": 2}
    applied.apply()
    assert (len(applied.billed()), applied.actions()) == (8, {"keep": 2, "held": 4})
    more(applied)
    assert applied.actions() == {"run": 1, "keep": 2, "held": 4}
    assert applied.actions("--on-change", "triage=canary:3") == {"run": 1, "rerun": 1, "keep": 2, "held": 3}
    bundle = applied.root / "plan"
    assert applied.actions("--out", str(bundle), "--on-change", "triage=rerun") == {"run": 1, "rerun": 4, "keep": 2}
    applied.ok("apply", str(bundle), "--yes")
    assert (len(applied.billed()), applied.actions()) == (13, {"keep": 7})


def test_an_edit_that_leaves_requests_as_they_were_concerns_no_row(applied: Workspace) -> None:
    applied.write("templates/triage.j2", "{% set t = title %}Title: {{ t }}\nBody: {{ body }}\n")
    applied.spec(idempotency=key("ask"))
    plan = applied.plan()
    assert (plan["actions"]["keep"], plan["change"]) == (6, None)


def test_rows_that_changed_themselves_or_were_asked_for_are_sent(applied: Workspace) -> None:
    applied.ok("rerun", "triage", "--key", "T-2")
    rows = [applied.row(i) for i in range(1, 7)]
    rows[0]["body"] = "changed"
    applied.rows(rows)
    applied.spec(prompt=NEW, idempotency=key("ask"))
    assert applied.actions() == {"rerun": 2, "held": 4}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("triag=keep", "there is no spec 'triag'"),
        ("triage", "'' is no way"),
        ("triage=canary", "'canary' is no way"),
        ("triage=canary:0", "is no way"),
        ("triage=maybe", "'maybe' is no way"),
    ],
)
def test_what_the_command_line_cannot_mean(workspace: Workspace, said: str, words: str) -> None:
    refused = workspace.run("plan", "--on-change", said)
    assert refused.code == 64
    assert words in refused.err
