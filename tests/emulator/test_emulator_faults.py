"""Scripted faults of calls: what a client meets, and what the service did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from emulator_kit import MODEL, StillClock
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer

REFUSED = (httpx2.RemoteProtocolError, httpx2.ReadError)


def create(client: genai.Client, tag: str = "tag") -> Any:
    source = [{"contents": "hello", "metadata": {"key": "k"}}]
    return client.batches.create(model=MODEL, src=source, config={"display_name": tag})


def jobs(raw: httpx2.Client) -> list[str]:
    return [job["metadata"]["displayName"] for job in raw.get("/v1/batches").json().get("operations", [])]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 429, 499, 500, 501, 502, 503, 504])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_before_or_after_the_effect(
    server: EmulatorServer, client: genai.Client, raw: httpx2.Client, status: int, when: str
) -> None:
    server.set_faults([{"call": "batches.create", "do": {"type": "error", "status": status, "when": when}}])
    with pytest.raises(errors.APIError) as refused:
        create(client)
    assert refused.value.code == status
    assert refused.value.status
    assert jobs(raw) == ([] if when == "before" else ["tag"])
    create(client, "second")
    assert jobs(raw)[0] == "second"


def test_a_quota_error_says_when_to_come_back(server: EmulatorServer, client: genai.Client) -> None:
    server.set_faults(
        [
            {"call": "batches.create", "do": {"type": "error", "status": 429, "retry_after": 7}},
            {"call": "batches.create", "do": {"type": "error", "status": 429, "retry_info": "2.5s"}},
        ]
    )
    with pytest.raises(errors.APIError) as first:
        create(client)
    assert first.value.response.headers["retry-after"] == "7"
    with pytest.raises(errors.APIError) as second:
        create(client)
    assert second.value.details["error"]["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}
    ]
    assert "retry-after" not in second.value.response.headers


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1), ("body", 1)])
def test_a_connection_drops_before_the_effect_after_it_or_in_the_answer(
    server: EmulatorServer, client: genai.Client, raw: httpx2.Client, when: str, how: str, made: int
) -> None:
    server.set_faults([{"call": "batches.create", "do": {"type": "drop", "when": when, "how": how}}])
    with pytest.raises(REFUSED):
        create(client)
    assert len(jobs(raw)) == made
    assert [fired.type for fired in server.fired()] == ["drop"]


def test_every_fault_counts_its_own_calls(server: EmulatorServer, raw: httpx2.Client) -> None:
    server.set_faults(
        [
            {"call": "models.*", "nth": 2, "every": 2, "times": 2, "do": {"type": "error", "status": 500}},
            {"call": "models.get", "nth": 3, "do": {"type": "error", "status": 404}},
        ]
    )
    assert [raw.get(f"/v1/models/{MODEL}").status_code for _ in range(7)] == [200, 500, 404, 500, 200, 200, 200]
    assert [(fired.fault, fired.seen) for fired in server.fired()] == [(0, 2), (1, 3), (0, 4)]
    first, second = server.faults()
    assert (first["seen"], first["fired"]) == (7, 2)
    assert (second["seen"], second["fired"]) == (7, 1)


def test_a_fault_can_be_meant_for_one_job(server: EmulatorServer, client: genai.Client) -> None:
    server.set_faults([{"call": "batches.*", "match": {"tag": "b-*"}, "times": "all", "do": "drop"}])
    job = create(client, "a-1")
    with pytest.raises(REFUSED):
        create(client, "b-1")
    assert client.batches.get(name=job.name).display_name == "a-1"


def test_counters_go_on_after_a_restart_with_the_same_schedule(state_dir: Path) -> None:
    schedule = [{"call": "models.list", "nth": 2, "do": {"type": "error", "status": 500}}]

    def statuses(faults: Any, calls: int) -> list[int]:
        headers = {"x-goog-api-key": "a-key"}
        with (
            EmulatorServer(state_dir, clock=StillClock(), faults=faults) as server,
            httpx2.Client(base_url=server.url, headers=headers) as http,
        ):
            return [http.get("/v1/models").status_code for _ in range(calls)]

    assert statuses(schedule, 1) == [200]
    assert statuses(schedule, 2) == [500, 200]
    assert statuses([*schedule, *schedule], 3) == [200, 500, 500], "one call has room for one error"
    assert statuses(None, 1) == [200]
    assert statuses(schedule, 2) == [200, 500]
    assert statuses((), 2) == [200, 200]


def test_the_schedule_is_set_and_read_over_http(server: EmulatorServer, raw: httpx2.Client) -> None:
    set_to = raw.put("/emulator/faults", content="faults:\n- {call: models.list, do: drop}\n")
    assert set_to.json() == {
        "faults": [{"call": "models.list", "do": {"type": "drop"}, "seen": 0, "fired": 0}],
        "fired": [],
    }
    with pytest.raises(REFUSED):
        raw.get("/v1/models")
    (fired,) = raw.get("/emulator/faults").json()["fired"]
    assert fired == {
        "fault": 0, "call": "models.list", "type": "drop", "seen": 1, "about": "", "at": "2026-11-21T12:00:00.000000Z"
    }  # fmt: skip
    wrong = raw.put("/emulator/faults", json={"faults": [{"call": "models.lst", "do": {"type": "drop"}}]})
    assert wrong.status_code == 400
    assert "Did you mean `models.list`?" in wrong.json()["error"]["message"]
    assert len(server.faults()) == 1
