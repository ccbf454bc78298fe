"""What Vertex AI is known to refuse in the requests of a batch, said before anything is sent.

Its importer of JSON lines behaves like a BigQuery load: one request that it cannot take fails the whole job, after the
create call has said yes. All requests of a spec have one shape, so that their constant part is judged once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from batchform.errors import Diagnostic
from batchform.spec.backends import EmulatorBackend, VertexBackend
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.service_limits import VertexRefusals

_COLUMN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_SCHEMAS: Final = ("responseSchema", "responseJsonSchema")
_NO_COLUMNS: Final = ("$defs", "$schema", "$ref")
_AROUND: Final = 3
"""Levels of a line above what a request's own parts hold: the line, the request, the part."""

Path = tuple[str, ...]


def check_vertex(spec: ResolvedSpec, request: Mapping[str, Any], refuses: VertexRefusals) -> list[Diagnostic]:
    """Complaints about a spec whose backend is Vertex AI, each with its place in the spec. request: what all rows
    share."""
    assert isinstance(spec.backend, (VertexBackend, EmulatorBackend))
    problems = [*_features(request, refuses)]
    if spec.spec.submit == "inline":
        problems.append((("submit",), "Vertex AI takes no inline requests", "Use `submit: file`, or leave it out."))
    if spec.backend.via == "storage":
        problems += _importer(request, refuses.max_nesting)
    return [
        Diagnostic("vertex-refuses", message, spec.at(_field(spec, path)), hint=hint)
        for path, message, hint in problems
    ]


Problem = tuple[Path, str, str]
"""Path within the request, message, hint."""


def _features(request: Mapping[str, Any], refuses: VertexRefusals) -> Iterator[Problem]:
    """Features of the API that batches of Vertex AI do not have."""
    if "cachedContent" in request:
        hint = "Leave it out: repeated beginnings are cached by themselves there, at the price of cached input."
        yield ("cachedContent",), "batches of Vertex AI take no explicit cache", hint
    config = request.get("generationConfig")
    image = config.get("imageConfig") if isinstance(config, Mapping) else None
    size = image.get("imageSize") if isinstance(image, Mapping) else None
    if size is not None and str(size).upper() not in refuses.image_sizes:
        made = " or ".join(refuses.image_sizes)
        hint = f"Leave `image_size` out, or use the Gemini API for {size} images."
        yield ("generationConfig", "imageConfig", "imageSize"), f"batches of Vertex AI make {made} images only", hint
    for tool in _list(request.get("tools")):
        if isinstance(tool, Mapping) and "retrieval" in tool:
            hint = "Put what is to be known into the prompt."
            yield ("tools",), "batches of Vertex AI have no retrieval (RAG)", hint


def _importer(request: Mapping[str, Any], deepest: int) -> Iterator[Problem]:
    """What a load into columns cannot take."""
    seen: dict[Path, tuple[str, Path]] = {}
    for path, value in _walk(request, ()):
        columns = tuple("[]" if p[:1] == "[" else p for p in path)
        name = path[-1]
        if value == {}:
            hint = "Say something in it: google_search, for one, takes {exclude_domains: [example.com]}."
            yield path, f"`{_shown(path)}` is empty, and the importer of Vertex AI refuses empty objects", hint
        if name in _NO_COLUMNS:
            hint = "Write the schema out, without $defs and $ref."
            yield path, f"`{_shown(path)}` fails the importer of Vertex AI", hint
        elif name[:1] != "[" and not _COLUMN.fullmatch(name):
            hint = "Begin with a letter or _, then letters, digits and _ only."
            yield path, f"`{_shown(path)}` is no name that the importer of Vertex AI takes", hint
        if sum(p != "[]" for p in columns) + _AROUND > deepest and isinstance(value, Mapping):
            yield path, f"`{_shown(path)}` is nested too deep: the importer takes {deepest} levels", "Flatten it."
        if isinstance(value, Mapping):
            yield from _same_but_for_case(path, value)
        kind = _kind(value)
        known, where = seen.setdefault(columns, (kind, path))
        if kind and known and kind != known:
            message = f"`{_shown(path)}` is {kind}, and `{_shown(where)}` is {known}: the importer takes one type"
            yield path, message, "Write both alike."
        elif kind and not known:
            seen[columns] = (kind, path)


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value within a request, with its path. Texts of rows are not in it: they are texts in every row."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(inner, (*path, str(name)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, inner in enumerate(value):
            yield from _walk(inner, (*path, f"[{i}]"))


def _same_but_for_case(path: Path, value: Mapping[str, Any]) -> Iterator[Problem]:
    names: dict[str, str] = {}
    for name in value:
        other = names.setdefault(str(name).casefold(), str(name))
        if other != name:
            message = f"`{_shown((*path, str(name)))}` and `{other}` differ in case only, and columns do not"
            yield (*path, str(name)), message, "Rename one of them."


def _kind(value: Any) -> str:
    """The type of column that a value asks for; "" where any will do."""
    if value == []:
        return ""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, Mapping) else "a list"


def _shown(path: Path) -> str:
    return ".".join(path).replace(".[", "[")


def _field(spec: ResolvedSpec, path: Path) -> str:
    """The field of the spec that a part of the request comes from."""
    if path == ("submit",):
        return "submit"
    overlay: Any = spec.request_overlay
    for name in path:
        if not isinstance(overlay, Mapping) or name not in overlay:
            break
        overlay = overlay[name]
    else:
        return "request"
    return {"generationConfig": "generation_config", "safetySettings": "safety_settings"}.get(path[0], "request")


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
