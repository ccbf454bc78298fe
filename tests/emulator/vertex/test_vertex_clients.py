"""Google's three clients together, each unmodified, at one emulator over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from emulated_vertex_kit import LOCATION, keyed, vertex_client
from emulator_kit import JOB_SECONDS, MODEL, request_of
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage

from batchform.emulator import EmulatorServer

TEXTS = {f"k{i}": f"say {i}" for i in range(20)}
ANSWERS = {f"k{i}": f"Emulated answer to: say {i}" for i in range(20)}


@pytest.fixture
def bucket(server: EmulatorServer) -> Iterator[storage.Bucket]:
    options = {"api_endpoint": server.url}
    client = storage.Client(project="acme", credentials=AnonymousCredentials(), client_options=options)
    yield client.create_bucket("acme", location=LOCATION)
    client.close()


@pytest.fixture
def warehouse(server: EmulatorServer) -> Iterator[bigquery.Client]:
    options = {"api_endpoint": server.url}
    client = bigquery.Client(
        project="acme", location=LOCATION, credentials=AnonymousCredentials(), client_options=options
    )
    client.create_dataset("ds")
    yield client
    client.close()


def test_from_a_bucket_to_a_bucket_and_on_from_there(server: EmulatorServer, bucket: storage.Bucket) -> None:
    lines = "".join(json.dumps(line) + "\n" for line in keyed(TEXTS))
    bucket.blob("in/rows.jsonl").upload_from_string(lines)
    with vertex_client(server.url) as client:
        job = client.batches.create(model=MODEL, src="gs://acme/in/rows.jsonl")
        assert job.dest.gcs_uri == "gs://acme/in/rows/dest", "what Google's client makes up"
        server.advance(JOB_SECONDS)
        done = client.batches.get(name=job.name)
        again = client.batches.create(
            model=MODEL,
            src=f"{done.output_info.gcs_output_directory}/predictions.jsonl",
            config={"dest": "gs://acme/again"},
        )
        server.advance(JOB_SECONDS)
        done = client.batches.get(name=again.name)
    prefix = done.output_info.gcs_output_directory.removeprefix("gs://acme/")
    found = [json.loads(x) for b in bucket.list_blobs(prefix=prefix) for x in b.download_as_text().splitlines()]
    assert {f["key"]: f["response"]["candidates"][0]["content"]["parts"][0]["text"] for f in found} == ANSWERS
    assert server.bill_summary().requests == len(TEXTS)


def test_from_a_query_to_a_table_that_can_be_queried(server: EmulatorServer, warehouse: bigquery.Client) -> None:
    rows = [{"key": key, "request": request_of(text)} for key, text in TEXTS.items()]
    schema = [bigquery.SchemaField("key", "STRING"), bigquery.SchemaField("request", "JSON")]
    table = warehouse.create_table(bigquery.Table("acme.ds.rows", schema=schema))
    loaded = warehouse.load_table_from_json(rows, table, job_config=bigquery.LoadJobConfig(schema=schema)).result()
    assert loaded.output_rows == len(rows)
    with vertex_client(server.url) as client:
        job = client.batches.create(model=MODEL, src="bq://acme.ds.rows", config={"dest": "bq://acme.ds"})
        server.advance(JOB_SECONDS)
        name = client.batches.get(name=job.name).output_info.bigquery_output_table
    text = "JSON_VALUE(response, '$.candidates[0].content.parts[0].text')"
    found = warehouse.query_and_wait(f"SELECT key, {text} AS text FROM acme.ds.{name} WHERE status = ''")
    assert {row.key: row.text for row in found} == ANSWERS


def test_what_a_project_needs_is_provided_once(server: EmulatorServer) -> None:
    for _ in range(2):
        server.provide("eu", bucket="staging", dataset="acme.staged")
    options = {"api_endpoint": server.url}
    clients = [
        storage.Client(project="acme", credentials=AnonymousCredentials(), client_options=options),
        bigquery.Client(project="acme", credentials=AnonymousCredentials(), client_options=options),
    ]
    assert clients[0].get_bucket("staging").location == "EU"
    assert clients[1].get_dataset("staged").location == "EU"
    for client in clients:
        client.close()
