"""Tools that a model may use, and settings beside generationConfig: `tools`, `tool_config`, `labels`.

Names are the API's own, snake_case or camelCase. What has no name here goes into `request:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from batchform.errors import Diagnostic
from batchform.spec.dialect import check_sent
from batchform.spec.generation import Kind, camel, canonical_object, canonical_safety, snake
from batchform.spec.model import Spec
from batchform.spec.schemas import read_schema
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document, NodePath

DECLARATIONS: Final = "functionDeclarations"
TOOLS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "googleSearch": {
        "searchTypes": "json",
        "blockingConfidence": "text",
        "excludeDomains": ["text"],
        "timeRangeFilter": {"startTime": "text", "endTime": "text"},
    },
    "urlContext": {},
    "codeExecution": {},
}
"""Tools of the service's own, with their settings."""
CONFIG: Final[Mapping[str, Kind]] = {
    "functionCallingConfig": {"mode": ("AUTO", "ANY", "NONE", "VALIDATED"), "allowedFunctionNames": ["text"]},
    "retrievalConfig": {"latLng": {"latitude": "number", "longitude": "number"}, "languageCode": "text"},
    "includeServerSideToolInvocations": "bool",
}
REQUEST_FIELDS: Final[Mapping[str, str]] = {
    "generationConfig": "generation_config",
    "safetySettings": "safety_settings",
    "tools": "tools",
    "toolConfig": "tool_config",
    "labels": "labels",
}
"""Parts of a request → the fields of a spec that they come from."""

_FUNCTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_FUNCTION: Final = ("name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema")
_LABEL_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")


def add_settings(
    base: dict[str, Any], spec: Spec, document: Document, root: Path, *, vertex: bool, importer: bool
) -> Iterator[Diagnostic]:
    """Put safety settings, tools and labels into a request's base, in canonical form; yields complaints.

    importer: whether requests pass the importer of Vertex AI, which refuses empty objects and references.
    """
    safety, found = canonical_safety(document, spec.safety_settings)
    yield from found
    reader = _Tools(document, root, importer=importer)
    tools = [tool for i, item in enumerate(spec.tools) for tool in reader.tool(item, ("tools", i))]
    config = canonical_object(document, ("tool_config",), spec.tool_config, CONFIG, reader.problems)
    yield from reader.problems
    yield from _together(document, spec, tools, config, vertex=vertex)
    yield from _labels(document, spec)
    for name, value in (("safetySettings", safety), ("tools", tools), ("toolConfig", config), ("labels", spec.labels)):
        if value:
            base[name] = value


class _Tools:
    """Reads tools; gathers complaints."""

    def __init__(self, document: Document, root: Path, *, importer: bool) -> None:
        self._document, self._root, self._importer = document, root / "schemas", importer
        self._names: set[str] = set()
        self.problems: list[Diagnostic] = []

    def _bad(self, rule: str, message: str, at: NodePath, hint: str = "", *, on_key: bool = False) -> None:
        self.problems.append(self._document.diagnostic(rule, message, at, hint=hint, on_key=on_key))

    def tool(self, item: str | Mapping[str, Any], at: NodePath) -> Iterator[dict[str, Any]]:
        """The tool that an item of `tools` says, if it says one: a word, or a mapping of one name to settings."""
        settings = {item: {}} if isinstance(item, str) else item
        made: dict[str, Any] = {}
        for name, value in settings.items():
            key, where = camel(name), at if isinstance(item, str) else (*at, name)
            if key == DECLARATIONS and not isinstance(item, str):
                made[key] = list(self._functions(value, where))
            elif key in TOOLS and isinstance(value or {}, dict):
                made[key] = self._settings(key, value or {}, where)
            elif key in TOOLS:
                self._bad("wrong-value", f"`{snake(key)}` must be a mapping of its settings", where)
            else:
                known = [*map(snake, TOOLS), snake(DECLARATIONS)]
                hint = suggestion(snake(key), known, noun="Tools")
                hint += " Tools that are new go into `request: {tools: [...]}`, all of them."
                message = f"there is no tool `{shown(name)}`"
                self._bad("unknown-field", message, where, hint, on_key=not isinstance(item, str))
        if len(settings) != 1:
            self._bad("wrong-value", "one item of `tools` names one tool", at, "Begin a line with `-` for each.")
        if made:
            yield made

    def _settings(self, key: str, value: Mapping[str, Any], at: NodePath) -> dict[str, Any]:
        settings = canonical_object(self._document, at, value, TOOLS[key], self.problems)
        if self._importer and key == "googleSearch" and not settings:
            return {"excludeDomains": []}  # says nothing, but is not empty
        return settings

    def _functions(self, value: Any, at: NodePath) -> Iterator[dict[str, Any]]:
        if not isinstance(value, list) or not value:
            self._bad("wrong-value", "`function_declarations` must be a list of functions", at)
            return
        for i, item in enumerate(value):
            declared = self._declared(item, (*at, i))
            if declared is not None:
                yield self._function(*declared)

    def _declared(self, item: Any, at: NodePath) -> tuple[Mapping[str, Any], Document, NodePath, NodePath] | None:
        """A declaration, the document and node where it stands, and where the spec names it."""
        source, found = read_schema(item, self._document, at, root=self._root)
        self.problems += found
        return (source.schema, source.document, source.base, at) if source is not None else None

    def _function(self, value: Mapping[str, Any], document: Document, base: NodePath, at: NodePath) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, inner in value.items():
            key, where = camel(name), (*base, name)
            if key not in _FUNCTION:
                hint = suggestion(snake(key), [snake(f) for f in _FUNCTION])
                message = f"a function declaration has no field `{shown(name)}`"
                self.problems.append(document.diagnostic("unknown-field", message, where, on_key=True, hint=hint))
            elif key in ("name", "description"):
                made[key] = inner
                if not isinstance(inner, str):
                    problem = document.diagnostic("wrong-value", f"`{key}` must be text", where, hint="Quote it.")
                    self.problems.append(problem)
            elif inner is not None:
                self._schema(made, key, inner, document, where)
        self._name(made.get("name"), at)
        return made

    def _schema(self, made: dict[str, Any], key: str, value: Any, document: Document, at: NodePath) -> None:
        """Parameters and response are JSON Schemas, here or in files, and are sent as such."""
        name = key.removesuffix("JsonSchema")
        source, found = read_schema(value, document, at, root=self._root)
        self.problems += found
        if name in made or f"{name}JsonSchema" in made:
            message = f"`{snake(key)}` is given twice, in two spellings"
            self.problems.append(document.diagnostic("duplicate-key", message, at, on_key=True))
        if source is not None:
            sent, wrong = check_sent(source, "auto", importer=self._importer)
            self.problems += wrong
            made[name if sent.field == "responseSchema" else f"{name}JsonSchema"] = sent.schema
            if not wrong and source.schema.get("type", "object") != "object":
                message = "arguments have names: the schema of a function's parameters is an object's"
                self.problems.append(document.diagnostic("wrong-value", message, at, hint="Write `type: object`."))

    def _name(self, name: Any, at: NodePath) -> None:
        if name is None:
            self._bad("missing-field", "the function has no name", at)
        elif not isinstance(name, str):
            return
        elif not _FUNCTION_NAME.fullmatch(name):
            hint = "At most 128 letters, digits and _ . : -, a letter or _ first."
            self._bad("wrong-value", f"`{shown(name)}` is no name of a function", at, hint)
        elif name in self._names:
            self._bad("duplicate-field", f"the function `{name}` is declared twice", at)
        else:
            self._names.add(name)


def functions(tools: Any) -> list[str]:
    """Names of the functions that canonical tools declare."""
    declared = (f for t in tools if isinstance(t, dict) for f in t.get(DECLARATIONS, ()) if isinstance(f, dict))
    return [str(f.get("name")) for f in declared]


def _together(
    document: Document, spec: Spec, tools: list[dict[str, Any]], config: Mapping[str, Any], *, vertex: bool
) -> Iterator[Diagnostic]:
    """What tools, their settings and `request:` may not say together."""
    overlay = {camel(name): name for name in spec.request}
    for part, field in (("tools", spec.tools), ("toolConfig", spec.tool_config), ("labels", spec.labels)):
        if field and part in overlay:
            message = f"`request.{overlay[part]}` would take the place of `{snake(part)}`"
            hint = "Keep one of them."
            at: NodePath = ("request", overlay[part])
            yield document.diagnostic("conflicting-fields", message, at, on_key=True, hint=hint)
    known = functions(tools)
    calling = config.get("functionCallingConfig")
    if isinstance(calling, Mapping):
        yield from _calling(document, spec, calling, known, elsewhere="tools" in overlay)
    for i, tool in enumerate(tools):
        again = next((n for n in tool if n != DECLARATIONS and any(n in t for t in tools[:i])), None)
        if again:
            yield document.diagnostic("duplicate-field", f"the tool `{snake(again)}` is named twice", ("tools", i))
    own = [snake(n) for t in tools for n in t if n != DECLARATIONS]
    if known and own and not vertex and not config.get("includeServerSideToolInvocations"):
        message = f"functions together with {own[0]} need the service's leave to call its own tools"
        hint = "Add `tool_config: {include_server_side_tool_invocations: true}`, or ask in two specs."
        yield document.diagnostic("conflicting-fields", message, ("tools",), on_key=True, hint=hint)


def _calling(
    document: Document, spec: Spec, calling: Mapping[str, Any], known: list[str], *, elsewhere: bool
) -> Iterator[Diagnostic]:
    name = next(n for n in spec.tool_config if camel(n) == "functionCallingConfig")
    at: NodePath = ("tool_config", name)
    allowed = calling.get("allowedFunctionNames")
    if not known and not elsewhere:
        message = "there are no functions to call: `tools` has no `function_declarations`"
        yield document.diagnostic("conflicting-fields", message, at, on_key=True)
    elif isinstance(allowed, list):
        for function in allowed:
            if known and isinstance(function, str) and function not in known:
                message = f"the function `{shown(function)}` is not declared in `tools`"
                hint = suggestion(function, known, noun="Functions")
                yield document.diagnostic("wrong-value", message, at, on_key=True, hint=hint)
        if calling.get("mode") not in ("ANY", "VALIDATED"):
            message = "only some functions may be called, but the mode does not hold the model to them"
            hint = "Add `mode: any`, or `mode: validated` to allow text too."
            yield document.diagnostic("conflicting-fields", message, at, on_key=True, hint=hint)


def _labels(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    for name, value in spec.labels.items():
        if not _LABEL_NAME.fullmatch(name) or not _LABEL_VALUE.fullmatch(value):
            message = f"`{shown(name)}: {shown(value)}` is no label"
            hint = "At most 63 of a-z, 0-9, _ and -; the name begins with a letter."
            yield document.diagnostic("wrong-value", message, ("labels", name), hint=hint)
