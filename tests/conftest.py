"""Fixtures of all areas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postgres_kit import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test run, started when the first test asks for it."""
    with postgres_server() as server:
        yield server
