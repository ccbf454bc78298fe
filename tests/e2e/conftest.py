"""A project on disk for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_e2e_kit import Workspace


@pytest.fixture
def workspace(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCHFORM_DEBUG", "1")
    made = Workspace(tmp_path / "project", lambda: tuple(capfd.readouterr()))
    monkeypatch.chdir(made.root)
    return made
