"""Results of Vertex AI's jobs that lie in tables: the same lines by REST and by the Storage Read API."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from bigquery_kit import fill
from google.cloud import bigquery
from read_proxy import ReadProxy

from batchform.adapters.vertex_access import Access as VertexAccess
from batchform.adapters.vertex_tables import TableStaging
from batchform.emulator import EmulatorServer
from batchform.errors import NotFound
from batchform.ports import RemoteJob
from batchform.spec.backends import EmulatorBackend
from batchform.spec.model import GoogleCloud

ROWS = 3_500
RESULTS = (
    "CREATE TABLE {t} AS SELECT CONCAT('k', CAST(n AS STRING)) AS key, '{\"contents\": []}' AS request, "
    "IF(MOD(n, 7) = 0, 'Bad Request: {\"error\": {}}', '') AS status, "
    "IF(MOD(n, 7) = 0, '', CONCAT('{\"candidates\": [{\"text\": \"', REPEAT('ü', 1000), '\"}]}')) AS response, "
    "TIMESTAMP '2026-11-21 08:00:00+00' AS processed_time, [1, 2] AS passthrough "
    f"FROM UNNEST(GENERATE_ARRAY(1, {ROWS})) AS n"
)


@pytest.fixture
def results(client: bigquery.Client, dataset: str) -> str:
    fill(client, f"{dataset}.results", RESULTS)
    return f"{dataset}.results"


def _staging(server: EmulatorServer, dataset: str, **env: str) -> TableStaging:
    config = EmulatorBackend(type="emulator", cloud="vertex", url=server.url)
    access = VertexAccess(config, cloud=GoogleCloud(), env={}, base_url=server.url)
    return TableStaging(access, dataset, project="acme", location="us-central1", env=env)


def _job(table: str) -> RemoteJob:
    return RemoteJob(
        name="projects/p/locations/l/batchPredictionJobs/1", tag="bf-1", state="SUCCEEDED", results=f"bq://{table}"
    )


def _lines(staging: TableStaging, table: str, to: Path) -> list[str]:
    try:
        size = staging.fetch(_job(table), to)
    finally:
        staging.close()
    assert size == to.stat().st_size
    return sorted(to.read_text().splitlines())


def test_both_ways_bring_the_same_lines(server: EmulatorServer, results: str, tmp_path: Path) -> None:
    dataset = results.rpartition(".")[0]
    by_rest = _lines(_staging(server, dataset), results, tmp_path / "rest")
    with ReadProxy(server.bigquery_storage(), cuts=[(2, grpc.StatusCode.UNAVAILABLE, "gone")]) as proxy:
        stored = _staging(server, dataset, BIGQUERY_STORAGE_EMULATOR_HOST=proxy.address)
        assert _lines(stored, results, tmp_path / "storage") == by_rest
        assert proxy.calls == 2  # broken off once, and taken up
    found = [json.loads(line) for line in by_rest]
    assert len({line["key"] for line in found}) == len(found) == ROWS
    failed = [line for line in found if line["status"]]
    assert len(failed) == ROWS // 7 and all(line["response"] == {} for line in failed)
    assert not any("passthrough" in line or "request" in line for line in found)


def test_credentials_that_may_not_use_the_read_api_read_pages(
    server: EmulatorServer, results: str, tmp_path: Path
) -> None:
    with ReadProxy(server.bigquery_storage(), refuse=grpc.StatusCode.PERMISSION_DENIED) as proxy:
        staging = _staging(server, results.rpartition(".")[0], BIGQUERY_STORAGE_EMULATOR_HOST=proxy.address)
        assert len(_lines(staging, results, tmp_path / "rest")) == ROWS


def test_a_table_that_is_gone_is_said(server: EmulatorServer, dataset: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"Downloading the results of .*gone"):
        _lines(_staging(server, dataset), f"{dataset}.gone", tmp_path / "x")
