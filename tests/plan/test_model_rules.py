"""Rules on models beside whether they answer: aliases, places, names that go on to answer for another model."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from batchform.errors import Diagnostic, InvalidProject, Place
from batchform.plan.build import judge_models
from batchform.plan.registry import Registry
from batchform.spec.load import load_project

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
SPEC = {
    "name": "triage",
    "source": {"type": "csv", "path": "data/*.csv"},
    "prompt": {"user": {"text": "{{ body }}"}},
    "destination": {"type": "jsonl", "path": "results/x.jsonl"},
    "idempotency": {"key": ["id"]},
}


def said(
    tmp_path: Path, *, now: dt.datetime = NOW, backend: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Diagnostic]:
    """Complaints by rule."""
    (tmp_path / "specs").mkdir(exist_ok=True)
    project = {"version": 1, "project": "x", "backends": {"b": backend or {"type": "emulator"}}}
    (tmp_path / "batchform.yaml").write_text(json.dumps(project))
    (tmp_path / "specs/triage.yaml").write_text(json.dumps({**SPEC, **spec}))
    found = load_project(tmp_path / "batchform.yaml", environment=None, env={})
    return {d.rule: d for d in judge_models(found.specs, Registry.load(), now)}


def test_a_name_that_answers_for_another_model_says_both_prices(tmp_path: Path) -> None:
    found = said(tmp_path, model="gemini-2.5-pro")["model-rerouted"]
    assert found.severity == "warning"
    assert found.message == (
        "requests to gemini-2.5-pro are from 2026-12-01 on answered and billed as gemini-3.8-flash: "
        "$0.375 in and $1.875 out per million tokens, in place of $0.625 and $5"
    )
    after = said(tmp_path, model="gemini-2.5-pro", now=NOW + dt.timedelta(days=60))["model-rerouted"]
    assert "requests to gemini-2.5-pro are answered and billed as gemini-3.8-flash: $0.75 in" in after.message
    assert "model-rerouted" not in said(tmp_path, model="gemini-2.5-pro", now=NOW - dt.timedelta(days=60))
    assert "model-rerouted" not in said(tmp_path, model="gemini-3.5-flash-lite")


@pytest.mark.parametrize("name", ["gemini-flash-latest", "models/gemini-pro-latest", "gemini-flash-lite-latest"])
def test_an_alias_is_no_model(tmp_path: Path, name: str) -> None:
    assert set(said(tmp_path, model=name)) == {"model-alias"}


@pytest.mark.parametrize(
    ("model", "location", "there"),
    [
        ("gemini-3-flash-preview", "us-central1", "global"),
        ("gemini-3.1-pro-preview", "eu", "global"),
        ("gemini-embedding-2", "us-central1", "global, us, eu"),
        ("gemini-embedding-001", "us-east1", "us-central1, us-east4, us-west1, us-west4, europe-west1, europe-west4"),
    ],
)
def test_models_that_are_not_everywhere(tmp_path: Path, model: str, location: str, there: str) -> None:
    def backend(at: str) -> dict[str, Any]:
        return {"type": "vertex", "project": "acme-support", "location": at, "staging": "gs://acme-batch/staging"}

    found = said(tmp_path, model=model, backend=backend(location))["model-elsewhere"]
    assert found.message == f"model {model} is not in {location}: batches of Vertex AI have it in {there}"
    assert "model-elsewhere" not in said(tmp_path, model=model, backend=backend(there.partition(",")[0]))
    assert "model-elsewhere" not in said(tmp_path, model=model), "the Gemini API has no locations"


def test_fields_that_a_model_refuses(tmp_path: Path) -> None:
    config = {"presence_penalty": 0.5}
    found = said(tmp_path, model="gemini-3.5-flash-lite", generation_config=config)["model-refuses"]
    assert "gemini-3.5-flash-lite refuses `presence_penalty`" in found.message
    assert said(tmp_path, model="gemini-3.5-flash", generation_config=config) == {}


@pytest.mark.parametrize(
    ("model", "config", "warned"),
    [
        ("gemini-3.5-flash", {"max_output_tokens": 256}, True),
        ("gemini-3.5-flash", {"max_output_tokens": 4096}, False),
        ("gemini-3.5-flash", {"max_output_tokens": 256, "thinking_config": {"thinking_level": "minimal"}}, False),
        ("gemini-2.5-flash", {"max_output_tokens": 256}, True),
        ("gemini-2.5-flash", {"max_output_tokens": 256, "thinking_config": {"thinking_budget": 0}}, False),
        ("gemini-3.5-flash-lite", {"max_output_tokens": 256}, False),
        ("gemini-3.1-pro-preview", {"max_output_tokens": 256, "thinking_config": {"thinking_level": "low"}}, True),
    ],
)
def test_room_to_think_where_nobody_said_how_much(
    tmp_path: Path, model: str, config: dict[str, Any], warned: bool
) -> None:
    assert ("no-room-to-think" in said(tmp_path, model=model, generation_config=config)) is warned


def test_minimal_thinking_where_it_is_refused(tmp_path: Path) -> None:
    config = {"thinking_config": {"thinking_level": "minimal"}}
    for model in ("gemini-3.7-flash", "gemini-3.8-flash", "gemini-3.1-pro-preview"):
        assert "model-refuses" in said(tmp_path, model=model, generation_config=config)
    assert "model-refuses" not in said(tmp_path, model="gemini-3.5-flash-lite", generation_config=config)


def test_what_the_importer_refuses_is_shown_where_it_is_written(tmp_path: Path) -> None:
    """It once stood at the first line of the spec."""
    backend = {"type": "vertex", "project": "acme-support", "location": "us-central1", "staging": "gs://acme/staging"}
    found = said(tmp_path, backend=backend, model="gemini-3.5-flash-lite", request={"tools": [{"googleSearch": {}}]})
    text = (tmp_path / "specs/triage.yaml").read_text()
    assert found["vertex-refuses"].place.column == text.index('{"tools"') + 1


def test_errors_come_before_warnings() -> None:
    """A warning in front would follow the word `error:` that begins the whole message."""
    at = Place("specs/a.yaml", 1, 1)
    error = InvalidProject(
        [Diagnostic("schema", "first", at, severity="warning"), Diagnostic("schema", "second", Place("specs/b.yaml"))]
    )
    assert error.render().startswith("specs/b.yaml: error: second")
    assert error.diagnostics[0].message == "first"
