"""A pytest fixture: a running emulator for one test. Found by pytest through its entry point, imported late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from batchform.emulator.server import EmulatorServer


@pytest.fixture
def batchform_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorServer]:
    """A running `EmulatorServer`, to which Google's clients and batchform's `gemini` backends are pointed.

    Sets GOOGLE_GEMINI_BASE_URL, GEMINI_API_KEY, STORAGE_EMULATOR_HOST and BIGQUERY_EMULATOR_HOST for the test, and
    takes GOOGLE_API_KEY away, which would win.
    """
    from batchform.emulator.server import EmulatorServer

    with EmulatorServer(tmp_path / "emulator") as server:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        monkeypatch.setenv("GEMINI_API_KEY", "emulator")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
        monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
        yield server
