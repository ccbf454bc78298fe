"""Cloud Storage by plain HTTP: what Google's client hides, and the traps that other clients step into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from batchform.emulator import EmulatorServer

CHUNK = 256 * 1024
OBJECTS = "/storage/v1/b/acme/o"


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx2.Client]:
    with EmulatorServer(tmp_path / "state") as server, httpx2.Client(base_url=server.url) as client:
        client.post("/storage/v1/b", json={"name": "acme"}).raise_for_status()
        yield client


def started(http: httpx2.Client, name: str = "x") -> str:
    return str(http.post(f"/upload{OBJECTS}?uploadType=resumable&name={name}").headers["location"])


def test_a_finished_session_answers_again_as_before(http: httpx2.Client) -> None:
    session = started(http)
    first = http.put(session, content=b"a" * CHUNK, headers={"content-range": f"bytes 0-{CHUNK - 1}/*"})
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{CHUNK - 1}")
    last = {"content-range": f"bytes {CHUNK}-{CHUNK + 1}/{CHUNK + 2}"}
    done = http.put(session, content=b"bb", headers=last)
    assert done.status_code == 200 and done.json()["size"] == str(CHUNK + 2)
    assert http.put(session, content=b"bb", headers=last).json() == done.json()
    assert http.put(session, headers={"content-range": "bytes */*"}).json() == done.json()


def test_bytes_that_are_there_are_not_taken_twice(http: httpx2.Client) -> None:
    session = started(http)
    assert "range" not in http.put(session, headers={"content-range": "bytes */*"}).headers
    http.put(session, content=b"a" * CHUNK, headers={"content-range": f"bytes 0-{CHUNK - 1}/*"})
    again = b"a" * CHUNK + b"end"
    http.put(session, content=again, headers={"content-range": f"bytes 0-{CHUNK + 2}/{CHUNK + 3}"})
    assert http.get(f"{OBJECTS}/x?alt=media").content == again


@pytest.mark.parametrize(
    "content_range", ["bytes 5-9/10", "bytes 0-4/*", "pages 0-4/5", "bytes 0-4/3"], ids=lambda text: text[:12]
)
def test_chunks_that_cannot_be(http: httpx2.Client, content_range: str) -> None:
    answer = http.put(started(http), content=b"12345", headers={"content-range": content_range})
    assert answer.status_code == 400 and http.get(f"{OBJECTS}/x").status_code == 404


def test_a_cancelled_session_is_gone(http: httpx2.Client) -> None:
    session = started(http)
    assert http.delete(session).status_code == 499
    assert http.put(session, content=b"1").status_code == 404


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("data", [b"", b"\r\n--B", b"\n--B-\r\n--C--\r\n", b"x" * 200_000])
def test_multipart_bodies_with_either_line_end(http: httpx2.Client, end: str, data: bytes) -> None:
    head = ["--B", "Content-Type: application/json", "", '{"name": "x"}', "--B", "Content-Type: text/x", "", ""]
    tail = f"{end}--B--{end}".encode()
    data = data.replace(b"--B", b"--b")  # what is in a boundary cannot be in the content
    body = end.join(head).encode() + data + tail
    headers = {"content-type": 'multipart/related; boundary="B"'}
    made = http.post(f"/upload{OBJECTS}?uploadType=multipart", content=body, headers=headers)
    assert made.status_code == 200 and made.json()["contentType"] == "text/x"
    assert http.get(f"{OBJECTS}/x?alt=media").content == data


@pytest.mark.parametrize(
    "body", [b"", b"--B\r\n\r\n{}\r\n--B", b"--B\r\n\r\n[1]\r\n--B\r\n\r\nx\r\n--B--", b"nonsense"]
)
def test_multipart_bodies_that_are_none(http: httpx2.Client, body: bytes) -> None:
    headers = {"content-type": "multipart/related; boundary=B"}
    answer = http.post(f"/upload{OBJECTS}?uploadType=multipart&name=x", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["errors"][0]["reason"] == "invalid"


def test_xml_objects_and_their_headers(http: httpx2.Client) -> None:
    made = http.put("/acme/a%20b/x", content=b"hello", headers={"content-type": "text/x", "x-goog-meta-who": "me"})
    tag = f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert made.status_code == 200 and made.headers["etag"] == tag
    found = http.head("/acme/a%20b/x")
    assert found.content == b"" and found.headers["content-length"] == "5" and found.headers["last-modified"]
    for name in ("x-goog-generation", "x-goog-hash", "etag"):
        assert found.headers[name] == made.headers[name]
    assert found.headers["x-goog-meta-who"] == "me" and found.headers["content-type"] == "text/x"
    assert http.get("/acme/a%20b/x", headers={"if-none-match": tag}).status_code == 304
    assert http.get("/acme/a%20b/x", headers={"if-match": '"other"'}).status_code == 412
    refused = http.put("/acme/a%20b/x", content=b"2", headers={"x-goog-if-generation-match": "0"})
    assert refused.status_code == 412 and "<Code>PreconditionFailed</Code>" in refused.text
    wrong = http.put("/acme/y", content=b"2", headers={"content-md5": "XrY7u+Ae7tCTyyK7j1rNww=="})
    assert wrong.status_code == 400 and http.head("/acme/y").status_code == 404


def test_xml_lists_page_by_page_in_both_versions(http: httpx2.Client) -> None:
    for name in ("a", "b/1", "b/2", "c&d", "e"):
        http.put(f"/acme/{name.replace('&', '%26')}", content=b"x")
    seen: list[list[str]] = []
    for going_on, marker in (("continuation-token", "NextContinuationToken"), ("marker", "NextMarker")):
        entries, after = [], ""
        while True:
            params = {"max-keys": "2", "delimiter": "/", **({going_on: after} if after else {})}
            if going_on == "continuation-token":
                params["list-type"] = "2"
            text = http.get("/acme", params=params).text
            entries += [part.partition("<")[0] for part in text.replace("<Prefix>", "<Key>").split("<Key>")[1:]]
            if f"<{marker}>" not in text:
                break
            after = text.partition(f"<{marker}>")[2].partition("<")[0].replace("&amp;", "&")
        seen.append([entry for entry in entries if entry])
    assert seen == [["a", "b/", "c&amp;d", "e"]] * 2


def test_a_path_of_both_apis_goes_to_the_bucket_that_is_there(http: httpx2.Client) -> None:
    http.put("/acme/v1/files", content=b"mine")
    assert http.get("/acme/v1/files").content == b"mine"
    assert http.get("/acme/v1/files", headers={"x-goog-api-key": "k"}).json() == {}
    assert http.get("/another/v1/files").status_code == 403, "the Gemini API, behind a prefix, without a key"
    assert "NoSuchBucket" in http.get("/another/x").text


def test_what_is_not_served_says_so(http: httpx2.Client) -> None:
    assert http.get("/storage/v1/b/acme/acl").status_code == 501
    soft = {"name": "soft", "softDeletePolicy": {"retentionDurationSeconds": "604800"}}
    assert http.post("/storage/v1/b", json=soft).status_code == 501
    assert http.get(f"{OBJECTS}?pageToken=nonsense").status_code == 400
    assert http.get(f"{OBJECTS}/x?generation=soon").status_code == 400


def test_links_and_downloads_point_at_the_host_that_was_called(http: httpx2.Client) -> None:
    made = http.post(f"/upload{OBJECTS}?uploadType=media&name=a/b", content=b"hello").json()
    assert httpx2.get(made["mediaLink"]).content == b"hello"
    assert httpx2.get(made["selfLink"]).json() == made


def test_buckets_on_demand(tmp_path: Path) -> None:
    with EmulatorServer(tmp_path / "state", create_buckets=True) as server, httpx2.Client(base_url=server.url) as http:
        assert http.get("/storage/v1/b/acme").status_code == 404
        assert http.post(f"/upload{OBJECTS}?uploadType=media&name=x", content=b"1").status_code == 200
        assert http.put("/other-one/v1/x", content=b"2").status_code == 200
        assert [b["name"] for b in http.get("/storage/v1/b").json()["items"]] == ["acme", "other-one"]


def test_objects_outlive_their_server(tmp_path: Path) -> None:
    with EmulatorServer(tmp_path / "state", create_buckets=True) as server:
        made = httpx2.put(f"{server.url}/acme/x", content=b"kept").headers["x-goog-generation"]
    with EmulatorServer(tmp_path / "state") as server:
        found = httpx2.get(f"{server.url}/acme/x")
    assert (found.content, found.headers["x-goog-generation"]) == (b"kept", made)


def test_one_object_is_changed_once_in_its_pace(tmp_path: Path) -> None:
    with (
        EmulatorServer(tmp_path / "state", create_buckets=True, object_pace=1.0) as server,
        httpx2.Client(base_url=server.url) as http,
    ):
        upload = f"/upload{OBJECTS}?uploadType=media&name="
        assert http.post(upload + "head", content=b"1").status_code == 200
        refused = http.post(upload + "head", content=b"2")
        assert refused.status_code == 429
        assert refused.json()["error"]["errors"][0]["reason"] == "rateLimitExceeded"
        assert "<Code>SlowDown</Code>" in http.put("/acme/head", content=b"2").text
        assert http.delete(f"{OBJECTS}/head").status_code == 429
        assert http.post(upload + "head&ifGenerationMatch=0", content=b"2").status_code == 412, "it could never be"
        assert http.post(upload + "other", content=b"2").status_code == 200, "each object has a pace of its own"
        server.advance(1)
        assert http.post(upload + "head", content=b"3").status_code == 200
        server.advance(1)
        assert http.delete(f"{OBJECTS}/head").status_code == 204
