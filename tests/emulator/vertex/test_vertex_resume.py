"""Going on with a job: a new one, whose input is what the old one wrote."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from emulated_vertex_kit import PARENT, Bench, keyed, text_of, vertex_client
from emulator_kit import JOB_SECONDS, MODEL, StillClock, request_of

from batchform.emulator import EmulatorServer


def cut(bench: Bench, lines: list[dict[str, Any]], **ends: Any) -> Any:
    """A job that ends early."""
    do = {"type": "ends", "state": "EXPIRED", "share": 0.5, "seconds": JOB_SECONDS, **ends}
    bench.server.set_faults([{"call": "vertex.batches.create", "do": do}])
    job = bench.ended(bench.create(lines))
    bench.server.set_faults(())
    return job


def output_of(job: Any) -> str:
    return f"{job.output_info.gcs_output_directory}/predictions*.jsonl"


def test_only_what_is_not_answered_runs_and_the_rest_is_merged(bench: Bench) -> None:
    lines = keyed({f"k{i}": f"say {i}" for i in range(9)}, temperature=0)
    first = cut(bench, lines)
    assert (first.state, first.completion_stats.incomplete_count) == ("JOB_STATE_EXPIRED", 4)
    before = {line["key"]: line for line in bench.results(first) if line["response"]}
    assert len(before) == 5 == bench.server.bill_summary().requests
    second = bench.ended(bench.create(src=output_of(first)))
    assert (second.state, second.completion_stats.successful_count) == ("JOB_STATE_SUCCEEDED", 9)
    after = {line["key"]: line for line in bench.results(second)}
    assert {key: line for key, line in after.items() if key in before} == before, "answers are handed on as they are"
    assert {text_of(line) for line in after.values()} == {f"Emulated answer to: say {i}" for i in range(9)}
    summary = bench.server.bill_summary()
    assert (summary.requests, summary.distinct_requests, summary.jobs) == (9, 9, 2)


def test_failed_rows_run_again_with_the_request_that_they_had(bench: Bench, wire: httpx2.Client) -> None:
    lines = [
        {"key": "a", "request": request_of("[[emulator:error 503 x1]] hello", temperature=0)},
        {"key": "b", "request": request_of("other")},
    ]
    first = bench.ended(bench.create(lines))
    assert {line["key"]: bool(line["status"]) for line in bench.results(first)} == {"a": True, "b": False}
    assert [line["request"]["generationConfig"] for line in bench.results(first) if line["key"] == "b"] == [None]
    second = bench.ended(bench.create(src=output_of(first)))
    assert {line["key"]: line["status"] for line in bench.results(second)} == {"a": "", "b": ""}
    assert [charge.key for charge in bench.server.bill()] == ["b", "a"]
    for line in lines:
        url = f"/v1beta1/{PARENT}/publishers/google/models/{MODEL}:generateContent"
        assert wire.post(url, json=line["request"]).status_code == 200
    assert bench.server.bill_summary().distinct_requests == 2, "the nulls that the importer put in are not part of it"


def test_nobody_looks_whether_the_file_was_edited(bench: Bench) -> None:
    (line,) = bench.run(keyed({"k": "hello"}))
    made_up = {**line, "key": "forged", "request": request_of("never asked"), "response": {"candidates": []}}
    emptied = {**line, "key": "again", "response": {}}
    bench.put([made_up, emptied], "gs://acme/in/edited.jsonl")
    done = bench.ended(bench.create(src="gs://acme/in/edited.jsonl"))
    by_key = {found["key"]: found for found in bench.results(done)}
    assert by_key["forged"]["response"] == {"candidates": []}
    assert text_of(by_key["again"]) == "Emulated answer to: hello"
    assert [charge.key for charge in bench.server.bill()] == ["k", "again"]


def test_new_lines_may_stand_beside_old_results(bench: Bench) -> None:
    (line,) = bench.run(keyed({"old": "hello"}))
    done = bench.ended(bench.create([line, *keyed({"new": "hi"})]))
    assert {found["key"] for found in bench.results(done)} == {"old", "new"}
    assert [charge.key for charge in bench.server.bill()] == ["old", "new"]


def test_what_a_resumed_job_leaves_can_be_resumed(bench: Bench) -> None:
    first = cut(bench, keyed({f"k{i}": f"say {i}" for i in range(8)}), share=0.25)
    bench.server.set_faults(
        [{"call": "vertex.batches.create", "do": {"type": "ends", "state": "FAILED", "share": 0.5}}]
    )
    second = bench.ended(bench.create(src=output_of(first)))
    assert (second.state, second.error.code) == ("JOB_STATE_FAILED", 13)
    bench.server.set_faults(())
    third = bench.ended(bench.create(src=output_of(second)))
    assert {line["status"] for line in bench.results(third)} == {""}
    summary = bench.server.bill_summary()
    assert (len(bench.results(third)), summary.requests, summary.distinct_requests) == (8, 8, 8)


def test_state_survives_the_server_and_the_input(bench: Bench, state_dir: Path) -> None:
    job = bench.create(keyed({f"k{i}": f"say {i}" for i in range(3)}))
    bench.objects.delete("acme", "in/rows.jsonl")
    bench.server.advance(JOB_SECONDS / 2)
    with EmulatorServer(state_dir, clock=StillClock()) as again, vertex_client(again.url) as client:
        assert client.batches.get(name=job.name).state == "JOB_STATE_RUNNING"
        again.advance(JOB_SECONDS / 2)
        done = client.batches.get(name=job.name)
        assert done.state == "JOB_STATE_SUCCEEDED"
        assert len(bench.results(done)) == 3 == again.bill_summary().requests


def test_two_servers_that_look_at_once_charge_once(bench: Bench, state_dir: Path) -> None:
    job = bench.create(keyed({f"k{i}": f"say {i}" for i in range(1_200)}))
    bench.server.advance(JOB_SECONDS)
    with EmulatorServer(state_dir, clock=StillClock()) as other, vertex_client(other.url) as client:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda c: c.batches.get(name=job.name), [bench.client, client] * 2))
        done = client.batches.get(name=job.name)
        assert done.state == "JOB_STATE_SUCCEEDED"
        assert len({line["key"] for line in bench.results(done)}) == len(bench.results(done)) == 1_200
        summary = other.bill_summary()
        assert (summary.requests, summary.distinct_requests) == (1_200, 1_200)


def test_a_job_whose_bucket_is_gone_in_the_end_fails(bench: Bench) -> None:
    bench.objects.create_bucket("other", location="us-central1")
    job = bench.create(keyed({"k": "hi"}), dest="gs://other/out")
    bench.objects.delete_bucket("other")
    done = bench.ended(job)
    assert (done.state, done.error.code) == ("JOB_STATE_FAILED", 9)
    assert done.error.message.startswith("Failed to export data.")
