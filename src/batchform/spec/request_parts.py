"""What a spec asks for beside its texts: generationConfig with its schema, safetySettings, the overlay; and how answers
are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from batchform.errors import Diagnostic
from batchform.spec.backends import Backend, EmulatorBackend, VertexBackend
from batchform.spec.classes import Classes, class_name, read_class
from batchform.spec.dialect import check_sent
from batchform.spec.embed import VECTOR, embed_base, embed_overlay, vector_schema
from batchform.spec.generation import camel, canonical_config, canonical_overlay
from batchform.spec.image import IMAGES, with_images
from batchform.spec.model import Spec
from batchform.spec.realm import cloud_of
from batchform.spec.row_values import without_row_values
from batchform.spec.schemas import SchemaSource, check_schema, read_schema
from batchform.spec.tools import add_settings
from batchform.spec.wording import shown
from batchform.spec.yaml_source import Document, NodePath

JSON_MIME: Final = "application/json"


class RequestParts(Struct, frozen=True):
    """Everything of a request but its texts, and how answers are read."""

    base: dict[str, Any]
    overlay: dict[str, Any]
    response_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    output_format: str
    classes: Mapping[str, dict[str, Any]]


def request_parts(
    spec: Spec, document: Document, classes: Classes, problems: list[Diagnostic], *, backend: Backend | None = None
) -> RequestParts:
    """Canonical generationConfig, safetySettings, tools, overlay and schemas of a spec.

    backend: None if it is not known.
    """
    if spec.task == "embed":
        return _embed_parts(spec, document, problems, cloud_of(backend) if backend else "gemini")
    schemas = _Schemas(document, classes, problems)
    own = without_row_values(spec.generation_config)
    config, schema_at, found = canonical_config(document, ("generation_config",), own)
    if spec.task == "image":
        config = with_images(config, spec)
    problems += found
    response_schema = sent = None
    if schema_at is not None:
        source = schemas.read(*schema_at)
        _check_mime(document, config, schema_at[0], problems)
        config.setdefault("responseMimeType", JSON_MIME)
        if source is not None:
            made, found = check_sent(source, spec.schema_dialect, importer=_is_imported(backend))
            problems += found
            config[made.field] = sent = made.schema
            response_schema = source.schema
    elif spec.schema_dialect != "auto":
        message = "`schema_dialect` says how a response schema is sent, and there is none"
        problems.append(document.diagnostic("conflicting-fields", message, ("schema_dialect",), on_key=True))
    overlay, found = canonical_overlay(document, spec.request)
    problems += found
    base: dict[str, Any] = {}
    if config:
        base["generationConfig"] = config
    importer, vertex = _is_imported(backend), _is_vertex(backend)
    problems += add_settings(base, spec, document, classes.root, importer=importer, vertex=vertex)
    _check_merged(document, config, overlay, problems)
    output_format, output_schema = _output(spec, schemas, config, overlay, response_schema)
    if spec.task == "image":
        output_format, output_schema = IMAGES, None
    return RequestParts(base, overlay, sent, output_schema, output_format, schemas.of_classes)


def _embed_parts(spec: Spec, document: Document, problems: list[Diagnostic], cloud: str) -> RequestParts:
    overlay, found = canonical_overlay(document, spec.request)
    problems += found
    overlay = embed_overlay(spec) if cloud == "vertex" else overlay
    return RequestParts(embed_base(spec, cloud), overlay, None, vector_schema(spec), VECTOR, {})


def _is_imported(backend: Backend | None) -> bool:
    """Whether requests go to Vertex AI in files, which it loads like rows of BigQuery."""
    return _is_vertex(backend) and getattr(backend, "via", "") == "storage"


def _is_vertex(backend: Backend | None) -> bool:
    return isinstance(backend, (VertexBackend, EmulatorBackend)) and cloud_of(backend) == "vertex"


class _Schemas:
    """Reads the schemas that a spec names or holds. of_classes: those of Python classes, by name."""

    def __init__(self, document: Document, classes: Classes, problems: list[Diagnostic]) -> None:
        self.document, self.problems = document, problems
        self.of_classes: dict[str, dict[str, Any]] = {}
        self._classes = classes

    def read(self, at: NodePath, value: Any) -> SchemaSource | None:
        name = class_name(value)
        if name is None:
            source, found = read_schema(value, self.document, at, root=self._classes.root / "schemas")
        else:
            source, found = read_class(name, self.document, at, self._classes)
        self.problems += found
        if name is not None and source is not None:
            self.of_classes[name] = source.schema
        return source


def _check_mime(document: Document, config: dict[str, Any], at: NodePath, problems: list[Diagnostic]) -> None:
    mime = config.get("responseMimeType", JSON_MIME)
    if mime not in (JSON_MIME, "text/x.enum"):
        message = f"a response schema needs the MIME type {JSON_MIME}, not {shown(mime)}"
        hint = "Remove response_mime_type: it is set for you."
        problems.append(document.diagnostic("conflicting-fields", message, at, on_key=True, hint=hint))


def _check_merged(
    document: Document, config: dict[str, Any], overlay: dict[str, Any], problems: list[Diagnostic]
) -> None:
    """What the overlay and the named fields may not say together."""
    over = overlay.get("generationConfig")
    if over is None:
        return
    at: NodePath = ("request", next(n for n in document.get("request") or {} if camel(n) == "generationConfig"))
    if not isinstance(over, dict):
        problems.append(document.diagnostic("wrong-value", "`generationConfig` must be a mapping", at))
        return
    merged = {**config, **over}
    if "responseSchema" in merged and "responseJsonSchema" in merged:
        message = "the request would have two response schemas"
        problems.append(document.diagnostic("conflicting-fields", message, at, on_key=True))
    thinking = [c["thinkingConfig"] for c in (config, over) if isinstance(c.get("thinkingConfig"), dict)]
    if {"thinkingLevel", "thinkingBudget"} <= {name for t in thinking for name in t} and len(thinking) > 0:
        message = "thinkingLevel and thinkingBudget exclude each other"
        if not config.get("thinkingConfig", {}).keys() >= {"thinkingLevel", "thinkingBudget"}:
            problems.append(document.diagnostic("conflicting-fields", message, at, on_key=True))


def _output(
    spec: Spec,
    schemas: _Schemas,
    config: Mapping[str, Any],
    overlay: Mapping[str, Any],
    response_schema: dict[str, Any] | None,
) -> tuple[str, dict[str, Any] | None]:
    document, problems = schemas.document, schemas.problems
    over = overlay.get("generationConfig")
    mime = {**config, **(over if isinstance(over, dict) else {})}.get("responseMimeType")
    declared, own = spec.output.format, spec.output.schema_
    chosen = declared or ("json" if mime == JSON_MIME or own is not None else "text")
    if own is None:
        schema = response_schema if chosen == "json" else None
    else:
        source = schemas.read(("output", "schema"), own)
        problems += check_schema(source, sent=False) if source is not None else []
        schema = source.schema if source is not None else None
        if chosen == "text":
            message = "`output.schema` validates JSON, but `output.format` is text"
            problems.append(document.diagnostic("conflicting-fields", message, ("output", "schema"), on_key=True))
    if chosen == "json" and mime != JSON_MIME:
        message = "answers are read as JSON, but the request does not ask for JSON"
        hint = f"Set generation_config.response_mime_type: {JSON_MIME}, or a response_schema."
        problems.append(document.diagnostic("json-not-asked", message, ("output",), hint=hint, severity="warning"))
    extract = spec.output.extract
    if extract and chosen == "text":
        message = "`output.extract` takes JSON out of text, but `output.format` is text"
        problems.append(document.diagnostic("conflicting-fields", message, ("output", "extract"), on_key=True))
    wrapped = schema is None if extract is None else extract
    return "json_in_text" if chosen == "json" and wrapped else chosen, schema
