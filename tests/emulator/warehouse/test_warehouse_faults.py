"""Faults of BigQuery: what Google's client makes of them, and that nothing is done twice."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from warehouse_kit import field, rows_of

from batchform.emulator import EmulatorServer, faults
from batchform.emulator.warehouse import names, routes

BEFORE = {"type": "error", "status": 503}
AFTER = {"type": "error", "status": 503, "when": "after"}
LIMITED = {"type": "error", "status": 400, "reason": "rateLimitExceeded"}
DROPPED = {"type": "drop", "when": "after"}


@pytest.fixture
def table(client: bigquery.Client, dataset: str, server: EmulatorServer) -> Iterator[str]:
    client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=[field("n", "INTEGER")]))
    yield f"{dataset}.t"
    server.set_faults(())


def load(client: bigquery.Client, table: str, **options: Any) -> Any:
    config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON")
    data = io.BytesIO(b'{"n": 1}\n')
    return client.load_table_from_file(data, f"acme.{table}", job_config=config, **options).result()


WAYS: dict[str, Callable[[bigquery.Client, str], Any]] = {
    "insert": lambda client, table: client.query(f"INSERT INTO {table} VALUES (1)").result(),
    "query": lambda client, table: client.query_and_wait(f"INSERT INTO {table} VALUES (1)"),
    "stream": lambda client, table: client.insert_rows_json(f"acme.{table}", [{"n": 1}]),
    "multipart": lambda client, table: load(client, table, size=9),
    "resumable": load,
}


@pytest.mark.parametrize(
    ("way", "call", "do", "times"),
    [
        ("insert", "bigquery.jobs.insert", BEFORE, 2),
        ("insert", "bigquery.jobs.insert", AFTER, 1),
        ("insert", "bigquery.jobs.insert", DROPPED, 1),
        ("insert", "bigquery.jobs.insert", LIMITED, 1),
        ("insert", "bigquery.jobs.getQueryResults", BEFORE, 2),
        ("query", "bigquery.jobs.query", BEFORE, 1),
        ("query", "bigquery.jobs.query", AFTER, 1),
        ("query", "bigquery.jobs.query", DROPPED, 1),
        ("stream", "bigquery.tabledata.insertAll", BEFORE, 1),
        ("stream", "bigquery.tabledata.insertAll", AFTER, 1),
        ("multipart", "bigquery.jobs.upload", BEFORE, 1),
        ("resumable", "bigquery.jobs.upload", BEFORE, 1),
        ("resumable", "bigquery.jobs.upload.bytes", BEFORE, 1),
        ("resumable", "bigquery.jobs.upload.bytes", AFTER, 1),
    ],
)
def test_a_client_that_repeats_does_it_once(
    client: bigquery.Client, table: str, server: EmulatorServer, way: str, call: str, do: dict[str, Any], times: int
) -> None:
    server.set_faults([{"call": call, "times": times, "do": do}])
    WAYS[way](client, table)
    assert len(server.fired()) == times
    server.set_faults(())
    assert rows_of(client, f"SELECT n FROM {table}") == [(1,)]


def test_rows_without_an_insert_id_are_doubled(client: bigquery.Client, table: str, server: EmulatorServer) -> None:
    server.set_faults([{"call": "bigquery.tabledata.insertAll", "do": AFTER}])
    client.insert_rows_json(f"acme.{table}", [{"n": 1}], row_ids=[None])
    assert rows_of(client, f"SELECT n FROM {table}") == [(1,), (1,)]


def test_a_fault_can_be_meant_for_one_table(client: bigquery.Client, table: str, server: EmulatorServer) -> None:
    gone = {"type": "error", "status": 404, "reason": "notFound"}
    match = {"file": f"bq://acme.{table}"}
    server.set_faults([{"call": "bigquery.tables.get", "times": "all", "match": match, "do": gone}])
    client.create_table(bigquery.Table(f"acme.{table}2", schema=[field("n", "INTEGER")]))
    assert client.get_table(f"acme.{table}2").num_rows == 0
    with pytest.raises(exceptions.NotFound, match="fault schedule"):
        client.get_table(f"acme.{table}")
    assert [fired.about for fired in server.fired()] == [f"bq://acme.{table}"]


def test_schedules_know_every_call() -> None:
    assert sorted(names.NAMES) == sorted({route.name for route in routes.ROUTES})
    assert set(names.NAMES) <= set(faults.CALLS)
