"""Requests as nobody should write them: one sentence each, with the place, and before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_service_limits import BACKENDS, complaints, loaded

from batchform.plan.task_rules import check_task

VECTORS: dict[str, Any] = {"task": "embed", "model": "gemini-embedding-001"}
PICTURES: dict[str, Any] = {"task": "image", "model": "gemini-3.1-flash-image"}


def shape(schema: Any, **more: Any) -> dict[str, Any]:
    return {"generation_config": {"response_schema": schema}, **more}


def config(**fields: Any) -> dict[str, Any]:
    return {"generation_config": fields}


def columns(**expressions: str) -> dict[str, Any]:
    return {"destination": {"type": "jsonl", "path": "results/x.jsonl", "columns": expressions}}


@pytest.mark.parametrize(
    ("spec", "said", "at"),
    [
        (shape({"type": "string", "enum": []}), "`enum` is empty, and no answer fits it", "enum"),
        (
            shape({"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1}}}),
            "`minimum` 5 is above `maximum` 1, and no answer fits",
            "minimum",
        ),
        (shape({"type": "array", "minItems": 3, "maxItems": 2}), "`minItems` 3 is above `maxItems` 2", "minItems"),
        (
            shape({"type": "string", "minLength": 3, "maxLength": 2}, schema_dialect="openapi"),
            "`minLength` 3 is above `maxLength` 2",
            "minLength",
        ),
        (shape({"type": "integer", "maximum": 10**400}), "`maximum` is a number that the service cannot", "maximum"),
        (config(stop_sequences=list("abcdef")), "`stop_sequences` must be a list of at most 5", "stop_sequences"),
        (config(max_output_tokens=0), "`max_output_tokens` must be between 1 and 2,147,483,647", "max_output_tokens"),
        (config(top_k=0), "`top_k` must be between 1 and 1,000,000,000", "top_k"),
        (config(stop_sequences={"expr": "id"}), "`stop_sequences` must be a list", "stop_sequences"),
        ({"request": {"contents": []}}, "`contents` must be a list of turns", "request"),
        ({**PICTURES, "image": {"aspect_ratio": "0:0"}}, "`image.aspect_ratio` must be width:height", "aspect_ratio"),
        (
            {"prompt": {"user": {"text": "x"}, "attachments": [{"path": "a.png", "mime_type": "banana"}]}},
            "`prompt.attachments[0].mime_type` must be a MIME type, such as image/png",
            "banana",
        ),
        ({**PICTURES, "image": {"size": 512}}, "`image.size` cannot be `512`", "size"),
        ({**PICTURES, **columns(a="image_path[0]")}, "`image_path` is delivered whole", '"a"'),
        ({**VECTORS, **columns(a="embedding[0]")}, "`embedding` is delivered whole", '"a"'),
        (
            {**VECTORS, "prompt": {"user": {"text": "{{ body }}"}, "attachments": ["a.png"]}},
            "`prompt.attachments` means nothing with `task: embed`",
            "attachments",
        ),
    ],
)
def test_each_is_one_complaint_at_its_place(tmp_path: Path, spec: dict[str, Any], said: str, at: str) -> None:
    [told] = complaints(tmp_path, BACKENDS["gemini"], **spec)
    assert said in told.message
    lines = (tmp_path / "specs/triage.yaml").read_text().splitlines()
    assert at in lines[(told.place.line or 0) - 1]
    if "512" in said:
        assert told.hint == "YAML reads this as a number: quote it."


def test_bounds_that_meet_are_fine(tmp_path: Path) -> None:
    fits = {
        "type": "array",
        "items": {"type": "number", "minimum": -1.5, "maximum": -1.5},
        "minItems": 2,
        "maxItems": 2,
    }
    assert complaints(tmp_path, BACKENDS["gemini"], **shape(fits)) == []
    # Of a schema that is not sent, too: answers would be paid for and fail.
    told = complaints(tmp_path, BACKENDS["gemini"], output={"format": "json", "schema": {"enum": []}})
    assert [d.message.partition(",")[0] for d in told if d.severity == "error"] == ["`enum` is empty"]


@pytest.mark.parametrize(
    ("backend", "request_", "named"),
    [
        ("gemini", {"output_dimensionality": 128, "labels": {"a": "b"}}, ["`labels`"]),
        ("gemini", {"embed_content_config": {}}, ["`embed_content_config`"]),
        ("storage", {"embed_content_config": {"auto_truncate": True}}, []),
        ("storage", {"task_type": "CLUSTERING"}, ["`task_type`"]),
    ],
)
def test_fields_that_no_request_for_a_vector_has(
    tmp_path: Path, backend: str, request_: dict[str, Any], named: list[str]
) -> None:
    spec = loaded(tmp_path, BACKENDS[backend], **VECTORS, request=request_)
    found = [d for d in check_task(spec, None) if d.rule == "unknown-request-field"]
    assert [d.message.split(" ")[0] for d in found] == named
    assert all(d.severity == "warning" and "Fields: content, " in d.hint for d in found)
