"""What tools cost beside tokens is said in plans."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from batchform.cli import run
from batchform.plan.tool_costs import tool_notes

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tools"


@pytest.mark.parametrize(
    ("model", "tools", "requests", "said"),
    [
        ("gemini-3.5-flash", [{"googleSearch": {}}], 2_000, "up to $28.00 here"),
        ("gemini-2.5-flash", [{"googleSearch": {}}], 2_000, "billed beside tokens, which is not in the cost"),
        ("gemini-3.5-flash", [{"googleSearch": {}}], 0, ""),
        ("gemini-3.5-flash", [{"urlContext": {}}], 10, ""),
        ("gemini-3.5-flash", "odd", 10, ""),
    ],
)
def test_search_is_told(model: str, tools: Any, requests: int, said: str) -> None:
    notes = list(tool_notes(model, {"tools": tools}, requests=requests))
    assert said in " ".join(notes)
    assert bool(notes) == bool(said)


def test_a_plan_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHFORM_ENV", raising=False)
    root = shutil.copytree(EXAMPLE, tmp_path / "tools", ignore=shutil.ignore_patterns(".batchform", "results"))
    with contextlib.chdir(root):
        assert run(["plan"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("google_search is billed beside tokens") == 1
