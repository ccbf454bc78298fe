"""The API's generationConfig and safetySettings: names, types, and their one canonical form.

Names may be snake_case or camelCase and become camelCase; values of enumerations become upper case. A test compares
the table with the SDK's own model. What has no name here goes into `request:`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from batchform.canon import normalise
from batchform.errors import Diagnostic
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document, NodePath, leaves

Kind = Any
"""What a field takes: a type name ("int", "number", "bool", "text", "json"), a tuple of words, a list of one kind
("a list of"), or a mapping of names to kinds."""

_VOICE: Final[Mapping[str, Kind]] = {
    "voice": "text",
    "prebuiltVoiceConfig": {"voiceName": "text"},
    "replicatedVoiceConfig": {
        "mimeType": "text",
        "voiceSampleAudio": "text",
        "consentAudio": "text",
        "voiceConsentSignature": "json",
    },
}

FIELDS: Final[Mapping[str, Kind]] = {
    "temperature": "number",
    "topP": "number",
    "topK": "number",
    "candidateCount": "int",
    "maxOutputTokens": "int",
    "stopSequences": ["text"],
    "seed": "int",
    "presencePenalty": "number",
    "frequencyPenalty": "number",
    "responseLogprobs": "bool",
    "logprobs": "int",
    "responseMimeType": "text",
    "responseModalities": [("TEXT", "IMAGE", "AUDIO", "VIDEO")],
    "mediaResolution": ("MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH"),
    "thinkingConfig": {
        "thinkingLevel": ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"),
        "thinkingBudget": "int",
        "includeThoughts": "bool",
    },
    "speechConfig": {
        "languageCode": "text",
        "voiceConfig": _VOICE,
        "multiSpeakerVoiceConfig": {"speakerVoiceConfigs": [{"speaker": "text", "voiceConfig": _VOICE}]},
    },
    "imageConfig": {
        "aspectRatio": "text",
        "imageSize": "text",
        "personGeneration": "text",
        "prominentPeople": "text",
        "outputMimeType": "text",
        "outputCompressionQuality": "int",
        "imageOutputOptions": {"compressionQuality": "int", "mimeType": "text"},
    },
    "enableEnhancedCivicAnswers": "bool",
    "enableAffectiveDialog": "bool",
    "audioTimestamp": "bool",
    "routingConfig": "json",
    "modelSelectionConfig": {"featureSelectionPreference": "text"},
    "responseFormat": "json",
    "translationConfig": {"echoTargetLanguage": "bool", "targetLanguageCode": "text"},
    "audioTranscriptionConfig": "json",
}
SCHEMA_FIELDS: Final = ("responseSchema", "responseJsonSchema")

SAFETY_FIELDS: Final[Mapping[str, Kind]] = {
    "category": (
        "HARM_CATEGORY_HARASSMENT",
        "HARM_CATEGORY_HATE_SPEECH",
        "HARM_CATEGORY_SEXUALLY_EXPLICIT",
        "HARM_CATEGORY_DANGEROUS_CONTENT",
        "HARM_CATEGORY_CIVIC_INTEGRITY",
        "HARM_CATEGORY_JAILBREAK",
        "HARM_CATEGORY_IMAGE_HATE",
        "HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT",
        "HARM_CATEGORY_IMAGE_HARASSMENT",
        "HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT",
    ),
    "threshold": ("BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"),
    "method": ("SEVERITY", "PROBABILITY"),
}

_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "topP": (0, 1),
    "topK": (1, 1e9),
    "maxOutputTokens": (1, 2**31 - 1),
    "seed": (-(2**31), 2**31 - 1),
    "logprobs": (0, 20),
    "candidateCount": (1, 1),
    "presencePenalty": (-2, 2),
    "frequencyPenalty": (-2, 2),
    "thinkingBudget": (-1, 2**31 - 1),
}
_MOST_ITEMS: Final[Mapping[str, int]] = {"stopSequences": 5}


def camel(name: str) -> str:
    """`max_output_tokens` → `maxOutputTokens`; camelCase stays."""
    return re.sub(r"(?<=[a-zA-Z0-9])_+([a-z0-9])", lambda m: m[1].upper(), name)


def snake(name: str) -> str:
    """`maxOutputTokens` → `max_output_tokens`."""
    return re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), name)


def canonical_config(
    document: Document, path: NodePath, value: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[NodePath, Any] | None, list[Diagnostic]]:
    """generationConfig in canonical form without its schema; the schema's node and value; complaints."""
    problems: list[Diagnostic] = []
    rest: dict[str, Any] = {}
    schema: tuple[NodePath, Any] | None = None
    for name, inner in value.items():
        if camel(name) not in SCHEMA_FIELDS:
            rest[name] = inner
        elif inner is not None and schema is not None:
            message = "generation_config has two response schemas"
            problems.append(
                document.diagnostic("duplicate-field", message, (*path, name), on_key=True, hint="Keep one.")
            )
        elif inner is not None:
            schema = (*path, name), inner
    config = _object(document, path, rest, FIELDS, problems)
    if config.get("thinkingConfig", {}).keys() >= {"thinkingLevel", "thinkingBudget"}:
        at = next((*path, n) for n in rest if camel(n) == "thinkingConfig")
        message = "thinkingLevel and thinkingBudget exclude each other"
        hint = "Gemini 3 takes thinking_level, Gemini 2.5 takes thinking_budget."
        problems.append(document.diagnostic("conflicting-fields", message, at, on_key=True, hint=hint))
    return config, schema, problems


def canonical_safety(
    document: Document, value: list[dict[str, Any]] | Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[Diagnostic]]:
    """safetySettings in canonical form, by category; from the API's list, or from `{hate_speech: block_none}`."""
    problems: list[Diagnostic] = []
    settings: dict[str, dict[str, Any]] = {}
    named: list[tuple[NodePath, Any]] = [(("safety_settings", i), v) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        named = [(("safety_settings", n), {"category": n, "threshold": v}) for n, v in value.items()]
    for at, written in named:
        item = {n: "OFF" if v is False and n == "threshold" else v for n, v in written.items()}  # `off` in YAML
        before = len(problems)
        setting = _object(document, at, item, SAFETY_FIELDS, problems)
        missing = [n for n in ("category", "threshold") if n not in setting]
        if missing and len(problems) == before:
            message = f"this safety setting has no {' and no '.join(missing)}"
            problems.append(document.diagnostic("missing-field", message, at))
        category = str(setting.get("category"))
        if category in settings:
            problems.append(document.diagnostic("duplicate-field", f"{category} is set twice", at))
        settings[category] = setting
    return [settings[c] for c in sorted(settings)], problems


def canonical_overlay(document: Document, value: Mapping[str, Any]) -> tuple[dict[str, Any], list[Diagnostic]]:
    """`request:` with camelCase names at the top and in generationConfig's known objects; nothing else is touched."""
    problems: list[Diagnostic] = []
    overlay = _renamed(document, ("request",), value, {}, problems)
    for path, inner in leaves(value, ("request",)):
        if inner is None:
            message, hint = "null says nothing here", "Remove the line: what is absent is not sent."
            problems.append(document.diagnostic("wrong-value", message, path, hint=hint))
    if "model" in overlay:
        at = next(("request", n) for n in value if camel(n) == "model")
        problems.append(document.diagnostic("wrong-value", "the model is set by `model:`", at, on_key=True))
    config = overlay.get("generationConfig")
    if isinstance(config, dict) and config.get("candidateCount", 1) != 1:
        message = "more than one candidate per request is not supported"
        problems.append(document.diagnostic("wrong-value", message, ("request",), on_key=True))
    return dict(normalise(overlay)), problems


def canonical_object(
    document: Document, path: NodePath, value: Mapping[str, Any], kinds: Mapping[str, Kind], problems: list[Diagnostic]
) -> dict[str, Any]:
    """An object with known fields in canonical form. Complaints go to `problems`."""
    return _object(document, path, value, kinds, problems)


def _renamed(
    document: Document, path: NodePath, value: Mapping[str, Any], kinds: Mapping[str, Kind], problems: list[Diagnostic]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, inner in value.items():
        key, at = camel(name), (*path, name)
        if key in result:
            problems.append(_twice(document, at, key))
            continue
        kind = FIELDS if at == ("request", name) and key == "generationConfig" else kinds.get(key)
        known = kind if isinstance(inner, dict) and isinstance(kind, Mapping) else None
        result[key] = inner if known is None else _renamed(document, at, inner, known, problems)
    return result


def _twice(document: Document, path: NodePath, key: str) -> Diagnostic:
    return document.diagnostic("duplicate-key", f"`{shown(key)}` is given twice, in two spellings", path, on_key=True)


def _object(
    document: Document, path: NodePath, value: Mapping[str, Any], kinds: Mapping[str, Kind], problems: list[Diagnostic]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, inner in value.items():
        key, at = camel(name), (*path, name)
        if key not in kinds:
            label = "a safety setting" if path[0] == "safety_settings" else str(path[0])
            hint = suggestion(snake(key), [snake(k) for k in kinds])
            top = camel(str(path[0])) if len(path) == 1 else ""
            hint += f" For a field that is new, use `request: {{{top}: {{…}}}}`." if top else ""
            message = f"{label} has no field `{shown(name)}`"
            problems.append(document.diagnostic("unknown-field", message, at, on_key=True, hint=hint))
        elif key in result:
            problems.append(_twice(document, at, key))
        elif inner is not None:
            result[key] = _value(document, at, key, inner, kinds[key], problems)
    return result


def _value(document: Document, path: NodePath, key: str, value: Any, kind: Kind, problems: list[Diagnostic]) -> Any:
    def bad(wanted: str, hint: str = "") -> Any:
        message = f"`{snake(key)}` must be {wanted}"
        problems.append(document.diagnostic("wrong-value", message, path, hint=hint))
        return value

    if isinstance(kind, Mapping):
        return _object(document, path, value, kind, problems) if isinstance(value, dict) else bad("a mapping of fields")
    if isinstance(kind, list):
        if not isinstance(value, list):
            by_row = isinstance(value, dict) and set(value) == {"expr"}
            return bad("a list", "Rows cannot give this field: it is the same for all of them." if by_row else "")
        if len(value) > (most := _MOST_ITEMS.get(key, len(value))):
            return bad(f"a list of at most {most}")
        return [_value(document, (*path, i), key, v, kind[0], problems) for i, v in enumerate(value)]
    if isinstance(kind, tuple):
        word = str(value).upper()
        tail = "HARM_CATEGORY_" if key == "category" else "_"  # `hate` is no short form of IMAGE_HATE
        named = [k for k in kind if word == k or k.endswith(tail + word)] if isinstance(value, str) else []
        full = named[0] if named else None
        return full or bad("one of its values", suggestion(word, kind, noun="Values"))
    if kind == "text":
        return value if isinstance(value, str) else bad("text", "Quote it.")
    if kind == "bool":
        return value if isinstance(value, bool) else bad("true or false")
    if kind == "json":
        return normalise(value)
    return _number(value, key, kind, bad)


def typed_value(name: str, value: Any, kind: Kind) -> Any:
    """The canonical form of one field's value. Raises ValueError that says what it must be."""
    problems: list[Diagnostic] = []
    made = _value(Document("", None), (), name, value, kind, problems)
    if problems:
        raise ValueError(" ".join(p for p in (f"{problems[0].message}.", problems[0].hint) if p))
    return made


def _number(value: Any, key: str, kind: str, bad: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return bad("a whole number" if kind == "int" else "a number")
    number = normalise(value)
    if kind == "int" and not isinstance(number, int):
        return bad("a whole number")
    low, high = _RANGES.get(key, (float("-inf"), float("inf")))
    if key == "candidateCount" and number != 1:
        return bad("1", "More than one candidate per request is not supported; use several rows or specs.")
    return number if low <= number <= high else bad(f"between {normalise(low):,} and {normalise(high):,}")
