"""Few-shot examples from a file: each record is a question and the answer that is wanted, two turns before the row's.

They are the same for every row, so they are rendered when the spec is read; a record is to their templates what a row
is to the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.canon import digest_of
from batchform.errors import Diagnostic, Place
from batchform.spec.resolved import Turn
from batchform.spec.template_errors import explain_render_error
from batchform.spec.templates import CompiledTemplate
from batchform.spec.wording import shown
from batchform.spec.yaml_source import MAX_BYTES, parse_yaml, read_text

LIST: Final = "examples"
"""The only field of a YAML file of examples."""


class Literal:
    """A turn that is what it is: no template, whatever braces it holds. A resolved.Template."""

    def __init__(self, text: str, at: Place) -> None:
        self.name = str(at)
        self.digest = digest_of("example", text)
        self.columns: frozenset[str] | None = frozenset()
        self.parts = (("text", text),)
        self._text = text
        self._at = at

    def render(self, values: Mapping[str, Any]) -> str:  # noqa: ARG002  (it reads no row)
        return self._text

    def where(self, column: str) -> Place:  # noqa: ARG002  (it reads no column)
        return self._at

    def place(self, jinja_name: str | None, line: int) -> Place:  # noqa: ARG002  (it has no lines of its own)
        return self._at


def example_turns(
    file: Path, shown_path: str, *, user: CompiledTemplate, model: CompiledTemplate
) -> tuple[tuple[Turn, ...], list[Diagnostic]]:
    """The turns of all examples in a file, and complaints. user, model: made of a record's fields."""
    records, problems = _records(file, shown_path)
    turns: list[Turn] = []
    for place, record in records:
        for role, template in (("user", user), ("model", model)):
            try:
                text = template.render(record)
            except Exception as exc:  # noqa: BLE001  (whatever a template can raise)
                error = explain_render_error(template, exc, "", tuple(record))
                what = error.message.removeprefix("the template cannot be rendered: ")
                message = f"this example has no {role} turn: {what}"
                problems.append(Diagnostic("wrong-example", message, place, error.hint))
                continue
            if not text.strip():
                problems.append(Diagnostic("wrong-example", f"the {role} turn of this example is empty", place))
            turns.append(Turn(role, Literal(text, place)))
    if not records and not problems:
        hint = "Write one, or remove `examples:`."
        problems.append(Diagnostic("wrong-example", "the file has no examples", Place(shown_path), hint))
    return tuple(turns), problems


def _records(file: Path, shown_path: str) -> tuple[list[tuple[Place, dict[str, Any]]], list[Diagnostic]]:
    """Each record with its place; complaints about what is no record."""
    text = read_text(file, shown_path, limit=MAX_BYTES)
    if isinstance(text, Diagnostic):
        return [], [text]
    if file.suffix == ".jsonl":
        found, problems = _of_lines(text, shown_path)
    else:
        document, problems = parse_yaml(text, shown_path)
        if document is None or problems:
            return [], problems
        listed = document.get(LIST)
        if not isinstance(listed, list) or len(document.value) > 1:
            message = f"the file must hold `{LIST}:`, a list, and nothing else"
            return [], [Diagnostic("wrong-example", message, document.place())]
        found = [(document.place(LIST, i), value) for i, value in enumerate(listed)]
    records = []
    for place, value in found:
        if isinstance(value, dict):
            records.append((place, value))
        else:
            message = f"an example is an object with fields, and this is `{shown(value)}`"
            problems.append(Diagnostic("wrong-example", message, place))
    return records, problems


def _of_lines(text: str, shown_path: str) -> tuple[list[tuple[Place, Any]], list[Diagnostic]]:
    found, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        place = Place(shown_path, number, 1)
        if not line.strip():
            continue
        try:
            found.append((place, msgspec.json.decode(line)))
        except (ValueError, RecursionError) as exc:
            problems.append(Diagnostic("wrong-example", f"this line is not JSON: {shown(exc, 160)}", place))
    return found, problems
