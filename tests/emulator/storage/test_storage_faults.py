"""Scripted faults of Cloud Storage, and what Google's client makes of them."""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests
from emulated_storage_kit import clients
from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage.exceptions import InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from batchform.emulator import EmulatorServer, faults
from batchform.emulator.storage.routes import NAMES

SOON = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02).with_timeout(10)  # when to try again is all that is changed
CHUNK = 256 * 1024
DATA = os.urandom(3 * CHUNK + 1000)


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path / "state") as server:
        yield server


@pytest.fixture
def bucket(faulty: EmulatorServer) -> Iterator[storage.Bucket]:
    for connect in clients(faulty.url):
        made = connect().create_bucket("acme")
        for name in "ab":
            made.blob(name).upload_from_string(name)
        yield made


@pytest.fixture
def leaky() -> Iterator[None]:
    """For faults of downloads: Google's client leaves the answers that it gives up to the garbage collector, which must
    not come by while warnings are errors: in the middle of the test, in whatever thread it is."""
    gc.disable()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.enable()


def upload(bucket: storage.Bucket, name: str = "x", **more: Any) -> storage.Blob:
    blob = bucket.blob(name)
    blob.upload_from_string(b"mine", retry=SOON, **more)
    return blob


def fault(call: str, do: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"call": f"storage.{call}", "do": do, **more}]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("conditions", [{}, {"if_generation_match": 0}])
def test_an_upload_that_is_turned_away_is_tried_again(
    faulty: EmulatorServer, bucket: storage.Bucket, status: int, conditions: dict[str, int]
) -> None:
    faulty.set_faults(fault("objects.insert", {"type": "error", "status": status}, times=2))
    upload(bucket, **conditions)
    assert bucket.blob("x").download_as_bytes() == b"mine" and len(faulty.fired()) == 2


LOST: list[dict[str, Any]] = [
    {"type": "error", "status": 503, "when": "after"},
    {"type": "drop", "when": "after"},
    {"type": "drop", "when": "after", "how": "reset"},
]
"""The service did what it was asked for, and nobody hears of it."""


@pytest.mark.parametrize("do", LOST)
def test_who_loses_the_answer_to_a_create_is_refused_by_its_own_write(
    faulty: EmulatorServer, bucket: storage.Bucket, do: dict[str, Any]
) -> None:
    faulty.set_faults(fault("objects.insert", do))
    with pytest.raises(exceptions.PreconditionFailed):
        upload(bucket, if_generation_match=0)
    assert bucket.blob("x").download_as_bytes() == b"mine"


def test_a_stall_beyond_the_timeout_does_the_same(faulty: EmulatorServer, bucket: storage.Bucket) -> None:
    faulty.set_faults(fault("objects.insert", {"type": "slow", "seconds": 0.6, "when": "after"}))
    with pytest.raises(exceptions.PreconditionFailed):
        upload(bucket, if_generation_match=0, timeout=0.3)
    assert bucket.blob("x").download_as_bytes() == b"mine"


@pytest.mark.parametrize("do", LOST)
def test_lost_answers_to_compose_and_delete(faulty: EmulatorServer, bucket: storage.Bucket, do: dict[str, Any]) -> None:
    faulty.set_faults([*fault("objects.compose", do), *fault("objects.delete", do, every=2, times=2)])
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("all").compose([bucket.blob("a"), bucket.blob("b")], if_generation_match=0, retry=SOON)
    made = bucket.get_blob("all")
    assert made.download_as_bytes() == b"ab"
    with pytest.raises(exceptions.NotFound):
        bucket.blob("a").delete(if_generation_match=bucket.get_blob("a").generation, retry=SOON)
    with pytest.raises(exceptions.NotFound):
        bucket.blob("b").delete(retry=SOON)
    assert len(faulty.fired()) == 3


def in_chunks(bucket: storage.Bucket, **more: Any) -> bytes:
    """Upload in four chunks; what is there then."""
    writer = bucket.blob("x").open("wb", chunk_size=CHUNK, retry=SOON, **more)
    try:
        with writer:
            writer.write(DATA)
    finally:
        writer._buffer.close()  # else it tries to send the rest again when it is collected
    return bytes(bucket.blob("x").download_as_bytes())


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize(
    "do",
    [
        {"type": "error", "status": 503},
        {"type": "drop"},
        {"type": "short_chunk", "keep": 0.3},
        {"type": "short_chunk", "then": "drop"},
        *LOST,
    ],
)
def test_a_resumable_upload_goes_on_where_it_was(
    faulty: EmulatorServer, bucket: storage.Bucket, nth: int, do: dict[str, Any]
) -> None:
    faulty.set_faults(fault("uploads.bytes", do, nth=nth))
    assert in_chunks(bucket, if_generation_match=0) == DATA
    assert len(faulty.fired()) == 1


def test_a_session_that_cannot_be_opened_is_tried_again(faulty: EmulatorServer, bucket: storage.Bucket) -> None:
    faulty.set_faults(fault("uploads.start", {"type": "error", "status": 503}, times=2))
    assert in_chunks(bucket) == DATA


def test_a_lost_session_is_an_error(faulty: EmulatorServer, bucket: storage.Bucket) -> None:
    faulty.set_faults(fault("uploads.bytes", {"type": "lost_upload"}, nth=2))
    with pytest.raises(InvalidResponse) as refused:
        in_chunks(bucket)
    assert refused.value.response.status_code == 404
    assert not bucket.blob("x").exists()


def test_damaged_bytes_are_refused_by_their_checksum(faulty: EmulatorServer, bucket: storage.Bucket) -> None:
    faulty.set_faults(fault("uploads.bytes", {"type": "damaged_upload"}, nth=2))
    with pytest.raises(InvalidResponse) as refused:
        in_chunks(bucket, checksum="crc32c")
    assert refused.value.response.status_code == 400
    assert not bucket.blob("x").exists()


@pytest.mark.usefixtures("leaky")
def test_what_only_reads_is_tried_again(faulty: EmulatorServer, bucket: storage.Bucket) -> None:
    gone = {"type": "error", "status": 503}
    calls = ("objects.get", "objects.list", "objects.download", "objects.patch", "buckets.get")
    faulty.set_faults([f for call in calls for f in fault(call, gone)])
    blob = bucket.get_blob("a", retry=SOON)
    assert blob.download_as_bytes(retry=SOON) == b"a"
    assert [b.name for b in bucket.list_blobs(retry=SOON)] == ["a", "b"]
    blob.metadata = {"k": "v"}
    blob.patch(if_metageneration_match=1, retry=SOON)
    bucket.reload(retry=SOON)
    assert len(faulty.fired()) == len(calls)


@pytest.mark.parametrize("do", [{"type": "cut", "keep": 0.5}, {"type": "drop", "when": "body"}])
@pytest.mark.usefixtures("leaky")
def test_a_download_that_ends_early_is_made_again(
    faulty: EmulatorServer, bucket: storage.Bucket, do: dict[str, Any]
) -> None:
    bucket.blob("x").upload_from_string(DATA)
    faulty.set_faults(fault("objects.download", do))
    assert bucket.blob("x").download_as_bytes(retry=SOON) == DATA
    assert len(faulty.fired()) == 1


@pytest.mark.usefixtures("leaky")
def test_a_fault_can_be_for_some_objects_only(faulty: EmulatorServer, bucket: storage.Bucket) -> None:
    match = {"file": "gs://acme/b*"}
    faulty.set_faults(fault("objects.*", {"type": "error", "status": 403}, times="all", match=match))
    assert bucket.blob("a").download_as_bytes() == b"a"
    for name in ("b", "b2"):
        with pytest.raises(exceptions.Forbidden):
            bucket.blob(name).upload_from_string(b"x")
    with pytest.raises(exceptions.Forbidden):
        bucket.blob("b").download_as_bytes()
    assert {f.about for f in faulty.fired()} == {"gs://acme/b", "gs://acme/b2"}


class Calls:
    """One plain call of each name."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        http.post("/storage/v1/b", json={"name": "acme"})
        http.post("/storage/v1/b", json={"name": "empty"})
        for name in ("a", "b", "c"):
            http.put(f"/acme/{name}", content=b"0123456789")
        started = http.post("/upload/storage/v1/b/acme/o?uploadType=resumable&name=x")
        self.session = started.headers["location"]
        self.parts = self.start_parts()

    def start_parts(self) -> str:
        text = self.http.post("/acme/parts?uploads").text
        return text.partition("<UploadId>")[2].partition("<")[0]

    def make(self, name: str) -> httpx2.Response:
        call, o = self.http.request, "/storage/v1/b/acme/o"
        compose = {"sourceObjects": [{"name": "a"}, {"name": "b"}]}
        parts, whole = f"/acme/parts?uploadId={self.parts}", "<CompleteMultipartUpload/>"
        inner = "--B\r\nContent-Type: application/http\r\n\r\nGET /storage/v1/b/acme/o/a HTTP/1.1\r\n\r\n\r\n--B--\r\n"
        made: dict[str, Callable[[], httpx2.Response]] = {
            "buckets.insert": lambda: call("POST", "/storage/v1/b", json={"name": "another"}),
            "buckets.list": lambda: call("GET", "/storage/v1/b?project=p"),
            "buckets.get": lambda: call("GET", "/storage/v1/b/acme"),
            "buckets.patch": lambda: call("PATCH", "/storage/v1/b/acme", json={"labels": {"a": "b"}}),
            "buckets.delete": lambda: call("DELETE", "/storage/v1/b/empty"),
            "buckets.layout": lambda: call("GET", "/storage/v1/b/acme/storageLayout"),
            "buckets.permissions": lambda: call("GET", "/storage/v1/b/acme/iam/testPermissions?permissions=x"),
            "uploads.bytes": lambda: call("PUT", self.session, headers={"content-range": "bytes */*"}),
            "uploads.cancel": lambda: call("DELETE", self.session),
            "uploads.start": lambda: call("POST", "/upload/storage/v1/b/acme/o?uploadType=resumable&name=y"),
            "objects.insert": lambda: call("POST", "/upload/storage/v1/b/acme/o?uploadType=media&name=m", content=b"1"),
            "objects.list": lambda: call("GET", o),
            "objects.get": lambda: call("GET", f"{o}/a"),
            "objects.download": lambda: call("GET", f"{o}/a?alt=media"),
            "objects.patch": lambda: call("PATCH", f"{o}/a", json={"metadata": {"a": "b"}}),
            "objects.delete": lambda: call("DELETE", f"{o}/c"),
            "objects.compose": lambda: call("POST", f"{o}/d/compose", json=compose),
            "objects.copy": lambda: call("POST", f"{o}/a/copyTo/b/acme/o/e"),
            "objects.rewrite": lambda: call("POST", f"{o}/a/rewriteTo/b/acme/o/f"),
            "objects.move": lambda: call("POST", f"{o}/b/moveTo/o/g"),
            "multipart.start": lambda: call("POST", "/acme/parts?uploads"),
            "multipart.part": lambda: call("PUT", f"{parts}&partNumber=1", content=b"1"),
            "multipart.complete": lambda: call("POST", parts, content=whole),
            "multipart.list": lambda: call("GET", parts),
            "multipart.abort": lambda: call("DELETE", parts),
            "batch": lambda: call(
                "POST", "/batch/storage/v1", content=inner, headers={"content-type": "multipart/mixed; boundary=B"}
            ),
        }
        return made[name.removeprefix("storage.")]()


@pytest.fixture
def calls(faulty: EmulatorServer) -> Iterator[Calls]:
    with httpx2.Client(base_url=faulty.url) as http:
        yield Calls(http)


@pytest.mark.parametrize("name", NAMES)
def test_faults_reach_every_call(faulty: EmulatorServer, calls: Calls, name: str) -> None:
    expected = {"storage.uploads.bytes": 308, "storage.uploads.cancel": 499, "storage.multipart.complete": 400}
    expected |= {f"storage.{n}": 204 for n in ("buckets.delete", "objects.delete", "multipart.abort")}
    faulty.set_faults([{"call": name, "do": {"type": "error", "status": 503}}])
    assert calls.make(name).status_code == 503
    faulty.set_faults([{"call": name, "do": "drop"}])
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        calls.make(name)
    faulty.set_faults(())
    assert calls.make(name).status_code == expected.get(name, 200)


def test_every_example_is_taken_at_every_call(faulty: EmulatorServer) -> None:
    samples = faults.catalogue("storage.*")
    assert {sample.call for sample in samples} == set(NAMES)
    faulty.set_faults([sample.fault() for sample in samples])
    assert len(faulty.faults()) == len(samples) > 500


def test_faults_reach_calls_within_a_batch(faulty: EmulatorServer, calls: Calls) -> None:
    faulty.set_faults(fault("objects.get", {"type": "error", "status": 503}))
    answer = calls.make("storage.batch")
    assert answer.status_code == 200 and "HTTP/1.1 503 Service Unavailable" in answer.text
    assert "HTTP/1.1 200 OK" in calls.make("storage.batch").text


def test_a_refusal_inside_a_fault_is_googles(faulty: EmulatorServer, calls: Calls) -> None:
    faulty.set_faults(fault("objects.get", {"type": "slow", "seconds": 0.01}, times="all"))
    answer = calls.http.get("/storage/v1/b/acme/o/missing")
    assert answer.status_code == 404 and json.loads(answer.text)["error"]["errors"][0]["reason"] == "notFound"
    assert requests.head(f"{faulty.url}/acme/a", timeout=5).headers["x-goog-stored-content-length"] == "10"
