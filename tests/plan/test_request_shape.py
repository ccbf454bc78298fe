"""`request:` as client libraries would take it, refused with what the API takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_service_limits import BACKENDS, complaints


@pytest.mark.parametrize(
    ("request_", "rule", "says"),
    [
        ({"temperature": 0}, "misplaced-field", "`temperature` belongs into the generation config"),
        ({"responseSchema": {"type": "object"}}, "misplaced-field", "`response_schema` belongs into the generation"),
        ({"config": {"temperature": 0}}, "misplaced-field", "`config` is a word of the client libraries"),
        ({"http_options": {"timeout": 1}}, "misplaced-field", "`http_options` is a word of the client libraries"),
        ({"automaticFunctionCalling": {"disable": True}}, "misplaced-field", "is a word of the client libraries"),
        ({"metadata": {"a": "b"}}, "misplaced-field", "`metadata` stands beside a request in a job's line"),
        ({"key": "a"}, "misplaced-field", "`key` stands beside a request in a job's line"),
        ({"generationConfig": {"tools": [{"googleSearch": {"x": 1}}]}}, "misplaced-field", "`tools` stands beside"),
        ({"generation_config": {"cached_content": "c"}}, "misplaced-field", "`cached_content` stands beside"),
        ({"generationConfig": {"fresh": 1}}, "unknown-request-field", "`fresh` is no field of a generation config"),
        ({"system_instruction": "Be brief."}, "wrong-shape", "`systemInstruction` must be a mapping with `parts`"),
        ({"contents": "Hello"}, "wrong-shape", "`contents` must be a list of turns"),
        ({"contents": ["Hello"]}, "wrong-shape", "`contents[0]` must be a mapping with `parts`"),
        ({"contents": [{"role": "user", "parts": ["Hello"]}]}, "wrong-shape", "`contents[0].parts[0]` must be"),
        ({"contents": [{"role": "user", "parts": "Hello"}]}, "wrong-shape", "`contents[0].parts` must be a list"),
        ({"tools": {"googleSearch": {"x": 1}}}, "wrong-shape", "`tools` must be a list of tools"),
        ({"tools": ["google_search"]}, "wrong-shape", "`tools[0]` must be a mapping of one tool"),
    ],
)  # fmt: skip
def test_shapes_of_client_libraries(tmp_path: Path, request_: dict[str, Any], rule: str, says: str) -> None:
    for backend in ("gemini", "bigquery"):
        found = [d for d in complaints(tmp_path, BACKENDS[backend], request=request_) if d.rule == rule]
        if rule == "unknown-request-field":
            assert found == [], "it may be new: sent, and said"
            continue
        assert len(found) == 1, (backend, request_)
        assert says in found[0].message
        assert found[0].hint


@pytest.mark.parametrize(
    "request_",
    [
        {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
        {"system_instruction": {"parts": [{"text": "Be brief."}]}},
        {"tools": [{"functionDeclarations": [{"name": "f", "description": "does"}]}]},
        {"generation_config": {"temperature": 1, "thinking_config": {"thinking_level": "LOW"}}},
    ],
)
def test_the_shape_of_the_api(tmp_path: Path, request_: dict[str, Any]) -> None:
    for backend in ("gemini", "bigquery"):
        assert complaints(tmp_path, BACKENDS[backend], request=request_) == []
