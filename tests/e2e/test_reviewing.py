"""What a reviewer asks beside the plan: why, step by step, what it cost; and guards, released with a reason."""

from __future__ import annotations

import csv
import json

from tests_e2e_kit import Workspace


def test_guards_hold_and_are_released_with_a_reason(applied: Workspace) -> None:
    applied.project(limits={"allowed_models": ["gemini-2*"], "required_labels": ["team"], "max_shrink_percent": 20})
    assert applied.run("plan").code == 0  # nothing is sent
    applied.spec(limits={"changed_floor": 0, "max_shrink_percent": 20})
    applied.rows([applied.row(i) for i in (1, 2, 3, 9)])
    held = applied.run("plan", "--json")
    assert held.code == 3
    verdicts = {v["name"]: v for v in [*held.json["verdicts"], *held.json["specs"][0]["verdicts"]]}
    failed = sorted(n for n, v in verdicts.items() if not v["ok"])
    assert failed == ["allowed_models", "required_labels", "source_shrunk"]
    assert verdicts["source_shrunk"]["message"].startswith("3 of 6 known rows (50.0 %) left the source, above 20 %")
    assert held.json["specs"][0]["actions"]["held"] == 1
    allow = ("--allow", "allowed_models", "--allow", "required_labels", "--allow", "triage.source_shrunk")
    silent = applied.run("plan", *allow)
    assert (silent.code, "needs a reason" in silent.err) == (64, True)
    applied.ok("plan", "--quiet", "--out", "plan", *allow, "--reason", "a trial")
    told = json.loads((applied.root / "plan/plan.json").read_text())
    assert (told["reason"], told["envelope"]["reason"]) == ("a trial", "a trial")
    assert "limits are released: a trial" in applied.ok("show", "plan").out
    assert "Limits are released: a trial" in (applied.root / "plan/plan.md").read_text()
    applied.ok("apply", "--approved", told["envelope"]["digest"], "--envelope", "plan", "--approver", "octocat")
    events = [
        json.loads(line)
        for path in (applied.root / ".batchform").rglob("events-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert {e["reason"] for e in events if e["type"] == "Allowed"} == {"a trial"}

    rows = applied.ok("spend", "--by", "approver", "--by", "spec", "--json").json
    assert {(r["spec"], r["rows"], r["jobs"]) for r in rows} == {("triage", 6, 1), ("triage", 1, 1)}
    assert "octocat" in {r["approver"] for r in rows}
    applied.ok("spend", "--by", "model", "--by", "day", "--csv", "spend.csv")
    with (applied.root / "spend.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["model"], line["rows"], float(line["usd"]) > 0) == ("gemini-3.5-flash-lite", "7", True)
    assert "gemini-3.5-flash-lite" in applied.ok("spend", "--by", "model").out
    assert applied.ok("spend", "--since", "2999-01-01").out.strip() == "Nothing was spent."
    assert applied.run("spend", "--since", "soon").code == 64

    applied.write("data/tickets.csv", "id,tenant,title,body\n")
    empty = applied.run("plan")
    assert (empty.code, "has no rows" in empty.err) == (1, True)
    meant = applied.run("plan", "--json", "--allow", "source_shrunk", "--reason", "closed")
    assert (meant.code, meant.json["specs"][0]["actions"]["forget"]) == (0, 4)


def test_why_is_told_by_group_and_by_row(applied: Workspace) -> None:
    assert "= keep" in applied.ok("explain", "triage").out
    rows = [applied.row(i) for i in range(1, 8)]
    rows[0]["body"] = "changed"
    applied.rows(rows)
    applied.spec(prompt={"user": {"text": "Other: {{ title }} {{ body }}"}}, generation_config={"temperature": 1})
    found = applied.ok("explain", "triage", "--json").json
    assert found["actions"] == {"run": 1, "rerun": 6}
    groups = {g["rows"]: g for g in found["groups"]}
    assert sorted(groups) == [1, 5] or sorted(g["rows"] for g in found["groups"]) == [1, 1, 5]
    assert [name for name, *_ in groups[5]["components"]] == ["prompt", "config"]
    assert len(groups[5]["keys"]) == 3
    text = applied.ok("explain", "triage").out
    assert "5 rows  the input differs from the recorded one" in text
    assert "row     each row its own" in text
    several = applied.ok("explain", "triage", "T-2", "T-3").out
    assert several.count("rendered request, before and after") == 2
    sampled = [json.loads(line) for line in applied.ok("explain", "triage", "--sample", "3", "--json").out.splitlines()]
    assert len(sampled) == 3
    assert {e["action"] for e in sampled} == {"run", "rerun"}


def test_steps_are_those_that_apply_takes(applied: Workspace) -> None:
    applied.rows([applied.row(i) for i in range(1, 9)])
    steps = applied.ok("plan", "--steps", "--json").json["steps"]
    kinds = ["settle", "judge", "check", "approve", "send", "wait", "go on", "finish"]
    assert [s["kind"] for s in steps] == kinds
    (job,) = steps[4]["details"]
    assert job.startswith("triage → local: job bf-triage-") or "triage → local: job " in job
    assert job.endswith("by file")
    applied.spec(prompt={"user": {"text": "Other: {{ body }}"}})
    text = applied.ok("plan", "--steps", "--on-change", "triage=keep").out
    assert "record what becomes of answered rows" in text
    assert "triage: keep" in text
    applied.ok("plan", "--steps", "--out", "plan")
    assert applied.ok("show", "plan").code == 0
