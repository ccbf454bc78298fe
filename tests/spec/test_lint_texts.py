"""Keys and private paths in the files of a project: found wherever they stand, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchform.errors import Diagnostic, InvalidProject
from batchform.spec.load import load_project

KEY = "AIzaSyA" + "0" * 32
FILES = {
    "batchform.yaml": "version: 1\nproject: x\nbackends: {b: {type: emulator}}\n",
    "specs/triage.yaml": "name: triage\nsource: {type: csv, path: data/*.csv}\nprompt: {user: ask.j2}\n"
    "model: gemini-3.5-flash-lite\ndestination: {type: jsonl, path: results/x.jsonl}\nidempotency: {key: [id]}\n",
    "templates/ask.j2": "Classify: {{ body }}\n{% include 'rules.j2' %}",
    "templates/rules.j2": "Be brief.",
}


def loaded(root: Path, added: dict[str, str], *, instead: dict[str, str] | None = None) -> list[Diagnostic]:
    """Complaints of a project with these texts added to its files."""
    for name, text in {**FILES, **(instead or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + added.get(name, ""))
    for name in added.keys() - FILES.keys():
        (root / name).write_text(added[name])
    try:
        return list(load_project(root / "batchform.yaml", environment=None, env={"HERE": "/home/anna/x"}).warnings)
    except InvalidProject as error:
        return list(error.diagnostics)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("batchform.yaml", f"# key: {KEY}\n", "batchform.yaml:4"),
        ("specs/triage.yaml", f"description: use {KEY}\n", "specs/triage.yaml:7"),
        ("templates/ask.j2", f"\n{KEY}", "templates/ask.j2:3"),
        ("templates/rules.j2", f"\n\n{KEY}", "templates/rules.j2:3"),
    ],
)
def test_keys_are_found_and_not_shown(tmp_path: Path, name: str, text: str, place: str) -> None:
    (found,) = loaded(tmp_path, {name: text})
    assert (found.rule, found.severity, str(found.place)) == ("secret-in-file", "error", place)
    assert "an API key of Google" in found.message
    assert KEY not in found.render()


def test_keys_in_few_shot_examples(tmp_path: Path) -> None:
    spec = FILES["specs/triage.yaml"].replace("{user: ask.j2}", "{examples: {path: e.jsonl}, user: ask.j2}")
    examples = '{"user": "a", "model": "b"}\n{"user": "' + KEY + '", "model": "b"}\n'
    (found,) = loaded(tmp_path, {"e.jsonl": examples}, instead={"specs/triage.yaml": spec})
    assert found.rule == "secret-in-file"
    assert str(found.place).startswith("e.jsonl:2")
    assert KEY not in found.render()


def test_who_knows_better_says_why(tmp_path: Path) -> None:
    said = f"ignore: [{{rule: BF115, reason: made up for our tests}}]\ndescription: {KEY}\n"
    assert loaded(tmp_path, {"specs/triage.yaml": said, "templates/ask.j2": KEY}) == []


def test_a_folder_of_one_person(tmp_path: Path) -> None:
    (found,) = loaded(tmp_path, {"batchform.yaml": "ledger: .batchform\nallow_paths:\n  - /Users/anna/exports\n"})
    assert (found.rule, found.severity, str(found.place)) == ("personal-folder", "warning", "batchform.yaml:6:5")


@pytest.mark.parametrize("path", ["exports", "/srv/exports", "${ENV:HERE}", "/home/runner/work"])
def test_folders_of_nobody(tmp_path: Path, path: str) -> None:
    assert loaded(tmp_path, {"batchform.yaml": f'allow_paths: ["{path}"]\n'}) == []
