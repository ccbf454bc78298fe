"""Response schemas: what is sent, what is only validated, what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from spec_kit import Folder

from batchform.spec.resolved import ResolvedSpec
from batchform.spec.schemas import SUPPORTED, SchemaSource, check_schema, sendable
from batchform.spec.yaml_source import Document

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$comment": "for people",
    "type": "object",
    "properties": {"my_field": {"type": ["string", "null"], "$comment": "x"}, "$comment": {"type": "string"}},
    "required": ["my_field"],
    "propertyOrdering": ["my_field", "$comment"],
}
SENT = {
    "type": "object",
    "properties": {"my_field": {"type": ["string", "null"]}, "$comment": {"type": "string"}},
    "required": ["my_field"],
    "propertyOrdering": ["my_field", "$comment"],
}


def complaints(schema: dict[str, Any], *, sent: bool = True) -> list[str]:
    source = SchemaSource(schema, Document("a.json", schema), ())
    return [d.message for d in check_schema(source, sent=sent)]


def loaded(folder: Folder, more: str) -> ResolvedSpec:
    folder.spec(more)
    return folder.load().specs[0]


def test_a_schema_is_sent_as_json_schema_with_its_mime_type(folder: Folder) -> None:
    folder.write("schemas/a.json", json.dumps(SCHEMA))
    spec = loaded(folder, "generation_config: {response_schema: schemas/a.json}")
    assert spec.request_base["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SENT,
    }
    assert spec.response_schema == SENT
    assert spec.output_schema == SCHEMA
    assert spec.output_format == "json"


def test_inline_and_file_and_spelling_are_one_schema(folder: Folder) -> None:
    folder.write("schemas/a.json", json.dumps(SENT))
    folder.write("schemas/b.yaml", json.dumps(SENT))
    specs = [
        loaded(folder, f"generation_config: {{{name}: {value}}}")
        for name, value in [
            ("response_schema", "a.json"),
            ("responseJsonSchema", "schemas/b.yaml"),
            ("response_json_schema", json.dumps(SENT)),
        ]
    ]
    assert len({(s.schema_digest, s.config_digest, s.parse_digest) for s in specs}) == 1


def test_an_output_schema_is_validated_and_not_sent(folder: Folder) -> None:
    plain = loaded(folder, "generation_config: {response_schema: {type: object}}")
    more = "generation_config: {response_schema: {type: object}}\noutput: {schema: {type: object, minProperties: 1}}"
    own = loaded(folder, more)
    assert own.output_schema == {"type": "object", "minProperties": 1}
    assert own.schema_digest == plain.schema_digest
    assert own.parse_digest != plain.parse_digest


def test_enum_mime_type_is_read_as_text(folder: Folder) -> None:
    more = "generation_config: {response_mime_type: text/x.enum, response_schema: {type: string, enum: [a, b]}}"
    spec = loaded(folder, more)
    assert (spec.output_format, spec.output_schema) == ("text", None)


UNSUPPORTED = (
    "allOf not if then else const pattern minLength maxLength multipleOf exclusiveMinimum exclusiveMaximum uniqueItems"
    " contains minProperties maxProperties patternProperties propertyNames dependentRequired default examples nullable"
    " definitions readOnly deprecated unevaluatedProperties"
)


@pytest.mark.parametrize("keyword", UNSUPPORTED.split())
def test_unsupported_keywords_are_refused_by_name_and_path(keyword: str) -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "array", "items": {keyword: {}}}]}}}
    assert keyword not in SUPPORTED
    said = complaints(schema)
    assert (
        f"the service does not support `{keyword}` in a response schema at `$.properties.a.anyOf[0].items.{keyword}`"
        in said
    )


@pytest.mark.parametrize("keyword", UNSUPPORTED.split())
def test_a_property_may_be_called_like_a_keyword(keyword: str) -> None:
    assert complaints({"type": "object", "properties": {keyword: {"type": "string"}}, "$defs": {keyword: {}}}) == []


def node(required: list[str]) -> dict[str, Any]:
    return {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "required": required, "properties": {"next": {"$ref": "#/$defs/node"}}}},
    }


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"$ref": "other.json"}, "is in another file"),
        ({"items": {"$ref": "https://example.com/x#/a"}}, "is in another file"),
        ({"$schema": "https://example.com/dialect"}, "unknown dialect"),
        ({"$ref": "#/$defs/a", "type": "object", "$defs": {"a": {}}}, "beside $ref the service allows no `type`"),
        ({"$ref": "#/$defs/a"}, "does not exist"),
        ({"enum": ["a", None]}, "only texts and numbers"),
        ({"enum": [True]}, "only texts and numbers"),
        ({"type": "object", "required": ["a"]}, "which is not in `properties`"),
        ({"properties": {"a": {}}, "propertyOrdering": ["b"]}, "which is not in `properties`"),
        ({"items": True}, "wants a schema object here"),
        ({"minimum": "x"}, "not a valid JSON Schema"),
        ({"type": "INTEGER"}, "not a valid JSON Schema"),
        (node(["next"]), "contains itself"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "contains itself"),
        ({"anyOf": [{"$ref": "#"}]}, "contains itself"),
    ],
)
def test_refused(schema: dict[str, Any], part: str) -> None:
    said = complaints(schema)
    assert len(said) == 1
    assert part in said[0]


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        node([]),
        {"type": "object", "additionalProperties": False, "properties": {}},
        {
            "type": "array",
            "items": {"type": "number", "minimum": 0},
            "prefixItems": [{"type": "string"}],
            "maxItems": 3,
        },
        {"oneOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"enum": [1, 2.5, "x"]}}},
    ],
)
def test_allowed(schema: dict[str, Any]) -> None:
    assert complaints(schema) == []


def test_the_same_rules_do_not_hold_for_a_schema_that_is_not_sent() -> None:
    assert complaints({"type": "string", "pattern": "^a", "const": "a", "allOf": [True]}, sent=False) == []
    assert len(complaints({"type": "string", "pattern": "("}, sent=False)) == 1
    assert len(complaints({"$ref": "http://127.0.0.1:1/x"}, sent=False)) == 1


def test_many_references_are_walked_once() -> None:
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for i in range(1, 40):
        ref = {"$ref": f"#/$defs/d{i - 1}"}
        definitions[f"d{i}"] = {"type": "object", "properties": {"a": ref, "b": ref}, "required": ["a", "b"]}
    assert complaints({"$ref": "#/$defs/d39", "$defs": definitions}) == []


def test_sendable_leaves_names_and_enums_alone() -> None:
    assert sendable({"enum": ["$schema"], "properties": {"$schema": {"$schema": "x"}}}) == {
        "enum": ["$schema"],
        "properties": {"$schema": {}},
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"type": "object",}', "schemas/a.json:1:1"),
        (b'{"a": 1, "a": 2}', "schemas/a.json:1:10: error: `a` is given twice"),
        (b'{"minimum": NaN}', "NaN has no JSON form"),
        (b"[]", "holds one JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "byte order mark"),
        (b"\x00", "NUL"),
        (
            b'{\n "type": "object",\n "properties": {"a":\n\t{"pattern": "x"}}}',
            "schemas/a.json:4:3: error: the service does",
        ),
    ],
)
def test_bad_schema_files(folder: Folder, content: bytes, said: str) -> None:
    folder.write("schemas/a.json", content)
    folder.spec("generation_config: {response_schema: a.json}")
    assert said in folder.complaint()


def test_schema_roots(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret: Path = tmp_path_factory.mktemp("x") / "secret.json"
    secret.write_text("{}")
    folder.write("schemas/a.json", "{}")
    (folder.root / "schemas" / "link.json").symlink_to(secret)
    for name in ("../secret.json", str(secret), "link.json", "schemas/../../x.json"):
        folder.spec(f"generation_config: {{response_schema: {name}}}")
        assert " schema-outside]" in folder.complaint()
    folder.spec("generation_config: {response_schema: b.json}")
    assert "Did you mean `a.json`?" in folder.complaint()
