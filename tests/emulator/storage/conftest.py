"""Google's own client, unmodified, over real sockets: against the emulator, or the server of `make test-foreign`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from emulated_storage_kit import Connect, clients
from google.cloud import storage

from batchform.emulator import EmulatorServer

FOREIGN = "BATCHFORM_FOREIGN_STORAGE"
"""Names the URL of the foreign server that the operations are run on."""


@pytest.fixture(scope="session")
def storage_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if FOREIGN in os.environ:
        yield os.environ[FOREIGN]
        return
    with EmulatorServer(tmp_path_factory.mktemp("storage") / "state") as server:
        yield server.url


@pytest.fixture
def connect_storage(storage_url: str) -> Iterator[Connect]:
    yield from clients(storage_url)


@pytest.fixture
def gcs(connect_storage: Connect) -> storage.Client:
    return connect_storage()


@pytest.fixture
def bucket(gcs: storage.Client) -> storage.Bucket:
    return gcs.create_bucket(f"b-{uuid.uuid4().hex[:20]}")
