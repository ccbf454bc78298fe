"""The grammar of a GenerateContentRequest, as data: message → field (camelCase) → type.

Types: `string`, `int`, `number`, `bool`, `bytes` (base64, either alphabet), `value` (any JSON), `struct` (any
JSON object), the name of an enum or of a message, `[T]` for a list and `{T}` for a map from string to T.
Source: google-genai 3.4 for the Gemini Developer API. What is not here is refused, as the service refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from batchform.emulator.vertex import grammar as vertex

REQUEST: Final = "GenerateContentRequest"
EMBED: Final = "EmbedContentRequest"

_MEDIA_RESOLUTIONS = tuple(f"MEDIA_RESOLUTION_{n}" for n in ("UNSPECIFIED", "LOW", "MEDIUM", "HIGH"))

ENUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "Type": ("TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"),
    "HarmCategory": tuple(
        f"HARM_CATEGORY_{n}"
        for n in (
            *("UNSPECIFIED", "HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT"),
            *("CIVIC_INTEGRITY", "JAILBREAK", "IMAGE_HATE", "IMAGE_DANGEROUS_CONTENT", "IMAGE_HARASSMENT"),
            "IMAGE_SEXUALLY_EXPLICIT",
        )
    ),
    "HarmBlockThreshold": (
        "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
        *("BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"),
    ),
    "ThinkingLevel": ("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"),
    "MediaResolution": _MEDIA_RESOLUTIONS,
    "PartMediaResolutionLevel": (*_MEDIA_RESOLUTIONS, "MEDIA_RESOLUTION_ULTRA_HIGH"),
    "EmbedTask": (
        "TASK_TYPE_UNSPECIFIED",
        *("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING"),
        *("QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY"),
    ),
    "Modality": ("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO"),
    "FunctionCallingMode": ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"),
    "DynamicRetrievalMode": ("MODE_UNSPECIFIED", "MODE_DYNAMIC"),
    "Language": ("LANGUAGE_UNSPECIFIED", "PYTHON"),
    "Outcome": ("OUTCOME_UNSPECIFIED", "OUTCOME_OK", "OUTCOME_FAILED", "OUTCOME_DEADLINE_EXCEEDED"),
    "Behavior": ("UNSPECIFIED", "BLOCKING", "NON_BLOCKING"),
    "Scheduling": ("SCHEDULING_UNSPECIFIED", "SILENT", "WHEN_IDLE", "INTERRUPT"),
}

PART_DATA: Final = (
    *("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode"),
    *("codeExecutionResult", "toolCall", "toolResponse"),
)
"""The one-of of a Part: exactly one of these must be set."""

_OFFSETS = {"startOffset": "string", "endOffset": "string"}

_BATCH = {
    "displayName": "string",
    "inputConfig": "",
    "model": "string",
    "name": "string",
    "priority": "int",
    "webhookConfig": "struct",
}

MESSAGES: Final[dict[str, Mapping[str, str]]] = {
    REQUEST: {
        "model": "string",
        "contents": "[Content]",
        "systemInstruction": "Content",
        "generationConfig": "GenerationConfig",
        "safetySettings": "[SafetySetting]",
        "tools": "[Tool]",
        "toolConfig": "ToolConfig",
        "cachedContent": "string",
        "labels": "{string}",
        "serviceTier": "string",
        "store": "bool",
    },
    "Content": {"parts": "[Part]", "role": "string"},
    "Part": {
        "text": "string",
        "inlineData": "Blob",
        "fileData": "FileData",
        "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse",
        "executableCode": "ExecutableCode",
        "codeExecutionResult": "CodeExecutionResult",
        "toolCall": "struct",
        "toolResponse": "struct",
        "thought": "bool",
        "thoughtSignature": "bytes",
        "videoMetadata": "VideoMetadata",
        "mediaResolution": "PartMediaResolution",
        "partMetadata": "struct",
        "audioTranscription": "struct",
        "mediaProcessing": "struct",
        "speechMetadata": "struct",
        "documentMetadata": "struct",
        "spreadsheetMetadata": "struct",
        "audioMetadata": "AudioMetadata",
    },
    "Blob": {"data": "bytes", "mimeType": "string", "displayName": "string"},
    "FileData": {"fileUri": "string", "mimeType": "string", "displayName": "string"},
    "FunctionCall": {"id": "string", "name": "string", "args": "struct"},
    "FunctionResponse": {
        "id": "string",
        "name": "string",
        "response": "struct",
        "parts": "[FunctionResponsePart]",
        "willContinue": "bool",
        "scheduling": "Scheduling",
    },
    "FunctionResponsePart": {"inlineData": "Blob", "fileData": "FileData"},
    "ExecutableCode": {"id": "string", "code": "string", "language": "Language"},
    "CodeExecutionResult": {"id": "string", "outcome": "Outcome", "output": "string"},
    "VideoMetadata": {**_OFFSETS, "fps": "number"},
    "AudioMetadata": _OFFSETS,
    "PartMediaResolution": {"level": "PartMediaResolutionLevel", "numTokens": "int"},
    "GenerationConfig": {
        "candidateCount": "int",
        "stopSequences": "[string]",
        "maxOutputTokens": "int",
        "temperature": "number",
        "topP": "number",
        "topK": "number",
        "seed": "int",
        "responseMimeType": "string",
        "responseSchema": "Schema",
        "responseJsonSchema": "value",
        "presencePenalty": "number",
        "frequencyPenalty": "number",
        "responseLogprobs": "bool",
        "logprobs": "int",
        "enableEnhancedCivicAnswers": "bool",
        "responseModalities": "[Modality]",
        "mediaResolution": "MediaResolution",
        "speechConfig": "struct",
        "thinkingConfig": "ThinkingConfig",
        "imageConfig": "ImageConfig",
        "audioTranscriptionConfig": "struct",
        "translationConfig": "struct",
        "continuationToken": "string",
    },
    "ThinkingConfig": {"includeThoughts": "bool", "thinkingBudget": "int", "thinkingLevel": "ThinkingLevel"},
    "ImageConfig": {"aspectRatio": "string", "imageSize": "string"},
    "Schema": {
        "type": "Type",
        "format": "string",
        "title": "string",
        "description": "string",
        "nullable": "bool",
        "enum": "[string]",
        "items": "Schema",
        "minItems": "int",
        "maxItems": "int",
        "properties": "{Schema}",
        "required": "[string]",
        "minProperties": "int",
        "maxProperties": "int",
        "minimum": "number",
        "maximum": "number",
        "minLength": "int",
        "maxLength": "int",
        "pattern": "string",
        "example": "value",
        "default": "value",
        "anyOf": "[Schema]",
        "propertyOrdering": "[string]",
    },
    "SafetySetting": {"category": "HarmCategory", "threshold": "HarmBlockThreshold"},
    "Tool": {
        "functionDeclarations": "[FunctionDeclaration]",
        "googleSearch": "struct",
        "googleSearchRetrieval": "GoogleSearchRetrieval",
        "googleMaps": "struct",
        "codeExecution": "struct",
        "urlContext": "struct",
        "computerUse": "struct",
        "fileSearch": "struct",
        "mcpServers": "[struct]",
    },
    "FunctionDeclaration": {
        "name": "string",
        "description": "string",
        "parameters": "Schema",
        "parametersJsonSchema": "value",
        "response": "Schema",
        "responseJsonSchema": "value",
        "behavior": "Behavior",
    },
    "GoogleSearchRetrieval": {"dynamicRetrievalConfig": "DynamicRetrievalConfig"},
    "DynamicRetrievalConfig": {"mode": "DynamicRetrievalMode", "dynamicThreshold": "number"},
    "ToolConfig": {
        "functionCallingConfig": "FunctionCallingConfig",
        "retrievalConfig": "RetrievalConfig",
        "includeServerSideToolInvocations": "bool",
    },
    "FunctionCallingConfig": {"mode": "FunctionCallingMode", "allowedFunctionNames": "[string]"},
    "RetrievalConfig": {"latLng": "LatLng", "languageCode": "string"},
    "LatLng": {"latitude": "number", "longitude": "number"},
    # what wraps a request
    "FileLine": {"key": "string", "request": REQUEST},
    "InlineItem": {"request": REQUEST, "metadata": "{string}"},
    EMBED: {
        "model": "string",
        "content": "Content",
        "taskType": "EmbedTask",
        "title": "string",
        "outputDimensionality": "int",
    },
    "EmbedFileLine": {"key": "string", "request": EMBED},
    "EmbedInlineItem": {"request": EMBED, "metadata": "struct"},
    "EmbedContents": {"requests": f"[{EMBED}]"},
    "CreateEmbedBatch": {"batch": "EmbedBatch"},
    "EmbedBatch": {**_BATCH, "inputConfig": "EmbedInputConfig"},
    "EmbedInputConfig": {"fileName": "string", "requests": "EmbedInlineItems"},
    "EmbedInlineItems": {"requests": "[EmbedInlineItem]"},
    "CreateBatch": {"batch": "Batch"},
    "Batch": {**_BATCH, "inputConfig": "InputConfig"},
    "InputConfig": {"fileName": "string", "requests": "InlineItems"},
    "InlineItems": {"requests": "[InlineItem]"},
    "CachedContent": {
        "name": "string",
        "model": "string",
        "displayName": "string",
        "contents": "[Content]",
        "systemInstruction": "Content",
        "tools": "[Tool]",
        "toolConfig": "ToolConfig",
        "ttl": "string",
        "expireTime": "string",
    },
    "CountTokens": {"contents": "[Content]", "generateContentRequest": REQUEST},
}
MESSAGES.update(vertex.messages(MESSAGES))


def snake(camel: str) -> str:
    """The snake_case spelling of a field: `maxOutputTokens` → `max_output_tokens`."""
    return re.sub(r"[A-Z]", lambda m: "_" + m.group().lower(), camel)


FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    message: {spelling: camel for camel in fields for spelling in (camel, snake(camel))}
    for message, fields in MESSAGES.items()
}
"""Message → every accepted spelling → camelCase."""

_TYPES: dict[str, Any] = {
    "string": str,
    "int": int,
    "number": float,
    "bool": bool,
    "bytes": bytes,
    "value": msgspec.Raw,
    "struct": dict[str, msgspec.Raw],
    **{name: Literal[words] for name, words in ENUMS.items()},
}


def _annotation(kind: str) -> str:
    """A type of the table as text that is looked up in `_TYPES` late, since messages refer to each other."""
    if kind.startswith("["):
        return f"list[{_annotation(kind[1:-1])}]"
    if kind.startswith("{"):
        return f"dict[str, {_annotation(kind[1:-1])}]"
    return f"_TYPES[{kind!r}]"


def _define(message: str) -> None:
    """The types of a message and of all that it can hold. Others wait until somebody needs them."""
    if message in _TYPES:
        return
    _TYPES[message] = msgspec.defstruct(
        message,
        [(field, f"{_annotation(kind)} | _Unset", msgspec.UNSET) for field, kind in MESSAGES[message].items()],
        module=__name__,
        forbid_unknown_fields=True,
    )
    for kind in MESSAGES[message].values():
        _define(kind.strip("[]{}"))


def decoder(message: str) -> msgspec.json.Decoder[Any]:
    """A C-speed check of one message in camelCase and exact types: what it accepts needs no slower look.

    What it refuses may still be right (snake_case, nulls, numbers as text): `strict.read` decides.
    """
    _define(message)
    return msgspec.json.Decoder(_TYPES[message])


_Unset = msgspec.UnsetType
