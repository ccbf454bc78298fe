"""Fixtures of this area."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_server import Commands
from forge_server import ForgeServer, forge_server


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An executable file that stands for batchform."""
    with Commands(tmp_path_factory.mktemp("commands")) as commands:
        yield commands.program


@pytest.fixture
def forge() -> Iterator[ForgeServer]:
    """A forge with one pull request."""
    with forge_server() as server:
        yield server
