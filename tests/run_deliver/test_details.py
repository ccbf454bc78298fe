"""What stands beside the text of answers, in columns: by default of a spec's tools, and by expression."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from delivery_kit import World, said

from batchform.cli import run
from batchform.spec.delivery import destination_digest, output_columns

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tools"
JSONL = {"type": "jsonl", "path": "results/triage.jsonl"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "project")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BATCHFORM_ENV", raising=False)
    return Path(shutil.copytree(EXAMPLE, tmp_path / "tools", ignore=shutil.ignore_patterns(".batchform", "results")))


def test_calls_and_pages_come_through(example: Path) -> None:
    route = example / "specs/route.yaml"
    with contextlib.chdir(example):
        assert run(["apply", "--yes", "--quiet"]) == 0
        rows = {row["id"]: row for row in lines(example / "results/route.jsonl")}
        assert {row["function"] for row in rows.values()} <= {"find_order", "close_ticket", None}
        called = [row for row in rows.values() if row["function"]]
        assert called and all(row["said"] is None for row in called)
        assert all((row["order"] is not None) == (row["function"] == "find_order") for row in called)
        assert all(row["function"] is None for row in rows.values() if row["said"])
        for row in lines(example / "results/search.jsonl"):
            assert row["source"] == row["grounding"]["groundingChunks"][0]["web"]["uri"]
            assert row["grounding"]["groundingSupports"][0]["segment"]["text"] == row["answer"]
        # Other columns of the same answers cost nothing.
        text = route.read_text(encoding="utf-8").partition("  columns:")[0] + "idempotency: {key: [id]}\n"
        route.write_text(text, encoding="utf-8")
        assert run(["apply", "--yes", "--quiet"]) == 0
    found = {row["id"]: row for row in lines(example / "results/route.jsonl")}
    assert {key: (row["function_calls"] or [{"name": None}])[0]["name"] for key, row in found.items()} == {
        key: row["function"] for key, row in rows.items()
    }
    assert "grounding" not in found["t-1"]


def test_answers_of_an_earlier_version_have_none(world: World) -> None:
    world.answer({"1": said("bug")})
    calls = {"calls": "function_calls", "page": "grounding.groundingChunks[0].web.uri", "thought": "thoughts"}
    spec = world.spec({**JSONL, "columns": {**calls, "said": "response.category", "j": "{{ grounding or 'none' }}"}})
    world.deliver(spec)
    assert lines(world.root / "results/triage.jsonl") == [
        {"id": "1", "calls": None, "page": None, "thought": None, "said": "bug", "j": "none"}
    ]


def test_a_spec_without_tools_shows_and_reads_what_it_did(world: World) -> None:
    names = [c.name for c in output_columns(world.spec(JSONL))]
    assert not {"function_calls", "tool_steps", "grounding", "citations", "url_context", "thoughts"} & set(names)
    assert destination_digest(world.spec(JSONL)) == destination_digest(world.spec(JSONL))
