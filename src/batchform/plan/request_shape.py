"""`request:` in the shape of a client library's call in place of the API's JSON: the Gemini API refuses the whole job
for it, Vertex AI fails it hours later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from batchform.errors import Diagnostic
from batchform.spec.generation import FIELDS, SCHEMA_FIELDS, camel, snake
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec

REQUEST_FIELDS: Final = frozenset({
    "cachedContent", "contents", "generationConfig", "labels", "model", "modelArmorConfig", "safetySettings",
    "serviceTier", "store", "systemInstruction", "toolConfig", "tools",
})  # fmt: skip
"""Fields of a GenerateContentRequest, by both APIs."""

_GENERATION: Final = frozenset({*FIELDS, *SCHEMA_FIELDS})
_OF_LIBRARIES: Final = frozenset({"automaticFunctionCalling", "httpOptions", "shouldReturnHttpResponse"})
_OF_LINES: Final = frozenset({"key", "metadata", "request"})


def check_shape(spec: ResolvedSpec) -> Iterator[Diagnostic]:
    """Complaints about `request:`, each with its place."""
    overlay = spec.request_overlay
    for name in overlay:
        yield from _name(spec, name)
    config = overlay.get("generationConfig")
    for name in config if isinstance(config, Mapping) else ():
        yield from _config_name(spec, name)
    for path, wanted, hint in (*_turns(overlay), *_tools(overlay.get("tools"))):
        yield Diagnostic("wrong-shape", f"`{path}` must be {wanted}", spec.at("request"), hint=hint)
    if cloud_of(spec.backend) == "vertex":
        for i, turn in enumerate(_list(overlay.get("contents"))):
            if isinstance(turn, Mapping) and "role" not in turn:
                message = f"`contents[{i}]` has no role, and Vertex AI is known to refuse such turns"
                hint = "Write `role: user` or `role: model`."
                yield Diagnostic("wrong-shape", message, spec.at("request"), hint=hint, severity="warning")


def _name(spec: ResolvedSpec, name: str) -> Iterator[Diagnostic]:
    at = spec.at("request")
    if name in _GENERATION:
        hint = f"Write `generation_config: {{{snake(name)}: …}}`."
        yield Diagnostic("misplaced-field", f"`{snake(name)}` belongs into the generation config", at, hint=hint)
    elif name == "config" or name in _OF_LIBRARIES:
        hint = "Write what it holds to `generation_config`, `safety_settings` and `tools`."
        if name in _OF_LIBRARIES:
            hint = "Leave it out: it speaks to the library, and there is none here."
        message = f"`{snake(name)}` is a word of the client libraries, not of the API"
        yield Diagnostic("misplaced-field", message, at, hint=hint)
    elif name in _OF_LINES:
        message = f"`{name}` stands beside a request in a job's line, and not in it; batchform writes it"
        yield Diagnostic("misplaced-field", message, at, hint="Leave it out: `idempotency.key` makes the keys.")
    elif name not in REQUEST_FIELDS:
        message = f"`{snake(name)}` is no field of a request that is known"
        known = ", ".join(sorted(map(snake, REQUEST_FIELDS)))
        hint = f"The Gemini API refuses a whole job for one unknown field. Fields: {known}."
        yield Diagnostic("unknown-request-field", message, at, hint=hint, severity="warning")


def _config_name(spec: ResolvedSpec, name: str) -> Iterator[Diagnostic]:
    at = spec.at("request")
    if camel(name) in REQUEST_FIELDS:
        message = f"`{snake(name)}` stands beside the generation config, and not in it"
        yield Diagnostic("misplaced-field", message, at, hint=f"Write `request: {{{snake(name)}: …}}`.")
    elif camel(name) not in _GENERATION:
        message = f"`{snake(name)}` is no field of a generation config that is known"
        hint = "The Gemini API refuses a whole job for one unknown field. Correct it; ignore the rule if it is new."
        yield Diagnostic("unknown-request-field", message, at, hint=hint, severity="warning")


_PARTS = "a mapping with `parts`"
_SAYING = "Write {parts: [{text: …}]}."

Problem = tuple[str, str, str]
"""Path, what must be there, hint."""


def _turns(overlay: Mapping[str, Any]) -> Iterator[Problem]:
    system = overlay.get("systemInstruction")
    if system is not None:
        yield from _turn("systemInstruction", system)
    contents = overlay.get("contents")
    if contents is not None and (not isinstance(contents, list) or not contents):
        yield "contents", "a list of turns", "Write [{role: user, parts: [{text: …}]}], or use `prompt:`."
    for i, turn in enumerate(_list(contents)):
        yield from _turn(f"contents[{i}]", turn)


def _turn(path: str, turn: Any) -> Iterator[Problem]:
    if not isinstance(turn, Mapping) or "parts" not in turn:
        yield path, _PARTS, _SAYING
        return
    if not isinstance(turn["parts"], list):
        yield f"{path}.parts", "a list of parts", _SAYING
    for i, part in enumerate(_list(turn["parts"])):
        if not isinstance(part, Mapping):
            yield f"{path}.parts[{i}]", "a mapping", "Write {text: …}."


def _tools(tools: Any) -> Iterator[Problem]:
    if tools is not None and not isinstance(tools, list):
        yield "tools", "a list of tools", "Write [{google_search: {}}], or use `tools:` of the spec."
    for i, tool in enumerate(_list(tools)):
        if not isinstance(tool, Mapping):
            yield f"tools[{i}]", "a mapping of one tool", "Write {google_search: {}}, or use `tools:` of the spec."


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
