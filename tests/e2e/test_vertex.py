"""A spec on Vertex AI, end to end over real sockets: plan, apply, again, jobs, try, and what goes wrong between."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests_e2e_kit import Workspace

VERTEX: dict[str, Any] = {"type": "emulator", "cloud": "vertex", "job_seconds": 0, "poll": "10ms"}
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


@pytest.fixture(params=["storage", "bigquery"])
def vertex(request: pytest.FixtureRequest, workspace: Workspace) -> Workspace:
    workspace.project(backends={"local": {**VERTEX, "via": request.param}})
    return workspace


@pytest.fixture
def stored(workspace: Workspace) -> Workspace:
    workspace.project(backends={"local": VERTEX})
    return workspace


def faults(project: Workspace, *entries: dict[str, Any], **backend: Any) -> None:
    import yaml

    project.write("faults.yaml", yaml.safe_dump({"faults": list(entries)}))
    project.project(backends={"local": {**VERTEX, "faults": "faults.yaml", **backend}})


def test_rows_are_answered_once_and_a_second_apply_sends_nothing(vertex: Workspace) -> None:
    vertex.spec(generation_config={"temperature": 0, "response_schema": SCHEMA})
    assert vertex.actions() == {"run": 6}
    means = "table" if "bigquery" in (vertex.root / "batchform.yaml").read_text() else "file"
    assert f"in 1 job, {means}" in vertex.ok("plan").out
    vertex.apply()
    assert len(vertex.billed()) == 6
    delivered = {row["id"]: row for row in vertex.delivered()}
    assert len(delivered) == 6 and all(row["response"]["label"] for row in delivered.values())
    assert vertex.actions() == {"keep": 6}
    before = vertex.snapshot()
    vertex.apply()
    assert vertex.snapshot() == before and len(vertex.billed()) == 6
    assert vertex.ok("ledger", "verify").code == 0


def test_identical_requests_of_several_rows_are_each_answered(vertex: Workspace) -> None:
    vertex.rows([vertex.row(i, title="same", body="same") for i in range(4)])
    vertex.apply()
    assert len({row["id"] for row in vertex.delivered()}) == 4


def test_jobs_show_where_they_are(stored: Workspace) -> None:
    stored.apply()
    [job] = stored.ok("jobs", "list", "--json").json
    assert job["job"].startswith("projects/emulated-project/locations/us-central1/batchPredictionJobs/")
    shown = stored.ok("jobs", "show", job["tag"], "--json").json
    assert shown["recorded"]["intent"]["place"] == "projects/emulated-project/locations/us-central1"


def test_a_job_is_followed_where_it_was_sent(stored: Workspace) -> None:
    """Another location in batchform.yaml concerns the next jobs, not those that are open."""
    stored.project(backends={"local": {**VERTEX, "job_seconds": 0.6}})
    stored.ok("apply", "--yes", "--detach")
    stored.project(backends={"local": {**VERTEX, "location": "europe-west4", "staging": "gs://batchform-eu"}})
    stored.ok("sync", "--wait")
    assert len(stored.delivered()) == 6 and len(stored.billed()) == 6
    stored.rows([stored.row(i) for i in range(1, 9)])
    stored.apply()
    places = {job["job"].partition("/batchPredictionJobs/")[0] for job in stored.ok("jobs", "list", "--json").json}
    assert places == {f"projects/emulated-project/locations/{at}" for at in ("us-central1", "europe-west4")}
    assert len(stored.billed()) == 8


def test_results_without_keys_find_their_rows(stored: Workspace) -> None:
    """Rows 1 and 2 ask the same; none of the results says whose it is."""
    faults(stored, {"call": "vertex.batches.create", "do": {"type": "keys_missing"}})
    stored.rows([stored.row(max(2, i), id=f"T-{i}") for i in range(1, 7)])
    stored.apply()
    assert len({row["id"] for row in stored.delivered()}) == 6 == len(stored.billed())


def test_answers_of_the_gemini_api_count_on_vertex(project: Workspace) -> None:
    project.project(backends={"local": VERTEX})
    assert project.actions() == {"keep": 6}


def test_try_asks_vertex_at_once(stored: Workspace) -> None:
    lines = stored.ok("try", "triage", "--rows", "2", "--json").out.splitlines()
    assert [json.loads(line)["class"] for line in lines] == ["answered", "answered"]


def test_inputs_are_deleted_and_results_stay(stored: Workspace) -> None:
    from batchform.adapters.storage.client import StorageClient
    from batchform.emulator import EmulatorServer
    from batchform.spec.model import GoogleCloud
    from batchform.spec.remote import address

    stored.apply()
    with EmulatorServer(stored.root / ".batchform/emulator") as server:
        client = StorageClient(GoogleCloud(), endpoint=server.url)
        names = [found.at.name for found in client.list(address("gs://batchform-staging/"))]
        client.close()
    assert len(names) == 1 and names[0].startswith("results/bf-triage-")


def test_what_vertex_refuses_is_refused_by_validate_and_plan(stored: Workspace) -> None:
    stored.spec(request={"tools": [{"googleSearch": {}}]})
    for command in ("validate", "plan"):
        found = stored.run(command)
        assert found.code == 1 and "googleSearch" in found.err and "specs/triage.yaml" in found.err
    assert stored.billed() == []


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("EXPIRED", "expired"),
        ("CANCELLED", "cancelled"),
        ("FAILED", "job_failed"),
        ("PARTIALLY_SUCCEEDED", "missing"),
    ],
)
@pytest.mark.parametrize("via", ["storage", "bigquery"])
def test_rows_that_a_job_did_not_come_to_are_sent_again(stored: Workspace, via: str, state: str, failure: str) -> None:
    """Their lines come back without response and status: that is no answer without text."""
    faults(
        stored,
        {"call": "vertex.batches.create", "do": {"type": "ends", "state": state, "share": 0.5, "seconds": 0}},
        via=via,
    )
    first = stored.run("apply", "--yes", "--json")
    assert first.code == 6 and first.json["rows"]["triage"] == {"answered": 3, failure: 3}
    assert stored.actions() == {"rerun": 3, "keep": 3}
    stored.apply()
    assert len(stored.delivered()) == 6 == len(stored.billed())
