"""Fixtures of this area."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forge_server import ForgeServer, forge_server


@pytest.fixture
def forge() -> Iterator[ForgeServer]:
    """A forge with one pull request."""
    with forge_server() as server:
        yield server
