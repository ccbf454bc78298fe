"""Google's unmodified client on the emulator's BigQuery, over real sockets; a dataset of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from warehouse_kit import field

from batchform.emulator import EmulatorServer

_NUMBERS = itertools.count()


FOREIGN = os.environ.get("BATCHFORM_FOREIGN_BIGQUERY", "").split()
"""A server of somebody else (scripts/test_foreign_bigquery.py): its URL, its gRPC address, the URL of Cloud Storage."""


class Foreign:
    """Has the addresses of an `EmulatorServer`, and nothing else of it."""

    def __init__(self, url: str, storage_read: str) -> None:
        self.url, self._storage_read = url, storage_read

    def bigquery_storage(self) -> str:
        return self._storage_read


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer | Foreign]:
    if FOREIGN:
        yield Foreign(FOREIGN[0], FOREIGN[1])
        return
    with EmulatorServer(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def storage_url(server: EmulatorServer) -> str:
    """Where Cloud Storage is."""
    return FOREIGN[2] if FOREIGN else server.url


@pytest.fixture
def connect() -> Iterator[Callable[..., bigquery.Client]]:
    clients: list[bigquery.Client] = []

    def make(url: str, **options: Any) -> bigquery.Client:
        endpoint = {"api_endpoint": url}
        client = bigquery.Client(project="acme", credentials=AnonymousCredentials(), client_options=endpoint, **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(server: EmulatorServer, connect: Callable[..., bigquery.Client]) -> bigquery.Client:
    return connect(server.url)


@pytest.fixture
def dataset(client: bigquery.Client) -> str:
    name = f"d{next(_NUMBERS)}"
    client.create_dataset(name)
    return name


@pytest.fixture
def numbers(client: bigquery.Client, dataset: str) -> str:
    """A table of ten rows: n INTEGER, word STRING."""
    name = f"acme.{dataset}.numbers"
    rows = [{"n": i, "word": f"w{i}"} for i in range(10)]
    config = bigquery.LoadJobConfig(schema=[field("n", "INTEGER"), field("word", "STRING")])
    client.load_table_from_json(rows, name, job_config=config).result()
    return name
