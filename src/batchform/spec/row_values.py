"""Values of generation_config that each row gives: `temperature: {expr: temp}`, an expression over its columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.errors import Diagnostic, InvalidProject
from batchform.spec.generation import FIELDS, Kind, camel, snake, typed_value
from batchform.spec.resolved import Template
from batchform.spec.templates import TemplateSet
from batchform.spec.yaml_source import Document, NodePath

BY_ROW: Final = (
    *("temperature", "topP", "topK", "maxOutputTokens", "seed", "presencePenalty", "frequencyPenalty"),
    *("mediaResolution", "thinkingLevel", "thinkingBudget"),
)
"""What may differ from row to row: numbers and words that shape one answer."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class RowValue(Struct, frozen=True):
    """One such field. path: within the request; template: renders the value as JSON."""

    path: tuple[str, ...]
    template: Template

    @property
    def name(self) -> str:
        return snake(self.path[-1])

    def checked(self, rendered: str) -> Any:
        """The value of a row in canonical form, None where the row leaves the field out. Raises ValueError that says
        what it must be. Texts that are numbers are taken as such: a CSV file has nothing else."""
        value, kind = msgspec.json.decode(rendered), _kind(self.path[-1])
        if isinstance(value, str) and kind in ("int", "number") and _NUMBER.fullmatch(value.strip()):
            value = msgspec.json.decode(value.strip().lstrip("+"))
        return None if value is None else typed_value(self.path[-1], value, kind)


def _kind(name: str) -> Kind:
    thinking: Mapping[str, Kind] = FIELDS["thinkingConfig"]
    return thinking[name] if name in thinking else FIELDS[name]


def without_row_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config without what rows give."""
    kept = {n: without_row_values(v) if _is_thinking(n, v) else v for n, v in config.items() if not _by_row(n, v)}
    return {n: v for n, v in kept.items() if not (_is_thinking(n, config[n]) and not v)}


def row_values(
    config: Mapping[str, Any], document: Document, templates: TemplateSet
) -> tuple[tuple[RowValue, ...], list[Diagnostic]]:
    """What rows give of a generation_config, in the order of its paths, and complaints."""
    found: list[RowValue] = []
    problems: list[Diagnostic] = []
    named: list[tuple[tuple[str, ...], Any]] = []
    for name, value in config.items():
        named += [((name, n), v) for n, v in value.items()] if _is_thinking(name, value) else [((name,), value)]
    for path, value in named:
        name = path[-1]
        if not _by_row(name, value):
            continue
        at: NodePath = ("generation_config", *path, "expr")
        try:
            template = templates.inline(f"{{{{ ({value['expr']}) | tojson }}}}", place=document.place(*at))
        except InvalidProject as exc:
            problems.extend(exc.diagnostics)
            continue
        if template.constant:
            message = f"the expression of `{snake(camel(name))}` reads no column: write the value itself"
            problems.append(document.diagnostic("constant-value", message, at))
        found.append(RowValue(("generationConfig", *map(camel, path)), template))
    return tuple(sorted(found, key=lambda v: v.path)), problems


def _by_row(name: str, value: Any) -> bool:
    given = isinstance(value, dict) and set(value) == {"expr"} and isinstance(value["expr"], str)
    return given and camel(name) in BY_ROW


def _is_thinking(name: str, value: Any) -> bool:
    return camel(name) == "thinkingConfig" and isinstance(value, dict)
