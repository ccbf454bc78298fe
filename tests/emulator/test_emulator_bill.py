from __future__ import annotations

import json

import httpx2
from emulator_kit import MODEL, Batches, request_of

from batchform import canon


def test_the_bill_names_every_request_once(batches: Batches, raw: httpx2.Client) -> None:
    job = batches.create({"a": request_of("one"), "b": request_of("two")})
    batches.server.advance(100)
    raw.post(f"/v1/models/{MODEL}:generateContent", json=request_of("two"))
    summary = {"requests": 3, "distinct_requests": 2, "jobs": 1, "prompt_tokens": 3, "output_tokens": 18}
    assert raw.get("/emulator/bill?summary=1").json() == summary  # nobody has looked at the job yet
    for _ in range(2):
        batches.results(job)
    lines = [json.loads(line) for line in raw.get("/emulator/bill").text.splitlines()]
    assert {(line["job"], line["key"]) for line in lines} == {(job.name, "a"), (job.name, "b"), (None, None)}
    assert len(lines) == 3
    assert len({line["digest"] for line in lines}) == 2
    assert lines[0]["at"].startswith("2026-11-21T12:0")
    assert [c.as_json() for c in batches.server.bill()] == lines


def test_the_bill_uses_batchforms_own_fingerprints(batches: Batches) -> None:
    request = request_of("hi", temperature=0.0)
    batches.run({"k": request})
    expected = canon.RequestHasher(model=MODEL, realm="emulator").fingerprint(canon.canonical_json(request))
    assert [c.digest for c in batches.server.bill()] == [expected.hex()]
