"""Embeddings from a spec to their destination, through the real client against the emulator."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from tests_e2e_kit import Workspace

from batchform.emulator import EmulatorServer

SPEC: dict[str, Any] = {
    "task": "embed",
    "prompt": {"user": {"text": "{{ body }}"}},
    "model": "gemini-embedding-001",
    "generation_config": None,
    "embed": {"task_type": "RETRIEVAL_DOCUMENT", "dimensions": 128, "title": {"text": "{{ title }}"}},
    "destination": {"type": "parquet", "path": "results/vectors.parquet"},
}
VERTEX = {
    "local": {
        "type": "emulator", "cloud": "vertex", "project": "acme-support", "location": "us-central1",
        "staging": "gs://acme-batch/staging", "job_seconds": 0, "poll": "10ms",
    }
}  # fmt: skip


def embeds(workspace: Workspace, **changes: Any) -> None:
    spec = {name: value for name, value in {**SPEC, **changes}.items() if value is not None}
    workspace.spec(**spec)
    path = workspace.root / "specs/triage.yaml"
    path.write_text(path.read_text().replace("generation_config:\n  max_output_tokens: 64\n  temperature: 0\n", ""))


def length(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


@pytest.mark.parametrize("cloud", ["gemini", "vertex"])
def test_rows_become_vectors_and_nothing_is_sent_twice(workspace: Workspace, cloud: str) -> None:
    if cloud == "vertex":
        workspace.project(backends=VERTEX)
    embeds(workspace)
    assert workspace.actions() == {"run": 6}
    workspace.apply()
    table = pq.read_table(workspace.root / "results/vectors.parquet")
    assert table.column_names == ["id", "embedding", "prompt_tokens", "model_version", "batch_job", "answered_at"]
    assert str(table.schema.field("embedding").type) == "list<element: float>"
    vectors = table.column("embedding").to_pylist()
    assert len(vectors) == 6 and all(len(v) == 128 and abs(length(v) - 1) < 1e-5 for v in vectors)
    assert len({tuple(v) for v in vectors}) == 6
    assert table.column("prompt_tokens").to_pylist() == [2] * 6
    assert len(workspace.billed()) == 6
    assert "Nothing to do" in workspace.ok("apply", "--yes").out
    assert workspace.actions() == {"keep": 6} and len(workspace.billed()) == 6


@pytest.mark.parametrize(
    ("destination", "read"),
    [
        (
            {"type": "jsonl", "path": "results/v.jsonl"},
            lambda p: json.loads(p.read_text().splitlines()[0])["embedding"],
        ),
        ({"type": "csv", "path": "results/v.csv"}, lambda p: _first(p, "SELECT embedding::FLOAT[] FROM '{}'")),
        (
            {"type": "duckdb", "path": "results/v.duckdb", "table": "v"},
            lambda p: _first(p, "ATTACH '{}' AS d (READ_ONLY); SELECT embedding FROM d.v"),
        ),
        (
            {"type": "sqlite", "path": "results/v.db", "table": "v"},
            lambda p: json.loads(_of_sqlite(p)),
        ),
    ],
    ids=["jsonl", "csv", "duckdb", "sqlite"],
)
def test_each_destination_has_the_same_numbers(workspace: Workspace, destination: dict[str, Any], read: Any) -> None:
    embeds(workspace)
    workspace.apply()
    [wanted, *_] = pq.read_table(workspace.root / "results/vectors.parquet").column("embedding").to_pylist()
    embeds(workspace, destination=destination)
    assert workspace.actions() == {"redeliver": 6}
    workspace.apply()
    found = read(workspace.root / destination["path"])
    assert found == pytest.approx(wanted, abs=1e-8) and len(found) == 128
    assert len(workspace.billed()) == 6


def _first(path: Path, sql: str) -> Any:
    with duckdb.connect() as con:
        return con.execute(sql.format(path)).fetchall()[0][0]


def _of_sqlite(path: Path) -> str:
    with closing(sqlite3.connect(path)) as con:
        return str(con.execute("SELECT embedding FROM v ORDER BY id").fetchone()[0])


def test_columns_may_name_the_vector(workspace: Workspace) -> None:
    embeds(workspace, destination={
        "type": "jsonl", "path": "results/v.jsonl",
        "columns": {"vector": "embedding", "first": "response[0]", "subject": "row.title"},
    })  # fmt: skip
    refused = workspace.run("validate")
    assert refused.code == 1 and "vectors, so there is no `response`: use `embedding`" in refused.out + refused.err
    embeds(workspace, destination={
        "type": "jsonl", "path": "results/v.jsonl", "columns": {"vector": "embedding", "subject": "row.title"},
    })  # fmt: skip
    workspace.apply()
    found = workspace.delivered("results/v.jsonl")
    assert len(found) == 6 and all({*row} == {"id", "vector", "subject"} and len(row["vector"]) == 128 for row in found)


def test_other_commands_know_vectors(workspace: Workspace) -> None:
    embeds(workspace)
    workspace.apply()
    shown = workspace.ok("render", "triage", "--key", "T-1", "--json").json
    assert json.loads(json.dumps(shown)) and "outputDimensionality" in json.dumps(shown)
    assert "embedding" in workspace.ok("results", "triage").out
    assert "rendered request (unchanged)" in workspace.ok("explain", "triage", "T-1").out
    tried = workspace.ok("try", "triage", "--rows", "1").out
    assert "answered" in tried and "(128 numbers)" in tried
    workspace.ok("rerun", "triage", "--key", "T-1")
    assert workspace.actions() == {"rerun": 1, "keep": 5}
    workspace.apply()
    assert len(workspace.billed()) == 8  # with the one that was tried


def test_vertex_embeds_at_once_too(workspace: Workspace) -> None:
    workspace.project(backends=VERTEX)
    embeds(workspace)
    assert "(128 numbers)" in workspace.ok("try", "triage", "--rows", "1").out


def test_vectors_of_a_wrong_length_are_retried(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1, body="plain"), workspace.row(2, body="short [[emulator:invalid_json x1]]")])
    embeds(workspace)
    outcome = workspace.run("apply", "--yes")
    assert "1 invalid_output" in outcome.out + outcome.err
    assert workspace.run("sync", "--wait").code == 0
    assert len(pq.read_table(workspace.root / "results/vectors.parquet")) == 2
    assert len(workspace.billed()) == 3


KILLED = """
import os, sys
from batchform.run import submit
submit.record_created = lambda *_: os._exit(9)
from batchform.cli import run
run(["apply", "--yes"])
"""


@pytest.mark.parametrize("cloud", ["gemini", "vertex"])
def test_a_job_of_vectors_is_adopted_after_a_kill_between_create_and_commit(
    workspace: Workspace, tmp_path: Path, cloud: str
) -> None:
    with EmulatorServer(state_dir=tmp_path / "emulator", job_seconds=0) as server:
        backend = {**VERTEX["local"], "cloud": cloud, "url": server.url, "settle": "1h"}
        del backend["job_seconds"]
        if cloud == "gemini":
            backend = {"type": "emulator", "url": server.url, "poll": "10ms", "settle": "1h"}
        else:
            server.provide("us-central1", bucket="acme-batch")
        workspace.project(backends={"local": backend})
        embeds(workspace)
        killed = subprocess.run([sys.executable, "-c", KILLED], cwd=workspace.root, check=False, capture_output=True)
        assert killed.returncode == 9, killed.stderr.decode()
        outcome = workspace.ok("sync", "--wait")
        assert "adopted" in outcome.out + outcome.err
        assert len(pq.read_table(workspace.root / "results/vectors.parquet")) == 6
        assert server.bill_summary().requests == 6 and server.bill_summary().jobs == 1


def test_vertex_bills_vectors_at_a_price_of_its_own(workspace: Workspace) -> None:
    """0.12 dollars a million tokens in batches, and the Gemini API 0.075: in plans, and in what answers cost."""
    embeds(workspace)
    here = workspace.plan()["cost_usd"]["expected"]
    workspace.project(backends=VERTEX)
    there = workspace.plan()["cost_usd"]["expected"]
    assert there == pytest.approx(here * 0.12 / 0.075, rel=0.15)  # the requests of the two differ by a few bytes
    workspace.ok("apply", "--yes")
    usd = workspace.ok("status", "--json").json["specs"][0]["usd"]
    lines = workspace.ok("results", "triage", "--json").out.splitlines()
    assert usd == pytest.approx(sum(json.loads(line)["prompt_tokens"] for line in lines) * 0.12 / 1e6)
    assert "on Vertex AI" in workspace.ok("models", "show", "gemini-embedding-001").out
