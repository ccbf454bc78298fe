"""Jobs: ids, states, labels, lists, cancelling; what is left of them when a process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from warehouse_kit import rows_of

from batchform.emulator import EmulatorServer


def test_a_job_id_is_taken_once(client: bigquery.Client, dataset: str) -> None:
    client.query(f"CREATE TABLE {dataset}.t (n INT64)").result()
    sql, name = f"INSERT INTO {dataset}.t VALUES (1)", f"job-{dataset}"
    client.query(sql, job_id=name, job_retry=None).result()
    with pytest.raises(exceptions.Conflict, match=f"Already Exists: Job acme:US.{name}"):
        client.query(sql, job_id=name, job_retry=None)
    job = client.get_job(name)
    assert (job.state, job.job_id, job.num_dml_affected_rows, job.statement_type) == ("DONE", name, 1, "INSERT")
    assert rows_of(client, f"SELECT * FROM {dataset}.t") == [(1,)]


def test_one_of_many_with_the_same_id_wins(client: bigquery.Client, dataset: str) -> None:
    client.query(f"CREATE TABLE {dataset}.t (n INT64)").result()
    lost: list[int] = []

    def insert(i: int) -> None:
        try:
            client.query(f"INSERT INTO {dataset}.t VALUES ({i})", job_id=f"race-{dataset}", job_retry=None)
        except exceptions.Conflict:
            lost.append(i)

    threads = [threading.Thread(target=insert, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.get_job(f"race-{dataset}").result()
    assert len(lost) == 7
    assert len(rows_of(client, f"SELECT * FROM {dataset}.t")) == 1


def test_labels_lists_and_states(client: bigquery.Client) -> None:
    config = bigquery.QueryJobConfig(labels={"team": "a"})
    jobs = [client.query("SELECT 1", job_config=config) for _ in range(3)]
    for job in jobs:
        job.result()
    failed = client.query("SELECT zz")
    with pytest.raises(exceptions.BadRequest):
        failed.result()
    found = list(client.list_jobs(max_results=4))
    assert [j.job_id for j in found] == [j.job_id for j in (failed, *reversed(jobs))]
    assert (found[0].error_result["reason"], found[1].labels, found[1].error_result) == (
        "invalidQuery",
        {"team": "a"},
        None,
    )
    pages = client.list_jobs(page_size=2, max_results=4).pages
    assert [len(list(page)) for page in pages] == [2, 2]
    assert list(client.list_jobs(state_filter="running")) == []
    assert jobs[0].ended >= jobs[0].started >= jobs[0].created


def test_cancelling_and_deleting(client: bigquery.Client) -> None:
    job = client.query("SELECT 1")
    job.result()
    assert job.cancel()
    assert client.get_job(job.job_id).error_result is None
    client.delete_job_metadata(job.job_id, location="US")
    with pytest.raises(exceptions.NotFound):
        client.get_job(job.job_id)


def test_a_long_job_runs_on_and_a_cancelled_one_commits_nothing(client: bigquery.Client, dataset: str) -> None:
    slow = (
        "SELECT COUNT(*) AS c FROM UNNEST(GENERATE_ARRAY(1, 60000)) a CROSS"
        " JOIN UNNEST(GENERATE_ARRAY(1, 60000)) b WHERE MOD(a * b, 7) = 3"
    )
    job = client.query(f"CREATE TABLE {dataset}.t AS {slow}")
    assert job.state == "RUNNING"
    assert not job.done()
    job.cancel()
    with pytest.raises(exceptions.GoogleAPICallError, match="cancelled"):
        job.result()
    with pytest.raises(exceptions.NotFound):
        client.get_table(f"{dataset}.t")


def test_an_emulator_that_nobody_asks_for_bigquery_does_not_load_it() -> None:
    code = """
        import sys
        import batchform.emulator.server, batchform.emulator.faults
        heavy = {"sqlglot", "grpc", "duckdb", "pyarrow"} & sys.modules.keys()
        sys.exit(str(heavy) if heavy or "batchform.emulator.warehouse.routes" in sys.modules else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_request_id_makes_one_job(server: EmulatorServer, client: bigquery.Client, dataset: str) -> None:
    client.query(f"CREATE TABLE {dataset}.t (n INT64)").result()
    body = {"query": f"INSERT INTO {dataset}.t VALUES (1)", "useLegacySql": False, "requestId": f"r-{dataset}"}
    url = f"{server.url}/bigquery/v2/projects/acme/queries"
    answers = [httpx2.post(url, json=body).json() for _ in range(3)]
    assert len({answer["jobReference"]["jobId"] for answer in answers}) == 1
    assert [answer["numDmlAffectedRows"] for answer in answers] == ["1"] * 3
    assert len(rows_of(client, f"SELECT * FROM {dataset}.t")) == 1


def test_a_finished_upload_answers_the_same_again(
    server: EmulatorServer, client: bigquery.Client, dataset: str
) -> None:
    table = {"projectId": "acme", "datasetId": dataset, "tableId": "t"}
    schema = {"fields": [{"name": "n", "type": "INTEGER"}]}
    config = {"load": {"destinationTable": table, "schema": schema, "sourceFormat": "NEWLINE_DELIMITED_JSON"}}
    start = f"{server.url}/upload/bigquery/v2/projects/acme/jobs?uploadType=resumable"
    url = httpx2.post(start, json={"configuration": config}).headers["location"]
    data = b'{"n": 1}\n{"n": 2}\n'
    assert httpx2.put(url, headers={"content-range": "bytes */*"}).status_code == 308
    first = httpx2.put(url, content=data[:5], headers={"content-range": f"bytes 0-4/{len(data)}"})
    assert (first.status_code, first.headers["range"]) == (308, "bytes=0-4")
    rest = {"content-range": f"bytes 5-{len(data) - 1}/{len(data)}"}
    done = [httpx2.put(url, content=data[5:], headers=rest).json() for _ in range(3)]
    assert done[0]["statistics"]["load"]["outputRows"] == "2"
    assert done[0] == done[1] == done[2]
    assert client.get_table(f"{dataset}.t").num_rows == 2


def test_a_job_of_a_process_that_died_is_run_again_and_a_script_fails(
    tmp_path: Path, connect: Callable[..., bigquery.Client]
) -> None:
    state = tmp_path / "state"
    code = """
        import os, sys
        from pathlib import Path
        from batchform.emulator.clock import SystemClock
        from batchform.emulator.store import Store
        from batchform.emulator.warehouse import jobs, warehouse, work
        from batchform.emulator.warehouse.tables import TableRef, Tables

        store = Store(Path(sys.argv[1]), SystemClock())
        tables = Tables(store)
        tables.create_dataset("acme", "d")
        tables.create(TableRef("acme", "d", "t"), [{"name": "n", "type": "INTEGER"}])
        found = jobs.of(warehouse.of(store))
        found._begin = lambda number: None  # taken, never begun: as if the process died between the two
        found.insert("acme", {"query": {"query": "INSERT INTO d.t VALUES (7)"}}, {"jobId": "one"})
        found.insert("acme", {"query": {"query": "SELECT 1; INSERT INTO d.t VALUES (8)"}}, {"jobId": "two"})
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(state)], check=True, env=dict(os.environ))
    with EmulatorServer(state) as server:
        client = connect(server.url)
        job: Any = client.get_job("one")
        job.result()
        assert rows_of(client, "SELECT n FROM d.t") == [(7,)]
        with pytest.raises(exceptions.GoogleAPICallError, match="in the middle of this script"):
            client.get_job("two").result()


def test_a_job_of_a_region_is_found_there_only(client: bigquery.Client) -> None:
    made = bigquery.Dataset("acme.far")
    made.location = "europe-west4"
    client.create_dataset(made)
    job = client.query("CREATE TABLE far.t AS SELECT 1 AS x", location="europe-west4")
    job.result()
    assert client.get_job(job.job_id, location="europe-west4").state == "DONE"
    with pytest.raises(exceptions.NotFound, match="Not found: Job"):
        client.get_job(job.job_id)
    client.delete_dataset("far", delete_contents=True)
