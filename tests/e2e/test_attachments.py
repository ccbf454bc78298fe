"""Files that go with requests, through the command line: what is sent for them, and what is not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attached_kit import ROWS, asked, pdf, png, project, uploads, wav
from tests_e2e_kit import Workspace

from batchform.adapters import contents
from batchform.emulator import EmulatorServer
from bucket_kit import Bucket

LOCAL: dict[str, Any] = {"type": "emulator", "job_seconds": 0, "poll": "10ms"}
UPLOADED = {"path": "{{ image }}", "inline_up_to": 1}


def test_a_request_names_its_file_by_its_content(workspace: Workspace) -> None:
    project(workspace)

    shown = json.loads(workspace.ok("render", "triage", "--key", "b", "--json").out)["request"]

    digest = hashlib.sha256((workspace.root / "media/b.png").read_bytes()).hexdigest()
    assert shown["contents"][0]["parts"] == [
        {"fileData": {"fileUri": f"sha256:{digest}", "mimeType": "image/png"}},
        {"text": "What is in picture b?"},
    ]


def test_a_file_that_is_moved_or_touched_sends_nothing_and_one_that_changes_sends_its_rows(
    workspace: Workspace,
) -> None:
    project(workspace, UPLOADED)
    workspace.apply()
    assert workspace.actions() == {"keep": 3}

    os.utime(workspace.root / "media/a.png", ns=(1, 1))
    assert workspace.actions() == {"keep": 3}
    (workspace.root / "media/a.png").rename(workspace.root / "media/moved.png")
    workspace.rows([{**row, "image": row["image"].replace("a.png", "moved.png")} for row in ROWS])
    assert workspace.actions() == {"keep": 3}

    workspace.write("media/moved.png", png(colour=99))
    assert workspace.actions() == {"rerun": 2, "keep": 1}
    workspace.apply()
    assert workspace.actions() == {"keep": 3}


@pytest.mark.parametrize("how", ["uploaded", "inline"])
@pytest.mark.parametrize("cloud", ["gemini", "vertex", "vertex by tables"])
def test_what_runs_is_what_was_fingerprinted_however_it_travels(workspace: Workspace, cloud: str, how: str) -> None:
    """The emulator reads each file where the request says, and charges for what it holds."""
    at = {"cloud": "vertex", "via": "bigquery"} if cloud == "vertex by tables" else {"cloud": cloud}
    workspace.project(backends={"local": {**LOCAL, **at}})
    project(workspace, {"path": "{{ image }}", "inline_up_to": 1 if how == "uploaded" else "1M"})
    workspace.apply()

    assert len(workspace.billed()) == 3
    if cloud == "gemini" or how == "inline":
        assert set(workspace.billed()) == asked(workspace)
    assert {row["id"] for row in workspace.delivered()} == {"a", "b", "c"}
    assert workspace.actions() == {"keep": 3}


def test_a_file_is_uploaded_once_for_all_rows_and_runs(workspace: Workspace) -> None:
    project(workspace, UPLOADED)
    workspace.apply()
    first = uploads(workspace)
    assert len(first) == 2

    workspace.rows([*ROWS, {"id": "d", "image": "media/b.png"}])
    workspace.apply()

    assert uploads(workspace) == first
    assert len(workspace.billed()) == 4


def test_how_a_file_travels_sends_nothing_again(workspace: Workspace) -> None:
    project(workspace)  # inline, since it is small
    workspace.apply()
    assert uploads(workspace) == []

    project(workspace, UPLOADED)
    assert workspace.actions() == {"keep": 3}
    workspace.project(backends={"local": {**LOCAL, "cloud": "vertex"}})
    assert workspace.actions() == {"keep": 3}


def test_parts_stand_in_the_order_of_the_spec_before_and_after_the_text(workspace: Workspace) -> None:
    workspace.write("media/more-1.wav", wav())
    workspace.write("media/more-2.wav", wav(2.0))
    attachments = [{"pattern": "media/{{ id }}*-?.wav", "position": "after", "optional": True}, "{{ image }}"]
    project(workspace, *attachments, rows=[{"id": "more", "image": "media/a.png"}, {"id": "x", "image": "media/b.png"}])

    shown = [json.loads(line)["request"] for line in workspace.ok("render", "triage", "--all").out.splitlines()]

    kinds = [[p.get("fileData", {}).get("mimeType", "text") for p in r["contents"][0]["parts"]] for r in shown]
    assert kinds == [["image/png", "text", "audio/wav", "audio/wav"], ["image/png", "text"]]


def test_a_column_may_hold_a_list_and_an_optional_one_nothing(workspace: Workspace) -> None:
    project(workspace, {"column": "files", "optional": True})
    lines = [{"id": "a", "files": ["media/a.png", "media/b.png"]}, {"id": "b", "files": None}, {"id": "c", "files": []}]
    workspace.write("data/rows.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    prompt = {"user": {"text": "{{ id }}"}, "attachments": [{"column": "files", "optional": True}]}
    workspace.spec(prompt=prompt, source={"type": "jsonl", "path": "data/rows.jsonl"})

    shown = [json.loads(line)["request"] for line in workspace.ok("render", "triage", "--all").out.splitlines()]

    assert [len(r["contents"][0]["parts"]) for r in shown] == [3, 1, 1]
    workspace.apply()
    assert len(workspace.billed()) == 3


WRONG: dict[str, tuple[Any, str, str]] = {
    "absent": ("media/nothing.png", "{{ image }}", "There is no file media/nothing.png"),
    "empty cell": ("", "{{ image }}", "it has no file here, and the attachment is not optional"),
    "no match": ("media/x-", {"pattern": "{{ image }}*"}, "No file matches media/x-*"),
    "outside": ("../outside.png", "{{ image }}", "outside the project"),
    "unknown type": ("media/a.blob", "{{ image }}", "has an ending that says nothing of its type"),
    "no model takes it": ("media/a.zip", "{{ image }}", "is application/zip by its ending"),
    "nothing in it": ("media/empty.png", "{{ image }}", "media/empty.png is empty"),
    "private": ("https://127.0.0.1/a.png", "{{ image }}", "leads to 127.0.0.1, which is 127.0.0.1: no public address"),
    "other scheme": ("ftp://example.com/a.png", "{{ image }}", "is neither a path nor a gs:// or https:// address"),
    "no column": ("media/a.png", {"column": "picture"}, "has no column `picture`"),
    "too many pages": ("media/long.pdf", "{{ image }}", "media/long.pdf has 1,001 pages, and a PDF may have 1,000"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_go_with_a_row_is_refused_where_it_stands(workspace: Workspace, case: str) -> None:
    value, attachment, said = WRONG[case]
    project(workspace, attachment, rows=[{"id": "a", "image": "media/a.png"}, {"id": "b", "image": value}])
    for name, content in (("media/a.blob", b"x"), ("media/a.zip", b"x"), ("media/empty.png", b"")):
        workspace.write(name, content)
    (workspace.root.parent / "outside.png").write_bytes(png())
    if case == "too many pages":
        workspace.write("media/long.pdf", pdf(1001))

    found = workspace.run("plan")

    assert found.code == 1 and said in found.err
    assert "specs/triage.yaml:" in found.err
    if case != "no column":
        assert "data/tickets.csv:" in found.err
    assert not (workspace.root / ".batchform/head.json").exists()


def test_a_saved_plan_is_stale_when_a_file_changed(workspace: Workspace) -> None:
    project(workspace, UPLOADED)
    workspace.ok("plan", "--out", "saved")
    workspace.write("media/b.png", png(colour=77))

    found = workspace.run("apply", "saved", "--yes")

    assert found.code == 4 and "the source of triage, or a file that its rows name, changed" in found.err
    workspace.write("media/b.png", png(colour=20))
    workspace.ok("apply", "saved", "--yes")
    assert len(workspace.billed()) == 3


def test_what_was_uploaded_for_a_job_that_was_not_made_is_used_by_the_next(workspace: Workspace) -> None:
    refused = {"call": "batches.create", "do": {"type": "error", "status": 400}}
    workspace.write("faults.yaml", json.dumps({"faults": [refused]}))
    workspace.project(backends={"local": {**LOCAL, "faults": "faults.yaml"}})
    project(workspace, UPLOADED)
    assert workspace.run("apply", "--yes").code == 1
    before = uploads(workspace)
    assert len(before) == 2 and workspace.billed() == []

    workspace.apply()

    assert uploads(workspace) == before and len(workspace.billed()) == 3


def test_a_file_that_cannot_be_processed_stops_its_job(workspace: Workspace) -> None:
    failed = {"call": "files.get", "times": "all", "do": {"type": "file_state", "state": "FAILED"}}
    workspace.write("faults.yaml", json.dumps({"faults": [failed]}))
    workspace.project(backends={"local": {**LOCAL, "faults": "faults.yaml"}})
    project(workspace, UPLOADED)

    found = workspace.run("apply", "--yes")

    assert found.code == 1 and "The service cannot process" in found.err
    assert workspace.billed() == []


def test_rows_are_tried_with_their_files(workspace: Workspace) -> None:
    project(workspace, UPLOADED)

    found = workspace.ok("try", "triage", "--rows", "2", "--json")

    assert [json.loads(line)["class"] for line in found.out.splitlines()] == ["answered", "answered"]
    assert len(uploads(workspace)) == 2


def test_a_file_of_many_rows_is_read_once_and_not_at_all_when_it_is_known(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(workspace, rows=[{"id": str(n), "image": "media/a.png"} for n in range(50)])
    read: list[Path] = []
    true = contents.file_digest
    monkeypatch.setattr(contents, "file_digest", lambda path: read.append(path) or true(path))

    workspace.ok("plan")
    assert len(read) == 1
    os.utime(workspace.root / "media/a.png", (1, 1))  # as if it had been there for long
    workspace.ok("plan")
    workspace.ok("plan")
    assert len(read) == 2


def test_the_plan_counts_files_and_their_tokens(workspace: Workspace) -> None:
    project(workspace, UPLOADED)
    alone = workspace.plan()["tokens"]["input"]
    workspace.write("media/a.png", png(width=1000, height=700))

    plan = workspace.plan()

    assert plan["tokens"]["input"] - alone == 2 * 258  # two rows have it, and it has a tile more
    assert any(note.startswith("2 files of ") for note in plan["notes"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"task": "embed", "model": "gemini-embedding-001", "generation_config": {}},
            "`prompt.attachments` means nothing with `task: embed`",
        ),
        ({"request": {"contents": []}}, "`request.contents` replaces the turns that the attachments go with"),
        ({"attachments": [{"optional": True}]}, "an attachment has one of `path`, `pattern` and `column`"),
        ({"attachments": [{"pattern": "gs://acme/*.png"}]}, "is no pattern of files in the project"),
        ({"attachments": ["{{ image"]}, "specs/triage.yaml"),
    ],
)
def test_what_no_row_can_mend_is_refused_by_validate(workspace: Workspace, changes: dict[str, Any], said: str) -> None:
    project(workspace, *changes.pop("attachments", ["{{ image }}"]), **changes)

    found = workspace.run("validate")

    assert found.code == 1 and said in found.err and "specs/triage.yaml:" in found.err


@pytest.fixture
def bucket(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket at an emulator that is Vertex AI, too, and the project's backend."""
    with EmulatorServer(tmp_path / "emulator", job_seconds=0) as server, closing_bucket(server.url) as made:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        vertex = {**LOCAL, "cloud": "vertex", "url": server.url, "staging": f"gs://{made.name}/staging"}
        del vertex["job_seconds"]
        workspace.project(backends={"local": vertex})
        yield made


@contextmanager
def closing_bucket(url: str) -> Iterator[Bucket]:
    made = Bucket(url)
    try:
        yield made
    finally:
        made.client.close()


def test_objects_go_as_they_are_and_count_by_their_content(workspace: Workspace, bucket: Bucket) -> None:
    def rows(first: str) -> None:
        web = "https://example.com/a.png"
        project(workspace, rows=[{"id": "a", "image": first}, {"id": "b", "image": web}])

    bucket.put("cat.png", png(colour=3))
    rows(f"gs://{bucket.name}/cat.png")
    workspace.apply()
    assert workspace.actions() == {"keep": 2}
    assert not bucket.names("staging/attachments/")

    bucket.put("moved.png", png(colour=3))
    rows(f"gs://{bucket.name}/moved.png")
    assert workspace.actions() == {"keep": 2}
    bucket.put("moved.png", png(colour=4))
    assert workspace.actions() == {"rerun": 1, "keep": 1}
    rows(f"gs://{bucket.name}/nothing.png")
    assert f"There is no object gs://{bucket.name}/nothing.png" in workspace.run("plan").err
    assert workspace.run("validate").code == 0  # which looks nothing up


def test_a_kind_of_file_that_the_model_does_not_read_is_refused_by_name(workspace: Workspace) -> None:
    workspace.write("media/hum.wav", wav())
    named = [{"id": "a", "image": "media/a.png"}, {"id": "b", "image": "media/hum.wav"}]
    project(workspace, "{{ image }}", rows=named, model="gemini-3.1-flash-image")
    refused = workspace.run("plan")
    assert refused.code == 1
    assert (
        "1 row (`b`) would send what the model does not take at $.contents: audio/wav, and gemini-3.1-flash-image "
        "reads text and image [BF407 model-refuses]"
    ) in " ".join(refused.err.split())
    project(workspace, "{{ image }}", rows=named)
    assert workspace.plan()["rows_to_send"] == 2


def test_files_count_towards_what_a_model_reads(workspace: Workspace) -> None:
    """An image of 9,216 × 9,216 pixels has 144 tiles of 258 tokens."""
    workspace.write("prices.yaml", "models: {gemini-3.5-flash-lite: {max_input_tokens: 30000}}")
    workspace.project(prices="prices.yaml")
    workspace.write("media/large.png", png(9216, 9216))
    named = [{"id": "a", "image": "media/a.png"}, {"id": "b", "image": "media/large.png"}]
    project(workspace, "{{ image }}", rows=named)
    said = " ".join(workspace.ok("plan").out.split())
    assert "1 row (`b`) may send more than the 30,000 tokens that gemini-3.5-flash-lite takes; the first has" in said
    assert "and files of about 37,152 tokens" in said
    workspace.write("prices.yaml", "models: {gemini-3.5-flash-lite: {max_input_tokens: 3000}}")
    refused = workspace.run("plan")
    assert refused.code == 1
    assert "1 row (`b`) would send more than the 3,000 tokens" in " ".join(refused.err.split())
