"""Where messages of Vertex AI differ from those of the Gemini Developer API, as data. Source: google-genai 3.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Messages = Mapping[str, Mapping[str, str]]

_MORE: Final[Messages] = {
    "Schema": {"additionalProperties": "value", "ref": "string", "defs": "{VertexSchema}"},
    "FunctionDeclaration": {},
    "Tool": {
        "retrieval": "struct",
        "enterpriseWebSearch": "struct",
        "parallelAiSearch": "struct",
        "exaAiSearch": "struct",
    },
    "SafetySetting": {"method": "string"},
    "ImageConfig": {"personGeneration": "string", "prominentPeople": "string", "imageOutputOptions": "struct"},
    "GenerationConfig": {
        "audioTimestamp": "bool",
        "routingConfig": "struct",
        "modelConfig": "struct",
        "enableAffectiveDialog": "bool",
        "responseFormat": "struct",
    },
    "GenerateContentRequest": {"modelArmorConfig": "struct"},
}
_LESS: Final = {"Tool": ("fileSearch", "mcpServers"), "GenerateContentRequest": ("store",)}

_OWN: Final[Messages] = {
    "VertexCountTokens": {
        "contents": "[Content]",
        "systemInstruction": "Content",
        "tools": "[VertexTool]",
        "generationConfig": "VertexGenerationConfig",
        "model": "string",
        "instances": "[struct]",
    },
    "VertexEmbedRequest": {"content": "Content", "embedContentConfig": "VertexEmbedConfig"},
    "VertexEmbedConfig": {
        "taskType": "EmbedTask",
        "title": "string",
        "outputDimensionality": "int",
        "autoTruncate": "bool",
        "documentOcr": "bool",
        "audioTrackExtraction": "bool",
        "mimeType": "string",
    },
    "VertexJob": {
        "displayName": "string",
        "model": "string",
        "inputConfig": "VertexInput",
        "outputConfig": "VertexOutput",
        "labels": "{string}",
        "encryptionSpec": "struct",
        "serviceAccount": "string",
        "modelParameters": "value",
        "instanceConfig": "struct",
        "name": "string",
        "state": "string",
        "createTime": "string",
        "updateTime": "string",
    },
    "VertexInput": {"instancesFormat": "string", "gcsSource": "GcsSource", "bigquerySource": "BigQuerySource"},
    "GcsSource": {"uris": "[string]"},
    "BigQuerySource": {"inputUri": "string"},
    "VertexOutput": {
        "predictionsFormat": "string",
        "gcsDestination": "GcsDestination",
        "bigqueryDestination": "BigQueryDestination",
    },
    "GcsDestination": {"outputUriPrefix": "string"},
    "BigQueryDestination": {"outputUri": "string"},
}


def messages(plain: Messages) -> dict[str, Mapping[str, str]]:
    """Vertex AI's messages, from the Gemini API's: those that differ have names of their own (`VertexTool`)."""
    made: dict[str, Mapping[str, str]] = dict(_OWN)
    for name, more in _MORE.items():
        less = _LESS.get(name, ())
        fields = {field: kind for field, kind in plain[name].items() if field not in less}
        made[_name(name)] = {field: _renamed(kind) for field, kind in {**fields, **more}.items()}
    return made


def _name(plain: str) -> str:
    return "VertexRequest" if plain == "GenerateContentRequest" else f"Vertex{plain}"


def _renamed(kind: str) -> str:
    """A type as a message of Vertex AI refers to it."""
    if kind[0] in "[{":
        return kind[0] + _renamed(kind[1:-1]) + kind[-1]
    return _name(kind) if kind in _MORE else kind
