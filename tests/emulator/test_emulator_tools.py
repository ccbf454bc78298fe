"""Tools: what the emulator refuses, and what it makes of them, through Google's client."""

from __future__ import annotations

from typing import Any

import httpx2
import jsonschema_rs
import pytest
from emulator_kit import MODEL, Batches, request_of
from google import genai
from google.genai import types

ORDER = {
    "type": "object",
    "properties": {"order": {"type": "string", "minLength": 3}, "urgent": {"type": "boolean"}},
    "required": ["order", "urgent"],
}
FIND = {"name": "find_order", "description": "Finds an order.", "parametersJsonSchema": ORDER}
CLOSE = {"name": "close"}
OWN = {"name": "own", "parameters": {"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}, "required": ["n"]}}


def calling(mode: str, *allowed: str) -> dict[str, Any]:
    names = {"allowedFunctionNames": list(allowed)} if allowed else {}
    return {"functionCallingConfig": {"mode": mode, **names}}


def functions(*declared: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {**request_of("Where is my order?"), "tools": [{"functionDeclarations": list(declared)}], **config}


def ask(client: genai.Client, request: dict[str, Any]) -> types.GenerateContentResponse:
    return client.models.generate_content(model=MODEL, contents="x", config={"http_options": {"extra_body": request}})


def test_a_function_is_called_with_arguments_that_fit(client: genai.Client, batches: Batches) -> None:
    request = functions(FIND, CLOSE, toolConfig=calling("ANY", "find_order"))
    [call] = ask(client, request).function_calls or ()
    assert call.name == "find_order"
    jsonschema_rs.validate(ORDER, call.args)
    [line] = batches.run({"k": request})
    [part] = line["response"]["candidates"][0]["content"]["parts"]
    assert part == {"functionCall": {"name": "find_order", "args": call.args}}
    assert line["response"]["candidates"][0]["finishReason"] == "STOP"
    assert line["response"]["usageMetadata"]["candidatesTokenCount"] > 0


def test_parameters_in_the_apis_own_dialect(client: genai.Client) -> None:
    [call] = ask(client, functions(OWN, toolConfig=calling("ANY"))).function_calls or ()
    assert isinstance(call.args["n"], int)


def test_a_model_that_may_choose_does_either(client: genai.Client) -> None:
    kinds = set()
    for i in range(20):
        request = {**functions(FIND), **request_of(f"Question {i}")}
        answer = ask(client, request)
        kinds.add(bool(answer.function_calls))
        assert bool(answer.function_calls) != bool(answer.candidates[0].content.parts[0].text)
        assert ask(client, request).model_dump() | {"sdk_http_response": None} == answer.model_dump() | {
            "sdk_http_response": None
        }
    assert kinds == {True, False}
    assert ask(client, functions(FIND, toolConfig=calling("NONE"))).text


def test_code_and_what_it_gave(client: genai.Client) -> None:
    answer = ask(client, {**request_of("Count these words"), "tools": [{"codeExecution": {}}]})
    code, result, text = answer.candidates[0].content.parts
    assert (code.executable_code.language, code.executable_code.code) == ("PYTHON", "print(3)")
    assert (result.code_execution_result.outcome, result.code_execution_result.output) == ("OUTCOME_OK", "3\n")
    assert text.text == "Emulated answer to: Count these words"


def test_search_grounds_what_is_said(client: genai.Client) -> None:
    answer = ask(client, {**request_of("Who made this?"), "tools": [{"googleSearch": {}}]})
    grounding = answer.candidates[0].grounding_metadata
    assert grounding.web_search_queries == ["Who made this?"]
    [support] = grounding.grounding_supports
    assert support.segment.text == answer.text
    assert grounding.grounding_chunks[support.grounding_chunk_indices[0]].web.uri.startswith("https://")


def test_pages_of_the_prompt_are_read(client: genai.Client) -> None:
    answer = ask(client, {**request_of("Sum up https://example.com/a, please."), "tools": [{"urlContext": {}}]})
    [page] = answer.candidates[0].url_context_metadata.url_metadata
    assert page.url_retrieval_status == "URL_RETRIEVAL_STATUS_SUCCESS"
    assert page.retrieved_url.startswith("https://example.com/a")


SERVER_SIDE = {"includeServerSideToolInvocations": True}
REFUSED = {
    "no name": (functions({"description": "x"}), "Invalid function name: ''"),
    "an odd name": (functions({"name": "1f"}), "Invalid function name: '1f'"),
    "twice": (functions(FIND, FIND), "Duplicate function declaration found: find_order"),
    "two kinds of parameters": (functions({**OWN, "parametersJsonSchema": ORDER}), "Only one of parameters and"),
    "no schema": (functions({"name": "f", "parametersJsonSchema": {"type": "objekt"}}), "not a JSON Schema"),
    "no functions to call": ({**request_of("x"), "toolConfig": calling("ANY")}, "without function_declarations"),
    "no such function": (functions(FIND, toolConfig=calling("ANY", "g")), "Function g in allowed_function_names"),
    "names without a mode": (functions(FIND, toolConfig=calling("AUTO", "find_order")), "only when function calling"),
    "both kinds without leave": (
        {**functions(FIND), "tools": [{"functionDeclarations": [FIND]}, {"googleSearch": {}}]},
        "Please enable tool_config.include_server_side_tool_invocations",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(raw: httpx2.Client, name: str) -> None:
    request, said = REFUSED[name]
    answer = raw.post(f"/v1/models/{MODEL}:generateContent", json=request)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_older_models_take_one_kind_of_tools(raw: httpx2.Client) -> None:
    request = {**functions(FIND), "tools": [{"functionDeclarations": [FIND]}, {"googleSearch": {}}]}
    request["toolConfig"] = SERVER_SIDE
    for model, status in (("gemini-2.5-flash", 400), (MODEL, 200)):
        assert raw.post(f"/v1/models/{model}:generateContent", json=request).status_code == status
