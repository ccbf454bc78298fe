"""Images as answers: files beside the destination, made again from the archive for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests_e2e_kit import Workspace

from batchform.emulator import EmulatorServer
from batchform.run.parse import decode_line
from batchform.run.pictures import pictures, read_images
from bucket_kit import Bucket

SPEC: dict[str, Any] = {
    "task": "image",
    "model": "gemini-3.1-flash-image",
    "generation_config": {"temperature": 1},
    "image": {"aspect_ratio": "16:9"},
}
VERTEX = {
    "local": {
        "type": "emulator", "cloud": "vertex", "project": "acme-support", "location": "us-central1",
        "staging": "gs://acme-batch/staging", "job_seconds": 0, "poll": "10ms",
    }
}  # fmt: skip


def files(workspace: Workspace, folder: str = "results/triage-images") -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (workspace.root / folder).glob("*.png")}


@pytest.mark.parametrize("cloud", ["gemini", "vertex"])
def test_images_become_files_and_rows_point_to_them(workspace: Workspace, cloud: str) -> None:
    if cloud == "vertex":
        workspace.project(backends=VERTEX)
    workspace.spec(**SPEC)
    assert workspace.actions() == {"run": 6}
    workspace.apply()
    made = files(workspace)
    assert len(made) == 6 and all(content.startswith(b"\x89PNG") for content in made.values())
    for row in workspace.delivered():
        content = (workspace.root / row["image_path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["image_sha256"] and len(content) == row["image_bytes"]
        assert row["image_mime_type"] == "image/png" and row["image_count"] == 1
        assert row["images"][0]["path"] == row["image_path"] and row["output_tokens"] > 1_000
    assert workspace.actions() == {"keep": 6} and len(workspace.billed()) == 6


def test_a_file_that_is_gone_is_made_again_for_nothing(workspace: Workspace) -> None:
    workspace.spec(**SPEC)
    workspace.apply()
    before, folder = files(workspace), workspace.root / "results/triage-images"
    lost = sorted(before)[0]
    (folder / lost).unlink()
    assert workspace.actions() == {"redeliver": 6}
    workspace.apply()
    assert files(workspace) == before and len(workspace.billed()) == 6
    workspace.spec(**{**SPEC, "image": {"aspect_ratio": "16:9", "folder": "results/elsewhere/"}})
    assert workspace.actions() == {"redeliver": 6}
    workspace.apply()
    assert files(workspace, "results/elsewhere") == before and len(workspace.billed()) == 6
    assert workspace.delivered()[0]["image_path"].startswith("results/elsewhere/")


def test_images_may_lie_in_a_bucket(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatorServer(tmp_path / "emulator", job_seconds=0) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        bucket = Bucket(server.url)
        try:
            there = f"gs://{bucket.name}/out"
            workspace.spec(**SPEC, destination={"type": "jsonl", "path": f"{there}/stamps.jsonl"})
            workspace.apply()
            names = [n for n in bucket.names("out/stamps-images/") if n.endswith(".png")]
            assert len(names) == 6
            rows = [json.loads(line) for line in bucket.get("out/stamps.jsonl").splitlines()]
            for row in rows:
                name = row["image_path"].removeprefix(f"gs://{bucket.name}/")
                content = bucket.get(name)
                assert hashlib.sha256(content).hexdigest() == row["image_sha256"]
                assert bucket.bucket.get_blob(name).content_type == "image/png"
            assert workspace.actions() == {"keep": 6}

            before = {name: bucket.generation(name) for name in names}
            bucket.bucket.blob(names[0]).delete()
            assert workspace.actions() == {"redeliver": 6}
            workspace.apply()
            after = {name: bucket.generation(name) for name in names}
            assert after.pop(names[0]) != before.pop(names[0]) and after == before  # only what was gone is written
            assert workspace.actions() == {"keep": 6}

            # Rows here, images there.
            workspace.spec(**{**SPEC, "image": {"aspect_ratio": "16:9", "folder": f"{there}/more/"}})
            workspace.apply()
            assert workspace.delivered()[0]["image_path"].startswith(f"{there}/more/")
            assert len(bucket.names("out/more/")) == 7 and len(workspace.billed()) == 6
        finally:
            bucket.client.close()


def test_jobs_of_images_are_small(workspace: Workspace) -> None:
    workspace.rows([workspace.row(i) for i in range(1, 151)])
    workspace.spec(**{**SPEC, "image": {"size": "2K"}})
    plan = workspace.plan()
    assert [shard["rows"] for shard in plan["shards"]] == [71, 71, 8]
    assert plan["tokens"]["output"]["expected"] == 150 * 1_680


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "gemini-3.5-flash-lite"}, "makes no images"),
        ({"submit": "auto"}, "too large for inline jobs"),
        ({"output": {"format": "json"}}, "`output` is about answers in text"),
        ({"generation_config": {"response_modalities": ["TEXT"]}}, "needs the modality IMAGE"),
        ({"image": {"folder": "../pictures"}}, "outside"),
        ({"image": {"folder": "gs://b//pictures"}}, "gs://b//pictures"),
        ({"destination": {"type": "bigquery", "table": "acme.shop.stamps"}}, "nothing says to which"),
        ({"task": "generate"}, "`image` is for `task: image`"),
    ],
)
def test_what_images_cannot_be_is_said_before(workspace: Workspace, change: dict[str, Any], words: str) -> None:
    workspace.spec(**{**SPEC, **change})
    refused = workspace.run("validate")
    assert refused.code == 1 and words in refused.out + refused.err


def line(*parts: dict[str, Any], finish: str = "STOP") -> dict[str, Any]:
    candidate = {"content": {"parts": list(parts)}, "finishReason": finish}
    return {"key": "k" + "ab" * 16, "response": {"candidates": [candidate]}}


def blob(data: str, mime: str = "image/jpeg") -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime, "data": data}}


def test_images_are_read_in_both_alphabets_and_numbered() -> None:
    content = b"\xff\xee?>\xfb"
    plain, url = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode().rstrip("=")
    reading = read_images(line({"text": "Here"}, blob(plain), blob(url)))
    assert reading.cls == "answered" and reading.text == "Here"
    first, second = json.loads(reading.response or "")
    assert first["file"] == f"{'ab' * 16}-1-{first['sha256'][:12]}.jpg" and second["file"].split("-")[1] == "2"
    assert first["sha256"] == second["sha256"] == hashlib.sha256(content).hexdigest()


def test_answers_without_an_image_are_no_answers() -> None:
    assert read_images(line({"text": "I cannot"})).cls == "empty"
    assert read_images(line(finish="NO_IMAGE")).cls == "empty"
    assert read_images(line(finish="IMAGE_SAFETY")).cls == "blocked"
    assert read_images(line(blob("*"))).cls == "invalid_output"
    assert read_images(line(blob(""))).cls == "invalid_output"
    assert read_images(line(blob("aaaa", "audio/wav"))).cls == "empty"
    thought = {**blob("aaaa"), "thought": True}
    assert read_images(line(thought)).cls == "empty"


def test_memory_is_that_of_a_line(tmp_path: Path) -> None:
    picture = base64.b64encode(bytes(3_000_000)).decode()
    path = tmp_path / "results.jsonl"
    with path.open("w") as out:
        for _ in range(12):
            out.write(json.dumps(line(blob(picture))) + "\n")
    del picture
    tracemalloc.start()
    with path.open("rb") as lines:
        found = sum(len(content) for each in lines for _, content in pictures(decode_line(each)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 36_000_000 and peak < 30_000_000
