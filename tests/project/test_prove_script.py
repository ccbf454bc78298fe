"""`make prove`: what a run came to is kept, gone on from, and written into one place of the docs."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with two small parts: one that always holds, and one that needs a file."""
    found = importlib.util.spec_from_file_location("prove_script", ROOT / "scripts" / "prove.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "prove_script", module)
    found.loader.exec_module(module)
    once = f"p = __import__('pathlib').Path({str(tmp_path / 'runs')!r}); p.open('a').write('x')"
    holds = module.Part("holds", "it counts its runs", ("-c", f"{once}; print('{{\"points\": 2000}}')"))
    needs = module.Part("needs", "it needs a file", ("-c", f"open({str(tmp_path / 'needed')!r}); print('{{}}')"))
    monkeypatch.setattr(module, "PARTS", (holds, needs))
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    return module


def run(prove: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prove.py", *arguments])
    code: int = prove.main()
    return code


def test_what_held_is_not_run_again(
    prove: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(prove, monkeypatch) == 1
    assert "needs            FAILED" in capfd.readouterr().out
    (tmp_path / "needed").touch()
    assert run(prove, monkeypatch, "--go-on") == 0
    assert (tmp_path / "runs").read_text() == "x"
    assert "2,000 points" in capfd.readouterr().out
    assert run(prove, monkeypatch, "holds") == 0
    assert (tmp_path / "runs").read_text() == "xx"
    monkeypatch.setattr(prove, "sources_digest", lambda: "others")
    assert run(prove, monkeypatch, "--go-on") == 0
    assert (tmp_path / "runs").read_text() == "xxx"


def test_outcomes_have_one_place_in_the_docs(
    prove: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docs = tmp_path / "reliability.md"
    docs.write_text((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(prove, "DOCS", docs)
    assert run(prove, monkeypatch, "holds") == 0
    assert run(prove, monkeypatch, "--write-docs") == 0
    once = docs.read_text(encoding="utf-8")
    assert "| `holds` | every law held | 2,000 points | 0 min |\n<!-- end -->" in once
    assert run(prove, monkeypatch, "--write-docs") == 0
    assert docs.read_text(encoding="utf-8") == once


def test_the_crash_matrix_goes_on_from_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "prove"))
    from crash_matrix import Tally, held_before

    whole, broken = Tally("a", points=2, states=1, killed=1), Tally("b", failures=["paid twice"])
    lines: list[dict[str, Any]] = [asdict(whole), asdict(broken)]
    (tmp_path / "journal").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert held_before(tmp_path / "journal") == [whole]
    assert held_before(tmp_path / "none") == []
