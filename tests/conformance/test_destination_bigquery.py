"""The laws of every destination, held by a table of BigQuery: the same tests, on the emulator over real sockets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from destination_kit import Place, Row
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from test_destination_conformance import (
    test_a_failing_query_leaves_the_old_content,
    test_is_a_destination_that_is_not_there_yet,
    test_new_and_changed_rows_replace_the_old_content,
    test_pruned_rows_vanish_down_to_none,
    test_rows_keep_their_order,
    test_text_survives_as_it_is,
    test_the_same_again_touches_nothing,
    test_what_was_delivered_is_known_by_its_columns,
)

from batchform.adapters.bigquery_client import Access
from batchform.adapters.destinations.bigquery import BigQueryTable
from batchform.emulator import EmulatorServer
from batchform.ports import Destination
from batchform.spec.bigquery import BigQueryDestination
from batchform.spec.model import GoogleCloud

__all__ = [
    "test_a_failing_query_leaves_the_old_content",
    "test_is_a_destination_that_is_not_there_yet",
    "test_new_and_changed_rows_replace_the_old_content",
    "test_pruned_rows_vanish_down_to_none",
    "test_rows_keep_their_order",
    "test_text_survives_as_it_is",
    "test_the_same_again_touches_nothing",
    "test_what_was_delivered_is_known_by_its_columns",
]

_NUMBERS = itertools.count()


class Warehouse(Place):
    """A table of BigQuery, in the place of a file. Rows of a table have no order; they are read by key."""

    def __init__(self, root: Path, url: str, client: bigquery.Client) -> None:
        super().__init__(root, "bigquery")
        self._access = Access(GoogleCloud(project="acme"), {"BIGQUERY_EMULATOR_HOST": url}, retry_seconds=5.0)
        self._client = client
        self._table = f"acme.d{next(_NUMBERS)}.answers"
        client.create_dataset(self._table.rpartition(".")[0])

    def destination(self, *, folder: bool = False, path: str | None = None, spec: str = "triage") -> Destination:
        assert not folder and path is None
        return BigQueryTable(BigQueryDestination(type="bigquery", table=self._table), spec=spec, access=self._access)

    def read(self, path: Path | None = None) -> list[Row]:
        assert path is None
        rows = self._client.query(f"SELECT * FROM `{self._table}` ORDER BY key").result()
        return [tuple(json.dumps(v) if isinstance(v, dict) else v for v in row.values()) for row in rows]

    def keys(self) -> list[str]:
        return sorted(key for key, *_ in self.read())

    def identity(self) -> Any:
        return self._client.get_table(self._table).etag

    def leftovers(self) -> list[str]:
        dataset = self._table.rpartition(".")[0]
        return [t.table_id for t in self._client.list_tables(dataset) if t.table_id != "answers"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def place(server: EmulatorServer, tmp_path: Path) -> Iterator[Place]:
    options = {"api_endpoint": server.url}
    with closing(bigquery.Client(project="acme", credentials=AnonymousCredentials(), client_options=options)) as made:
        yield Warehouse(tmp_path, server.url, made)
