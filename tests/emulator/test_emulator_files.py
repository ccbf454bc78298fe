from __future__ import annotations

import base64
import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from emulator_kit import MODEL, Batches, request_of
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer
from batchform.emulator.files import MAX_BYTES

HOURS = 3600


def put(client: genai.Client, content: bytes = b"x", **config: str) -> object:
    return client.files.upload(file=io.BytesIO(content), config={"mime_type": "jsonl", **config})


def test_an_upload_is_described_as_the_service_does(client: genai.Client) -> None:
    content = b'{"key":"k"}\n'
    file = put(client, content, display_name="my input", name="abc-123")
    assert (file.name, file.display_name, file.size_bytes) == ("files/abc-123", "my input", len(content))
    assert base64.b64decode(file.sha256_hash).decode() == hashlib.sha256(content).hexdigest()
    assert (file.expiration_time - file.create_time).total_seconds() == 48 * HOURS
    assert file.state == "ACTIVE"
    assert client.files.get(name="abc-123") == file


def test_a_large_upload_comes_in_chunks(client: genai.Client, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(16 * 1024**2 + 5)
    path = tmp_path / "large.jsonl"
    path.write_bytes(content)
    file = client.files.upload(file=path, config={"mime_type": "jsonl"})
    assert file.size_bytes == len(content)
    assert base64.b64decode(file.sha256_hash).decode() == hashlib.sha256(content).hexdigest()


def test_an_empty_upload_is_a_file(client: genai.Client) -> None:
    assert client.files.get(name=put(client, b"").name).size_bytes in (0, None)


def test_files_are_listed_newest_first_in_pages(client: genai.Client) -> None:
    names = [put(client, name=f"file-{i}").name for i in range(5)]
    assert [f.name for f in client.files.list(config={"page_size": 2})] == names[::-1]


def test_a_missing_file_is_forbidden(client: genai.Client) -> None:
    for call in (client.files.get, client.files.delete):
        with pytest.raises(errors.ClientError, match="permission to access the File nope or it may not exist") as e:
            call(name="nope")
        assert (e.value.code, e.value.status) == (403, "PERMISSION_DENIED")


def test_a_deleted_file_is_gone_and_its_name_is_free(client: genai.Client) -> None:
    put(client, name="abc")
    client.files.delete(name="abc")
    with pytest.raises(errors.ClientError, match="permission"):
        client.files.get(name="abc")
    put(client, name="abc")


def test_a_chosen_name_is_taken_once(client: genai.Client) -> None:
    put(client, name="abc")
    with pytest.raises(errors.ClientError) as e:
        put(client, name="abc")
    assert (e.value.code, e.value.status) == (409, "ALREADY_EXISTS")


@pytest.mark.parametrize("name", ["A-b", "-ab", "ab-", "a_b", "a" * 41])
def test_a_chosen_name_must_be_well_formed(client: genai.Client, name: str) -> None:
    with pytest.raises(errors.ClientError) as e:
        put(client, name=name)
    assert e.value.code == 400


def test_a_display_name_is_limited(client: genai.Client) -> None:
    put(client, display_name="d" * 512)
    with pytest.raises(errors.ClientError, match="512"):
        put(client, display_name="d" * 513)


def test_an_upload_expires_after_48_hours(client: genai.Client, server: EmulatorServer) -> None:
    file = put(client, name="abc")
    server.advance(48 * HOURS - 1)
    assert client.files.get(name=file.name).name == file.name
    server.advance(1)
    with pytest.raises(errors.ClientError, match="may not exist"):
        client.files.get(name=file.name)
    assert list(client.files.list()) == []
    put(client, name="abc")


def test_files_belong_to_their_key(
    client: genai.Client, server: EmulatorServer, connect: Callable[..., genai.Client]
) -> None:
    put(client, name="abc")
    other = connect(server.url, "another-key")
    with pytest.raises(errors.ClientError, match="permission"):
        other.files.get(name="abc")
    assert list(other.files.list()) == []
    put(other, name="abc")


def test_result_files_have_42_characters_and_can_only_be_downloaded(batches: Batches, raw: httpx2.Client) -> None:
    job = batches.create({"k": request_of("hello")})
    batches.server.advance(100)
    name = batches.client.batches.get(name=job.name).dest.file_name
    assert len(name.removeprefix("files/")) == 42
    for call in (batches.client.files.get, batches.client.files.delete):
        with pytest.raises(errors.ClientError, match="File ID cannot be more than 40 characters") as e:
            call(name=name)
        assert e.value.code == 400
    through_sdk = batches.client.files.download(file=name)
    for path in (f"/v1beta/{name}:download", f"/download/v1beta/{name}:download"):
        answer = raw.get(path, params={"alt": "media"})
        assert answer.content == through_sdk
        assert answer.headers["content-length"] == str(len(through_sdk))


def test_results_are_kept_for_six_weeks(batches: Batches) -> None:
    job = batches.create({"k": request_of("hello")})
    batches.server.advance(100)
    name = batches.client.batches.get(name=job.name).dest.file_name
    batches.server.advance(42 * 24 * HOURS - 1)
    batches.client.files.download(file=name)
    batches.server.advance(1)
    with pytest.raises(errors.ClientError, match="may not exist"):
        batches.client.files.download(file=name)


def test_an_uploaded_file_cannot_be_downloaded(client: genai.Client) -> None:
    file = put(client)
    with pytest.raises(errors.ClientError, match="only generated files"):
        client.files.download(file=file.name)


def test_the_upload_url_is_on_the_host_and_prefix_that_was_called(raw: httpx2.Client) -> None:
    headers = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start", "host": "gateway.test:81"}
    answer = raw.post("/proxy/upload/v1beta/files", headers=headers, json={"file": {}})
    assert answer.headers["x-goog-upload-url"].startswith("http://gateway.test:81/proxy/upload/v1beta/files?upload_id=")


@pytest.fixture
def session(raw: httpx2.Client) -> str:
    headers = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}
    answer = raw.post("/upload/v1/files", headers=headers, json={"file": {"name": "files/by-hand"}})
    return answer.headers["x-goog-upload-url"]


def test_an_upload_can_be_asked_how_far_it_got_and_resumed(raw: httpx2.Client, session: str) -> None:
    raw.post(session, headers={"x-goog-upload-command": "upload", "x-goog-upload-offset": "0"}, content=b"hello")
    answer = raw.post(session, headers={"x-goog-upload-command": "query"})
    assert answer.headers["x-goog-upload-size-received"] == "5"
    headers = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "4"}
    answer = raw.post(session, headers=headers, content=b"O!")
    assert answer.headers["x-goog-upload-status"] == "final"
    assert answer.json()["file"]["sizeBytes"] == "6"
    assert raw.post(session, headers=headers, content=b"O!").status_code == 404


def test_a_hole_in_an_upload_is_refused(raw: httpx2.Client, session: str) -> None:
    headers = {"x-goog-upload-command": "upload", "x-goog-upload-offset": "7"}
    answer = raw.post(session, headers=headers, content=b"hello")
    assert answer.status_code == 400
    assert "0 bytes were received" in answer.json()["error"]["message"]


def test_more_than_two_gigabytes_are_refused_at_the_start(raw: httpx2.Client) -> None:
    headers = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}
    for size, status in ((MAX_BYTES, 200), (MAX_BYTES + 1, 400)):
        headers["x-goog-upload-header-content-length"] = str(size)
        assert raw.post("/upload/v1/files", headers=headers).status_code == status


def test_a_request_sees_its_files_as_they_are_when_it_runs(batches: Batches) -> None:
    media = put(batches.client, b"pixels", name="picture")

    def asks(uri: str) -> dict[str, object]:
        return {"contents": [{"parts": [{"text": "look"}, {"fileData": {"fileUri": uri, "mimeType": "image/png"}}]}]}

    requests = {"here": asks(media.uri), "gone": asks("files/nope"), "web": asks("https://example.com/a.png")}
    lines = {line["key"]: line for line in batches.run(requests)}
    assert lines["gone"]["error"] == {
        "code": 7,
        "message": "You do not have permission to access the File nope or it may not exist.",
    }
    assert "response" in lines["here"]
    assert "response" in lines["web"]
    batches.client.files.delete(name=media.name)
    with pytest.raises(errors.ClientError, match="File picture"):
        batches.client.models.generate_content(
            model=MODEL, contents="x", config={"http_options": {"extra_body": requests["here"]}}
        )
