"""Rules on rows as they would be sent: what is found where, and how rows are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchform.errors import Diagnostic, RowPlace, complaint_as_json
from batchform.plan.importer import Columns
from batchform.plan.registry import Registry
from batchform.plan.row_rules import RowRules
from batchform.spec.load import load_project
from batchform.spec.resolved import ResolvedSpec

KEY = "AIzaSyA" + "0" * 32
SPEC = """name: triage
source: {type: csv, path: data/*.csv}
prompt: {user: {text: "{{ body }}"}}
model: gemini-3.5-flash-lite
destination: {type: jsonl, path: results/x.jsonl}
idempotency: {key: [id]}
"""


@pytest.fixture
def spec(tmp_path: Path) -> ResolvedSpec:
    (tmp_path / "specs").mkdir()
    (tmp_path / "batchform.yaml").write_text("version: 1\nproject: x\nbackends: {b: {type: emulator}}\n")
    (tmp_path / "specs/triage.yaml").write_text(SPEC)
    return load_project(tmp_path / "batchform.yaml", environment=None, env={}).specs[0]


def asking(*texts: str, **more: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": t} for t in texts], "role": "user"}], **more}


def complaints(spec: ResolvedSpec, *requests: dict[str, Any], imported: bool = False) -> list[Diagnostic]:
    info = Registry.load().model(spec.model)
    rules = RowRules(spec, info, columns=Columns(15) if imported else None)
    for i, request in enumerate(requests, 1):
        rules.look(f"T-{i}", json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode())
    return rules.complaints()


def test_a_row_with_two_hits_is_one_row_however_many_came_before(spec: ResolvedSpec) -> None:
    """From the sixth row on, a row was counted once for each place in it."""
    (found,) = complaints(spec, *[asking(KEY, "and", KEY)] * 9)
    assert found.row_count == 9
    assert found.message.startswith("9 rows (`T-1`, `T-2`, `T-3`, `T-4`, `T-5`, …) would send what looks like")
    assert found.rows[0] == RowPlace("T-1", "$.contents[0].parts[0].text")
    assert len(found.rows) == 5


def test_programs_are_told_rows_and_paths(spec: ResolvedSpec) -> None:
    (found,) = complaints(spec, asking("fine"), asking("fine", "see /home/anna/notes.txt"))
    told = complaint_as_json(found)
    assert told["row_count"] == 1
    assert told["rows"] == [{"key": "T-2", "path": "$.contents[0].parts[1].text"}]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t \r\n", "\u00a0"])
def test_texts_with_nothing_in_them(spec: ResolvedSpec, text: str) -> None:
    (found,) = complaints(spec, asking("fine"), asking(text))
    assert (found.rule, found.severity) == ("empty-prompt", "error")
    assert found.rows == (RowPlace("T-2", "$.contents[0].parts[0].text"),)
    assert found.message.endswith("at $.contents[0].parts[0].text: <inline> renders to nothing")


@pytest.mark.parametrize(
    "text",
    [
        "/home/anna/report.txt", "see /Users/anna/x", r"C:\Users\anna\report.docx", "(/home/anna)", "file:///home/anna",
        "D:/users/anna/x",
    ],
)  # fmt: skip
def test_paths_of_home_folders(spec: ResolvedSpec, text: str) -> None:
    (found,) = complaints(spec, asking(text))
    assert found.rule == "personal-path"


@pytest.mark.parametrize(
    "text",
    [
        "https://github.com/users/anna", "https://acme.com/home/anna", "GET api/users/anna", "/home/runner/work/x",
        "~/home/anna", "at home/anna", "/home/user/x", "/Users/Shared/x", "../home/anna",
    ],
)  # fmt: skip
def test_what_is_no_path_of_a_home_folder(spec: ResolvedSpec, text: str) -> None:
    """Addresses of web pages were taken for folders."""
    assert complaints(spec, asking(text)) == []


def test_bytes_of_pictures_are_neither_text_nor_keys(spec: ResolvedSpec) -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": KEY + "A" * 5_000_000}}
    request = asking("what is this?")
    request["contents"][0]["parts"].append(picture)
    assert complaints(spec, request) == []


# --- the importer of Vertex AI, across rows


def imported(spec: ResolvedSpec, *requests: dict[str, Any]) -> list[tuple[str, str, tuple[RowPlace, ...]]]:
    return [(d.rule, d.message, d.rows) for d in complaints(spec, *requests, imported=True)]


def test_one_type_for_one_path(spec: ResolvedSpec) -> None:
    first, second = asking("a", labels={"n": "1"}), asking("b", labels={"n": 1})
    ((rule, message, rows),) = imported(spec, *[first] * 7, second, second)
    assert rule == "rows-differ"
    assert "`labels.n` is a number, and `labels.n` is a text: the importer takes one type (in `T-1`)" in message
    assert rows == (RowPlace("T-8", "$.labels.n"),)


def test_one_spelling_for_one_column(spec: ResolvedSpec) -> None:
    snake, camel = asking("a", tools=[{"google_search": {"x": 1}}]), asking("b", tools=[{"googleSearch": {"x": 1}}])
    ((rule, message, rows),) = imported(spec, snake, camel)
    assert rule == "rows-differ"
    assert "`tools[0].googleSearch` is `tools[0].google_search` elsewhere: they would be two columns" in message
    assert rows == (RowPlace("T-2", "$.tools[0].googleSearch"),)


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        ({"labels": {"a": None}}, "$.labels.a", "is null, and the importer of Vertex AI refuses nulls"),
        ({"tools": [{"googleSearch": {}}]}, "$.tools[0].googleSearch", "is empty"),
        ({"labels": {"1st": "x"}}, "$.labels.1st", "is no name that the importer of Vertex AI takes"),
        ({"labels": {"a b": "x"}}, "$.labels.a b", "is no name that the importer of Vertex AI takes"),
        ({"labels": {"Team": "x", "team": "y"}}, "$.labels.team", "differ in case only"),
        ({"labels": {"$ref": "x"}}, "$.labels.$ref", "fails the importer"),
    ],
)
def test_what_one_row_alone_makes_the_importer_fail(
    spec: ResolvedSpec, value: dict[str, Any], path: str, says: str
) -> None:
    ((rule, message, rows),) = imported(spec, asking("a"), asking("b", **value))
    assert (rule, rows) == ("vertex-refuses", (RowPlace("T-2", path),))
    assert says in message


def test_nesting(spec: ResolvedSpec) -> None:
    def nested(levels: int) -> dict[str, Any]:
        return {"a": nested(levels - 1)} if levels else {"end": 1}

    assert imported(spec, asking("a", labels=nested(10))) == []
    (found, *_) = imported(spec, asking("a"), asking("a", labels=nested(14)))
    assert "nested too deep: the importer takes 15 levels" in found[1]


def test_names_that_users_give_may_differ_in_style(spec: ResolvedSpec) -> None:
    schema = {"properties": {"first_name": {"type": "string"}, "firstName": {"type": "string"}}}
    assert imported(spec, asking("a", generationConfig={"responseJsonSchema": schema})) == []


def test_rows_of_one_form_are_judged_by_their_texts_alone(spec: ResolvedSpec) -> None:
    assert imported(spec, *[asking(f"text {i}", generationConfig={"seed": i}) for i in range(3_000)]) == []
