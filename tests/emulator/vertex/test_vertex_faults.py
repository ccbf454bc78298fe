"""Faults at calls of Vertex AI, of its jobs, and of what jobs write."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import httpx2
import pydantic
import pytest
from emulated_vertex_kit import PARENT, Bench, keyed, text_of
from emulator_kit import JOB_SECONDS, MODEL, request_of
from google.genai import errors

from batchform.emulator import faults
from batchform.emulator.store import Store
from batchform.emulator.warehouse.tables import TableRef, Tables

TEXT = {"content": {"parts": [{"text": "hello"}]}}
CALLS = tuple(call for call in faults.CALLS if call.startswith("vertex."))
CREATE = "vertex.batches.create"
DROPPED = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
JOBS = f"/v1beta1/{PARENT}/batchPredictionJobs"
FOUR = {f"k{i}": f"say {i}" for i in range(4)}


def outcome(call: Callable[[], httpx2.Response]) -> tuple[int, bytes, dict[str, str]] | str:
    """What a client sees of a call: its answer, or that there was none."""
    try:
        answer = call()
    except DROPPED as e:
        return type(e).__name__
    return answer.status_code, answer.content, {k: answer.headers.get(k, "") for k in ("date", "retry-after")}


def prepared(bench: Bench, wire: httpx2.Client, call: str) -> Callable[[], httpx2.Response]:
    """What makes this call once."""
    model, embeds = (f"/v1beta1/{PARENT}/publishers/google/models/{name}" for name in (MODEL, "gemini-embedding-001"))
    if call == CREATE:
        body = {
            "displayName": "tag",
            "model": f"publishers/google/models/{MODEL}",
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://acme/in/rows.jsonl"]}},
            "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://acme/out"}},
        }
        return lambda: wire.post(JOBS, json=body)
    name = "" if ".models." in call else f"/v1beta1/{bench.create().name}"
    return {
        "vertex.batches.get": lambda: wire.get(name),
        "vertex.batches.list": lambda: wire.get(JOBS, params={"pageSize": 2}),
        "vertex.batches.cancel": lambda: wire.post(f"{name}:cancel"),
        "vertex.batches.delete": lambda: wire.delete(name),
        "vertex.models.generate_content": lambda: wire.post(f"{model}:generateContent", json=request_of("hi")),
        "vertex.models.embed_content": lambda: wire.post(f"{embeds}:embedContent", json=TEXT),
        "vertex.models.count_tokens": lambda: wire.post(f"{model}:countTokens", json=request_of("hi")),
    }[call]


UNSEEN = {"slow", "list_lag", "hang", "ends", "keeps_results", "row_error", "finish_reason", "block_reason", "ignored"}
"""Kinds that cannot be seen in the answer of their own call; so are all that change results."""
IDLE = {
    f"{CREATE}: state, state=PENDING",
    f"{CREATE}: without, fields=['error']",
    f"{CREATE}: without, fields=['completionStats']",
    f"{CREATE}: without, fields=['outputInfo']",
    "vertex.batches.get: without, fields=['error']",
    "vertex.batches.list: without, fields=['error']",
    *(f"{CREATE}: stats{show}" for show in ("", *(f", show={s}" for s in ("words", "negative", "zeros", "list")))),
}
"""What finds nothing to change in the calls below, and so does not happen: a new job is pending and without counts."""


def chosen(call: str) -> list[faults.Sample]:
    """Of each kind that works on a call the first example, and of those that differ here every one."""
    found: dict[str, faults.Sample] = {}
    for sample in faults.catalogue(call):
        kind = str(sample.do["type"])
        found.setdefault(f"{kind} {sample.do}" if kind in ("without", "stats") else kind, sample)
    return list(found.values())


@pytest.mark.parametrize("call", CALLS)
def test_every_kind_happens_at_every_call_that_it_works_on(bench: Bench, wire: httpx2.Client, call: str) -> None:
    bench.put(keyed(FOUR))
    if call.endswith(".list"):
        for _ in range(2):
            bench.create()
    for sample in chosen(call):
        make = prepared(bench, wire, call)
        if call not in (CREATE, "vertex.batches.cancel"):
            bench.server.advance(JOB_SECONDS)
        bench.server.set_faults([sample.fault()])
        spoilt = outcome(make)
        fired = bench.server.fired()
        bench.server.set_faults(())
        if sample.name in IDLE:
            assert fired == [], sample.name
            continue
        assert [(f.call, f.type) for f in fired] == [(call, sample.do["type"])], sample.name
        if sample.do["type"] not in UNSEEN and not (call == CREATE and _is_of_results(sample)):
            assert spoilt != outcome(make), sample.name


def _is_of_results(sample: faults.Sample) -> bool:
    kind = next(kind for kind in faults.KINDS if faults.type_of(kind) == sample.do["type"])
    return "files.download" in kind.calls


def with_fault(bench: Bench, do: dict[str, Any], count: int = 4) -> list[bytes]:
    """The lines that a job writes when this is done to it."""
    bench.server.set_faults([{"call": CREATE, "do": do}])
    job = bench.ended(bench.create(keyed({f"k{i}": f"say {i}" for i in range(count)})))
    assert len(bench.server.fired()) == 1
    bench.server.set_faults(())
    return [line for body in bench.files(job).values() for line in body.splitlines(keepends=True)]


def keys_of(lines: list[bytes]) -> list[Any]:
    return [json.loads(line).get("key") for line in lines]


def test_results_come_short_doubled_strange_and_torn(bench: Bench) -> None:
    plain = [json.loads(line)["key"] for line in with_fault(bench, {"type": "list_lag", "seconds": 1})]
    assert sorted(plain) == sorted(FOUR)
    assert keys_of(with_fault(bench, {"type": "shuffled"})) != plain
    assert keys_of(with_fault(bench, {"type": "rows_missing", "keys": ["k0", "k1"]})) == [
        key for key in plain if key not in ("k0", "k1")
    ]
    assert sorted(keys_of(with_fault(bench, {"type": "rows_doubled", "keys": ["k2"]}))) == sorted([*plain, "k2"])
    assert set(keys_of(with_fault(bench, {"type": "unknown_rows", "count": 2}))) - set(plain) == {
        "unknown-0",
        "unknown-1",
    }
    assert keys_of(with_fault(bench, {"type": "keys_missing"})) == [None] * 4
    hollow = with_fault(bench, {"type": "hollow_rows", "rows": [1]})
    assert set(json.loads(hollow[0])) == {"key", "status", "processed_time", "request"}
    torn = with_fault(bench, {"type": "torn"})
    assert len(torn) == 4 and not torn[-1].endswith(b"}\n")
    assert with_fault(bench, {"type": "no_results"}) == []
    assert with_fault(bench, {"type": "line_ends", "show": "crlf"})[0].endswith(b"}\r\n")
    assert with_fault(bench, {"type": "unreadable", "rows": [1]})[0] == b"upstream says hi\n"
    huge = with_fault(bench, {"type": "huge_rows", "keys": ["k3"]})[plain.index("k3")]
    assert len(text_of(json.loads(huge))) == 1_000_000


def test_many_results_that_are_none_are_an_empty_file(bench: Bench) -> None:
    bench.server.set_faults([{"call": CREATE, "do": {"type": "no_results"}}])
    job = bench.ended(bench.create(keyed({f"k{i}": "hi" for i in range(1_001)})))
    assert bench.files(job) == {"predictions.jsonl": b""}


def test_rows_end_as_the_schedule_says(bench: Bench) -> None:
    bench.server.set_faults(
        [
            {"call": CREATE, "do": {"type": "row_error", "status": 429, "keys": ["k0"]}},
            {"call": CREATE, "do": {"type": "finish_reason", "reason": "SAFETY", "keys": ["k1"]}},
            {"call": CREATE, "do": {"type": "block_reason", "reason": "JAILBREAK", "rows": [3]}},
        ]
    )
    by_key = {line["key"]: line for line in bench.run(keyed(FOUR))}
    assert by_key["k0"]["status"].startswith('Too Many Requests: {"error":{"code":429,')
    assert by_key["k1"]["response"]["candidates"][0]["finishReason"] == "SAFETY"
    assert by_key["k2"]["response"]["promptFeedback"] == {"blockReason": "JAILBREAK"}
    assert by_key["k2"]["status"] == "" == by_key["k3"]["status"]
    assert sorted(str(charge.key) for charge in bench.server.bill()) == ["k1", "k2", "k3"]


def test_jobs_end_as_the_schedule_says(bench: Bench, wire: httpx2.Client) -> None:
    for i, state in enumerate(("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"), 1):
        do = {"type": "ends", "state": state, "share": 0.5, "seconds": 100}
        bench.server.set_faults([{"call": CREATE, "do": do}])
        job = bench.create(keyed(FOUR))
        bench.server.advance(JOB_SECONDS)
        shown = wire.get(f"/v1beta1/{job.name}").json()
        assert shown["state"] == f"JOB_STATE_{state}"
        assert shown["completionStats"] == {"successfulCount": "2", "incompleteCount": "2"}
        assert ("error" in shown) == (state in ("FAILED", "CANCELLED", "EXPIRED"))
        assert ("partialFailures" in shown) == (state == "PARTIALLY_SUCCEEDED")
        lines = bench.results(bench.client.batches.get(name=job.name))
        assert len(lines) == (2 if state == "SUCCEEDED" else 4), "what did not run comes back without a response"
        assert sum(bool(line["response"]) for line in lines) == 2
        assert bench.server.bill_summary().requests == 2 * i


def test_a_failure_says_what_the_schedule_says(bench: Bench) -> None:
    do = {"type": "ends", "state": "FAILED", "code": 7, "message": "The service agent cannot write."}
    bench.server.set_faults([{"call": CREATE, "do": do}])
    error = bench.ended(bench.create(keyed(FOUR))).error
    assert (error.code, error.message) == (7, "The service agent cannot write.")


def test_a_cancelled_job_keeps_the_share_that_the_schedule_says(bench: Bench) -> None:
    bench.server.set_faults([{"call": "vertex.batches.cancel", "do": {"type": "keeps_results", "share": 0.75}}])
    job = bench.create(keyed(FOUR))
    bench.client.batches.cancel(name=job.name)
    done = bench.ended(job)
    assert (done.state, done.completion_stats.successful_count) == ("JOB_STATE_CANCELLED", 3)
    assert len(bench.server.bill()) == 3


def test_a_cancel_may_be_ignored(bench: Bench) -> None:
    bench.server.set_faults([{"call": "vertex.batches.*", "do": "ignored"}])
    job = bench.create(keyed(FOUR))
    bench.client.batches.cancel(name=job.name)
    assert bench.ended(job).state == "JOB_STATE_SUCCEEDED"


def test_a_state_that_nobody_knows(bench: Bench) -> None:
    job = bench.create(keyed(FOUR))
    bench.server.set_faults([{"call": "vertex.batches.get", "do": {"type": "state", "state": "HIBERNATING"}}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert bench.client.batches.get(name=job.name).state == "JOB_STATE_HIBERNATING"
    assert bench.client.batches.get(name=job.name).state == "JOB_STATE_PENDING"


def test_one_job_with_details_makes_a_page_unreadable_for_googles_client(bench: Bench) -> None:
    bench.create(keyed(FOUR), name="poison")
    bench.create(name="fine")
    do = {"type": "object_details"}
    bench.server.set_faults([{"call": "vertex.batches.list", "match": {"tag": "poison"}, "do": do}])
    with pytest.raises(pydantic.ValidationError):
        list(bench.client.batches.list())


def test_a_job_that_was_made_though_nobody_heard_of_it(bench: Bench) -> None:
    bench.put(keyed(FOUR))
    bench.server.set_faults([{"call": CREATE, "do": {"type": "error", "status": 504, "when": "after"}}])
    with pytest.raises(errors.ServerError):
        bench.create(name="lost")
    (found,) = bench.client.batches.list(config={"filter": 'display_name="lost"'})
    assert bench.ended(found).state == "JOB_STATE_SUCCEEDED"


def test_faults_are_meant_for_some_jobs_only(bench: Bench) -> None:
    for match in ({"tag": "b"}, {"file": "gs://acme/in/b*"}, {"model": "gemini-3.1-*"}):
        bench.server.set_faults([{"call": CREATE, "match": match, "do": {"type": "error", "status": 429}}])
        bench.put(keyed(FOUR), "gs://acme/in/b.jsonl")
        bench.create(keyed(FOUR), name="a")
        with pytest.raises(errors.ClientError) as e:
            bench.create(src="gs://acme/in/b.jsonl", name="b", model="gemini-3.1-flash-lite")
        assert e.value.code == 429
    job = bench.ended(bench.create(name="a"))
    bench.server.set_faults(
        [{"call": "vertex.batches.get", "match": {"job": job.name, "state": "SUCCEEDED"}, "do": "drop"}]
    )
    with pytest.raises(httpx2.RemoteProtocolError):
        bench.client.batches.get(name=job.name)


def test_a_call_that_is_refused_anyway_is_no_fault(bench: Bench) -> None:
    bench.server.set_faults([{"call": CREATE, "do": {"type": "rows_missing"}}])
    with pytest.raises(errors.ClientError):
        bench.create(keyed(FOUR), model="gemini-none")
    assert bench.server.fired() == []


def test_rows_of_a_table_come_short_too(bench: Bench, store: Store) -> None:
    tables = Tables(store)
    tables.create_dataset("acme", "ds", "us-central1")
    bench.server.set_faults([{"call": CREATE, "do": {"type": "rows_missing", "keys": ["k0"]}}])
    assert bench.ended(bench.create(keyed(FOUR), dest="bq://acme.ds.out")).state == "JOB_STATE_SUCCEEDED"
    rows = list(tables.rows(TableRef.parse("bq://acme.ds.out")))
    assert sorted(row["key"] for row in rows) == ["k1", "k2", "k3"]
    assert {text_of(row) for row in rows} == {f"Emulated answer to: say {i}" for i in (1, 2, 3)}
