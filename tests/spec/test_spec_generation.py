"""generationConfig: one canonical form, and the same names as the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from google.genai import types
from spec_kit import Folder

from batchform.spec.generation import FIELDS, SAFETY_FIELDS, SCHEMA_FIELDS, camel, snake
from batchform.spec.resolved import ResolvedSpec


def loaded(folder: Folder, more: str) -> ResolvedSpec:
    folder.spec(more)
    return folder.load().specs[0]


# --- against the SDK ---------------------------------------------------------------------------------------------


def aliases(model: Any) -> set[str]:
    return {str(f.alias or n) for n, f in model.model_fields.items()}


def words(enum: Any) -> set[str]:
    return {str(m.value) for m in enum if not str(m.value).endswith("_UNSPECIFIED")}


def test_fields_are_those_of_the_sdk() -> None:
    assert aliases(types.GenerationConfig) | {"imageConfig"} == {*FIELDS, *SCHEMA_FIELDS}


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (["thinkingConfig"], types.ThinkingConfig),
        (["speechConfig"], types.SpeechConfig),
        (["speechConfig", "voiceConfig"], types.VoiceConfig),
        (["speechConfig", "voiceConfig", "prebuiltVoiceConfig"], types.PrebuiltVoiceConfig),
        (["speechConfig", "voiceConfig", "replicatedVoiceConfig"], types.ReplicatedVoiceConfig),
        (["speechConfig", "multiSpeakerVoiceConfig"], types.MultiSpeakerVoiceConfig),
        (["imageConfig"], types.ImageConfig),
        (["imageConfig", "imageOutputOptions"], types.ImageConfigImageOutputOptions),
        (["modelSelectionConfig"], types.ModelSelectionConfig),
        (["translationConfig"], types.TranslationConfig),
    ],
)
def test_nested_fields_are_those_of_the_sdk(path: list[str], model: Any) -> None:
    kind: Any = FIELDS
    for step in path:
        kind = kind[step]
    assert isinstance(kind, Mapping)
    assert set(kind) == aliases(model)


@pytest.mark.parametrize(
    ("kind", "enum"),
    [
        (FIELDS["thinkingConfig"]["thinkingLevel"], types.ThinkingLevel),
        (FIELDS["responseModalities"][0], types.Modality),
        (FIELDS["mediaResolution"], types.MediaResolution),
        (SAFETY_FIELDS["category"], types.HarmCategory),
        (SAFETY_FIELDS["threshold"], types.HarmBlockThreshold),
        (SAFETY_FIELDS["method"], types.HarmBlockMethod),
    ],
)
def test_words_are_those_of_the_sdk(kind: tuple[str, ...], enum: Any) -> None:
    assert set(kind) == words(enum)


def test_names_go_there_and_back() -> None:
    for name in FIELDS:
        assert camel(snake(name)) == camel(name) == name


# --- canonical form ----------------------------------------------------------------------------------------------

SAME = [
    "generation_config: {temperature: 0, max_output_tokens: 256, thinking_config: {thinking_level: LOW}}",
    "generation_config: {thinkingConfig: {thinkingLevel: low}, maxOutputTokens: 256.0, temperature: 0.0}",
    "generation_config: {maxOutputTokens: 256, temperature: 0, top_p: null, thinking_config: {thinkingLevel: Low}}",
]


def test_spellings_and_order_are_one_config(folder: Folder) -> None:
    bases = [loaded(folder, more) for more in SAME]
    assert bases[0].request_base == {
        "generationConfig": {"temperature": 0, "maxOutputTokens": 256, "thinkingConfig": {"thinkingLevel": "LOW"}}
    }
    assert len({b.config_digest for b in bases}) == 1
    assert len({b.spec_digest for b in bases}) == 1


def test_safety_settings_are_ordered_and_spelt_out(folder: Folder) -> None:
    one = loaded(
        folder,
        "safety_settings: [{category: hate_speech, threshold: block_none},"
        " {category: HARM_CATEGORY_HARASSMENT, threshold: 'off'}]",
    )
    other = loaded(
        folder,
        "safety_settings:\n- {threshold: 'OFF', category: harassment}\n"
        "- {threshold: BLOCK_NONE, category: HARM_CATEGORY_HATE_SPEECH}",
    )
    assert one.request_base["safetySettings"] == [
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"},
        {"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"},
    ]
    assert one.config_digest == other.config_digest


def test_the_overlay_is_renamed_where_names_are_known_and_nowhere_else(folder: Folder) -> None:
    spec = loaded(
        folder,
        "request:\n  service_tier: flex\n  labels: {my_label: x}\n"
        "  generation_config:\n    new_field: {inner_name: 1}\n    thinking_config: {include_thoughts: true}\n"
        "    response_schema: {properties: {my_field: {type: STRING}}}\n  tools: [{google_search: {}}]",
    )
    assert spec.request_overlay == {
        "serviceTier": "flex",
        "labels": {"my_label": "x"},
        "generationConfig": {
            "newField": {"inner_name": 1},
            "thinkingConfig": {"includeThoughts": True},
            "responseSchema": {"properties": {"my_field": {"type": "STRING"}}},
        },
        "tools": [{"google_search": {}}],
    }


def test_thinking_level_and_budget_exclude_each_other_across_config_and_overlay(folder: Folder) -> None:
    folder.spec(
        "generation_config: {thinking_config: {thinking_level: low}}\n"
        "request: {generationConfig: {thinkingConfig: {thinkingBudget: 5}}}"
    )
    assert " conflicting-fields]" in folder.complaint()
