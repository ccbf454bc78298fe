"""What could bring an imported answer to a row that it does not answer, or keep one from a row that it does."""

from __future__ import annotations

from typing import Any

from test_imports import elsewhere, lines, request, response
from tests_e2e_kit import Workspace


def plan_of(workspace: Workspace) -> tuple[dict[str, int], dict[str, Any]]:
    """Actions of the only spec, and its only import."""
    plan = workspace.ok("plan", "--json").json
    [one] = plan["imports"]
    return {a: n for a, n in plan["specs"][0]["actions"].items() if n}, one


def test_a_key_that_was_given_to_two_requests_names_none(workspace: Workspace) -> None:
    """Two jobs that both counted their rows from one: an answer of the first would have gone to a row of the second."""
    asked = {n: elsewhere(request(workspace, n)) for n in (1, 2, 3)}
    lines(workspace.root / "old/in-1.jsonl", {"key": "1", "request": asked[1]}, {"key": "2", "request": asked[3]})
    lines(workspace.root / "old/in-2.jsonl", {"key": "1", "request": asked[2]}, {"key": "2", "request": asked[3]})
    lines(workspace.root / "old/out.jsonl",
          {"key": "1", "response": response("of one of the two")}, {"key": "2", "response": response("of both")},
          '{"request": ' + "[" * 5000, b"\xff{}".decode("latin-1"), {"request": {"contents": 1e308}, "response": 4},
          {"key": 7, "response": response("x")}, {"request": {"contents": [None, 3]}, "response": response("x")},
          )  # fmt: skip
    workspace.spec(**{"import": [{"results": "old/out.jsonl", "requests": "old/in-*.jsonl"}]})
    actions, one = plan_of(workspace)
    assert actions == {"run": 5, "reuse": 1}
    assert one["skipped"]["a key that `requests` has for several requests"] == 1
    workspace.apply()
    assert {r["id"]: r["text"] for r in workspace.delivered()}["T-3"] == "of both"
    before = len(workspace.billed())
    assert before == 5
    # Who asks for it again wants another answer than the imported one.
    workspace.ok("rerun", "triage", "--key", "T-3", "--reason", "better")
    assert workspace.actions() == {"rerun": 1, "keep": 5}
    workspace.apply()
    assert len(workspace.billed()) == 6
    assert {r["id"]: r["text"] for r in workspace.delivered()}["T-3"] != "of both"
    # There is no job behind it: nobody asks a service for one of that name.
    [tag] = [j["tag"] for j in workspace.ok("jobs", "list", "--json").json if j["tag"].startswith("import-")]
    assert "service" not in workspace.ok("jobs", "show", tag).json
    for command in ("cancel", "delete"):
        refused = workspace.run("jobs", command, tag)
        assert (refused.code, "was imported from old/out.jsonl" in refused.err) == (64, True)


def test_answers_of_a_model_whose_name_begins_alike(workspace: Workspace) -> None:
    workspace.project(backends={"real": {"type": "gemini"}}, defaults={"backend": "real"})
    workspace.spec(model="gemini-3.5-flash")
    asked = {n: elsewhere(request(workspace, n)) for n in range(1, 7)}
    models = ("gemini-3.5-flash-lite", "gemini-3.5-flash", "models/gemini-3.5-flash-001", "gemini-3.5-flash-lite-001",
              "gemini-3.5-flash-preview-09-2026", "emulator")  # fmt: skip
    answered = [{"request": asked[n], "response": response("t", m)} for n, m in enumerate(models, start=1)]
    lines(workspace.root / "old/out.jsonl", *answered)
    workspace.spec(model="gemini-3.5-flash", **{"import": [{"results": "old/out.jsonl"}]})
    actions, one = plan_of(workspace)
    assert actions == {"run": 4, "reuse": 2}
    assert one["skipped"] == {
        "answers of gemini-3.5-flash-lite": 1, "answers of gemini-3.5-flash-lite-001": 1,
        "answers of gemini-3.5-flash-preview-09-2026": 1, "answers of the emulator": 1,
    }  # fmt: skip


def test_rows_that_failed_for_good_take_an_imported_answer(workspace: Workspace) -> None:
    small: dict[str, Any] = {
        "retry": {"max_attempts": 1}, "generation_config": {"temperature": 0, "max_output_tokens": 1},
    }  # fmt: skip
    workspace.rows([workspace.row(1), workspace.row(2)])
    workspace.spec(**small)
    assert workspace.run("apply", "--yes", "--quiet").code != 0
    assert workspace.actions() == {"held": 2}
    lines(
        workspace.root / "old/out.jsonl",
        {"request": request(workspace, 1), "response": response("whole", "emulator-gemini-3.5-flash-lite")},
    )
    workspace.spec(**small, **{"import": [{"results": "old/out.jsonl"}]})
    assert workspace.actions() == {"held": 1, "reuse": 1}
    workspace.run("apply", "--yes", "--quiet")
    assert (workspace.actions(), len(workspace.billed())) == ({"held": 1, "keep": 1}, 2)
    assert [r["text"] for r in workspace.delivered()] == ["whole"]
