"""Scripted faults of rows: what they get when they run, and how their results come back."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from emulator_kit import JOB_SECONDS, MODEL, Batches, request_of
from google import genai
from google.genai import errors, types

from batchform.emulator import EmulatorServer
from batchform.emulator.fault_kinds_rows import BLOCK_REASONS, FINISH_REASONS
from batchform.emulator.refusal import RPC_CODES

KEYS = [f"k{i}" for i in range(4)]


def finished(server: EmulatorServer, batches: Batches, *faults: dict[str, Any]) -> Any:
    """A job of four rows that has run under these faults."""
    server.set_faults(faults)
    job = batches.create({key: request_of(f"say {key}") for key in KEYS})
    server.advance(JOB_SECONDS)
    return batches.client.batches.get(name=job.name)


def download(batches: Batches, job: Any) -> bytes:
    body: bytes = batches.client.files.download(file=job.dest.file_name)
    return body


def rows(body: bytes) -> dict[str, Any]:
    return {row["key"]: row for row in map(json.loads, body.splitlines())}


def run_with(server: EmulatorServer, batches: Batches, fates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Results of a job with a row of each of these fates, and one without."""
    whole = {"call": "batches.create", "times": "all"}
    server.set_faults([{**whole, "do": {**do, "keys": [key]}} for key, do in fates.items()])
    return {line["key"]: line for line in batches.run({key: request_of(f"say {key}") for key in ("plain", *fates)})}


def test_a_row_ends_with_any_error_and_is_not_charged(server: EmulatorServer, batches: Batches) -> None:
    statuses = [400, 401, 403, 404, 409, 429, 499, 500, 501, 503, 504]
    found = run_with(server, batches, {f"e{s}": {"type": "row_error", "status": s} for s in statuses})
    assert {key: row["error"]["code"] for key, row in found.items() if "error" in row} == {
        f"e{s}": RPC_CODES[s] for s in statuses
    }
    assert [charge.key for charge in server.bill()] == ["plain"]
    assert len(server.fired()) == len(statuses)


def test_every_row_of_a_job_that_succeeded_fails(server: EmulatorServer, batches: Batches) -> None:
    do = {"type": "row_error", "message": "Internal error.", "details": True}
    job = finished(server, batches, {"call": "batches.create", "do": do})
    assert job.state == "JOB_STATE_SUCCEEDED"
    found = rows(download(batches, job))
    assert [row["error"]["message"] for row in found.values()] == ["Internal error."] * 4
    assert isinstance(found["k0"]["error"]["details"][0], dict)
    assert server.bill() == []


def test_inline_errors_with_objects_make_googles_client_fail(server: EmulatorServer, client: genai.Client) -> None:
    server.set_faults([{"call": "batches.create", "do": {"type": "row_error", "details": True}}])
    job = client.batches.create(model=MODEL, src=[{"contents": "hello", "metadata": {"key": "k"}}])
    server.advance(JOB_SECONDS)
    with pytest.raises(ValueError, match="details"):
        client.batches.get(name=job.name)
    with pytest.raises(ValueError, match="details"):
        list(client.batches.list())


def test_rows_are_meant_by_key(server: EmulatorServer, batches: Batches) -> None:
    do = {"type": "row_error", "keys": ["k0", "*3"]}
    found = rows(download(batches, finished(server, batches, {"call": "batches.create", "do": do})))
    assert {key for key, row in found.items() if "error" in row} == {"k0", "k3"}


def test_rows_are_meant_by_number_in_a_large_job(server: EmulatorServer, batches: Batches) -> None:
    server.set_faults([{"call": "batches.create", "do": {"type": "row_error", "rows": [1, 750, 1200]}}])
    found = rows(
        b"\n".join(json.dumps(r).encode() for r in batches.run({f"r{i}": request_of(str(i)) for i in range(1200)}))
    )
    assert {key for key, row in found.items() if "error" in row} == {"r0", "r749", "r1199"}


def test_every_finish_reason(server: EmulatorServer, batches: Batches) -> None:
    found = run_with(server, batches, {r.lower(): {"type": "finish_reason", "reason": r} for r in FINISH_REASONS})
    candidates = {key: row["response"]["candidates"][0] for key, row in found.items()}
    assert candidates.pop("plain")["finishReason"] == "STOP"
    assert {key: c["finishReason"] for key, c in candidates.items()} == {r.lower(): r for r in FINISH_REASONS}
    assert all(c["content"] == {"role": "model"} for c in candidates.values())
    assert len(server.bill()) == len(FINISH_REASONS) + 1


def test_the_finish_reasons_are_those_of_googles_client() -> None:
    assert {"STOP", "FINISH_REASON_UNSPECIFIED", *FINISH_REASONS} - {"BORED"} == {r.value for r in types.FinishReason}
    assert {"BLOCKED_REASON_UNSPECIFIED", *BLOCK_REASONS} - {"BORED"} == {r.value for r in types.BlockedReason}


def test_every_block_reason(server: EmulatorServer, batches: Batches) -> None:
    found = run_with(server, batches, {r.lower(): {"type": "block_reason", "reason": r} for r in BLOCK_REASONS})
    blocked = {key: row["response"] for key, row in found.items() if key != "plain"}
    assert {key: r["promptFeedback"]["blockReason"] for key, r in blocked.items()} == {
        reason.lower(): reason for reason in BLOCK_REASONS
    }
    assert not any("candidates" in response for response in blocked.values())
    assert len(server.bill()) == len(BLOCK_REASONS) + 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("keep", [{"text": "Emulated answer to: say k0"}]),
        ("half", [{"text": "Emulated answ"}]),
        ("thought", [{"text": "The emulator does not think.", "thought": True}]),
    ],
)
def test_what_is_left_of_a_text(
    server: EmulatorServer, batches: Batches, text: str, parts: list[dict[str, Any]]
) -> None:
    do = {"type": "finish_reason", "reason": "STOP", "text": text}
    found = rows(download(batches, finished(server, batches, {"call": "batches.create", "do": do})))
    assert found["k0"]["response"]["candidates"][0]["content"]["parts"] == parts


def test_synchronous_calls_get_them_too(server: EmulatorServer, client: genai.Client) -> None:
    call = "models.generate_content"
    server.set_faults(
        [
            {"call": call, "do": {"type": "row_error", "status": 503}},
            {"call": call, "nth": 2, "do": {"type": "finish_reason", "reason": "SAFETY"}},
            {"call": call, "nth": 3, "do": {"type": "block_reason", "reason": "JAILBREAK"}},
        ]
    )
    with pytest.raises(errors.ServerError):
        client.models.generate_content(model=MODEL, contents="hello")
    assert server.bill() == []
    second = client.models.generate_content(model=MODEL, contents="hello")
    assert second.candidates[0].finish_reason == "SAFETY"
    third = client.models.generate_content(model=MODEL, contents="hello")
    assert third.prompt_feedback.block_reason == "JAILBREAK"
    assert len(server.bill()) == 2


RESULTS: dict[str, tuple[dict[str, Any], Any]] = {
    "rows missing": ({"type": "rows_missing", "rows": [1, 2]}, lambda new, old: new == old[2:]),
    "all missing": ({"type": "rows_missing"}, lambda new, _: new == []),
    "doubled": ({"type": "rows_doubled", "rows": [1]}, lambda new, old: new == [old[0], *old]),
    "doubled, differing": (
        {"type": "rows_doubled", "rows": [4], "differ": True},
        lambda new, old: new[:4] == old and b"(again)" in new[4],
    ),
    "unknown": (
        {"type": "unknown_rows", "count": 2},
        lambda new, _: [json.loads(line)["key"] for line in new[4:]] == ["unknown-0", "unknown-1"],
    ),
    "no key": ({"type": "keys_missing", "rows": [1]}, lambda new, _: set(json.loads(new[0])) == {"response"}),
    "key null": ({"type": "keys_missing", "show": "null"}, lambda new, _: all(b'"key":null' in x for x in new)),
    "key number": ({"type": "keys_missing", "show": "number"}, lambda new, _: b'"key":7' in new[0]),
    "hollow": ({"type": "hollow_rows"}, lambda new, _: all(set(json.loads(x)) == {"key"} for x in new)),
    "hollow, empty": ({"type": "hollow_rows", "show": "empty"}, lambda new, _: b'"response":{}' in new[0]),
    "huge": (
        {"type": "huge_rows", "rows": [3], "size": 3_000_000},
        lambda new, old: len(new[2]) > 3_000_000 and new[3] == old[3],
    ),
    "unknown fields": ({"type": "unknown_fields"}, lambda new, _: b"TIER_OF_TOMORROW" in new[0]),
    "text": ({"type": "unreadable", "rows": [2]}, lambda new, _: new[1] == b"upstream says hi"),
    "list": ({"type": "unreadable", "show": "list", "rows": [2]}, lambda new, _: new[1] == b"[1]"),
    "binary": ({"type": "unreadable", "show": "binary", "rows": [2]}, lambda new, _: new[1][:2] == b"\x80\xff"),
    "half": ({"type": "unreadable", "show": "half"}, lambda new, old: old[0].startswith(new[0])),
    "torn": (
        {"type": "torn"},
        lambda new, old: new[:3] == old[:3] and old[3].startswith(new[3]) and len(new[3]) < len(old[3]),
    ),
    "none": ({"type": "no_results"}, lambda new, _: new == []),
    "crlf": ({"type": "line_ends"}, lambda new, old: new == [line + b"\r" for line in old]),
    "mark": ({"type": "line_ends", "show": "mark"}, lambda new, old: new[0] == b"\xef\xbb\xbf" + old[0]),
    "blank lines": (
        {"type": "line_ends", "show": "blank_lines"},
        lambda new, old: new == [x for line in old for x in (line, b"")],
    ),
    "shuffled": ({"type": "shuffled"}, lambda new, old: new != old and sorted(new) == sorted(old)),
}  # fmt: skip


def test_results_come_back_spoilt_once_and_cost_the_same(server: EmulatorServer, batches: Batches) -> None:
    job = finished(server, batches)
    true = download(batches, job).splitlines()
    for name, (do, is_so) in RESULTS.items():
        server.set_faults([{"call": "files.download", "match": {"tag": "*"}, "do": do}])
        spoilt = download(batches, job)
        assert is_so(spoilt.removesuffix(b"\n").split(b"\n") if spoilt else [], true), name
        assert download(batches, job).splitlines() == true, name
        assert [fired.about for fired in server.fired()] == [job.name]
    assert sorted(str(charge.key) for charge in server.bill()) == KEYS


def test_the_length_of_a_torn_file_says_that_it_is_whole(
    server: EmulatorServer, batches: Batches, raw: httpx2.Client
) -> None:
    job = finished(server, batches, {"call": "files.download", "do": "torn"})
    torn = raw.get(f"/v1/{job.dest.file_name}:download")
    assert int(torn.headers["content-length"]) == len(torn.content)
    with pytest.raises(json.JSONDecodeError):
        rows(torn.content)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_download_ends_in_the_middle(server: EmulatorServer, batches: Batches, how: str) -> None:
    do = {"type": "drop", "when": "body", "how": how}
    job = finished(server, batches, {"call": "files.download", "do": do})
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        download(batches, job)
    assert set(rows(download(batches, job))) == set(KEYS)


def test_results_are_gone_early(server: EmulatorServer, batches: Batches) -> None:
    job = finished(server, batches, {"call": "files.download", "times": "all", "do": {"type": "error", "status": 403}})
    with pytest.raises(errors.ClientError) as gone:
        download(batches, job)
    assert gone.value.code == 403


@pytest.mark.parametrize(
    ("do", "keys"),
    [
        ({"type": "rows_missing", "rows": [1]}, 3),
        ({"type": "rows_doubled"}, 8),
        ({"type": "unknown_rows"}, 5),
        ({"type": "shuffled"}, 4),
        ({"type": "keys_missing"}, 0),
    ],
)
def test_inline_results_come_back_spoilt_too(
    server: EmulatorServer, client: genai.Client, raw: httpx2.Client, do: dict[str, Any], keys: int
) -> None:
    source = [{"contents": f"say {key}", "metadata": {"key": key}} for key in KEYS]
    job = client.batches.create(model=MODEL, src=source)
    server.set_faults([{"call": "batches.get", "times": 2, "do": do}])
    client.batches.get(name=job.name)
    assert server.fired() == [], "there are no results yet"
    server.advance(JOB_SECONDS)
    results = client.batches.get(name=job.name).dest.inlined_responses
    assert sum("key" in (result.metadata or {}) for result in results) == keys
    shown = raw.get(f"/v1/{job.name}").json()
    assert shown["response"]["inlinedResponses"] == shown["metadata"]["output"]["inlinedResponses"]
    assert len(client.batches.get(name=job.name).dest.inlined_responses) == 4
