"""Few-shot examples from a file: turns before the row's own, exactly as they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from spec_kit import Folder

from batchform.errors import InvalidProject
from batchform.rows.request import RequestRenderer


@pytest.fixture
def shots(folder: Folder) -> Folder:
    folder.spec("prompt: {examples: {path: data/shots.jsonl}, user: triage.j2}", without="prompt")
    return folder


def _contents(folder: Folder) -> list[tuple[str, str]]:
    """(role, text) of each turn of a row's request."""
    (spec,) = folder.load().specs
    request = json.loads(RequestRenderer(spec, ("subject",)).render("k", ("Help",)))
    return [(turn["role"], turn["parts"][0]["text"]) for turn in request["contents"]]


ROW = ("user", "Ticket: Help")


def test_each_record_is_two_turns_before_the_row(shots: Folder) -> None:
    first, second = '{"user": "It is broken", "model": "bug"}', '{"user": "Thanks!", "model": "praise"}'
    shots.write("data/shots.jsonl", f"{first}\n\n{second}\n")
    assert _contents(shots) == [
        ("user", "It is broken"), ("model", "bug"), ("user", "Thanks!"), ("model", "praise"), ROW,
    ]  # fmt: skip


def test_what_an_example_says_is_no_template(shots: Folder) -> None:
    text = '{{ subject }} {% if %} }} {# no comment #} \U0001f600 "quoted" \\ \n end'
    shots.write("data/shots.jsonl", json.dumps({"user": text, "model": text}))
    assert _contents(shots)[:2] == [("user", text), ("model", text)]


def test_an_answer_that_is_no_text_is_sent_as_json(shots: Folder) -> None:
    shots.write("data/shots.jsonl", '{"user": "x", "model": {"label": "bug", "sure": true}}')
    assert json.loads(_contents(shots)[1][1]) == {"label": "bug", "sure": True}


def test_yaml_and_templates_of_their_own(folder: Folder) -> None:
    folder.write("templates/shot.j2", "Ticket: {{ subject }}")
    lost, lines = "{subject: Lost, answer: bug}", '{subject: "Two\\nlines\\n", answer: idea}'
    folder.write("data/shots.yaml", f"examples:\n- {lost}\n- {lines}\n")
    folder.spec(
        "prompt: {examples: {path: data/shots.yaml, user: shot.j2, model: {text: '{{ answer }}'}}, "
        "messages: [{role: user, content: {text: Hello}}, {role: model, content: {text: Hello}}], user: triage.j2}",
        without="prompt",
    )
    assert [text for _, text in _contents(folder)] == [
        "Ticket: Lost", "bug", "Ticket: Two\nlines\n", "idea", "Hello", "Hello", "Ticket: Help",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "place", "complaint"),
    [
        ('{"user": "x", "model": "y"}\n{"user": "x"}\n', "data/shots.jsonl:2:1", "has no model turn"),
        ('{"user": " ", "model": "y"}\n', "data/shots.jsonl:1:1", "the user turn of this example is empty"),
        ('{"user": "x", "model": "y"}\n{"user": ', "data/shots.jsonl:2:1", "this line is not JSON"),
        ("[1, 2]\n", "data/shots.jsonl:1:1", "an example is an object with fields"),
        ("\n", "data/shots.jsonl", "the file has no examples"),
    ],
)
def test_what_is_no_example_is_refused_with_its_line(shots: Folder, text: str, place: str, complaint: str) -> None:
    shots.write("data/shots.jsonl", text)
    with pytest.raises(InvalidProject) as refused:
        shots.load()
    assert f"{place}: error: " in refused.value.render()
    assert complaint in refused.value.render()
    assert "[BF314 wrong-example]" in refused.value.render()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("../shots.jsonl", "is outside the project"),
        ("/etc/passwd", "is outside the project"),
        ("data/none.jsonl", "the file does not exist"),
    ],
)
def test_the_file_is_one_of_the_project(folder: Folder, path: str, complaint: str) -> None:
    folder.spec(f"prompt: {{examples: {{path: {path}}}, user: triage.j2}}", without="prompt")
    assert complaint in folder.complaint()


def test_all_complaints_come_at_once(shots: Folder) -> None:
    shots.write("data/shots.jsonl", "3\n{}\n")
    with pytest.raises(InvalidProject) as refused:
        shots.load()
    found: list[Any] = [d.place.line for d in refused.value.diagnostics]
    assert found == [1, 2, 2]
