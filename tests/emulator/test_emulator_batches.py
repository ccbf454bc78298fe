from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from emulator_kit import JOB_SECONDS, MODEL, Batches, StillClock, request_of
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer

HOURS = 3600


def inline(text: str, key: str) -> dict[str, object]:
    return {"contents": text, "metadata": {"key": key}}


def test_a_job_lives_by_the_emulators_clock(batches: Batches) -> None:
    job = batches.create({"k": request_of("hello")}, name="my-tag")
    assert (job.display_name, job.model, job.state) == ("my-tag", f"models/{MODEL}", "JOB_STATE_PENDING")
    seen = []
    for seconds in (0, 24.9, 0.1, 74.9, 0.1):
        batches.server.advance(seconds)
        seen.append(batches.client.batches.get(name=job.name).state.value.removeprefix("JOB_STATE_"))
    assert seen == ["PENDING", "PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    done = batches.client.batches.get(name=job.name)
    assert (done.end_time - done.create_time).total_seconds() == JOB_SECONDS


def test_the_operation_is_as_odd_as_the_services(batches: Batches, raw: httpx2.Client) -> None:
    job = batches.create({"a": request_of("hello"), "b": request_of("[[emulator:error 500]]")}, name="tag")
    before = raw.get(f"/v1/{job.name}").json()
    assert before["metadata"]["batchStats"] == {"requestCount": "2", "pendingRequestCount": "2"}
    assert before["metadata"]["inputConfig"]["fileName"].startswith("files/")
    assert "done" not in before
    batches.server.advance(JOB_SECONDS)
    after = raw.get(f"/v1beta/{job.name}").json()
    stats = {"requestCount": "2", "successfulRequestCount": "1", "failedRequestCount": "1"}
    assert after["metadata"]["batchStats"] == stats
    assert after["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert after["done"] is True
    assert after["response"]["responsesFile"] == after["metadata"]["output"]["responsesFile"]


def test_results_are_shuffled_and_keep_their_keys(batches: Batches) -> None:
    keys = [f"k{i}" for i in range(1200)]
    lines = batches.run({key: request_of(f"say {key}") for key in keys})
    came = [line["key"] for line in lines]
    assert came != keys
    assert sorted(came) == sorted(keys)
    for line in lines:
        assert (
            line["response"]["candidates"][0]["content"]["parts"][0]["text"] == f"Emulated answer to: say {line['key']}"
        )


def test_the_same_input_comes_back_in_the_same_order(batches: Batches) -> None:
    requests = {f"k{i}": request_of(f"say {i}") for i in range(20)}
    assert batches.run(requests) == batches.run(requests)


def test_inline_results_come_with_their_metadata(
    client: genai.Client, server: EmulatorServer, raw: httpx2.Client
) -> None:
    texts = {f"r{i}": f"text {i}" for i in range(10)}
    job = client.batches.create(model=MODEL, src=[inline(text, key) for key, text in texts.items()])
    server.advance(JOB_SECONDS)
    done = client.batches.get(name=job.name)
    answers = {r.metadata["key"]: r.response.text for r in done.dest.inlined_responses}
    assert answers == {key: f"Emulated answer to: {text}" for key, text in texts.items()}
    assert [r.metadata["key"] for r in done.dest.inlined_responses] != list(texts)
    shown = raw.get(f"/v1/{job.name}").json()
    assert shown["response"]["inlinedResponses"] == shown["metadata"]["output"]["inlinedResponses"]
    assert next(iter(client.batches.list())).dest == done.dest


def test_inline_takes_what_googles_client_makes_of_a_full_config(client: genai.Client, server: EmulatorServer) -> None:
    config = {
        "system_instruction": "be brief",
        "safety_settings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"}],
        "tools": [{"google_search": {}}],
        "temperature": 0.1,
        "thinking_config": {"include_thoughts": False, "thinking_budget": 0},
        "max_output_tokens": 20,
    }
    image = genai.types.Part.from_bytes(data=b"\xff\xfb\x00\x8f", mime_type="image/png")  # '-' and '_' in its base64
    job = client.batches.create(
        model=MODEL, src=[{"contents": ["hi", image], "config": config, "metadata": {"key": "r"}}]
    )
    server.advance(JOB_SECONDS)
    done = client.batches.get(name=job.name)
    assert done.state.name == "JOB_STATE_SUCCEEDED"
    (answer,) = done.dest.inlined_responses
    assert (answer.metadata["key"], answer.error) == ("r", None)
    assert "hi" in answer.response.text
    assert 0 < answer.response.usage_metadata.candidates_token_count <= config["max_output_tokens"]


def test_more_than_20_mb_inline_are_refused(client: genai.Client) -> None:
    with pytest.raises(errors.ClientError, match="payload size exceeds the limit: 20971520 bytes"):
        client.batches.create(model=MODEL, src=[inline("x" * 1024**2, str(i)) for i in range(20)])


def test_jobs_are_listed_newest_first_in_pages(batches: Batches) -> None:
    made = [batches.create({"k": request_of("hi")}, name=f"job-{i}") for i in range(5)]
    listed = list(batches.client.batches.list(config={"page_size": 2}))
    assert [job.name for job in listed] == [job.name for job in reversed(made)]
    assert [job.display_name for job in listed] == [f"job-{i}" for i in (4, 3, 2, 1, 0)]


def test_a_job_made_while_paging_does_not_shift_the_pages(batches: Batches) -> None:
    made = [batches.create({"k": request_of("hi")}).name for _ in range(4)]
    first = batches.client.batches.list(config={"page_size": 2})
    batches.create({"k": request_of("hi")})
    second = batches.client.batches.list(config={"page_size": 2, "page_token": first.config["page_token"]})
    assert [j.name for j in (*first.page, *second.page)] == made[::-1]


def test_an_empty_list_is_an_empty_object(raw: httpx2.Client) -> None:
    assert raw.get("/v1/batches").json() == {}
    assert raw.get("/v1/batches?pageToken=x").status_code == 400


def test_a_cancelled_job_has_no_results_and_is_not_charged(batches: Batches) -> None:
    job = batches.create({"k": request_of("hi")})
    batches.server.advance(JOB_SECONDS - 1)
    assert batches.client.batches.cancel(name=job.name) is None
    batches.server.advance(JOB_SECONDS)
    done = batches.client.batches.get(name=job.name)
    assert (done.state, done.dest) == ("JOB_STATE_CANCELLED", None)
    assert batches.server.bill() == []


def test_cancelling_a_finished_job_changes_nothing(batches: Batches) -> None:
    job = batches.create({"k": request_of("hi")})
    batches.server.advance(JOB_SECONDS)
    batches.client.batches.cancel(name=job.name)
    assert len(batches.results(job)) == 1


def test_a_deleted_job_is_gone(batches: Batches) -> None:
    running, finished = (batches.create({"k": request_of(t)}) for t in ("one", "two"))
    batches.client.batches.delete(name=running.name)
    batches.server.advance(JOB_SECONDS)
    batches.client.batches.delete(name=finished.name)
    for job in (running, finished):
        with pytest.raises(errors.ClientError) as e:
            batches.client.batches.get(name=job.name)
        assert (e.value.code, e.value.status) == (404, "NOT_FOUND")
    assert list(batches.client.batches.list()) == []
    assert [c.job for c in batches.server.bill()] == [finished.name]  # it had run before it was deleted


def test_a_job_that_takes_too_long_expires_without_results(
    state_dir: Path, tmp_path: Path, connect: Callable[..., genai.Client]
) -> None:
    with EmulatorServer(state_dir, job_seconds=49 * HOURS, clock=StillClock()) as server:
        batches = Batches(connect(server.url), server, tmp_path)
        job = batches.create({"k": request_of("hi")})
        server.advance(48 * HOURS - 1)
        assert batches.client.batches.get(name=job.name).state == "JOB_STATE_RUNNING"
        server.advance(2 * HOURS)
        done = batches.client.batches.get(name=job.name)
        assert (done.state, done.dest) == ("JOB_STATE_EXPIRED", None)
        assert (done.end_time - done.create_time).total_seconds() == 48 * HOURS
        assert server.bill() == []


def test_a_job_goes_on_when_its_input_is_deleted_or_expires(batches: Batches) -> None:
    job = batches.create({"k": request_of("hi")})
    batches.client.files.delete(name=next(iter(batches.client.files.list())).name)
    batches.server.advance(50 * HOURS)
    assert len(batches.results(job)) == 1


def test_jobs_belong_to_their_key(
    batches: Batches, server: EmulatorServer, connect: Callable[..., genai.Client]
) -> None:
    job = batches.create({"k": request_of("hi")})
    other = connect(server.url, "another-key")
    for call in (other.batches.get, other.batches.cancel, other.batches.delete):
        with pytest.raises(errors.ClientError) as e:
            call(name=job.name)
        assert e.value.code == 404
    assert list(other.batches.list()) == []


def test_at_most_100_jobs_are_active(client: genai.Client, server: EmulatorServer) -> None:
    for _ in range(100):
        client.batches.create(model=MODEL, src=[inline("hi", "r")])
    with pytest.raises(errors.ClientError) as e:
        client.batches.create(model=MODEL, src=[inline("hi", "r")])
    assert (e.value.code, e.value.status) == (429, "RESOURCE_EXHAUSTED")
    server.advance(JOB_SECONDS)
    list(client.batches.list())
    client.batches.create(model=MODEL, src=[inline("hi", "r")])


def test_state_survives_the_server(state_dir: Path, tmp_path: Path, connect: Callable[..., genai.Client]) -> None:
    requests = {f"k{i}": request_of(f"say {i}") for i in range(3)}
    with EmulatorServer(state_dir, job_seconds=JOB_SECONDS, clock=StillClock()) as server:
        job = Batches(connect(server.url), server, tmp_path).create(requests)
        server.advance(JOB_SECONDS / 2)
    with EmulatorServer(state_dir, clock=StillClock()) as server:
        batches = Batches(connect(server.url), server, tmp_path)
        assert batches.client.batches.get(name=job.name).state == "JOB_STATE_RUNNING"
        server.advance(JOB_SECONDS / 2)
        assert len(batches.results(job)) == 3
    with EmulatorServer(state_dir, clock=StillClock()) as server:
        assert len(Batches(connect(server.url), server, tmp_path).results(job)) == 3
        assert server.bill_summary().requests == 3


def test_two_servers_share_one_state_and_charge_once(
    state_dir: Path, tmp_path: Path, connect: Callable[..., genai.Client]
) -> None:
    requests = {
        f"k{i}": request_of(f"say {i} [[emulator:error 503 x1]]" if i % 100 == 0 else f"say {i}") for i in range(3000)
    }
    clock = StillClock()
    with (
        EmulatorServer(state_dir, JOB_SECONDS, clock) as one,
        EmulatorServer(state_dir, JOB_SECONDS, clock) as two,
    ):
        job = Batches(connect(one.url), one, tmp_path).create(requests)
        one.advance(JOB_SECONDS)
        clients = [connect(server.url) for server in (one, two, one, two)]
        threads = [threading.Thread(target=c.batches.get, kwargs={"name": job.name}) for c in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = Batches(clients[1], two, tmp_path).results(job)
        assert sorted(line["key"] for line in lines) == sorted(requests)
        assert sum("error" in line for line in lines) == 30
        assert one.bill_summary() == two.bill_summary()
        assert one.bill_summary().requests == one.bill_summary().distinct_requests == 2970


def test_stopping_in_the_middle_of_long_work_loses_nothing(
    state_dir: Path, tmp_path: Path, connect: Callable[..., genai.Client]
) -> None:
    requests = {f"k{i}": request_of(f"say {i}") for i in range(20_000)}
    with EmulatorServer(state_dir, JOB_SECONDS, StillClock()) as server:
        client = connect(server.url)
        job = Batches(client, server, tmp_path).create(requests)
        server.advance(JOB_SECONDS)
        seen: list[str] = []
        looking = threading.Thread(target=lambda: seen.append(client.batches.get(name=job.name).state))
        looking.start()
        while not list((state_dir / "jobs").glob("*.out.jsonl")):
            looking.join(0.01)
    looking.join()
    assert seen == ["JOB_STATE_RUNNING"]
    with EmulatorServer(state_dir, JOB_SECONDS, StillClock()) as server:
        lines = Batches(connect(server.url), server, tmp_path).results(job)
        assert sorted(line["key"] for line in lines) == sorted(requests)
        assert server.bill_summary().requests == len(requests)


def test_work_that_was_cut_off_is_done_again_and_charged_once(batches: Batches, state_dir: Path) -> None:
    job = batches.create({f"k{i}": request_of(f"say {i}") for i in range(10)})
    output = state_dir / "jobs" / f"{job.name.removeprefix('batches/')}.out.jsonl"
    output.write_bytes(b'{"half a line')  # as if a process had died before its commit
    batches.server.advance(JOB_SECONDS)
    assert len(batches.results(job)) == 10
    assert batches.server.bill_summary().requests == 10
