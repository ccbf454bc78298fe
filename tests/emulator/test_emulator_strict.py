"""What the emulator refuses, as tables. Each row is one fault in an otherwise good request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from emulator_kit import MODEL, Batches, request_of
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer, grammar

GOOD = request_of("hello")
JSON = {"responseMimeType": "application/json"}

REFUSED = {
    "number beyond a double": (
        request_of("x", **JSON, responseJsonSchema={"type": "integer", "maximum": 10**400}),
        "too large for a double",
    ),
    "flattened config": ({**GOOD, "temperature": 1}, "no such field: 'temperature'"),
    "thinkingConfig outside": ({**GOOD, "thinking_config": {}}, "no such field: 'thinking_config'"),
    "unknown in content": ({"contents": [{"parts": [{"text": "x"}], "name": "n"}]}, "no such field: 'name'"),
    "unknown in part": ({"contents": [{"parts": [{"txt": "x"}]}]}, "no such field: 'txt'"),
    "unknown in schema": (
        request_of("x", **JSON, responseSchema={"type": "OBJECT", "additionalProperties": False}),
        "no such field: 'additionalProperties'",
    ),
    "system as text": ({**GOOD, "systemInstruction": "be brief"}, "request.system_instruction"),
    "text as number": ({"contents": [{"parts": [{"text": 1}]}]}, r"text' \(TYPE_STRING\), 1"),
    "contents as object": ({"contents": {"parts": [{"text": "x"}]}}, "request.contents"),
    "fractional tokens": (request_of("x", maxOutputTokens=1.5), "max_output_tokens"),
    "no such enum": (request_of("x", thinkingConfig={"thinkingLevel": "SOME"}), "thinking_level"),
    "both spellings": (request_of("x", topP=1, top_p=1), "Multiple values"),
    "bad base64": (
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "a*b"}}]}]},
        "TYPE_BYTES",
    ),
    "no contents": ({}, "contents is not specified"),
    "empty contents": ({"contents": []}, "contents is not specified"),
    "no parts": ({"contents": [{"role": "user", "parts": []}]}, "parts must not be empty"),
    "empty part": ({"contents": [{"parts": [{}]}]}, "must have one initialized field"),
    "two kinds in a part": (
        {"contents": [{"parts": [{"text": "x", "fileData": {"fileUri": "files/a"}}]}]},
        "oneof field 'data' is already set",
    ),
    "bad role": ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role: user, model"),
    "other model": ({**GOOD, "model": "models/gemini-2.5-pro"}, "request says models/gemini-2.5-pro"),
    "what a cache holds": (
        {**GOOD, "cachedContent": "cachedContents/x", "systemInstruction": {"parts": [{"text": "x"}]}},
        "CachedContent can not be used with GenerateContent request setting system_instruction",
    ),
    "hot": (request_of("x", temperature=2.1), "temperature"),
    "no tokens": (request_of("x", maxOutputTokens=0), "max_output_tokens"),
    "too many tokens": (request_of("x", maxOutputTokens=65537), r"range \[1, 65536\]"),
    "nine candidates": (request_of("x", candidateCount=9), "candidate_count"),
    "six stops": (request_of("x", stopSequences=list("abcdef")), "at most 5"),
    "level and budget": (
        request_of("x", thinkingConfig={"thinkingLevel": "LOW", "thinkingBudget": 1}),
        "only one of thinking budget and thinking level",
    ),
    "two schemas": (
        request_of("x", **JSON, responseSchema={"type": "STRING"}, responseJsonSchema={"type": "string"}),
        "Only one of response_schema and response_json_schema",
    ),
    "schema for text": (request_of("x", responseJsonSchema={"type": "string"}), "needs responseMimeType"),
    "mime": (request_of("x", responseMimeType="text/html"), "allowed mimetypes are"),
    "schema is no schema": (request_of("x", **JSON, responseJsonSchema={"type": "strin"}), "not a JSON Schema"),
    "reference to nowhere": (
        request_of("x", **JSON, responseJsonSchema={"$ref": "#/$defs/x"}),
        "'#/\\$defs/x' leads nowhere",
    ),
    "endless": (
        request_of(
            "x",
            **JSON,
            responseJsonSchema={"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        ),
        "no finite value",
    ),
    "contradiction": (
        request_of("x", **JSON, responseJsonSchema={"type": "integer", "minimum": 2, "maximum": 1}),
        "no finite value",
    ),
}

ACCEPTED = {
    "many digits": request_of("7" * 400, **JSON, responseJsonSchema={"type": "integer", "maximum": 10**307}),
    "snake case": {
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": "__sAPj4-Pz8_"}}]}],
        "system_instruction": {"parts": [{"text": "brief"}]},
        "generation_config": {
            "max_output_tokens": "9",
            "thinking_config": {"thinking_level": "low", "include_thoughts": None},
            "response_modalities": ["TEXT"],
        },
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": 3}],
        "tool_config": {"function_calling_config": {"mode": "AUTO"}},
    },
    "tools": {
        **GOOD,
        "tools": [
            {"googleSearch": {}},
            {"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]},
        ],
        "toolConfig": {"includeServerSideToolInvocations": True},
    },
    "lower-case types": request_of(
        "x", **JSON, responseSchema={"type": "object", "properties": {"a": {"type": "string"}}}
    ),
    "a conversation": {
        "contents": [
            {"role": "user", "parts": [{"text": "call it"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": [1, {"b": None}]}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"ok": True}}}]},
        ]
    },
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmulatorServer(tmp_path_factory.mktemp("strict")) as server:
        yield server.url


@pytest.fixture
def http(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, headers={"x-goog-api-key": "k"}) as made:
        yield made


def create(client: genai.Client, folder: Path, *lines: Any, model: str = MODEL) -> None:
    path = folder / "in.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    file = client.files.upload(file=path, config={"mime_type": "jsonl"})
    client.batches.create(model=model, src=file.name)


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_line_is_refused_at_create_with_its_number(
    url: str, connect: Callable[..., genai.Client], tmp_path: Path, name: str
) -> None:
    request, message = REFUSED[name]
    with pytest.raises(errors.ClientError, match=message) as e:
        create(connect(url), tmp_path, {"key": "a", "request": GOOD}, {"key": "b", "request": request})
    assert e.value.code in (400, 403)
    assert e.value.message.startswith("Error on line 2: ")


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_request_is_refused_by_the_synchronous_call_too(http: httpx2.Client, name: str) -> None:
    answer = http.post(f"/v1/models/{MODEL}:generateContent", json=REFUSED[name][0])
    assert answer.status_code in (400, 403)
    assert answer.json()["error"]["status"] in ("INVALID_ARGUMENT", "PERMISSION_DENIED")


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_the_service_takes_is_taken_everywhere(
    url: str, http: httpx2.Client, connect: Callable[..., genai.Client], tmp_path: Path, name: str
) -> None:
    create(connect(url), tmp_path, {"key": "a", "request": ACCEPTED[name]})
    item = {"request": ACCEPTED[name], "metadata": {"key": "a"}}
    body = {"batch": {"inputConfig": {"requests": {"requests": [item]}}}}
    assert http.post(f"/v1/models/{MODEL}:batchGenerateContent", json=body).status_code == 200
    assert http.post(f"/v1/models/{MODEL}:generateContent", json=ACCEPTED[name]).status_code == 200


def test_an_unknown_field_is_named_as_the_service_names_it(
    url: str, http: httpx2.Client, connect: Callable[..., genai.Client], tmp_path: Path
) -> None:
    line = '{"key":"é","request":{"contents":[{"parts":[{"text":"x"}]}],"thinking_config":{}}}'
    with pytest.raises(errors.ClientError) as e:
        create(connect(url), tmp_path, line)
    column = line.index('"thinking_config"') + 1
    expected = f"Error on line 1: invalid JSON, near column {column}: no such field: 'thinking_config'"
    assert e.value.message == expected
    answer = http.post(f"/v1/models/{MODEL}:generateContent", json=request_of("x", temprature=1))
    error = answer.json()["error"]
    message = "Invalid JSON payload received. Unknown name \"temprature\" at 'generation_config': Cannot find field."
    assert (error["code"], error["message"], error["status"]) == (400, message, "INVALID_ARGUMENT")
    assert error["details"][0]["fieldViolations"][0]["field"] == "generation_config"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no requests"),
        (["", "  "], "no requests"),
        (["{"], "Error on line 1: invalid JSON"),
        (['["key"]'], "Error on line 1: invalid JSON"),
        (['{"key":' + "[" * 100_000 + "]" * 100_000 + "}"], "nested too deeply"),
        ([{"key": "k"}], "request is not specified"),
        ([GOOD], "no such field: 'contents'"),
        ([{"key": 1, "request": GOOD}], "Invalid value at 'key'"),
        ([{"key": "k", "request": GOOD, "metadata": {}}], "no such field: 'metadata'"),
    ],
)
def test_a_faulty_file_is_refused(
    url: str, connect: Callable[..., genai.Client], tmp_path: Path, lines: list[Any], message: str
) -> None:
    with pytest.raises(errors.ClientError, match=message) as e:
        create(connect(url), tmp_path, *lines)
    assert e.value.code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"\xff",
        b'{"contents":[{"parts":[{"text":"\\ud800"}]}]}',
        b'{"generationConfig":{"temperature":1e999}}',
        b'{"generationConfig":{"temperature":"nan"}}',
        b'{"generationConfig":{"seed":' + b"9" * 5000 + b"}}",
        b"[" * 100_000,
    ],
)
def test_hostile_bodies_are_refused_in_order(http: httpx2.Client, body: bytes) -> None:
    for verb in ("generateContent", "countTokens", "batchGenerateContent"):
        answer = http.post(f"/v1/models/{MODEL}:{verb}", content=body)
        assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_several_faulty_lines_are_told_together(url: str, connect: Callable[..., genai.Client], tmp_path: Path) -> None:
    with pytest.raises(errors.ClientError) as e:
        create(connect(url), tmp_path, *[{"key": str(i), "request": {**GOOD, "x": 1}} for i in range(9)])
    assert [line.split(":")[0] for line in e.value.message.splitlines()] == [f"Error on line {n}" for n in range(1, 6)]


@pytest.mark.parametrize(("model", "code"), [("gemini-9", 404), ("gemini-4-argon", 400), ("gemini-embedding-001", 400)])
def test_a_model_must_exist_and_have_batch(
    url: str, connect: Callable[..., genai.Client], tmp_path: Path, model: str, code: int
) -> None:
    with pytest.raises(errors.ClientError, match=f"models/{model} is not") as e:
        create(connect(url), tmp_path, {"key": "k", "request": GOOD}, model=model)
    assert e.value.code == code


@pytest.mark.parametrize("model", ["gemini-3.7-flash", "gemini-3.8-flash"])
def test_some_models_take_no_minimal_thinking(http: httpx2.Client, model: str) -> None:
    for level, status in (("MINIMAL", 400), ("LOW", 200)):
        body = request_of("x", thinkingConfig={"thinkingLevel": level})
        assert http.post(f"/v1/models/{model}:generateContent", json=body).status_code == status


def test_older_models_take_no_tools_with_json(http: httpx2.Client) -> None:
    body = {**request_of("x", **JSON), "tools": [{"googleSearch": {}}]}
    for model, status in (("gemini-2.5-flash", 400), (MODEL, 200)):
        assert http.post(f"/v1/models/{model}:generateContent", json=body).status_code == status


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({}, 400),
        ({"fileName": "files/nope"}, 403),
        ({"fileName": "files/nope", "requests": {"requests": []}}, 400),
        ({"requests": {"requests": []}}, 400),
        ({"requests": {"requests": [{"request": GOOD, "metadata": {"key": 1}}]}}, 400),
        ({"requests": {"requests": [{"request": GOOD, "key": "k"}]}}, 400),
        ({"gcsUri": "gs://b/o"}, 400),
    ],
)
def test_a_batch_needs_one_good_input(http: httpx2.Client, config: dict[str, Any], status: int) -> None:
    body = {"batch": {"displayName": "d", "inputConfig": config}}
    assert http.post(f"/v1/models/{MODEL}:batchGenerateContent", json=body).status_code == status


def test_both_spellings_of_a_request_are_one_request(batches: Batches) -> None:
    camel = request_of("hi", maxOutputTokens=9, temperature=1.0, thinkingConfig={"thinkingLevel": "LOW"})
    config = {"temperature": "1", "max_output_tokens": "9", "thinking_config": {"thinking_level": "low"}, "seed": None}
    snake = {"generation_config": config, "contents": camel["contents"]}
    batches.run({"a": camel, "b": snake})
    assert batches.server.bill_summary().distinct_requests == 1


def test_the_grammar_holds_together() -> None:
    scalars = {"string", "int", "number", "bool", "bytes", "value", "struct"}
    for message, fields in grammar.MESSAGES.items():
        grammar.decoder(message)
        for field, kind in fields.items():
            assert kind.strip("[]{}") in scalars | grammar.ENUMS.keys() | grammar.MESSAGES.keys(), (message, field)
    assert set(grammar.PART_DATA) < grammar.MESSAGES["Part"].keys()
