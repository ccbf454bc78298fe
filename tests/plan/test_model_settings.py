"""Settings that a model does not take are refused before anything is sent, with what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_service_limits import BACKENDS, complaints

FUNCTIONS = [{"function_declarations": [{"name": "f"}]}]


def thinking(**config: Any) -> dict[str, Any]:
    return {"generation_config": {"thinking_config": config}}


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("gemini-3.8-flash", thinking(thinking_level="minimal"), "it takes LOW, MEDIUM, HIGH"),
        ("gemini-2.5-flash", thinking(thinking_level="low"), "from 1 to 24,576, 0 for none, or -1"),
        ("gemini-2.5-pro", thinking(thinking_budget=64), "from 128 to 32,768, or -1"),
        ("gemini-2.5-pro", thinking(thinking_budget=0), "cannot be switched off"),
        ("gemini-2.5-flash-lite", thinking(thinking_budget=100), "from 512 to 24,576"),
        ("gemini-2.5-flash-lite", thinking(thinking_budget=30_000), "from 512 to 24,576"),
        (
            "gemini-2.5-flash",
            {
                "tools": ["url_context", *FUNCTIONS],
                "tool_config": {"include_server_side_tool_invocations": True},
            },
            "takes either functions or tools of its own in a request, not both",
        ),
    ],
)
def test_what_a_model_takes(tmp_path: Path, model: str, more: dict[str, Any], said: str) -> None:
    [told] = complaints(tmp_path, BACKENDS["gemini"], model=model, **more)
    assert told.rule == "model-refuses"
    assert said in told.message


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("gemini-3.8-flash", thinking(thinking_level="low")),
        ("gemini-2.5-flash", thinking(thinking_budget=0)),
        ("gemini-2.5-flash", thinking(thinking_budget=24_576)),
        ("gemini-2.5-pro", thinking(thinking_budget=-1)),
        ("gemini-2.5-flash-lite", thinking(thinking_budget=512)),
        ("gemini-3.8-flash", {"tools": FUNCTIONS, "tool_config": {"function_calling_config": {"mode": "validated"}}}),
    ],
)
def test_what_fits(tmp_path: Path, model: str, more: dict[str, Any]) -> None:
    assert complaints(tmp_path, BACKENDS["gemini"], model=model, **more) == []


@pytest.mark.parametrize("tool", ["code_execution", "url_context"])
def test_tools_without_settings_do_not_pass_the_importer(tmp_path: Path, tool: str) -> None:
    [told] = complaints(tmp_path, BACKENDS["storage"], tools=[tool])
    assert told.rule == "vertex-refuses"
    assert told.place.path.endswith("specs/triage.yaml")
    assert told.hint == "It has no settings: use `via: bigquery`, or a backend of `type: gemini`."
    assert complaints(tmp_path, BACKENDS["bigquery"], tools=[tool]) == []
