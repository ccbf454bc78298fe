"""A spec from BigQuery to BigQuery, through the command line: read, sent, merged, and nothing the second time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from tests_e2e_kit import Workspace

from batchform.emulator import EmulatorServer

QUERY = "SELECT id, title, body FROM shop.tickets WHERE status = 'open'"
SOURCE: dict[str, Any] = {"type": "bigquery", "query": QUERY}
TABLE: dict[str, Any] = {"type": "bigquery", "table": "acme.shop.tickets", "where": "status = 'open'"}
DESTINATION = {"type": "bigquery", "table": "acme.shop.answers"}


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("google"), job_seconds=0) as server:
        yield server


@pytest.fixture
def client(google: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[bigquery.Client]:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", google.url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    options = {"api_endpoint": google.url}
    with closing(bigquery.Client(project="acme", credentials=AnonymousCredentials(), client_options=options)) as made:
        made.delete_dataset("shop", delete_contents=True, not_found_ok=True)
        made.create_dataset("shop")
        run(made, "CREATE TABLE shop.tickets (id STRING, title STRING, body STRING, status STRING, price NUMERIC)")
        run(made, "INSERT INTO shop.tickets SELECT CONCAT('T-', CAST(n AS STRING)), 'a title', 'text', 'open', n "
                  "FROM UNNEST(GENERATE_ARRAY(1, 5)) AS n")  # fmt: skip
        yield made


def run(client: bigquery.Client, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in client.query(sql).result()]


def _spec(workspace: Workspace, **changes: Any) -> None:
    workspace.spec(**{"source": SOURCE, "destination": DESTINATION, **changes})


def test_a_query_is_read_sent_and_merged_and_nothing_is_sent_twice(workspace: Workspace, client: Any) -> None:
    _spec(workspace)
    assert workspace.actions() == {"run": 5}
    workspace.apply()
    assert len(workspace.billed()) == 5
    rows = run(
        client, "SELECT id, text, _batchform.spec, _batchform.request, _batchform.plan FROM shop.answers ORDER BY id"
    )
    assert [r[0] for r in rows] == [f"T-{n}" for n in range(1, 6)] and all(r[1] for r in rows)
    assert {r[2] for r in rows} == {"triage"} and all(len(r[3]) == 64 for r in rows)
    assert len({r[4] for r in rows}) == 1 and rows[0][4].startswith("sha256:")

    shown = json.loads(workspace.ok("results", "triage", "--json", "--rows", "1").out.splitlines()[0])
    assert shown["_batchform"]["spec"] == "triage" and shown["_batchform"]["answered_at"][:2] == "20"

    before = client.get_table("shop.answers").etag
    assert workspace.actions() == {"keep": 5}
    workspace.apply()
    assert len(workspace.billed()) == 5
    assert client.get_table("shop.answers").etag == before

    run(client, "INSERT INTO shop.tickets VALUES ('T-6', 'new', 'text', 'open', 6)")
    run(client, "UPDATE shop.tickets SET body = 'other' WHERE id = 'T-2'")
    run(client, "UPDATE shop.tickets SET price = 0 WHERE true")  # which nobody reads
    assert workspace.actions() == {"run": 1, "rerun": 1, "keep": 4}
    workspace.apply()
    assert len(workspace.billed()) == 7
    assert run(client, "SELECT COUNT(*), COUNT(DISTINCT id) FROM shop.answers") == [(6, 6)]
    workspace.ok("ledger", "verify", "--deep")


@pytest.mark.parametrize("via", ["storage", "bigquery"])
def test_from_a_query_over_vertex_ai_into_a_table(
    workspace: Workspace, client: Any, google: EmulatorServer, monkeypatch: pytest.MonkeyPatch, via: str
) -> None:
    """Rows, requests, results and answers: all of it lies at Google, and everything is one of Google's own clients."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.url)
    google.provide("us-central1", bucket="acme-batch", dataset="acme-support.batches")
    places = {"staging": "gs://acme-batch/staging"} if via == "storage" else {"dataset": "batches"}
    backend = {"type": "vertex", "base_url": google.url, "project": "acme-support", "location": "us-central1"}
    workspace.project(
        backends={"vertex": {**backend, "poll": "10ms", "via": via, **places}}, defaults={"backend": "vertex"}
    )
    _spec(workspace)
    paid = len(google.bill())
    assert workspace.actions() == {"run": 5}
    workspace.apply()
    rows = run(client, "SELECT id, text, _batchform.job FROM shop.answers ORDER BY id")
    assert [row[0] for row in rows] == [f"T-{n}" for n in range(1, 6)] and all(row[1] for row in rows)
    assert all("/locations/us-central1/batchPredictionJobs/" in row[2] for row in rows)
    assert len(google.bill()) == paid + 5 and workspace.actions() == {"keep": 5}

    run(client, "UPDATE shop.tickets SET body = 'other' WHERE id = 'T-2'")
    run(client, "INSERT INTO shop.tickets VALUES ('T-6', 'new', 'text', 'open', 6)")
    workspace.apply()
    assert len(google.bill()) == paid + 7 and workspace.actions() == {"keep": 6}
    assert run(client, "SELECT COUNT(*), COUNT(DISTINCT id) FROM shop.answers") == [(6, 6)]
    workspace.ok("ledger", "verify", "--deep")


def test_what_left_the_source_is_pruned(workspace: Workspace, client: Any) -> None:
    _spec(workspace, destination={**DESTINATION, "prune": True})
    workspace.apply()
    run(client, "UPDATE shop.tickets SET status = 'closed' WHERE id IN ('T-1', 'T-5')")
    assert workspace.actions() == {"keep": 3, "remove": 2}
    workspace.apply()
    assert run(client, "SELECT id FROM shop.answers ORDER BY id") == [("T-2",), ("T-3",), ("T-4",)]


def test_a_table_that_was_dropped_is_delivered_anew_for_nothing(workspace: Workspace, client: Any) -> None:
    _spec(workspace)
    workspace.apply()
    client.delete_table("shop.answers")
    assert workspace.actions() == {"redeliver": 5}
    workspace.apply()
    assert run(client, "SELECT COUNT(*) FROM shop.answers") == [(5,)] and len(workspace.billed()) == 5


def test_a_saved_plan_of_a_table_sends_the_rows_that_were_reviewed(workspace: Workspace, client: Any) -> None:
    _spec(workspace, source=TABLE)
    plan = workspace.ok("plan", "--out", "saved", "--json").json["specs"][0]
    assert "acme.shop.tickets, as of 2" in plan["source"]["described"]
    run(client, "UPDATE shop.tickets SET body = 'other' WHERE true")
    run(client, "INSERT INTO shop.tickets VALUES ('T-6', 'new', 'text', 'open', 6)")
    workspace.ok("apply", "saved", "--yes", "--json")
    assert len(workspace.billed()) == 5
    assert workspace.actions() == {"run": 1, "rerun": 5}  # what changed since is for the next plan


def test_a_saved_plan_of_a_query_is_stale_when_its_tables_change(workspace: Workspace, client: Any) -> None:
    _spec(workspace)
    workspace.ok("plan", "--out", "saved")
    run(client, "INSERT INTO shop.tickets VALUES ('T-6', 'new', 'text', 'open', 6)")
    refused = workspace.run("apply", "saved", "--yes")
    assert refused.code == 4 and "the source of triage changed" in refused.err
    assert workspace.billed() == []


def test_errors_name_the_line_and_the_way_out(workspace: Workspace, client: Any) -> None:
    assert client.project == "acme"
    _spec(workspace, source={"type": "bigquery", "table": "acme.shop.nothing"})
    found = workspace.run("plan")
    assert found.code == 1 and "specs/triage.yaml:" in found.err and "Not found: Table" in found.err
    _spec(workspace, source={**SOURCE, "query": QUERY.replace("title,", "")})
    found = workspace.run("plan")
    assert found.code == 1 and "has no column `title`" in found.err
    _spec(workspace, source={**SOURCE, "max_bytes_billed": 1})
    found = workspace.run("plan")
    assert found.code == 1 and "max_bytes_billed allows 1 B" in found.err and "Nothing was read" in found.err
    _spec(workspace, destination={**DESTINATION, "table": "acme.nowhere.answers"})
    found = workspace.run("apply", "--yes")
    assert found.code == 1 and "bq --location=REGION mk --dataset acme:nowhere" in found.err
    assert workspace.billed() == []


def test_rows_of_others_in_a_shared_table_are_no_damage(workspace: Workspace, client: Any) -> None:
    """They are not to be moved away; rows under the spec's own name that this ledger did not deliver are told."""
    _spec(workspace, destination={**DESTINATION, "shared": True})
    workspace.apply()
    run(client, "INSERT INTO shop.answers (id, text) VALUES ('other', 'x')")
    assert "holds together" in workspace.ok("ledger", "verify").out
    assert workspace.actions() == {"keep": 5}
    run(
        client, "INSERT INTO shop.answers (id, _batchform) SELECT 'T-99', _batchform FROM shop.answers WHERE id = 'T-1'"
    )
    told = workspace.ok("ledger", "verify").out
    assert "holds 1 row of triage that the ledger does not know" in told and "a table of its own" in told
    assert "Move it away" not in told
    run(client, "DELETE FROM shop.answers WHERE id IN ('T-1', 'T-99')")
    told = workspace.run("ledger", "verify").out
    assert "lacks 1 row" in told and "Move it away" not in told
    _spec(workspace, destination={**DESTINATION, "shared": True, "metadata": False, "table": "acme.shop.plain"})
    workspace.ok("sync")
    run(client, "INSERT INTO shop.plain (id, text) VALUES ('other', 'x')")
    assert "holds together" in workspace.ok("ledger", "verify").out
