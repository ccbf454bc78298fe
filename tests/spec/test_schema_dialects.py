"""One schema in the three forms that are sent: each accepts the same answers, or is refused by name."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_kit import PROJECT, Folder

from batchform.emulator import schemas as emulated
from batchform.emulator import strict
from batchform.emulator.draw import Draw
from batchform.spec.dialect import check_sent, inlined, written
from batchform.spec.schemas import SchemaSource
from batchform.spec.yaml_source import Document
from examples_kit import examples

ADDRESS = {
    "type": "object",
    "description": "Where somebody lives.",
    "properties": {"street": {"type": "string"}, "town": {"type": ["string", "null"], "maxLength": 40}},
    "required": ["street"],
}
ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "state": {"type": "string", "enum": ["open", "closed"]},
        "to": {"$ref": "#/$defs/address"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
    },
    "required": ["state", "to"],
    "$defs": {
        "address": ADDRESS,
        "line": {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"$ref": "#/$defs/address"}, {"type": "null"}]},
    },
}


def openapi(schema: dict[str, Any]) -> dict[str, Any]:
    sent, problems = written(schema, "openapi", importer=False)
    assert (sent.field, problems) == ("responseSchema", [])
    return sent.schema


def complaints(schema: dict[str, Any], dialect: Any = "openapi", *, importer: bool = False) -> list[str]:
    source = SchemaSource(schema, Document("a.json", schema), ())
    return [d.message for d in check_sent(source, dialect, importer=importer)[1]]


def test_the_openapi_dialect_of_a_schema() -> None:
    address = {
        "type": "OBJECT",
        "description": "Where somebody lives.",
        "properties": {"street": {"type": "STRING"}, "town": {"type": "STRING", "nullable": True, "maxLength": 40}},
        "propertyOrdering": ["street", "town"],
        "required": ["street"],
    }
    assert openapi(ORDER) == {
        "type": "OBJECT",
        "properties": {
            "state": {"type": "STRING", "format": "enum", "enum": ["open", "closed"]},
            "to": address,
            "lines": {
                "type": "ARRAY",
                "minItems": 1,
                "items": {"anyOf": [{"type": "INTEGER", "minimum": 1}, address], "nullable": True},
            },
        },
        "propertyOrdering": ["state", "to", "lines"],
        "required": ["state", "to"],
    }


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        ({"type": ["null"]}, {"type": "NULL"}),
        ({"type": "string", "const": "a"}, {"type": "STRING", "format": "enum", "enum": ["a"]}),
        ({"enum": ["a"]}, {"type": "STRING", "format": "enum", "enum": ["a"]}),
        ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
        (
            {"type": ["string", "integer"], "maxLength": 3, "maximum": 9, "title": "T"},
            {"title": "T", "anyOf": [{"type": "STRING", "maxLength": 3}, {"type": "INTEGER", "maximum": 9}]},
        ),
        (
            {"anyOf": [{"type": "string", "description": "a"}, {"type": "null"}], "description": "b", "default": None},
            {"type": "STRING", "description": "b", "nullable": True},
        ),
        ({"oneOf": [{"type": "string"}]}, {"type": "STRING"}),
        ({"allOf": [{"type": "string"}], "title": "T"}, {"type": "STRING", "title": "T"}),
        (
            {"type": "integer", "exclusiveMaximum": 5, "maximum": 7, "minimum": 1},
            {"type": "INTEGER", "maximum": 4, "minimum": 1},
        ),
        ({"type": "object", "additionalProperties": False}, {"type": "OBJECT"}),
        ({"type": "array", "items": {"type": "string"}}, {"type": "ARRAY", "items": {"type": "STRING"}}),
    ],
)
def test_translations(schema: dict[str, Any], sent: dict[str, Any]) -> None:
    assert openapi(schema) == sent


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({}, "the OpenAPI dialect wants a `type`"),
        ({"type": "object", "properties": {"a": True}}, "wants a schema object here, not true or false at `$.prop"),
        ({"type": "integer", "enum": [1, 2]}, "has `enum` for texts only at `$.enum`"),
        ({"type": "boolean", "const": True}, "has `const` for texts only at `$.const`"),
        ({"type": "number", "exclusiveMinimum": 0}, "does not have `exclusiveMinimum` for numbers"),
        ({"type": "number", "multipleOf": 2}, "does not have `multipleOf` at `$.multipleOf`"),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, "does not have `prefixItems` at `$.prefixItems`"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "has no properties of free names"),
        ({"type": "object", "anyOf": [{"type": "object"}]}, "has nothing beside `anyOf` at `$.type`"),
        ({"allOf": [{"type": "string"}, {"maxLength": 1}]}, "does not have `allOf` at `$.allOf`"),
        ({"type": "object", "required": ["a"]}, "`required` names `a`, which is not in `properties`"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "`#` contains itself, and cannot be written out"),
        ({"$ref": "#x", "$defs": {"a": {"$anchor": "x", "type": "string"}}}, "`#x` cannot be written out"),
    ],
)
def test_what_the_openapi_dialect_lacks_is_refused_by_name(schema: dict[str, Any], said: str) -> None:
    found = complaints(schema)
    assert len(found) == 1
    assert said in found[0]


def test_references_are_written_out_up_to_a_size() -> None:
    names = [f"n{i}" for i in range(20)]
    pair = [{"type": "array", "prefixItems": [{"$ref": f"#/$defs/{n}"}] * 2} for n in names[1:]]
    bomb = {"$ref": "#/$defs/n0", "$defs": dict(zip(names, [*pair, {"type": "string"}], strict=True))}
    problems = inlined(bomb)[1]
    assert [p[1] for p in problems] == ["written out without references it has more than 5,000 parts"]


# --- which form is sent ----------------------------------------------------------------------------------------------

CLOUD = "defaults: {backend: v, model: gemini-3.5-flash-lite}\nbackends: {v: {type: emulator, cloud: vertex%s}}\n"


def config(folder: Folder, schema: dict[str, Any], more: str = "", cloud: str | None = None) -> dict[str, Any]:
    """The generationConfig that is sent. cloud: settings of a Vertex backend, None for the Gemini API."""
    if cloud is not None:
        folder.write("batchform.yaml", "version: 1\nproject: demo\n" + CLOUD % cloud)
    folder.spec(f"generation_config: {{response_schema: {json.dumps(schema)}}}\n{more}")
    spec = folder.load().specs[0]
    assert spec.output_schema == schema
    found = dict(spec.request_base["generationConfig"])
    assert found.pop("responseMimeType") == "application/json"
    return found


PLAIN = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
POINTS = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}
MIXED = {"type": "object", "properties": {"a": {"anyOf": [{"type": "integer"}, {"type": ["string", "null"]}]}}}
NULLABLE = {"anyOf": [{"type": "INTEGER"}, {"type": "STRING", "nullable": True}]}


def test_the_gemini_api_takes_a_schema_as_it_is(folder: Folder) -> None:
    for schema in (PLAIN, POINTS, MIXED):
        assert config(folder, schema) == {"responseJsonSchema": schema}


def test_what_the_importer_of_vertex_takes(folder: Folder) -> None:
    flat = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert config(folder, PLAIN, cloud="") == {"responseJsonSchema": PLAIN}
    assert config(folder, POINTS, cloud="") == {"responseJsonSchema": flat}
    assert config(folder, MIXED, cloud="")["responseSchema"]["properties"] == {"a": NULLABLE}
    assert config(folder, MIXED, cloud=", via: bigquery") == {"responseJsonSchema": MIXED}


def test_a_dialect_that_is_asked_for(folder: Folder) -> None:
    flat = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert config(folder, POINTS, "schema_dialect: inlined") == {"responseJsonSchema": flat}
    assert config(folder, POINTS, "schema_dialect: json_schema") == {"responseJsonSchema": POINTS}
    sent = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "propertyOrdering": ["a"]}
    assert config(folder, POINTS, "schema_dialect: openapi") == {"responseSchema": sent}
    assert config(folder, POINTS, "schema_dialect: openapi", cloud="") == {"responseSchema": sent}


def test_complaints_name_file_line_and_column(folder: Folder) -> None:
    schema = '{\n  "type": "object",\n  "properties": {\n    "a": {"$ref": "#/$defs/b"}\n  },\n  "$defs": {\n'
    folder.write("schemas/a.json", schema + '    "b": {"type": "number", "multipleOf": 2}\n  }\n}')
    folder.spec("generation_config: {response_schema: a.json}\nschema_dialect: openapi")
    said = folder.complaint()
    assert "schemas/a.json:7:29" in said
    assert "the OpenAPI dialect does not have `multipleOf` at `$.$defs.b.multipleOf`" in said


def test_a_dialect_without_a_schema_is_refused(folder: Folder) -> None:
    folder.spec("schema_dialect: openapi")
    assert "`schema_dialect` says how a response schema is sent, and there is none" in folder.complaint()
    assert PROJECT in (folder.root / "batchform.yaml").read_text()


# --- the law ---------------------------------------------------------------------------------------------------------

_names = st.sampled_from("abc")
_small = st.integers(0, 4)


def _maybe(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _typed(kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.sampled_from([kind, [kind, "null"]])
    return st.tuples(kinds, _maybe(description=st.just("d"), **fields)).map(lambda t: {"type": t[0], **t[1]})


_scalars = st.one_of(
    _typed("string", minLength=_small, maxLength=_small, pattern=st.sampled_from(["^a", "b$"])),
    _typed("string", enum=st.lists(st.sampled_from(["a", "ab", ""]), min_size=1, unique=True)),
    _typed("string", const=st.sampled_from(["a", "ab"])),
    _typed("integer", minimum=_small, maximum=_small, exclusiveMinimum=_small, exclusiveMaximum=_small),
    _typed("number", minimum=_small, maximum=_small),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": ["string", "integer"], "maximum": 2, "maxLength": 1}),
    st.just({"$ref": "#/$defs/shared"}),
)


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def with_required(node: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        names = list(node.get("properties", {}))
        some = st.lists(st.sampled_from(names), unique=True) if names else st.just([])
        return some.map(lambda required: {**node, "required": required})

    return st.one_of(
        _typed("array", items=inner, minItems=_small, maxItems=_small),
        _typed("object", properties=st.dictionaries(_names, inner, max_size=3), maxProperties=_small).flatmap(
            with_required
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts, "description": "any"}),
        inner.map(lambda part: {"allOf": [part], "title": "one"}),
    )


_schemas = st.tuples(st.recursive(_scalars, _nested, max_leaves=6), _scalars.filter(lambda s: "$ref" not in s)).map(
    lambda t: {**t[0], "$defs": {"shared": t[1]}}
)
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 5), st.sampled_from([0.5, 1.5]), st.text("ab", max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=examples(300), deadline=None)
@given(schema=_schemas, values=st.lists(_values, min_size=5, max_size=15))
def test_every_form_accepts_the_same_answers(schema: dict[str, Any], values: list[Any]) -> None:
    sent = openapi(schema)
    raw = json.dumps(sent).encode()
    read = strict.read("Schema", raw)  # as the service does
    types.Schema.model_validate(sent)  # as Google's client does
    flat, problems = inlined(schema)
    assert problems == []
    original = jsonschema_rs.validator_for(schema)
    forms = [jsonschema_rs.validator_for(f) for f in (flat, emulated.as_json_schema(read))]
    drawn = emulated.maker({"responseSchema": read})
    answers = [*values, *([drawn(Draw("x"))] if drawn else [])]
    for value in answers:
        assert {f.is_valid(value) for f in forms} == {original.is_valid(value)}, value
