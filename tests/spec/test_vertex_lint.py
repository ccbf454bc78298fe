"""What a backend on Vertex AI, and a spec that uses one, may not say: each with its place and its way out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batchform.errors import Diagnostic, InvalidProject
from batchform.plan.build import backend_limits, check_models
from batchform.plan.registry import Registry
from batchform.spec.load import load_project

NOW = datetime(2026, 11, 21, tzinfo=UTC)
VERTEX = {"type": "vertex", "project": "acme-support", "location": "us-central1", "staging": "gs://acme-batch/staging"}
SPEC: dict[str, Any] = {
    "name": "triage",
    "source": {"type": "csv", "path": "data/*.csv"},
    "prompt": {"user": {"text": "{{ body }}"}},
    "model": "gemini-3.5-flash-lite",
    "destination": {"type": "jsonl", "path": "results/x.jsonl"},
    "idempotency": {"key": ["id"]},
}


def complaints(tmp_path: Path, backend: dict[str, Any], spec: dict[str, Any] | None = None) -> list[Diagnostic]:
    """What loading the project and checking its models says."""
    (tmp_path / "specs").mkdir(exist_ok=True)
    project = {"version": 1, "project": "x", "backends": {"v": backend}}
    (tmp_path / "batchform.yaml").write_text(json.dumps(project, indent=1))
    (tmp_path / "specs" / "triage.yaml").write_text(json.dumps({**SPEC, **(spec or {})}, indent=1))
    try:
        loaded = load_project(tmp_path / "batchform.yaml", environment=None, env={})
        check_models(loaded.specs, Registry.load(), NOW)
    except InvalidProject as error:
        return list(error.diagnostics)
    return []


def test_a_good_one_has_no_complaint(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}, "score": {"type": "number"}}}
    config = {"temperature": 0, "max_output_tokens": 64, "response_schema": schema}
    assert complaints(tmp_path, VERTEX, {"generation_config": config}) == []


@pytest.mark.parametrize("location", ["us-central1", "europe-west4", "northamerica-northeast1", "global", "us", "eu"])
def test_locations(tmp_path: Path, location: str) -> None:
    assert complaints(tmp_path, {**VERTEX, "location": location}) == []


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        ({"location": "USA"}, "wrong-value", "`backends.v.location` must be a region such as us-central1"),
        ({"project": "Acme!"}, "wrong-value", "`backends.v.project` must be the id of a Google Cloud project"),
        ({"staging": "s3://acme"}, "wrong-value", "`backends.v.staging` must be a folder of a bucket"),
        ({"staging": "https://storage.googleapis.com/acme"}, "wrong-value", "staging"),
        ({"staging": None}, "missing-field", "`staging`"),
        ({"via": "bigquery"}, "missing-field", "`dataset`"),
        ({"dataset": "a.b.c"}, "wrong-value", "dataset"),
        ({"labels": {"Team": "x"}}, "wrong-value", "labels"),
        ({"max_rows_per_job": 200_001}, "wrong-value", "200,000 rows"),
        ({"max_bytes_per_job": "2G"}, "wrong-value", "1,000,000,000 bytes"),
        ({"api_key_env": "K", "impersonate": "a@b.c"}, "conflicting-fields", "exclude"),
        ({"settle": "10s"}, "short-settle", "settle"),
        ({"type": "gemini"}, "unknown-field", "project"),
        ({"stagin": "gs://x"}, "unknown-field", "stagin"),
    ],
)
def test_backends_are_refused_with_their_place(tmp_path: Path, change: dict[str, Any], rule: str, words: str) -> None:
    backend = {k: v for k, v in {**VERTEX, **change}.items() if v is not None}
    found = complaints(tmp_path, backend)
    assert any(words in f"{d.message} {d.place.text}" and d.place.line > 3 for d in found), found
    assert rule in {d.rule for d in found}, found


def test_fields_of_vertex_on_an_emulator_of_the_gemini_api(tmp_path: Path) -> None:
    assert complaints(tmp_path, {"type": "emulator", "cloud": "vertex", "location": "eu"}) == []
    [found] = complaints(tmp_path, {"type": "emulator", "location": "eu"})
    assert (found.rule, found.place.line) == ("wrong-field", 7) and "cloud: vertex" in found.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"submit": "inline"}, "inline"),
        ({"request": {"cachedContent": "cachedContents/x"}}, "explicit cache"),
        ({"generation_config": {"image_config": {"image_size": "2K"}}}, "1K images"),
        ({"request": {"tools": [{"retrieval": {"vertexRagStore": {"ragCorpora": ["x"]}}}]}}, "retrieval"),
        ({"request": {"tools": [{"googleSearch": {}}]}}, "tools[0].googleSearch"),
        (
            {"generation_config": {"response_schema": {"type": "object", "properties": {"a b": {"type": "string"}}}}},
            "no name that the importer",
        ),
        (
            {"request": {"tools": [{"functionDeclarations": [{"a": 1}, {"a": "x"}]}]}},
            "takes one type",
        ),
        (
            {"request": {"labels": {"Team": "x", "team": "y"}}},
            "differ in case only",
        ),
    ],
)  # fmt: skip
def test_what_vertex_refuses_is_refused_before(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    found = complaints(tmp_path, VERTEX, change)
    assert any(
        words in d.message and d.rule == "vertex-refuses" and d.place.path.endswith("triage.yaml") for d in found
    ), found
    assert all(d.hint for d in found)


def test_the_importers_traps_are_not_those_of_a_table(tmp_path: Path) -> None:
    backend = {**VERTEX, "via": "bigquery", "dataset": "acme-data.batches"}
    assert complaints(tmp_path, backend, {"request": {"tools": [{"googleSearch": {}}]}}) == []


def test_depth_is_bounded(tmp_path: Path) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(7):
        schema = {"type": "object", "properties": {"a": schema}}
    found = complaints(tmp_path, VERTEX, {"generation_config": {"response_schema": schema}})
    assert found and all("nested too deep" in d.message for d in found)


def test_models_have_a_life_of_their_own_there(tmp_path: Path) -> None:
    gone = complaints(tmp_path, VERTEX, {"model": "gemini-2.5-flash"})
    assert [d.rule for d in gone] == ["model-shut-down"] and "2026-10-20" in gone[0].message
    assert complaints(tmp_path, {"type": "gemini"}, {"model": "gemini-3.6-flash"}) == []
    assert [d.rule for d in complaints(tmp_path, VERTEX, {"model": "gemini-3.6-flash"})] == ["model-shut-down"]


def test_a_job_holds_what_the_service_takes(tmp_path: Path) -> None:
    complaints(tmp_path, VERTEX)
    project = load_project(tmp_path / "batchform.yaml", environment=None, env={})
    limits = backend_limits(project.config.backends["v"], submit="file", registry=Registry.load())
    assert (limits.max_rows_per_job, limits.max_bytes_per_job, limits.inline_bytes) == (200_000, 1_000_000_000, 0)


def test_an_environment_variable_of_the_sdk_moves_the_endpoint(tmp_path: Path) -> None:
    from batchform.spec.realm import realm_of

    complaints(tmp_path, VERTEX)
    config = load_project(
        tmp_path / "batchform.yaml", environment=None, env={"GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:1"}
    ).config
    assert realm_of(config.backends["v"]) == "emulator"
    assert (
        realm_of(load_project(tmp_path / "batchform.yaml", environment=None, env={}).config.backends["v"]) == "google"
    )
