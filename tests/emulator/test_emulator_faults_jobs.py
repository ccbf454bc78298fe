"""Scripted faults of lists, of looks at jobs, and of how jobs end."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from emulator_kit import JOB_SECONDS, MODEL, Batches, request_of
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer

HOUR = 3600
KEYS = [f"k{i}" for i in range(4)]


def make(client: genai.Client, *tags: str) -> list[Any]:
    source = [{"contents": f"say {key}", "metadata": {"key": key}} for key in KEYS]
    return [client.batches.create(model=MODEL, src=source, config={"display_name": tag}) for tag in tags]


def pages(raw: httpx2.Client, size: int = 2) -> list[list[str]]:
    """The tags of the jobs of each page."""
    found, token = [], ""
    while True:
        page = raw.get("/v1/batches", params={"pageSize": size, "pageToken": token}).json()
        found.append([job["metadata"]["displayName"] for job in page.get("operations", [])])
        token = page.get("nextPageToken", "")
        if not token or len(found) > 9:
            return found


def look(raw: httpx2.Client, job: Any) -> dict[str, Any]:
    shown: dict[str, Any] = raw.get(f"/v1/{job.name}").json()
    return shown


def shown_state(client: genai.Client, job: Any) -> str:
    return str(client.batches.get(name=job.name).state.value).removeprefix("JOB_STATE_")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"do": "hide", "match": {"tag": "b"}, "times": "all"}, [["e", "d"], ["c"], ["a"]]),
        ({"do": "hide", "nth": 2}, [["e", "d"], [], ["a"]]),
        ({"do": "reorder"}, [["d", "e"], ["c", "b"], ["a"]]),
        ({"do": "repeat_entries", "match": {"tag": "c"}}, [["e", "d"], ["c", "c", "b"], ["a"]]),
        ({"do": "repeat_page", "nth": 2}, [["e", "d"], ["c", "b"], ["c", "b"], ["a"]]),
        ({"do": "empty_page"}, [[], ["e", "d"], ["c", "b"], ["a"]]),
        ({"do": "empty_page", "nth": 2, "times": 2}, [["e", "d"], [], [], ["c", "b"], ["a"]]),
        ({"do": "empty_page", "nth": 3}, [["e", "d"], ["c", "b"], [], ["a"]]),
        ({"do": "end_early", "nth": 2}, [["e", "d"], ["c", "b"]]),
        ({"do": "small_pages"}, [["e"], ["d", "c"], ["b", "a"]]),
    ],
)
def test_lists_go_wrong(
    server: EmulatorServer,
    client: genai.Client,
    raw: httpx2.Client,
    fault: dict[str, Any],
    expected: list[list[str]],
) -> None:
    jobs = make(client, *"abcde")
    server.set_faults([{"call": "batches.list", **fault}])
    assert pages(raw) == expected
    assert server.fired()
    assert [look(raw, job)["metadata"]["displayName"] for job in jobs] == list("abcde")
    server.set_faults(())
    assert pages(raw) == [["e", "d"], ["c", "b"], ["a"]]


def test_a_page_can_have_the_token_that_was_asked_for(
    server: EmulatorServer, client: genai.Client, raw: httpx2.Client
) -> None:
    make(client, *"abc")
    server.set_faults([{"call": "batches.list", "nth": 2, "do": {"type": "repeat_page", "same_token": True}}])
    token = raw.get("/v1/batches", params={"pageSize": 1}).json()["nextPageToken"]
    second = raw.get("/v1/batches", params={"pageSize": 1, "pageToken": token}).json()
    assert second["nextPageToken"] == token


def test_files_are_hidden_too(server: EmulatorServer, batches: Batches) -> None:
    batches.create({"k": request_of("hello")})
    server.set_faults([{"call": "files.list", "do": "hide"}])
    assert list(batches.client.files.list()) == []
    assert len(list(batches.client.files.list())) == 1


@pytest.mark.parametrize("get", [False, True])
def test_a_new_job_lags(server: EmulatorServer, client: genai.Client, raw: httpx2.Client, get: bool) -> None:
    make(client, "old")
    do = {"type": "list_lag", "seconds": 30, "get": get}
    server.set_faults([{"call": "batches.create", "match": {"tag": "new"}, "do": do}])
    _, new = make(client, "other", "new")
    assert server.fired()[0].call == "batches.create"
    assert pages(raw) == [["other", "old"]]
    assert raw.get(f"/v1/{new.name}").status_code == (404 if get else 200)
    server.advance(29.9)
    assert pages(raw) == [["other", "old"]]
    server.advance(0.1)
    assert pages(raw) == [["new", "other"], ["old"]]
    assert look(raw, new)["metadata"]["displayName"] == "new"


def test_a_job_that_nobody_sees_is_paid_for_all_the_same(server: EmulatorServer, client: genai.Client) -> None:
    do = {"type": "list_lag", "seconds": 10 * HOUR, "get": True}
    server.set_faults([{"call": "batches.create", "do": do}])
    make(client, "lost")
    server.advance(JOB_SECONDS)
    assert server.bill_summary().requests == len(KEYS)


def test_a_state_goes_back_for_one_look(server: EmulatorServer, client: genai.Client, raw: httpx2.Client) -> None:
    (job,) = make(client, "tag")
    server.set_faults(
        [
            {"call": "batches.get", "match": {"state": "RUNNING"}, "do": {"type": "state", "state": "PENDING"}},
            {"call": "batches.get", "match": {"state": "SUCCEEDED"}, "do": {"type": "state", "state": "RUNNING"}},
        ]
    )
    assert shown_state(client, job) == "PENDING"
    server.advance(JOB_SECONDS / 2)
    assert [shown_state(client, job) for _ in range(2)] == ["PENDING", "RUNNING"]
    server.advance(JOB_SECONDS / 2)
    back = look(raw, job)
    assert back["metadata"]["state"] == "BATCH_STATE_RUNNING"
    assert not {"done", "response"} & set(back)
    assert "output" not in back["metadata"]
    assert shown_state(client, job) == "SUCCEEDED"
    assert [fired.fault for fired in server.fired()] == [0, 1]


def test_a_state_that_is_shown_truly_is_no_fault(server: EmulatorServer, client: genai.Client) -> None:
    (job,) = make(client, "tag")
    server.set_faults([{"call": "batches.get", "do": {"type": "state", "state": "PENDING"}}])
    shown_state(client, job)
    assert server.fired() == []
    assert server.faults()[0]["seen"] == 1
    server.advance(JOB_SECONDS / 2)
    assert shown_state(client, job) == "PENDING"
    assert len(server.fired()) == 1


def test_a_state_that_nobody_knows(server: EmulatorServer, client: genai.Client, raw: httpx2.Client) -> None:
    (job,) = make(client, "tag")
    server.set_faults([{"call": "batches.*", "times": 2, "do": {"type": "state", "state": "HIBERNATING"}}])
    with pytest.warns(UserWarning, match="HIBERNATING"):
        assert shown_state(client, job).endswith("HIBERNATING")
    shown = raw.get("/v1/batches").json()
    assert shown["operations"][0]["metadata"]["state"] == "BATCH_STATE_HIBERNATING"


def test_the_details_of_a_jobs_error_are_objects(
    server: EmulatorServer, client: genai.Client, raw: httpx2.Client
) -> None:
    make(client, *"ab")
    server.set_faults([{"call": "batches.list", "match": {"tag": "a"}, "do": "object_details"}])
    newer, older = raw.get("/v1/batches").json()["operations"]
    assert "error" not in newer
    assert isinstance(older["error"]["details"][0], dict)


def test_fields_are_missing_odd_or_new(server: EmulatorServer, client: genai.Client, raw: httpx2.Client) -> None:
    (job,) = make(client, "tag")
    server.set_faults(
        [
            {"call": "batches.get", "do": {"type": "without", "fields": ["displayName", "name"]}},
            {"call": "batches.get", "nth": 2, "do": {"type": "stats"}},
            {"call": "batches.get", "nth": 3, "do": {"type": "stats", "show": "words"}},
            {"call": "batches.get", "nth": 4, "do": "new_fields"},
            {"call": "batches.get", "nth": 5, "do": {"type": "without", "fields": ["metadata"]}},
        ]
    )
    first = look(raw, job)
    assert "name" not in first
    assert "displayName" not in first["metadata"]
    assert look(raw, job)["metadata"]["batchStats"] == {"requestCount": 4, "pendingRequestCount": 4}
    assert look(raw, job)["metadata"]["batchStats"]["requestCount"] == "many"
    assert "brandNew" in look(raw, job)["metadata"]
    assert set(look(raw, job)) == {"name"}
    assert [fired.fault for fired in server.fired()] == [0, 1, 2, 3, 4]


def ended(
    server: EmulatorServer, batches: Batches, do: dict[str, Any], seconds: float = JOB_SECONDS, **requests: Any
) -> tuple[dict[str, Any], list[str]]:
    """How a job with this fault ends, and the keys of its results."""
    server.set_faults([{"call": "batches.create", "do": do}])
    job = batches.create(requests or {key: request_of(f"say {key}") for key in KEYS})
    server.advance(seconds)
    with httpx2.Client(base_url=server.url, headers={"x-goog-api-key": "a-key"}) as raw:
        shown = look(raw, job)
        name = shown.get("response", {}).get("responsesFile")
        lines = raw.get(f"/v1/{name}:download").text.splitlines() if name else []
    return shown, sorted(line.rpartition('"key":"')[2].partition('"')[0] for line in lines)


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"])
@pytest.mark.parametrize(("share", "keys"), [(0.0, []), (0.5, KEYS[:2]), (1.0, KEYS)])
def test_a_job_ends_with_some_results_and_only_those_are_charged(
    server: EmulatorServer, batches: Batches, state: str, share: float, keys: list[str]
) -> None:
    seconds = 48 * HOUR if state == "EXPIRED" else JOB_SECONDS
    shown, found = ended(server, batches, {"type": "ends", "state": state, "share": share}, seconds)
    assert shown["metadata"]["state"] == f"BATCH_STATE_{state}"
    assert shown["done"] is True
    assert ("error" in shown) == (state in ("FAILED", "CANCELLED", "EXPIRED"))
    assert ("response" in shown) == (share > 0 or state == "SUCCEEDED")
    assert found == keys
    assert sorted(str(charge.key) for charge in server.bill()) == keys


def test_a_hanging_job_expires_without_results_and_charge(server: EmulatorServer, batches: Batches) -> None:
    server.set_faults([{"call": "batches.create", "do": "hang"}])
    job = batches.create({"k": request_of("hello")})
    server.advance(47 * HOUR)
    assert shown_state(batches.client, job) == "RUNNING"
    server.advance(HOUR)
    done = batches.client.batches.get(name=job.name)
    assert (done.state, done.dest) == ("JOB_STATE_EXPIRED", None)
    assert server.bill() == []


def test_a_job_hangs_without_ever_running(server: EmulatorServer, batches: Batches) -> None:
    server.set_faults([{"call": "batches.create", "do": {"type": "hang", "state": "PENDING"}}])
    job = batches.create({"k": request_of("hello")})
    server.advance(48 * HOUR - 1)
    assert shown_state(batches.client, job) == "PENDING"
    server.advance(1)
    assert shown_state(batches.client, job) == "EXPIRED"
    assert server.bill() == []


def test_a_cancelled_job_keeps_what_it_has_done(server: EmulatorServer, batches: Batches) -> None:
    server.set_faults([{"call": "batches.cancel", "do": {"type": "keeps_results", "share": 0.5}}])
    job = batches.create({key: request_of(f"say {key}") for key in KEYS})
    server.advance(JOB_SECONDS / 2)
    batches.client.batches.cancel(name=job.name)
    done = batches.client.batches.get(name=job.name)
    assert done.state == "JOB_STATE_CANCELLED"
    assert len(batches.client.files.download(file=done.dest.file_name).splitlines()) == 2
    assert len(server.bill()) == 2
    batches.client.batches.cancel(name=job.name)
    assert len(server.fired()) == 1


def test_a_cancel_that_is_ignored_lets_the_job_succeed(server: EmulatorServer, batches: Batches) -> None:
    server.set_faults([{"call": "batches.*", "do": "ignored"}])
    job = batches.create({"k": request_of("hello")})
    batches.client.batches.cancel(name=job.name)
    server.advance(JOB_SECONDS)
    assert len(batches.results(job)) == 1


def test_what_a_create_refuses_gets_no_fate(server: EmulatorServer, client: genai.Client, batches: Batches) -> None:
    server.set_faults([{"call": "batches.create", "do": "hang"}])
    with pytest.raises(errors.APIError):
        client.batches.create(model=MODEL, src="files/nope")
    assert server.fired() == []
    job = batches.create({"k": request_of("hello")})
    server.advance(12 * HOUR)
    assert shown_state(client, job) == "RUNNING"
    assert len(server.fired()) == 1


def test_fates_stay_over_a_restart_and_are_charged_once(server: EmulatorServer, batches: Batches) -> None:
    server.set_faults([{"call": "batches.create", "do": {"type": "ends", "state": "FAILED", "share": 0.5}}])
    job = batches.create({key: request_of(f"say {key}") for key in KEYS})
    server.stop()
    server.start()
    server.advance(JOB_SECONDS)
    with httpx2.Client(base_url=server.url, headers={"x-goog-api-key": "a-key"}) as raw:
        for _ in range(3):
            assert look(raw, job)["metadata"]["state"] == "BATCH_STATE_FAILED"
    assert sorted(str(charge.key) for charge in server.bill()) == KEYS[:2]


def test_the_clock_of_the_service_is_off(server: EmulatorServer, client: genai.Client, raw: httpx2.Client) -> None:
    (job,) = make(client, "tag")
    true = raw.get(f"/v1/{job.name}")
    assert true.headers["date"] == "Sat, 21 Nov 2026 12:00:00 GMT"
    server.set_faults([{"call": "*", "times": "all", "do": {"type": "clock_skew", "seconds": -7200}}])
    off = raw.get(f"/v1/{job.name}")
    assert off.headers["date"] == "Sat, 21 Nov 2026 10:00:00 GMT"
    assert off.json()["metadata"]["createTime"] == "2026-11-21T10:00:00.000000Z"
    assert raw.get("/v1/batches").json()["operations"][0] == off.json()
