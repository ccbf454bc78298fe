"""The life of a job, as Google's unmodified client sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from emulated_vertex_kit import LOCATION, PARENT, Bench, keyed, text_of, vertex_client
from emulator_kit import JOB_SECONDS, MODEL, StillClock, request_of
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer

HOURS = 3600.0
TWO = {"a": "hello", "b": "[[emulator:error 503]]"}


def test_a_job_lives_by_the_emulators_clock(bench: Bench) -> None:
    job = bench.create(keyed(TWO))
    assert job.name.startswith(f"{PARENT}/batchPredictionJobs/") and job.name.rpartition("/")[2].isdecimal()
    assert (job.display_name, job.model) == ("tag", f"publishers/google/models/{MODEL}")
    assert (job.start_time, job.output_info, job.completion_stats) == (None, None, None)
    seen = []
    for seconds in (0, 24.9, 0.1, 74.9, 0.1):
        seen.append(bench.ended(job, seconds).state.value.removeprefix("JOB_STATE_"))
    assert seen == ["PENDING", "PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    done = bench.client.batches.get(name=job.name)
    assert (done.end_time - done.create_time).total_seconds() == JOB_SECONDS
    assert done.create_time < done.start_time < done.end_time
    assert (done.src.gcs_uri, done.dest.gcs_uri) == (["gs://acme/in/rows.jsonl"], "gs://acme/out")
    assert (done.completion_stats.successful_count, done.completion_stats.failed_count) == (1, 1)


def test_a_job_may_take_no_time(bench: Bench, state_dir: Path) -> None:
    bench.put(keyed(TWO))
    with EmulatorServer(state_dir, 0, StillClock()) as quick, vertex_client(quick.url) as client:
        quick_bench = Bench(quick, client, bench.objects)
        done = client.batches.get(name=quick_bench.create().name)
        assert done.state == "JOB_STATE_SUCCEEDED"
        assert len(quick_bench.results(done)) == 2
        failed = client.batches.get(name=quick_bench.create(b"{").name)
        assert (failed.state, failed.error.code) == ("JOB_STATE_FAILED", 3)


def test_the_answer_is_as_odd_as_the_services(bench: Bench, wire: httpx2.Client) -> None:
    job = bench.create(keyed(TWO), labels={"team": "x"})
    before = wire.get(f"/v1beta1/{job.name}").json()
    assert (before["labels"], before["modelVersionId"]) == ({"team": "x"}, "1")
    assert "completionStats" not in before and "outputInfo" not in before
    bench.server.advance(JOB_SECONDS)
    after = wire.get(f"/v1/{job.name}").json()
    assert after["completionStats"] == {"successfulCount": "1", "failedCount": "1"}, "counts are strings, 0 left out"
    assert after["outputInfo"]["gcsOutputDirectory"].startswith("gs://acme/out/prediction-model-2026-11-21T12:00:00.")


def test_results_hold_status_time_request_and_response(bench: Bench) -> None:
    by_key = {line["key"]: line for line in bench.run(keyed(TWO, temperature=0))}
    good, bad = by_key["a"], by_key["b"]
    assert (good["status"], text_of(good)) == ("", "Emulated answer to: hello")
    assert good["response"]["modelVersion"] == f"emulator-{MODEL}"
    assert good["processed_time"] == "2026-11-21T12:01:40.000+00:00"
    assert good["request"] == request_of("hello", temperature=0)
    assert bad["response"] == {}
    assert bad["status"].startswith('Service Unavailable: {"error":{"code":503,')


def test_each_job_has_a_folder_of_its_own(bench: Bench) -> None:
    jobs = [bench.create(keyed({"k": "hi"})) for _ in range(2)]
    first, second = (bench.ended(job) for job in jobs)
    assert first.output_info.gcs_output_directory != second.output_info.gcs_output_directory


def test_results_are_shuffled_and_stand_in_several_files(bench: Bench) -> None:
    keys = [f"k{i}" for i in range(1_100)]
    job = bench.ended(bench.create(keyed({key: f"say {key}" for key in keys})))
    assert list(bench.files(job)) == ["predictions_00000.jsonl", "predictions_00001.jsonl"]
    lines = bench.results(job)
    assert [line["key"] for line in lines] != keys
    assert {line["key"]: text_of(line) for line in lines} == {key: f"Emulated answer to: say {key}" for key in keys}


def test_the_bill_knows_a_request_by_what_it_asks_whichever_api_it_came_by(bench: Bench, raw: httpx2.Client) -> None:
    bench.run(keyed({"k": "hello"}))
    raw.post(f"/v1/models/{MODEL}:generateContent", json=request_of("hello"))
    bench.client.models.generate_content(model=MODEL, contents="hello")
    charges = bench.server.bill()
    assert len({charge.digest for charge in charges}) == 1
    assert [charge.account for charge in charges if charge.key] == [PARENT]
    assert bench.server.bill_summary().requests == 3


def test_errors_are_not_charged(bench: Bench) -> None:
    bench.run(keyed(TWO))
    assert [charge.key for charge in bench.server.bill()] == ["a"]


def test_a_cancelled_job_keeps_what_it_has_done(bench: Bench) -> None:
    job = bench.create(keyed({f"k{i}": f"say {i}" for i in range(10)}))
    bench.server.advance(62.5)  # half of the time in which it runs
    assert bench.client.batches.cancel(name=job.name) is None
    assert bench.client.batches.get(name=job.name).state == "JOB_STATE_CANCELLING"
    done = bench.ended(job, 5)
    assert (done.state, done.error.code) == ("JOB_STATE_CANCELLED", 1)
    assert (done.completion_stats.successful_count, done.completion_stats.incomplete_count) == (5, 5)
    lines = bench.results(done)
    assert sum(bool(line["response"]) for line in lines) == 5 == bench.server.bill_summary().requests
    assert {(line["status"], bool(line["response"])) for line in lines} == {("", True), ("", False)}


def test_a_job_that_is_cancelled_before_it_runs_has_done_nothing(bench: Bench) -> None:
    job = bench.create(keyed({"k": "hi"}))
    bench.client.batches.cancel(name=job.name)
    done = bench.ended(job)
    assert (done.state, done.output_info, done.start_time) == ("JOB_STATE_CANCELLED", None, None)
    assert [info.name for info in bench.objects.list("acme")] == ["in/rows.jsonl"]
    assert bench.server.bill() == []


def test_a_job_may_succeed_while_it_is_being_cancelled(bench: Bench) -> None:
    job = bench.create(keyed({"k": "hi"}))
    bench.server.advance(JOB_SECONDS - 1)
    bench.client.batches.cancel(name=job.name)
    assert bench.client.batches.get(name=job.name).state == "JOB_STATE_CANCELLING"
    assert bench.ended(job, 1).state == "JOB_STATE_SUCCEEDED"


def test_a_job_that_has_ended_cannot_be_cancelled(bench: Bench) -> None:
    job = bench.ended(bench.create(keyed({"k": "hi"})))
    with pytest.raises(errors.ClientError) as e:
        bench.client.batches.cancel(name=job.name)
    assert (e.value.code, e.value.status) == (400, "FAILED_PRECONDITION")


def test_only_a_job_that_has_ended_can_be_deleted(bench: Bench) -> None:
    job = bench.create(keyed({"k": "hi"}))
    with pytest.raises(errors.ClientError) as e:
        bench.client.batches.delete(name=job.name)
    assert (e.value.code, e.value.status) == (400, "FAILED_PRECONDITION")
    done = bench.ended(job)
    deleted = bench.client.batches.delete(name=job.name)
    assert deleted.done and "/operations/" in deleted.name
    with pytest.raises(errors.ClientError) as e:
        bench.client.batches.get(name=job.name)
    assert (e.value.code, e.value.status) == (404, "NOT_FOUND")
    assert len(bench.results(done)) == 1, "what it wrote stays"
    assert len(bench.server.bill()) == 1


def test_jobs_belong_to_their_project_and_location(bench: Bench, connect_vertex: Callable[..., genai.Client]) -> None:
    job = bench.create(keyed({"k": "hi"}))
    for other in (connect_vertex(project="other"), connect_vertex(location="europe-west4")):
        for call in (other.batches.get, other.batches.cancel, other.batches.delete):
            with pytest.raises(errors.ClientError) as e:
                call(name=job.name)  # the client cuts the name to its id and looks in its own place
            assert e.value.code == 404
        assert list(other.batches.list()) == []


def test_a_job_waits_72_hours_and_runs_24(bench: Bench) -> None:
    bench.server.set_faults([{"call": "vertex.batches.create", "do": {"type": "hang", "state": "PENDING"}}])
    waits = bench.create(keyed({"k": "hi"}), name="waits")
    assert bench.ended(waits, 72 * HOURS - 1).state == "JOB_STATE_PENDING"
    done = bench.ended(waits, 1)
    assert (done.state, done.output_info, done.completion_stats) == ("JOB_STATE_EXPIRED", None, None)
    bench.server.set_faults([{"call": "vertex.batches.create", "do": {"type": "hang"}}])
    runs = bench.create(keyed({"k": "hi"}), name="runs")
    assert bench.ended(runs, 36 * HOURS - 1).state == "JOB_STATE_RUNNING"
    done = bench.ended(runs, 1)
    assert (done.state, done.error.code) == ("JOB_STATE_EXPIRED", 4)
    assert [line["response"] for line in bench.results(done)] == [{}]
    assert bench.server.bill() == []


def test_credentials_are_asked_for_and_taken_as_they_are(server: EmulatorServer) -> None:
    url = f"{server.url}/v1beta1/{PARENT}/batchPredictionJobs"
    for headers in (
        {},
        {"authorization": "Bearer invalid"},
        {"authorization": "Bearer"},
        {"x-goog-api-key": "invalid"},
    ):
        answer = httpx2.get(url, headers=headers)
        assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    for headers in ({"authorization": "Bearer x"}, {"x-goog-api-key": "a-key"}):
        assert httpx2.get(url, headers=headers).json() == {}


def test_a_model_answers_and_counts_synchronously(bench: Bench) -> None:
    answer = bench.client.models.generate_content(model=MODEL, contents="hello")
    assert answer.text == "Emulated answer to: hello"
    assert bench.client.models.count_tokens(model=MODEL, contents="hello there").total_tokens == 3
    with pytest.raises(errors.ClientError, match="was not found") as e:
        bench.client.models.generate_content(model="gemini-none", contents="hello")
    assert e.value.code == 404
    with pytest.raises(errors.ClientError, match="Please use a valid role"):
        bench.client.models.generate_content(
            model=MODEL,
            contents="x",
            config={"http_options": {"extra_body": {"contents": [{"parts": [{"text": "x"}]}]}}},
        )


def test_a_whole_request_is_counted_as_it_is_charged(bench: Bench, wire: httpx2.Client) -> None:
    url = f"/v1beta1/projects/acme/locations/{LOCATION}/publishers/google/models/{MODEL}"
    request = {
        "contents": [{"role": "user", "parts": [{"text": "some words"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"temperature": 0, "maxOutputTokens": 9},
        "tools": [{"googleSearch": {}}],
    }
    charged = wire.post(f"{url}:generateContent", json=request).json()["usageMetadata"]["promptTokenCount"]
    assert wire.post(f"{url}:countTokens", json=request).json()["totalTokens"] == charged
    told = bench.client.models.count_tokens(
        model=MODEL,
        contents="some words",
        config={"system_instruction": "Be brief.", "generation_config": {"temperature": 0}},
    )
    assert told.total_tokens == charged
    for change in (
        {"toolConfig": {}},
        {"generationConfig": {"temperature": 3}},
        {"contents": []},
        {"tools": [{"x": 1}]},
    ):
        assert wire.post(f"{url}:countTokens", json={**request, **change}).status_code == 400, change


def test_a_gateway_may_stand_before_the_path(bench: Bench) -> None:
    job = bench.create(keyed({"k": "hi"}))
    with vertex_client(f"{bench.server.url}/my/gateway") as client:
        assert client.batches.get(name=job.name).name == job.name
        assert [found.name for found in client.batches.list()] == [job.name]
        assert client.models.generate_content(model=MODEL, contents="hi").text == "Emulated answer to: hi"


def test_a_key_does_in_place_of_credentials(bench: Bench) -> None:
    options = {"base_url": bench.server.url}
    with genai.Client(
        vertexai=True, api_key="a-key", project="acme", location=LOCATION, http_options=options
    ) as client:
        assert client.models.generate_content(model=MODEL, contents="hi").text == "Emulated answer to: hi"
        assert list(client.batches.list()) == []
