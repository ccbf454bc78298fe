"""Scripted faults of uploads and of answers; and every example of every kind, once, at every call it works on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import httpx2
import pytest
from emulator_kit import JOB_SECONDS, MODEL, request_of

from batchform.emulator import EmulatorServer, faults

EMBEDS = "gemini-embedding-001"
TEXT = {"content": {"parts": [{"text": "hello"}]}}
CALLS = tuple(call for call in faults.CALLS if not call.startswith(("vertex.", "storage.", "bigquery.")))
DROPPED = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
LINES = b"".join(json.dumps({"key": f"k{i}", "request": request_of(f"say {i}")}).encode() + b"\n" for i in range(4))


class Wire:
    """The API by plain HTTP: one method per call, each of which prepares what it needs without faults."""

    def __init__(self, server: EmulatorServer, http: httpx2.Client) -> None:
        self.server, self.http, self._files = server, http, 0

    def start(self, size: int = len(LINES)) -> httpx2.Response:
        self._files += 1
        headers = {
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
        }
        body = {"file": {"display_name": "tag", "name": f"file-{self._files}"}}
        return self.http.post("/upload/v1/files", headers=headers, json=body)

    def send(
        self, url: str, body: bytes = LINES, offset: int = 0, command: str = "upload, finalize"
    ) -> httpx2.Response:
        headers = {"x-goog-upload-command": command, "x-goog-upload-offset": str(offset)}
        return self.http.post(url, headers=headers, content=body)

    def uploaded(self) -> str:
        return str(self.send(self.start().headers["x-goog-upload-url"]).json()["file"]["name"])

    def create(self, file: str, tag: str = "tag") -> httpx2.Response:
        batch = {"displayName": tag, "inputConfig": {"fileName": file}}
        return self.http.post(f"/v1/models/{MODEL}:batchGenerateContent", json={"batch": batch})

    def job(self, tag: str = "tag") -> str:
        return str(self.create(self.uploaded(), tag).json()["name"])

    def cache(self) -> httpx2.Response:
        content = {"parts": [{"text": "rule " * 4096}]}
        return self.http.post("/v1/cachedContents", json={"model": f"models/{MODEL}", "systemInstruction": content})

    def inline_job(self) -> str:
        requests = [{"request": request_of(f"say {i}"), "metadata": {"key": f"k{i}"}} for i in range(4)]
        batch = {"displayName": "tag", "inputConfig": {"requests": {"requests": requests}}}
        made = self.http.post(f"/v1/models/{MODEL}:batchGenerateContent", json={"batch": batch})
        return str(made.json()["name"])

    def results(self) -> str:
        job = self.job()
        self.server.advance(JOB_SECONDS)
        return str(self.http.get(f"/v1/{job}").json()["response"]["responsesFile"])

    def prepared(self, call: str) -> Callable[[], httpx2.Response]:
        """What makes this call once."""
        http, model = self.http, f"/v1/models/{MODEL}"
        if call == "files.upload.bytes":
            url = self.start().headers["x-goog-upload-url"]
            return lambda: self.send(url)
        if call == "batches.create":
            file = self.uploaded()
            return lambda: self.create(file)
        if call.startswith("batches."):
            name = self.inline_job()
        elif call.startswith("caches.") and call != "caches.create":
            name = str(self.cache().json()["name"])
        elif call == "files.download":
            name = self.results()
        else:
            name = self.uploaded() if call in ("files.get", "files.delete") else ""
        contents = request_of("hello")
        return {
            "files.upload.start": self.start,
            "files.get": lambda: http.get(f"/v1/{name}"),
            "files.list": lambda: http.get("/v1/files", params={"pageSize": 2}),
            "files.delete": lambda: http.delete(f"/v1/{name}"),
            "files.download": lambda: http.get(f"/v1/{name}:download"),
            "batches.get": lambda: http.get(f"/v1/{name}"),
            "batches.list": lambda: http.get("/v1/batches", params={"pageSize": 2}),
            "batches.cancel": lambda: http.post(f"/v1/{name}:cancel"),
            "batches.delete": lambda: http.delete(f"/v1/{name}"),
            "caches.create": self.cache,
            "caches.get": lambda: http.get(f"/v1/{name}"),
            "caches.list": lambda: http.get("/v1/cachedContents"),
            "caches.update": lambda: http.patch(f"/v1/{name}", json={"ttl": "60s"}),
            "caches.delete": lambda: http.delete(f"/v1/{name}"),
            "models.get": lambda: http.get(model),
            "models.list": lambda: http.get("/v1/models"),
            "models.generate_content": lambda: http.post(f"{model}:generateContent", json=contents),
            "models.count_tokens": lambda: http.post(f"{model}:countTokens", json=contents),
            "models.embed_content": lambda: http.post(f"/v1/models/{EMBEDS}:embedContent", json=TEXT),
        }[call]


@pytest.fixture
def wire(server: EmulatorServer, raw: httpx2.Client) -> Wire:
    return Wire(server, raw)


def outcome(call: Callable[[], httpx2.Response]) -> tuple[int, bytes, dict[str, str]] | str:
    """What a client sees of a call: its answer, or that there was none."""
    try:
        answer = call()
    except DROPPED as e:
        return type(e).__name__
    seen = ("date", "retry-after", "content-type", "x-goog-upload-url", "x-goog-upload-status")
    return answer.status_code, answer.content, {name: answer.headers.get(name, "") for name in seen}


UNSEEN = {
    "slow", "list_lag", "hang", "ends", "keeps_results", "row_error", "finish_reason", "block_reason", "ignored",
    "lost_upload", "damaged_upload",
}  # fmt: skip
"""Kinds that cannot be seen in the answer of their own call. Tests of their own see what they do."""

IDLE = {
    "batches.create: state, state=PENDING",
    "batches.create: without, fields=['output']",
    "batches.create: without, fields=['response']",
    "batches.create: without, fields=['output', 'response']",
    "batches.create: without, fields=['done']",
    "batches.get: without, fields=['inputConfig']",
    "batches.list: without, fields=['inputConfig']",
}
"""What finds nothing to change in the calls below, and so does not happen: a new job is pending, others are inline."""


def chosen(call: str) -> list[faults.Sample]:
    """Every kind that works on a call; of its examples one, another at each call. All of them for `make prove`."""
    samples = faults.catalogue(call)
    if "BATCHFORM_PROVE" in os.environ:
        return list(samples)
    kinds = dict.fromkeys(str(sample.do["type"]) for sample in samples)
    turn = CALLS.index(call)
    by_kind = {kind: [sample for sample in samples if sample.do["type"] == kind] for kind in kinds}
    return [s for of_kind in by_kind.values() for i, s in enumerate(of_kind) if i % len(CALLS) == turn % len(of_kind)]


@pytest.mark.parametrize("call", CALLS)
def test_every_kind_happens_at_every_call_that_it_works_on(server: EmulatorServer, wire: Wire, call: str) -> None:
    if call.endswith(".list"):
        for _ in range(3):
            wire.job()
    if call != "batches.create":
        server.advance(JOB_SECONDS)
    for i, sample in enumerate(chosen(call)):
        if not call.endswith(".list"):
            wire.http.headers["x-goog-api-key"] = f"key-{i}"  # another account, which has no jobs yet
        make = wire.prepared(call)
        server.advance(0 if call in ("batches.create", "batches.cancel") else JOB_SECONDS)
        server.set_faults([sample.fault()])
        spoilt = outcome(make)
        fired = server.fired()
        server.set_faults(())
        if sample.name in IDLE:
            assert fired == []
            continue
        assert [(f.call, f.type) for f in fired] == [(call, sample.do["type"])], sample.name
        if sample.do["type"] not in UNSEEN:
            assert spoilt != outcome(make), sample.name


def test_slowness_takes_the_time_that_it_says(server: EmulatorServer, wire: Wire) -> None:
    for when in ("before", "after", "body"):
        server.set_faults([{"call": "models.get", "do": {"type": "slow", "seconds": 0.3, "when": when}}])
        began = time.monotonic()
        answer = wire.http.get(f"/v1/models/{MODEL}")
        assert time.monotonic() - began >= 0.25
        assert answer.json()["name"] == f"models/{MODEL}"


def test_an_upload_that_breaks_in_any_chunk_goes_on_where_the_service_stopped(
    server: EmulatorServer, wire: Wire
) -> None:
    chunks = [LINES[i : i + 100] for i in range(0, len(LINES), 100)]
    for broken in range(len(chunks)):
        for then in ("error", "drop"):
            url = wire.start().headers["x-goog-upload-url"]
            do = {"type": "short_chunk", "keep": 0.5, "then": then}
            server.set_faults([{"call": "files.upload.bytes", "nth": broken + 1, "do": do}])
            sent = 0
            for chunk in chunks:
                command = "upload, finalize" if sent + len(chunk) == len(LINES) else "upload"
                got = outcome(lambda: wire.send(url, chunk, sent, command))  # noqa: B023  (called at once)
                if isinstance(got, str) or got[0] == 503:
                    received = int(wire.send(url, b"", command="query").headers["x-goog-upload-size-received"])
                    assert sent <= received < sent + len(chunk), "less arrived than was sent"
                    wire.send(url, LINES[received : sent + len(chunk)], received, command)
                sent += len(chunk)
            assert len(server.fired()) == 1
    sizes = {file["sizeBytes"] for file in wire.http.get("/v1/files", params={"pageSize": 100}).json()["files"]}
    assert sizes == {str(len(LINES))}


def test_a_forgotten_upload_is_gone(server: EmulatorServer, wire: Wire) -> None:
    url = wire.start().headers["x-goog-upload-url"]
    server.set_faults([{"call": "files.upload.bytes", "do": "lost_upload"}])
    assert wire.send(url, LINES[:50], command="upload").status_code == 404
    assert wire.send(url, b"", command="query").status_code == 404


def test_a_damaged_upload_has_another_digest(server: EmulatorServer, wire: Wire) -> None:
    whole = wire.http.get(f"/v1/{wire.uploaded()}").json()["sha256Hash"]
    server.set_faults([{"call": "files.upload.bytes", "do": "damaged_upload"}])
    damaged = wire.http.get(f"/v1/{wire.uploaded()}").json()
    assert damaged["sha256Hash"] != whole
    assert damaged["sizeBytes"] == str(len(LINES))


def test_two_faults_of_one_call_both_happen_unless_one_takes_its_place(server: EmulatorServer, wire: Wire) -> None:
    job = wire.job()
    server.set_faults(
        [
            {"call": "batches.get", "times": 2, "do": {"type": "state", "state": "PAUSED"}},
            {"call": "batches.get", "do": {"type": "without", "fields": ["displayName"]}},
            {"call": "batches.get", "nth": 2, "do": {"type": "error", "status": 500}},
        ]
    )
    meta = wire.http.get(f"/v1/{job}").json()["metadata"]
    assert (meta["state"], "displayName" in meta) == ("BATCH_STATE_PAUSED", False)
    assert wire.http.get(f"/v1/{job}").status_code == 500
    assert wire.http.get(f"/v1/{job}").json()["metadata"]["state"] == "BATCH_STATE_PAUSED"
    assert [fired.fault for fired in server.fired()] == [0, 1, 2, 0]
