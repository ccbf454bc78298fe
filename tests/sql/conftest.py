"""A shop for each test, empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shop_kit import Shop

from batchform.adapters.sources import connect
from postgres_kit import PostgresServer


@pytest.fixture(scope="session")
def shop_database(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as name:
        yield name


@pytest.fixture
def shop(postgres: PostgresServer, shop_database: str, tmp_path: Path) -> Iterator[Shop]:
    """An empty database: what a test makes in it is dropped."""
    with connect(tmp_path / "tmp", memory_limit="256MB", threads=2, allowed=[tmp_path]) as con:
        made = Shop(postgres, shop_database, tmp_path, con)
        yield made
        made.run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
