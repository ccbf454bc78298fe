"""Pydantic classes as response schemas: what is imported, what counts of a class, what is said when it cannot be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from spec_kit import PROJECT, Folder

from batchform.spec.resolved import ResolvedSpec

TICKET = '''
from typing import Literal
from pydantic import BaseModel, Field

class Person(BaseModel):
    """Who wrote it."""
    name: str = Field(description="As signed.")
    age: int | None = Field(None, gt=0)

class Ticket(BaseModel):
    """One ticket, sorted."""
    state: Literal["open", "closed"]
    kind: Literal["bug"] = "bug"
    people: list[Person] = []
'''
SENT: dict[str, Any] = {
    "type": "object",
    "description": "One ticket, sorted.",
    "properties": {
        "state": {"type": "string", "enum": ["open", "closed"]},
        "kind": {"type": "string", "enum": ["bug"]},
        "people": {
            "type": "array",
            "items": {
                "type": "object",
                "description": "Who wrote it.",
                "properties": {
                    "name": {"type": "string", "description": "As signed."},
                    "age": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
                },
                "propertyOrdering": ["name", "age"],
                "required": ["name"],
            },
        },
    },
    "propertyOrdering": ["state", "kind", "people"],
    "required": ["state"],
}

FIELD = "from pydantic import BaseModel, Field\nclass T(BaseModel):\n    a: %s\n"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("bf_models", "bf_other"):
            del sys.modules[name]


def write(
    folder: Folder, code: str, *, name: str = "bf_models:Ticket", listed: str = "bf_models", more: str = ""
) -> None:
    folder.write("batchform.yaml", f"{PROJECT}allow_imports: [{listed}]\n")
    folder.write(f"{name.partition(':')[0].replace('.', '/')}.py", code)
    folder.spec(f"generation_config: {{response_schema: {{python: '{name}'}}}}\n{more}")


def load(folder: Folder) -> ResolvedSpec:
    path = list(sys.path)
    spec = folder.load().specs[0]
    assert sys.path == path
    return spec


def test_the_schema_of_a_class(folder: Folder) -> None:
    write(folder, TICKET)
    spec = load(folder)
    assert spec.request_base["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SENT,
    }
    assert list(spec.request_base["generationConfig"]["responseJsonSchema"]["properties"]) == [
        "state",
        "kind",
        "people",
    ]
    assert spec.output_schema == SENT
    assert spec.classes == {"bf_models:Ticket": SENT}


def test_a_class_may_change_and_its_schema_not(folder: Folder) -> None:
    write(folder, TICKET)
    first = load(folder)
    moved = TICKET.replace("Person", "Human").replace("class Ticket(BaseModel)", "class Base(BaseModel)")
    moved += "\nclass Sorted(Base):\n    '''One ticket, sorted.'''\n"
    write(folder, moved, name="bf_other.deep:Sorted", listed="bf_other.deep")
    other = load(folder)
    for name in ("schema_digest", "config_digest", "parse_digest", "prompt_digest"):
        assert getattr(first, name) == getattr(other, name)
    folder.write("schemas/a.json", json.dumps(SENT))
    folder.spec("generation_config: {response_schema: a.json}")
    assert load(folder).spec_digest == first.spec_digest


def test_another_description_is_another_schema(folder: Folder) -> None:
    write(folder, TICKET)
    first = load(folder)
    write(folder, TICKET.replace("As signed", "In full"), name="bf_other:Ticket", listed="bf_other")
    assert load(folder).schema_digest != first.schema_digest


def test_a_class_in_the_openapi_dialect_keeps_its_bounds(folder: Folder) -> None:
    code = FIELD % "str | None = Field(max_length=3, pattern='^x')"
    write(folder, code, name="bf_models:T", more="schema_dialect: openapi")
    assert load(folder).request_base["generationConfig"]["responseSchema"] == {
        "type": "OBJECT",
        "properties": {"a": {"type": "STRING", "maxLength": 3, "pattern": "^x", "nullable": True}},
        "propertyOrdering": ["a"],
        "required": ["a"],
    }


def test_a_class_may_judge_answers_only(folder: Folder) -> None:
    code = FIELD % "str = Field(min_length=3)"
    write(folder, code)
    folder.spec("output: {schema: {python: 'bf_models:T'}}\ngeneration_config: {response_mime_type: application/json}")
    spec = load(folder)
    assert spec.response_schema is None
    assert (spec.output_schema or {})["properties"] == {"a": {"type": "string", "minLength": 3}}


def test_a_class_that_contains_itself_keeps_its_references(folder: Folder) -> None:
    code = "from pydantic import BaseModel\nclass T(BaseModel):\n    more: list['T'] = []\n"
    write(folder, code, name="bf_models:T")
    sent = load(folder).request_base["generationConfig"]["responseJsonSchema"]
    assert sent["$ref"] == "#/$defs/T"
    assert sent["$defs"]["T"]["properties"]["more"]["items"] == {"$ref": "#/$defs/T"}


NO_CLASS = "from pydantic import BaseModel\nclass Ticket(BaseModel): pass\nclass Plain: pass\nvalue = 1\n"


@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        (TICKET, "bf_models", "`bf_models` names no class"),
        (TICKET, "bf_models:", "`bf_models:` names no class"),
        (TICKET, "os:path", "`os` may not be imported: the project does not list it"),
        (NO_CLASS, "bf_models:Tickt", "`bf_models` has no class `Tickt`"),
        (NO_CLASS, "bf_models:Tickt", "Did you mean `Ticket`?"),
        (NO_CLASS, "bf_models:Plain", "`bf_models:Plain` is no Pydantic class"),
        (NO_CLASS, "bf_models:value", "`bf_models:value` is no Pydantic class"),
        (
            "import nowhere_at_all",
            "bf_models:T",
            "importing `bf_models` failed: ModuleNotFoundError: ",
        ),
        ("raise SystemExit(3)", "bf_models:T", "importing `bf_models` failed: SystemExit: 3"),
        ("x = (", "bf_models:T", "importing `bf_models` failed: SyntaxError"),
        (
            "from collections.abc import Callable\n" + FIELD % "Callable[[], int]",
            "bf_models:T",
            "`bf_models:T` has no JSON Schema",
        ),
        (
            FIELD % "str = Field(min_length=3)",
            "bf_models:T",
            "the service does not support `minLength` in a response schema at `$.properties.a.minLength`",
        ),
    ],
)
def test_what_cannot_be_a_schema(folder: Folder, code: str, name: str, said: str) -> None:
    write(folder, code)
    folder.spec(f"generation_config: {{response_schema: {{python: '{name}'}}}}")
    complaint = folder.complaint()
    assert said in complaint
    assert "specs/triage.yaml:6:" in complaint
    assert "Traceback" not in complaint


def test_what_a_module_prints_is_no_output(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "print('hello')\n" + TICKET)
    load(folder)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
