"""BigQuery of the emulator, over real sockets, with a dataset of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bigquery_kit import Reading
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from batchform.adapters.bigquery_client import Access
from batchform.adapters.sources import connect
from batchform.adapters.sources.bigquery import BigQueryRows
from batchform.adapters.sources.bigquery_cache import SnapshotCache
from batchform.emulator import EmulatorServer
from batchform.spec.bigquery import BigQuerySource
from batchform.spec.model import GoogleCloud

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def access(server: EmulatorServer) -> Access:
    hosts = {"BIGQUERY_EMULATOR_HOST": server.url, "BIGQUERY_STORAGE_EMULATOR_HOST": server.bigquery_storage()}
    return Access(GoogleCloud(project="acme"), hosts, retry_seconds=5.0, first_pause=0.02)


@pytest.fixture
def client(server: EmulatorServer) -> Iterator[bigquery.Client]:
    options = {"api_endpoint": server.url}
    with closing(bigquery.Client(project="acme", credentials=AnonymousCredentials(), client_options=options)) as made:
        yield made


@pytest.fixture
def dataset(client: bigquery.Client) -> str:
    name = f"d{next(_NUMBERS)}"
    client.create_dataset(name)
    return f"acme.{name}"


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(tmp_path / "temp", memory_limit="256MB", threads=2, allowed=[tmp_path]) as opened:
        yield opened


@pytest.fixture
def read(con: duckdb.DuckDBPyConnection, access: Access, tmp_path: Path) -> Callable[..., Reading]:
    """Open a source. order, needed: as of BigQueryRows; everything else is the spec's."""

    def opened(*, order: tuple[str, ...] = (), needed: frozenset[str] | None = None, **spec: Any) -> Reading:
        made = BigQuerySource(type="bigquery", **spec)
        cache = SnapshotCache(tmp_path / "cache")
        return Reading(con, BigQueryRows(made, access=access, order=order, needed=needed, cache=cache))

    return opened
