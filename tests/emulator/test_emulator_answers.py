from __future__ import annotations

import json
from typing import Any, Literal

import httpx2
import jsonschema_rs
import msgspec
import pydantic
import pytest
from emulator_kit import MODEL, Batches, request_of
from google import genai
from google.genai import errors, types
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batchform.emulator import EmulatorServer, schemas
from batchform.emulator.draw import Draw
from examples_kit import examples

JSON = "application/json"
TRIAGE = {
    "type": "object",
    "properties": {
        "category": {"type": "string", "enum": ["billing", "bug", "praise"]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        "owner": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
    },
    "required": ["category", "confidence", "tags", "owner"],
    "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
    "additionalProperties": False,
}


def ask(client: genai.Client, request: dict[str, Any], model: str = MODEL) -> types.GenerateContentResponse:
    """The exact request through the synchronous call, as `batchform try` sends it."""
    return client.models.generate_content(model=model, contents="x", config={"http_options": {"extra_body": request}})


# --- plain answers ---------------------------------------------------------------------------------------------------


def test_an_answer_echoes_the_prompt_and_says_who_made_it(client: genai.Client) -> None:
    answer = ask(client, request_of("What is   this?"))
    assert answer.text == "Emulated answer to: What is this?"
    assert answer.model_version == f"emulator-{MODEL}"
    assert answer.candidates[0].finish_reason == "STOP"
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (4, 9, 13)


def test_batch_and_synchronous_answers_are_the_same(batches: Batches, raw: httpx2.Client) -> None:
    request = request_of("hello", temperature=0.5)
    alone = raw.post(f"/v1/models/{MODEL}:generateContent", json=request).json()
    assert batches.run({"k": request}) == [{"response": alone, "key": "k"}]


def test_the_last_user_turn_is_answered(client: genai.Client) -> None:
    turns = [("user", "one"), ("model", "two"), ("user", "three"), ("model", "four")]
    request = {"contents": [{"role": role, "parts": [{"text": text}]} for role, text in turns]}
    assert ask(client, request).text == "Emulated answer to: three"


def test_a_short_limit_cuts_the_answer(client: genai.Client) -> None:
    answer = ask(client, request_of("a long prompt " * 20, maxOutputTokens=5))
    assert answer.candidates[0].finish_reason == "MAX_TOKENS"
    assert answer.usage_metadata.candidates_token_count == 5
    assert "Emulated answer to: a long".startswith(answer.text)


def test_thinking_can_use_up_the_limit(raw: httpx2.Client) -> None:
    body = request_of("hello", maxOutputTokens=10, thinkingConfig={"thinkingLevel": "HIGH"})
    answer = raw.post(f"/v1/models/{MODEL}:generateContent", json=body).json()
    assert answer["candidates"] == [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}]
    assert answer["usageMetadata"]["thoughtsTokenCount"] == 10


def test_thoughts_are_shown_when_asked_for(client: genai.Client) -> None:
    answer = ask(client, request_of("hello", thinkingConfig={"includeThoughts": True}))
    thought, said = answer.candidates[0].content.parts
    assert (thought.thought, said.text) == (True, "Emulated answer to: hello")
    assert answer.usage_metadata.thoughts_token_count > 0


def test_candidates_stop_sequences_and_images(client: genai.Client) -> None:
    answer = ask(client, request_of("one STOP two", candidateCount=2, stopSequences=["STOP"]))
    texts = [c.content.parts[0].text for c in answer.candidates]
    assert texts == ["Emulated answer to: one "] * 2
    answer = ask(client, request_of("a cat", responseModalities=["TEXT", "IMAGE"]), "gemini-3-pro-image")
    assert answer.candidates[0].content.parts[1].inline_data.data.startswith(b"\x89PNG")


def test_tokens_are_counted_as_they_are_charged(client: genai.Client) -> None:
    text = "some words " * 9
    counted = client.models.count_tokens(model=MODEL, contents=text).total_tokens
    assert counted == ask(client, request_of(text)).usage_metadata.prompt_token_count


def test_a_whole_request_is_counted_and_told_apart_from_contents(raw: httpx2.Client) -> None:
    request = {**request_of("some words"), "systemInstruction": {"parts": [{"text": "Be brief."}]}}
    url, name = f"/v1/models/{MODEL}:countTokens", f"models/{MODEL}"
    charged = raw.post(f"/v1/models/{MODEL}:generateContent", json=request).json()["usageMetadata"]["promptTokenCount"]
    whole = {"generateContentRequest": {"model": name, **request}}
    assert raw.post(url, json=whole).json()["totalTokens"] == charged
    for body, words in (
        ({}, "CountTokens requires generate_content_request or contents to be set."),
        ({"generateContentRequest": request}, "generate_content_request.model: model is not specified"),
        ({**whole, "contents": request["contents"]}, "not both"),
        ({"generateContentRequest": {"model": "models/gemini-2.5-pro", **request}}, "the call is for"),
        ({"generateContentRequest": {"model": name, **request, "toolz": []}}, "Unknown name"),
        ({"generateContentRequest": {"model": name}}, "contents is not specified"),
        ({"systemInstruction": request["systemInstruction"], "contents": request["contents"]}, "Unknown name"),
    ):
        refused = raw.post(url, json=body)
        assert refused.status_code == 400 and words in refused.json()["error"]["message"], body
    text = {"contents": [{"parts": [{"text": "some words"}]}]}
    assert raw.post("/v1/models/gemini-embedding-001:countTokens", json=text).json()["totalTokens"] == 3


def test_models_say_what_they_can_do(client: genai.Client) -> None:
    assert "batchGenerateContent" in client.models.get(model=MODEL).supported_actions
    assert "batchGenerateContent" not in client.models.get(model="gemini-4-argon").supported_actions
    names = [m.name for m in client.models.list(config={"page_size": 3})]
    assert len(names) == len(set(names)) > 10
    with pytest.raises(errors.ClientError) as e:
        client.models.get(model="gemini-9")
    assert e.value.code == 404


# --- schemas ---------------------------------------------------------------------------------------------------------


def test_answers_follow_a_response_json_schema(batches: Batches) -> None:
    texts = {f"k{i}": f"Ticket {i}: the printer is on fire" for i in range(60)}
    lines = batches.run_texts(texts, responseMimeType=JSON, responseJsonSchema=TRIAGE)
    answers = [json.loads(line["response"]["candidates"][0]["content"]["parts"][0]["text"]) for line in lines.values()]
    for answer in answers:
        jsonschema_rs.validate(TRIAGE, answer)
    assert {a["category"] for a in answers} == {"billing", "bug", "praise"}
    assert {a["owner"] is None for a in answers} == {True, False}
    words = {"Ticket", "the", "printer", "is", "on", "fire"} | {str(i) for i in range(60)}
    assert all(word in words for a in answers for tag in a["tags"] for word in tag.split())


def test_answers_follow_googles_own_schema(client: genai.Client) -> None:
    schema = {
        "type": "OBJECT",
        "properties": {"b": {"type": "INTEGER", "minimum": 3, "maximum": 4}, "a": {"type": "STRING", "nullable": True}},
        "required": ["a", "b"],
        "propertyOrdering": ["b", "a"],
    }
    answer = json.loads(ask(client, request_of("hi", responseMimeType=JSON, responseSchema=schema)).text)
    assert list(answer) == ["b", "a"]
    assert answer["b"] in (3, 4)


def test_a_pydantic_class_can_be_the_schema(client: genai.Client) -> None:
    class Place(pydantic.BaseModel):
        name: str
        height: float | None
        kind: Literal["town", "hill"] = "town"

    config = {"response_mime_type": JSON, "response_schema": list[Place]}
    parsed = client.models.generate_content(model=MODEL, contents="where", config=config).parsed
    assert all(isinstance(item, Place) for item in parsed)


def test_json_without_a_schema_and_bare_enums(client: genai.Client) -> None:
    assert json.loads(ask(client, request_of("hi", responseMimeType=JSON)).text) == {"echo": "hi"}
    schema = {"type": "STRING", "enum": ["yes", "no"]}
    assert ask(client, request_of("hi", responseMimeType="text/x.enum", responseSchema=schema)).text in ("yes", "no")


def test_the_answer_depends_on_the_prompt_not_on_the_settings() -> None:
    config = {"responseMimeType": JSON, "responseJsonSchema": TRIAGE}
    made = [schemas.maker({**config, "temperature": t})(Draw("a prompt")) for t in (0, 1)]
    assert made[0] == made[1]


_bounds = st.integers(-50, 50)
_sizes = st.integers(0, 4)
_names = st.sampled_from(["id", "name", "kind", "größe", "a b", "$ref"])


@st.composite
def _scalars(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["string", "integer", "number", "boolean", "null", "enum", "const", "pattern"]))
    if kind in ("integer", "number"):
        low = draw(_bounds)
        ends = {"minimum": low, "maximum": low + draw(st.integers(0, 9))}
        if draw(st.booleans()):
            ends = {"exclusiveMinimum": low, "exclusiveMaximum": low + draw(st.integers(2, 9))}
        keep = draw(st.sets(st.sampled_from([*ends, "multipleOf"])))
        steps = {"multipleOf": 1} if kind == "integer" else {}
        return {"type": kind} | {k: v for k, v in (ends | steps).items() if k in keep}
    if kind == "string":
        low = draw(st.integers(0, 30))
        limits = {"minLength": low, "maxLength": low + draw(st.integers(0, 9))}
        keep = draw(st.sets(st.sampled_from([*limits, "format"])))
        if keep == {"format"}:
            return {
                "type": kind,
                "format": draw(st.sampled_from(["date-time", "date", "email", "uuid", "uri", "ipv4"])),
            }
        return {"type": kind} | {k: v for k, v in limits.items() if k in keep}
    if kind == "enum":
        return {"enum": draw(st.lists(st.sampled_from(["a", "b", 1, 2.5, True, None]), min_size=1, unique_by=repr))}
    if kind == "const":
        return {"const": draw(st.sampled_from(["x", 0, False, None, [1], {"a": 1}]))}
    if kind == "pattern":
        patterns = [r"^[A-Z]{2}-\d{3,5}$", r"^(foo|bar)+$", r"^\w+@[^@]{1,3}$", r"ab?c*"]
        return {"type": "string", "pattern": draw(st.sampled_from(patterns))}
    return {"type": kind}


def _compound(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    @st.composite
    def made(draw: st.DrawFn) -> dict[str, Any]:
        kind = draw(st.sampled_from(["object", "map", "array", "tuple", "anyOf", "nullable", "allOf", "ref"]))
        match kind:
            case "object":
                properties = draw(st.dictionaries(_names, inner, max_size=4))
                required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
                more = draw(st.sampled_from([{}, {"additionalProperties": False}]))
                return {"type": "object", "properties": properties, "required": required, **more}
            case "map":
                return {"type": "object", "additionalProperties": draw(inner), "minProperties": draw(_sizes)}
            case "array":
                low = draw(_sizes)
                high = draw(st.sampled_from([{}, {"maxItems": low + 1}]))
                return {"type": "array", "items": draw(inner), "minItems": low, **high}
            case "tuple":
                first = draw(st.lists(inner, min_size=1, max_size=3))
                return {"type": "array", "prefixItems": first, "items": False, "minItems": len(first)}
            case "anyOf":
                return {"anyOf": draw(st.lists(inner, min_size=1, max_size=3))}
            case "nullable":
                return {"type": ["object", "null"], "properties": {"x": draw(inner)}}
            case "allOf":
                halves = [{"type": "object", "properties": {name: draw(inner)}, "required": [name]} for name in "pq"]
                return {"allOf": halves}
            case _:
                tree = {"type": "object", "properties": {"v": draw(inner), "next": {"$ref": "#/$defs/t"}}}
                forest = {"type": "array", "items": {"$ref": "#/$defs/t"}}
                return {"$defs": {"t": {**tree, "required": ["v"]}}, "$ref": "#/$defs/t"} | draw(
                    st.sampled_from([{}, {"description": json.dumps(forest)}])
                )

    return made()


_schemas = st.recursive(_scalars(), _compound, max_leaves=8)


def _rooted(schema: dict[str, Any]) -> dict[str, Any]:
    """References go to the root, where the definitions of the inner schemas are gathered under names of their own."""
    found: dict[str, Any] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(n) for n in node]
        if not isinstance(node, dict):
            return node
        if "$defs" in node and isinstance(node.get("$ref"), str):
            name = f"t{len(found)}"
            found[name] = {}
            text = json.dumps(node["$defs"]["t"]).replace('"#/$defs/t"', f'"#/$defs/{name}"')
            found[name] = walk(json.loads(text))
            return {"$ref": f"#/$defs/{name}"}
        return {k: walk(v) for k, v in node.items()}

    walked = walk(schema)
    return {**walked, "$defs": found} if found else walked


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=_schemas.map(_rooted), prompt=st.text(max_size=60))
def test_every_answer_is_valid_against_its_schema(schema: dict[str, Any], prompt: str) -> None:
    config = {"responseMimeType": JSON, "responseJsonSchema": schema}
    assert schemas.complaint(config, "responseJsonSchema") is None
    answer = schemas.maker(config)(Draw(prompt))
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(answer)
    assert answer == schemas.maker(config)(Draw(prompt))


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_words = (
    *("type", "properties", "items", "prefixItems", "required", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "pattern"),
    *("minLength", "maxLength", "minProperties", "maxProperties", "additionalProperties", "uniqueItems", "format"),
)
_values = st.sampled_from(
    [
        0,
        1,
        3,
        1e300,
        0.5,
        True,
        False,
        "#",
        "#/properties/a",
        "object",
        "array",
        "string",
        "integer",
        "number",
        "a",
        "(?=x)",
        "[a-c]{2}",
        ["a"],
        ["null", "array"],
        ["a", "b"],
        {},
        [{}],
    ]
)


def _junk(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    nested = inner | st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    return st.dictionaries(st.sampled_from(_words), _values | nested | _json, max_size=5)


@settings(max_examples=examples(500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=st.recursive(st.booleans() | st.just({}), _junk, max_leaves=12))
@example(schema={"prefixItems": [False]})
@example(schema={"prefixItems": [True, False], "minItems": 1})
def test_a_hostile_schema_is_refused_or_answered(schema: Any) -> None:
    config = {"responseJsonSchema": schema}
    if schemas.complaint(config, "responseJsonSchema") is None:
        msgspec.json.encode(schemas.maker(config)(Draw("a prompt")))


# --- markers ---------------------------------------------------------------------------------------------------------


def test_markers_make_rows_fail_as_the_service_does(batches: Batches) -> None:
    lines = batches.run_texts(
        {
            "blocked": "[[emulator:blocked]] hi",
            "cut": "[[emulator:max_tokens]] a prompt that is long enough",
            "empty": "[[emulator:empty]]",
            "broken": "[[emulator:error 500]]",
            "busy": "[[emulator:error 429]]",
            "plain": "hi",
        }
    )
    blocked = lines["blocked"]["response"]
    assert blocked["promptFeedback"] == {"blockReason": "SAFETY"}
    assert "candidates" not in blocked
    assert lines["cut"]["response"]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    empty = lines["empty"]["response"]["candidates"][0]
    assert (empty["content"], empty["finishReason"]) == ({"role": "model"}, "STOP")
    assert (lines["broken"]["error"]["code"], lines["busy"]["error"]["code"]) == (13, 8)
    assert {c.key for c in batches.server.bill()} == {"blocked", "cut", "empty", "plain"}


def test_markers_make_lines_go_astray(batches: Batches) -> None:
    texts = {name: f"hi [[emulator:{name}]]" for name in ("missing", "duplicate", "unknown_key")}
    keys = sorted(line["key"] for line in batches.run({k: request_of(t) for k, t in texts.items()}))
    assert keys == ["duplicate", "duplicate", "unknown-unknown_key", "unknown_key"]
    assert batches.server.bill_summary().requests == 3


def test_a_marker_can_spoil_json(client: genai.Client) -> None:
    text = ask(client, request_of("[[emulator:invalid_json]]", responseMimeType=JSON, responseJsonSchema=TRIAGE)).text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_a_marker_can_hold_for_the_first_attempts_only(batches: Batches) -> None:
    requests = {"k": request_of("hi [[emulator:error 503 x2]] [[emulator:blocked x3]]")}
    first, second, third, fourth = (batches.run(requests)[0] for _ in range(4))
    assert first["error"]["code"] == second["error"]["code"] == 14
    assert "promptFeedback" in third["response"]
    assert fourth["response"]["candidates"][0]["content"]["parts"][0]["text"] == "Emulated answer to: hi"
    assert batches.server.bill_summary().requests == 2


def test_attempts_are_counted_across_the_synchronous_call(client: genai.Client, server: EmulatorServer) -> None:
    request = request_of("hi [[emulator:error 429 x1]]")
    with pytest.raises(errors.ClientError) as e:
        ask(client, request)
    assert (e.value.code, e.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert ask(client, request).text == "Emulated answer to: hi"
    assert server.bill_summary().requests == 1


def test_a_marker_in_the_system_prompt_is_for_every_row(client: genai.Client) -> None:
    request = {**request_of("hi"), "systemInstruction": {"parts": [{"text": "[[emulator:error 504]]"}]}}
    with pytest.raises(errors.ServerError) as e:
        ask(client, request)
    assert e.value.code == 504


@pytest.mark.parametrize("marker", ["[[emulator:bloked]]", "[[emulator:error 418]]", "[[emulator:empty 500]]"])
def test_an_unknown_marker_is_told(client: genai.Client, marker: str) -> None:
    with pytest.raises(errors.ClientError, match="emulator") as e:
        ask(client, request_of(marker))
    assert e.value.code == 400
