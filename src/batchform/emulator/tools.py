"""What tools do to an answer: functions are called, code is run, pages are found and read. All made up, and always
the same for the same prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from batchform.emulator import schemas
from batchform.emulator.draw import Draw
from batchform.emulator.refusal import Refusal, bad_field

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_URL: Final = re.compile(r"https?://[^\s<>\"')\]]+")
_MOST_URLS: Final = 20
_OWN: Final = ("googleSearch", "googleSearchRetrieval", "googleMaps", "codeExecution", "urlContext", "fileSearch")


def complaints(request: dict[str, Any], *, old: bool, vertex: bool) -> Iterator[Refusal]:
    """What the service refuses in tools and their settings. old: a model before Gemini 3."""
    declared: list[str] = []
    for i, function in enumerate(_functions(request)):
        at = f"tools[0].function_declarations[{i}]"
        name = function.get("name", "")
        if not _NAME.fullmatch(name):
            yield bad_field(f"* GenerateContentRequest.{at}.name: Invalid function name: '{name}'.", f"{at}.name")
        if name in declared:
            yield Refusal(400, f"Duplicate function declaration found: {name}")
        declared.append(name)
        for field in ("parameters", "response"):
            if field in function and f"{field}JsonSchema" in function:
                yield Refusal(400, f"Only one of {field} and {field}_json_schema can be set.")
        complaint = schemas.complaint_of(_parameters(function)) if _parameters(function) is not None else None
        if complaint:
            yield bad_field(f"* GenerateContentRequest.{at}.parameters: {complaint}", f"{at}.parameters")
    own = [name for tool in request.get("tools", ()) for name in _OWN if name in tool]
    config = request.get("toolConfig", {})
    if declared and own and old:
        yield Refusal(400, "Tool use with function calling is unsupported by the model.")
    if declared and own and not vertex and not config.get("includeServerSideToolInvocations"):
        flag = "tool_config.include_server_side_tool_invocations"
        yield Refusal(400, f"Please enable {flag} to use Built-in tools with Function calling.")
    calling = config.get("functionCallingConfig", {})
    if calling.get("mode") in ("ANY", "VALIDATED") and not declared:
        yield Refusal(400, "Function calling config is set without function_declarations.")
    if calling.get("allowedFunctionNames") and calling.get("mode") not in ("ANY", "VALIDATED"):
        yield Refusal(400, "Please set allowed_function_names only when function calling mode is ANY.")
    for name in calling.get("allowedFunctionNames", ()):
        if name not in declared:
            yield Refusal(400, f"Function {name} in allowed_function_names is not declared.")


def called(request: dict[str, Any], question: str) -> dict[str, Any] | None:
    """The functionCall that answers a request; None when it is answered in words."""
    config = request.get("toolConfig", {}).get("functionCallingConfig", {})
    mode, allowed = config.get("mode", "AUTO"), config.get("allowedFunctionNames", ())
    choice = [f for f in _functions(request) if not allowed or f["name"] in allowed]
    draw = Draw(question)
    if not choice or mode == "NONE" or (mode != "ANY" and draw.below(4) == 0):
        return None
    function = choice[draw.below(len(choice))]
    make = schemas.maker_of(_parameters(function))
    arguments = make(draw) if make is not None else {}
    return {"name": function["name"], "args": arguments if isinstance(arguments, dict) else {}}


def parts(request: dict[str, Any], question: str) -> list[dict[str, Any]]:
    """Parts that stand before an answer's text: the code that was run for it, and what came of that."""
    if not _has(request, "codeExecution"):
        return []
    words = len(question.split())
    code = f"print({words})"
    return [
        {"executableCode": {"language": "PYTHON", "code": code}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": f"{words}\n"}},
    ]


def metadata(request: dict[str, Any], question: str, text: str) -> dict[str, Any]:
    """What a candidate says of the pages that it was made from."""
    made: dict[str, Any] = {}
    if text and _has(request, "googleSearch"):
        query = " ".join(question.split()[:8])
        end = len(text.encode())
        made["groundingMetadata"] = {
            "webSearchQueries": [query],
            "searchEntryPoint": {"renderedContent": "<div>emulator</div>"},
            "groundingChunks": [{"web": {"uri": "https://example.com/emulated", "title": "example.com"}}],
            "groundingSupports": [
                {"segment": {"startIndex": 0, "endIndex": end, "text": text}, "groundingChunkIndices": [0]}
            ],
        }
    urls = _URL.findall(question)[:_MOST_URLS] if _has(request, "urlContext") else []
    if urls:
        status = "URL_RETRIEVAL_STATUS_SUCCESS"
        made["urlContextMetadata"] = {
            "urlMetadata": [{"retrievedUrl": url, "urlRetrievalStatus": status} for url in urls]
        }
    return made


def _functions(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [f for tool in request.get("tools", ()) for f in tool.get("functionDeclarations", ())]


def _parameters(function: dict[str, Any]) -> Any:
    """A function's parameters as JSON Schema; None if it has none."""
    if "parameters" in function:
        return schemas.as_json_schema(function["parameters"])
    return function.get("parametersJsonSchema")


def _has(request: dict[str, Any], tool: str) -> bool:
    return any(tool in t for t in request.get("tools", ()))
