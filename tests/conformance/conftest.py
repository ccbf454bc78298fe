"""Places that several suites run in: for a ledger, and in a real PostgreSQL, a schema for each test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from destination_kit import Place

from batchform.adapters.local_blobs import LocalBlobs
from batchform.ports import Blobs
from fork_kit import Forks
from postgres_kit import PostgresServer


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes of their own, with what deliveries import."""
    with Forks(
        "destination_kit", "sqlalchemy.dialects.sqlite", "batchform.adapters.destinations.sqlalchemy_table"
    ) as made:
        yield made


@pytest.fixture(scope="session")
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as name:
        yield name


@pytest.fixture
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Place]:
    """A place of a kind; the server is started only for those that need it."""

    def make(kind: str) -> Place:
        if kind != "postgres":
            return Place(tmp_path, kind)
        server: PostgresServer = request.getfixturevalue("postgres")
        database, schema = request.getfixturevalue("postgres_database"), f"s_{secrets.token_hex(6)}"
        with server.connect(database) as db:
            db.execute(f"CREATE SCHEMA {schema}")
        db.close()
        return Place(tmp_path, kind, schema=schema, url=server.url(database))

    return make


@pytest.fixture(params=["local", "storage"])
def make_blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Blobs]]:
    """Each call opens the same, at first empty, place once more, as another process would."""
    if request.param == "local":
        yield lambda: LocalBlobs(tmp_path / "ledger")
        return
    from bucket_kit import Bucket, Opened

    bucket: Bucket = request.getfixturevalue("bucket")
    with Opened() as opened:
        yield lambda: opened.blobs(bucket.uri("deep/ledger"), tmp_path / "cache" / secrets.token_hex(4))
