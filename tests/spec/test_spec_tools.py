"""`tools`, `tool_config`, `labels` and safety settings by name: one form, the SDK's names, each mistake told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types
from spec_kit import Folder

from batchform.spec.resolved import ResolvedSpec
from batchform.spec.tools import _FUNCTION, CONFIG, TOOLS

ORDER = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
VERTEX = (
    "version: 1\nproject: demo\nbackends: {local: {type: emulator, cloud: vertex}}\n"
    "defaults: {backend: local, model: gemini-3.5-flash-lite}\n"
)


def loaded(folder: Folder, more: str) -> ResolvedSpec:
    folder.spec(more)
    return folder.load().specs[0]


def aliases(model: Any) -> set[str]:
    return {str(f.alias or n) for n, f in model.model_fields.items()}


def test_names_are_those_of_the_sdk() -> None:
    assert set(TOOLS) <= aliases(types.Tool)
    assert set(TOOLS["googleSearch"]) == aliases(types.GoogleSearch)
    assert set(TOOLS["googleSearch"]["timeRangeFilter"]) == aliases(types.Interval)
    assert set(CONFIG) == aliases(types.ToolConfig)
    # What streams has no place in a batch.
    calling = aliases(types.FunctionCallingConfig) - {"streamFunctionCallArguments"}
    assert set(CONFIG["functionCallingConfig"]) == calling
    assert set(CONFIG["retrievalConfig"]) == aliases(types.RetrievalConfig)
    modes = {m.value for m in types.FunctionCallingConfigMode} - {"MODE_UNSPECIFIED"}
    assert set(CONFIG["functionCallingConfig"]["mode"]) == modes
    assert set(_FUNCTION) == aliases(types.FunctionDeclaration) - {"behavior"}  # of live conversations alone


def test_a_word_a_mapping_and_the_wire_form_are_one(folder: Folder) -> None:
    one = loaded(folder, "tools: [google_search, url_context, code_execution]")
    other = loaded(folder, "tools:\n- googleSearch: {}\n- {url_context: null}\n- codeExecution: {}\n")
    assert one.request_base == {"tools": [{"googleSearch": {}}, {"urlContext": {}}, {"codeExecution": {}}]}
    assert one.request_base == other.request_base
    assert one.config_digest == other.config_digest


def test_functions_from_files_and_inline(folder: Folder) -> None:
    folder.write("schemas/order.json", json.dumps({"name": "find_order", "description": "x", "parameters": ORDER}))
    folder.write(
        "schemas/arguments.json", json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **ORDER})
    )
    spec = loaded(
        folder,
        "tools:\n- function_declarations:\n  - schemas/order.json\n"
        "  - {name: refund, description: y, parameters_json_schema: arguments.json}\n  - {name: close}\n"
        "tool_config: {function_calling_config: {mode: any, allowed_function_names: [refund]}}\n",
    )
    assert spec.request_base == {
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "find_order", "description": "x", "parametersJsonSchema": ORDER},
                    {"name": "refund", "description": "y", "parametersJsonSchema": ORDER},
                    {"name": "close"},
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["refund"]}},
    }


def test_search_says_something_on_vertex_where_nothing_would_be_refused(folder: Folder) -> None:
    folder.write("batchform.yaml", VERTEX)
    spec = loaded(folder, "tools: [google_search]")
    assert spec.request_base == {"tools": [{"googleSearch": {"excludeDomains": []}}]}


def test_safety_by_readable_names(folder: Folder) -> None:
    one = loaded(folder, "safety_settings: {hate_speech: none, HARM_CATEGORY_HARASSMENT: off, jailbreak: only_high}")
    assert one.request_base["safetySettings"] == [
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"},
        {"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"},
        {"category": "HARM_CATEGORY_JAILBREAK", "threshold": "BLOCK_ONLY_HIGH"},
    ]
    listed = loaded(
        folder,
        "safety_settings:\n- {category: jailbreak, threshold: block_only_high}\n"
        "- {category: harassment, threshold: off}\n- {category: hate_speech, threshold: BLOCK_NONE}\n",
    )
    assert listed.config_digest == one.config_digest


def test_labels_are_part_of_the_request(folder: Folder) -> None:
    assert loaded(folder, "labels: {team: support, empty: ''}").request_base == {
        "labels": {"team": "support", "empty": ""}
    }


def test_nothing_said_changes_nothing(folder: Folder) -> None:
    plain = loaded(folder, "")
    empty = loaded(folder, "tools: []\ntool_config: {}\nlabels: {}\nsafety_settings: {}")
    assert plain.request_base == empty.request_base == {}
    assert plain.spec_digest == empty.spec_digest


FUNCTION = "{name: f, parameters: {type: object, properties: {a: {type: string}}}}"
WRONG = {
    "tools: [google_serch]": "there is no tool `google_serch`",
    "tools: [{google_serch: {}}]": "there is no tool `google_serch`",
    "tools: [function_declarations]": "there is no tool `function_declarations`",
    "tools: [{google_search: {}, url_context: {}}]": "one item of `tools` names one tool",
    "tools: [{google_search: {domains: [a]}}]": "tools has no field `domains`",
    "tools: [{google_search: [a]}]": "must be a mapping of its settings",
    "tools: [google_search, google_search]": "the tool `google_search` is named twice",
    "tools: [{function_declarations: []}]": "must be a list of functions",
    "tools: [{function_declarations: [{description: x}]}]": "the function has no name",
    "tools: [{function_declarations: [{name: 1f}]}]": "is no name of a function",
    "tools: [{function_declarations: [{name: f, arguments: {}}]}]": "a function declaration has no field `arguments`",
    "tools: [{function_declarations: [nowhere.json]}]": "there is no schema `nowhere.json`",
    "tools: [{function_declarations: [{name: f, parameters: {type: OBJECT}}]}]": "JSON Schema writes `object`",
    "tools: [{function_declarations: [{name: f, parameters: {type: string}}]}]": "arguments have names",
    "tools: [{function_declarations: [{name: f, parameters: {}, parametersJsonSchema: {}}]}]": "given twice",
    f"tools: [{{function_declarations: [{FUNCTION}, {FUNCTION}]}}]": "the function `f` is declared twice",
    f"tools: [google_search, {{function_declarations: [{FUNCTION}]}}]": "include_server_side_tool_invocations: true",
    "tool_config: {function_calling_config: {mode: any}}": "there are no functions to call",
    "tool_config: {mode: any}": "tool_config has no field `mode`",
    f"tools: [{{function_declarations: [{FUNCTION}]}}]\n"
    "tool_config: {function_calling_config: {mode: any, allowed_function_names: [g]}}": "`g` is not declared in",
    f"tools: [{{function_declarations: [{FUNCTION}]}}]\n"
    "tool_config: {function_calling_config: {allowed_function_names: [f]}}": "does not hold the model to them",
    f"tools: [{{function_declarations: [{FUNCTION}]}}]\n"
    "tool_config: {function_calling_config: {mode: sometimes}}": "`mode` must be one of its values",
    "tools: [url_context]\nrequest: {tools: [{google_maps: {}}]}": "`request.tools` would take the place of `tools`",
    "labels: {Team: x}": "is no label",
    "labels: {team: Ünit}": "is no label",
    "safety_settings: {hate: none}": "`category` must be one of its values",
    "safety_settings: {hate_speech: maybe}": "`threshold` must be one of its values",
    "safety_settings: {hate_speech: on}": "`threshold` must be one of its values",
}


@pytest.mark.parametrize("more", WRONG)
def test_each_mistake_is_told(folder: Folder, more: str) -> None:
    folder.spec(more)
    said = " ".join(folder.complaint().split())
    assert WRONG[more] in said
    assert "specs/triage.yaml:" in said
    assert "1 error" in said
