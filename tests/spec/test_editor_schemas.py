"""JSON Schemas for editors: committed, equal to the models, and of one mind with the loader.

`python tests/spec/test_editor_schemas.py` writes the committed files again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from spec_kit import PROJECT, SPEC

from batchform.spec.json_schema import project_schema, spec_schema

ROOT = Path(__file__).parents[2]
FILES = {"batchform.schema.json": project_schema, "spec.schema.json": spec_schema}


def text_of(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", FILES)
def test_committed_schemas_equal_the_models(name: str) -> None:
    committed = (ROOT / "schemas" / "editor" / name).read_text(encoding="utf-8")
    assert committed == text_of(FILES[name]()), "run: python tests/spec/test_editor_schemas.py"


@pytest.mark.parametrize("name", FILES)
def test_schemas_are_valid_and_describe_every_field(name: str) -> None:
    schema = FILES[name]()
    jsonschema_rs.meta.validate(schema)
    models = [schema, *(d for n, d in schema["$defs"].items() if n[0].isupper())]  # the others are the API's own
    undescribed = [
        f"{model.get('title')}.{field}"
        for model in models
        for field, about in model["properties"].items()
        if "description" not in about and "$ref" not in about
    ]
    assert undescribed == []


def test_schemas_take_what_the_loader_takes() -> None:
    jsonschema_rs.validate(project_schema(), yaml.safe_load(PROJECT))
    jsonschema_rs.validate(spec_schema(), yaml.safe_load(SPEC))
    demo = yaml.safe_load((ROOT / "batchform.yaml").read_text(encoding="utf-8"))
    jsonschema_rs.validate(project_schema(), demo)
    for path in sorted((ROOT / "specs").glob("*.yaml")):
        jsonschema_rs.validate(spec_schema(), yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        {"modle": "x"},
        {"generation_config": {"temprature": 1}},
        {"generation_config": {"thinkingConfig": {"thinkingLevel": "huge"}}},
        {"source": {"type": "cvs", "path": "a"}},
        {"safety_settings": [{"categry": "x"}]},
        {"tolerate_failed": 2},
    ],
)
def test_schemas_refuse_what_the_loader_refuses(change: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(spec_schema(), {**yaml.safe_load(SPEC), **change})


if __name__ == "__main__":
    for file, make in FILES.items():
        (ROOT / "schemas" / "editor" / file).write_text(text_of(make()), encoding="utf-8")
