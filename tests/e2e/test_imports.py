"""Results of jobs that were made elsewhere answer rows for nothing, by the request that they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests_e2e_kit import Workspace

from batchform.canon import canonical_json
from batchform.run.imported import canonical_request


def request(workspace: Workspace, number: int) -> dict[str, Any]:
    found: dict[str, Any] = workspace.ok("render", "triage", "--key", f"T-{number}", "--json").json
    return dict(found["request"])


def elsewhere(asked: dict[str, Any]) -> dict[str, Any]:
    """The same request as a script of somebody else writes it."""
    config = asked["generationConfig"]
    return {
        "contents": [{"parts": asked["contents"][0]["parts"]}],
        "generation_config": {"max_output_tokens": config["maxOutputTokens"], "temperature": 0.0},
    }


def response(text: str, model: str = "emulator") -> dict[str, Any]:
    said = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
    return {"candidates": [said], "modelVersion": model, "usageMetadata": {"totalTokenCount": 9}}


def lines(path: Path, *values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values))


def test_results_of_a_script_answer_rows(workspace: Workspace) -> None:
    asked = {n: elsewhere(request(workspace, n)) for n in range(1, 5)}
    lines(workspace.root / "old/input.jsonl", *({"key": f"row-{n}", "request": asked[n]} for n in (1, 2)))
    lines(  # the Gemini API: keys, and no requests
        workspace.root / "old/results.jsonl",
        {"key": "row-1", "response": response("one")},
        {"key": "row-2", "error": {"code": 13, "message": "internal"}},
        {"key": "row-9", "response": response("nobody's")},
        "no JSON",
    )
    lines(  # Vertex AI: requests, and no keys
        workspace.root / "old/predictions.jsonl",
        {"request": {**asked[3], "labels": {"by": "hand"}}, "response": response("three"), "status": ""},
        {"request": asked[4], "response": response("of a model", "gemini-3.5-flash-lite-001"), "status": ""},
        {"request": {"contents": []}, "response": response("no row's"), "status": ""},
        {"response": response("of nothing")},
    )
    workspace.spec(**{
        "import": [
            {"results": "old/results.jsonl", "requests": "old/input.jsonl"},
            {"results": ["old/predictions.jsonl"]},
        ]
    })  # fmt: skip
    before = workspace.snapshot()
    plan = workspace.ok("plan", "--json").json
    assert {a: n for a, n in plan["specs"][0]["actions"].items() if n} == {"run": 4, "reuse": 2}
    first, second = plan["imports"]
    assert (first["rows"], first["lines"], first["answers"]) == (1, 4, 1)
    assert first["skipped"] == {
        "a key that `requests` does not have": 1, "no JSON object": 1, "no answer: internal": 1,
    }  # fmt: skip
    assert first["examples"][0] == "results.jsonl:3 (a key that `requests` does not have)"
    assert (second["rows"], second["answers"], second["used"]) == (1, 2, 1)
    assert second["skipped"] == {
        "answers of Google, for a spec of the emulator": 1, "neither a request nor a key": 1,
    }  # fmt: skip
    told = workspace.run("plan").out
    assert "import old/results.jsonl → triage: 1 row is answered by it" in told
    assert "1 answer to requests that no row needs" in " ".join(told.split())
    assert workspace.snapshot() == before  # planning only reads

    assert workspace.actions("--out", "saved") == {"run": 4, "reuse": 2}
    assert "1 row is answered by it" in workspace.ok("show", "saved/plan.json").out
    workspace.ok("apply", "saved", "--yes")
    assert (len(workspace.billed()), workspace.actions()) == (4, {"keep": 6})
    texts = {r["id"]: r["text"] for r in workspace.delivered()}
    assert (texts["T-1"], texts["T-3"]) == ("one", "three")
    assert workspace.run("ledger", "verify").code == 0
    assert "imports" not in workspace.run("plan", "--json").json

    # Read anew, and taken by rows that come later, without the files.
    workspace.spec(output={"format": "text"}, idempotency={"key": ["tenant", "id"]}, moved={"key": ["id"]})
    workspace.rows([workspace.row(i) for i in range(1, 7)] + [workspace.row(1, id="T-8")])
    assert workspace.actions() == {"reuse": 1, "redeliver": 6}
    workspace.apply()
    assert (len(workspace.billed()), workspace.actions()) == (4, {"keep": 7})
    assert workspace.run("ledger", "verify").code == 0


def test_files_that_are_not_there(workspace: Workspace) -> None:
    workspace.spec(**{"import": [{"results": "old/none.jsonl"}]})
    refused = workspace.run("plan")
    assert refused.code != 0
    assert "specs/triage.yaml:" in refused.err
    assert "old/none.jsonl" in refused.err


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        (
            {"system_instruction": {"role": "system", "parts": [{"text": "s"}]}, "contents": {"parts": []}},
            {"systemInstruction": {"parts": [{"text": "s"}]}, "contents": [{"parts": [], "role": "user"}]},
        ),
        (
            {"generation_config": {"response_json_schema": {"properties": {"a_b": {"type": "string"}}}, "seed": None}},
            {"generationConfig": {"responseJsonSchema": {"properties": {"a_b": {"type": "string"}}}}},
        ),
    ],
)
def test_one_form_of_a_request(written: dict[str, Any], canonical: dict[str, Any]) -> None:
    made = canonical_request(written)
    assert made == canonical_json(canonical)
    assert canonical_request(json.loads(made)) == made
