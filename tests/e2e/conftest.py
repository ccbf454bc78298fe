"""A project on disk for every test."""

from __future__ import annotations

import contextlib
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


@pytest.fixture(scope="session")
def applied_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's project, applied once: to be copied, never to be changed."""
    made = Workspace(tmp_path_factory.mktemp("applied") / "project", lambda: ("", ""))
    with contextlib.chdir(made.root):
        made.ok("apply", "--yes", "--quiet")
    return made.root


@pytest.fixture
def applied(applied_project: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the kit's project, with six answered and delivered rows."""
    workspace.become_copy_of(applied_project)
    monkeypatch.chdir(workspace.root)
    return workspace


@pytest.fixture
def project(applied: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with answers to lose. Bugs surface as users see them: as an internal error."""
    monkeypatch.delenv("BATCHFORM_DEBUG")
    return applied
