"""What is refused in a request that follows the grammar: ranges, contradictions, empty parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchform.emulator import schemas, tools, vectors
from batchform.emulator.grammar import PART_DATA, snake
from batchform.emulator.models import Model
from batchform.emulator.refusal import Refusal, bad_field

_MIME_TYPES = ("text/plain", "application/json", "application/xml", "application/yaml", "text/x.enum")
_RANGES = (
    ("temperature", 0, 2),
    ("topP", 0, 1),
    ("candidateCount", 1, 8),
    ("presencePenalty", -2, 2),
    ("frequencyPenalty", -2, 2),
)
_MAX_STOP_SEQUENCES = 5


def check(request: dict[str, Any], model: Model, *, vertex: bool = False) -> None:
    """Raise Refusal (400, or 403 for a cache) with the first complaint about a normalised request."""
    if model.embeds:
        vectors.check(request, model)
        return
    for complaint in _complaints(request, model, vertex=vertex):
        raise complaint


def _complaints(request: dict[str, Any], model: Model, *, vertex: bool) -> Iterator[Refusal]:
    contents = request.get("contents")
    if not contents:
        yield _about("contents", "contents is not specified")
    for i, content in enumerate(contents or ()):
        yield from _content(content, f"contents[{i}]")
        if content.get("role", "user") not in ("user", "model", "function"):
            yield Refusal(400, "Please use a valid role: user, model.")
    if "systemInstruction" in request:
        yield from _content(request["systemInstruction"], "system_instruction")
    if request.get("model", model.id).removeprefix("models/") != model.id:
        yield _about("model", f"the call is for models/{model.id}, the request says {request['model']}")
    if "cachedContent" in request and any(name in request for name in ("systemInstruction", "tools", "toolConfig")):
        yield Refusal(
            400,
            "CachedContent can not be used with GenerateContent request setting system_instruction, tools or"
            " tool_config.",
        )
    if "tools" in request or "toolConfig" in request:
        yield from tools.complaints(request, old=model.id.startswith("gemini-2"), vertex=vertex)
    config = request.get("generationConfig")
    if config:
        yield from _config(config, model)
        if "tools" in request and config.get("responseMimeType") == "application/json" and "-2.5-" in model.id:
            yield Refusal(400, "Tool use with a response mime type: 'application/json' is unsupported")


def _content(content: dict[str, Any], path: str) -> Iterator[Refusal]:
    parts = content.get("parts")
    if not parts:
        yield _about(f"{path}.parts", "contents.parts must not be empty.")
    for i, part in enumerate(parts or ()):
        data = [field for field in PART_DATA if field in part]
        if not data:
            yield _about(f"{path}.parts[{i}].data", "required oneof field 'data' must have one initialized field")
        elif len(data) > 1:
            yield bad_field(f"Invalid value at '{path}.parts[{i}]' (oneof), oneof field 'data' is already set.")


def _config(config: dict[str, Any], model: Model) -> Iterator[Refusal]:
    for field, low, high in _RANGES:
        if field in config and not low <= config[field] <= high:
            yield _about(f"generation_config.{snake(field)}", f"{config[field]} is outside the range [{low}, {high}]")
    limit = config.get("maxOutputTokens", 1)
    if not 1 <= limit <= model.output_limit:
        yield _about("generation_config.max_output_tokens", f"{limit} is outside the range [1, {model.output_limit}]")
    if len(config.get("stopSequences", ())) > _MAX_STOP_SEQUENCES:
        yield _about("generation_config.stop_sequences", f"at most {_MAX_STOP_SEQUENCES} stop sequences are allowed")
    if "thinkingConfig" in config:
        yield from _thinking(config["thinkingConfig"], model)
    yield from _output(config)


def _thinking(thinking: dict[str, Any], model: Model) -> Iterator[Refusal]:
    level = thinking.get("thinkingLevel", "THINKING_LEVEL_UNSPECIFIED")
    if "thinkingLevel" in thinking and "thinkingBudget" in thinking:
        yield Refusal(400, "You can only set only one of thinking budget and thinking level.")
    if model.levels and level not in ("THINKING_LEVEL_UNSPECIFIED", *model.levels):
        yield Refusal(400, f"Thinking level {level} is not supported for this model: use {', '.join(model.levels)}.")


def _output(config: dict[str, Any]) -> Iterator[Refusal]:
    mime = config.get("responseMimeType", "text/plain")
    if mime not in _MIME_TYPES:
        allowed = ", ".join(f"`{m}`" for m in _MIME_TYPES)
        yield _about("generation_config.response_mime_type", f"allowed mimetypes are {allowed}.")
    both = [field for field in ("responseSchema", "responseJsonSchema") if field in config]
    if len(both) > 1:
        yield Refusal(400, "Only one of response_schema and response_json_schema can be set.")
    for field in both:
        if mime not in ("application/json", "text/x.enum"):
            yield Refusal(400, f"{field} needs responseMimeType 'application/json', not '{mime}'.")
        complaint = schemas.complaint(config, field)
        if complaint:
            yield _about(f"generation_config.{snake(field)}", complaint)


def _about(path: str, message: str) -> Refusal:
    return bad_field(f"* GenerateContentRequest.{path}: {message}", path)
