"""Raw results that stay in the bucket where Vertex AI wrote them: read there, range by range, and looked at first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tests_e2e_kit import Workspace

from batchform.adapters import vertex_objects
from batchform.adapters.storage.client import Stat, StorageClient
from batchform.emulator import EmulatorServer
from batchform.ledger.raw import StoredResults, open_lines
from batchform.ports import StoredFile
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import address

VERTEX: dict[str, Any] = {
    "type": "emulator", "cloud": "vertex", "job_seconds": 0, "poll": "10ms", "raw_results": "bucket",
}  # fmt: skip
SENT = {
    "max_output_tokens": 64,
    "response_schema": {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]},
}
LOOSE = {"schema": {"type": "object"}}
STRICT = {"schema": {"type": "object", "required": ["nothing has this"]}}


def faults(project: Workspace, *entries: dict[str, Any], **backend: Any) -> None:
    project.write("faults.yaml", yaml.safe_dump({"faults": list(entries)}))
    project.project(backends={"local": {**VERTEX, **backend, "faults": "faults.yaml"}})


@pytest.fixture
def project(workspace: Workspace) -> Workspace:
    workspace.project(backends={"local": VERTEX})
    workspace.spec(generation_config=SENT)
    return workspace


@pytest.fixture
def answered(project: Workspace) -> Workspace:
    project.apply()
    return project


@contextmanager
def bucket(project: Workspace) -> Iterator[StorageClient]:
    with EmulatorServer(project.root / ".batchform/emulator") as server:
        client = StorageClient(GoogleCloud(), endpoint=server.url)
        try:
            yield client
        finally:
            client.close()


def results(client: StorageClient) -> list[Stat]:
    return list(client.list(address("gs://batchform-staging/results/")))


def archived(project: Workspace) -> list[Path]:
    names = sorted((project.root / ".batchform/archive").iterdir())
    return [path for path in names if not path.name.endswith(".input.jsonl.zst")]


def delete(project: Workspace) -> None:
    with bucket(project) as client:
        for found in results(client):
            client.delete(found.at)


def replace(project: Workspace) -> None:
    """Other bytes under the same name."""
    with bucket(project) as client:
        for found in results(client):
            content, generation = client.read(found.at)
            client.write(found.at, content.replace(b"STOP", b"PTSO"), match=generation)


def write_again(project: Workspace) -> None:
    """The same bytes, in another generation."""
    with bucket(project) as client:
        for found in results(client):
            content, generation = client.read(found.at)
            client.write(found.at, content, match=generation)


def test_the_ledger_names_the_results_and_holds_no_copy(answered: Workspace) -> None:
    [path] = archived(answered)
    assert path.name.endswith(".stored.json")
    said = msgspec.json.decode(path.read_bytes())
    with bucket(answered) as client:
        [found] = results(client)
        assert said == {
            "backend": "local",
            "files": [
                {"uri": str(found.at), "generation": found.generation, "size": found.size, "crc32c": found.crc32c}
            ],
            "version": 1,
        }
    assert answered.actions() == {"keep": 6} and len(answered.billed()) == 6
    assert answered.ok("ledger", "verify").out == "The ledger holds together.\n"
    assert answered.ok("ledger", "verify", "--deep").code == 0
    assert "ticket 5" in answered.ok("results", "triage").out
    assert answered.ok("explain", "triage", "T-1").code == 0


def test_the_default_is_a_copy_and_both_live_in_one_ledger(answered: Workspace) -> None:
    answered.project(backends={"local": {**VERTEX, "raw_results": "ledger"}})
    answered.rows([answered.row(i) for i in range(1, 8)])
    answered.apply()
    assert sorted(path.name.partition(".")[2] for path in archived(answered)) == ["jsonl.gz", "stored.json"]
    answered.spec(generation_config=SENT, output=LOOSE)
    assert answered.actions() == {"reparse": 7}
    answered.apply()
    assert answered.actions() == {"keep": 7} and len(answered.billed()) == 7


def test_answers_are_read_anew_from_the_bucket_in_ranges(answered: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertex_objects, "_RANGE", 500)
    answered.spec(generation_config=SENT, output=LOOSE)
    assert answered.actions() == {"reparse": 6}
    answered.apply()
    assert answered.actions() == {"keep": 6} and len(answered.billed()) == 6
    assert all(row["response"]["label"] for row in answered.delivered())
    answered.spec(generation_config=SENT, output=LOOSE, destination={"type": "jsonl", "path": "results/other.jsonl"})
    assert answered.actions() == {"redeliver": 6}
    answered.apply()
    assert len((answered.root / "results/other.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("harm", [delete, replace, write_again])
def test_lost_results_are_known_before_anything_depends_on_them(
    answered: Workspace, harm: Callable[[Workspace], None]
) -> None:
    harm(answered)
    assert answered.actions() == {"keep": 6}, "nothing depends on them"
    verified = answered.ok("ledger", "verify").out
    gone = "is gone" if harm is delete else "was replaced since"
    assert "warning: The raw results of job bf-triage-" in verified and f"predictions.jsonl {gone}" in verified
    assert "Its answers are there; they cannot be parsed anew." in verified
    assert "gcloud storage restore gs://batchform-staging/results/bf-triage-" in verified
    answered.spec(generation_config=SENT, output=LOOSE)
    planned = answered.ok("plan")
    assert "6 rows cannot be read anew" in planned.out and answered.actions() == {"keep": 6}
    before = answered.delivered()
    answered.apply()
    assert len(answered.billed()) == 6 and answered.delivered() == before


@pytest.mark.parametrize("harm", [delete, replace])
def test_lost_answers_without_results_are_an_error_that_names_both(
    answered: Workspace, harm: Callable[[Workspace], None]
) -> None:
    harm(answered)
    [path] = (answered.root / ".batchform/answers").iterdir()
    path.unlink()
    verified = answered.run("ledger", "verify")
    assert verified.code == 1 and "Its answers are lost with it." in verified.out
    repaired = answered.run("ledger", "repair")
    assert repaired.code in (0, 1) and "Traceback" not in repaired.err
    read = answered.run("results", "triage")
    assert read.code == 1 and path.name in read.err


def test_damaged_answers_come_back_from_the_bucket(answered: Workspace) -> None:
    [path] = (answered.root / ".batchform/answers").iterdir()
    before = answered.delivered()
    sound = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes(len(sound)))
    (answered.root / "results/triage.jsonl").unlink()
    assert "mended" in answered.ok("ledger", "repair").out
    answered.ok("sync")
    assert answered.delivered() == before and len(answered.billed()) == 6
    assert answered.ok("ledger", "verify").out == "The ledger holds together.\n"


def test_a_saved_plan_that_reads_anew_finds_them_changed(answered: Workspace) -> None:
    answered.spec(generation_config=SENT, output=LOOSE)
    answered.ok("plan", "--out", "saved")
    replace(answered)
    done = answered.run("apply", "saved")
    assert done.code == 0 and "was replaced since" in done.out + done.err
    assert len(answered.billed()) == 6
    assert [row["response"]["label"] for row in answered.delivered()], "what was read stays"


def test_a_job_is_gone_on_with_from_results_that_stayed(project: Workspace) -> None:
    long = "a long text that is worth more than its answer " * 40
    project.spec(generation_config={"temperature": 0})
    project.rows([project.row(i, body=f"{long} {i}") for i in range(1, 11)])
    cut = {"call": "vertex.batches.create", "do": {"type": "ends", "state": "EXPIRED", "share": 0.3, "seconds": 0}}
    faults(project, cut, resume="auto")
    assert project.run("apply", "--yes").code == 6
    [shard] = project.plan()["shards"]
    assert shard["resumes"] is not None
    project.apply()
    assert len(project.billed()) == 10 == len(set(project.billed())) == len(project.delivered())
    assert [path.name.partition(".")[2] for path in archived(project)] == ["stored.json"] * 2
    with bucket(project) as client:
        assert len(results(client)) == 2, "cleaning up takes inputs, never results"
    assert project.ok("ledger", "verify").out == "The ledger holds together.\n"


@pytest.mark.parametrize("harm", [None, delete])
def test_a_run_that_was_killed_goes_on_from_what_it_recorded(
    project: Workspace, harm: Callable[[Workspace], None] | None
) -> None:
    """The results are recorded, the collection is not: as after a kill between the two."""
    project.ok("apply", "--yes", "--detach")
    ledger, before = project.root / ".batchform", project.root / "before"
    shutil.copytree(ledger, before)
    project.ok("sync", "--wait")
    for name in ("segments", "heads", "answers"):
        shutil.rmtree(ledger / name)
        if (before / name).exists():
            shutil.copytree(before / name, ledger / name)
    shutil.copy(before / "head.json", ledger / "head.json")
    if harm:
        harm(project)
    synced = project.run("sync")
    if harm:
        assert "were not found; they are looked for again" in synced.out + synced.err and "is gone" in synced.err
        assert project.actions() == {"in_flight": 6}
    else:
        assert project.actions() == {"keep": 6} and len(project.delivered()) == 6
    assert len(project.billed()) == 6


def test_tables_cannot_stay_and_the_gemini_api_has_no_bucket(workspace: Workspace) -> None:
    workspace.project(backends={"local": {**VERTEX, "via": "bigquery"}})
    refused = workspace.run("validate")
    assert refused.code == 1 and "`raw_results: bucket` needs `via: storage`" in refused.err + refused.out
    workspace.project(backends={"local": {"type": "emulator", "raw_results": "bucket"}})
    assert "`raw_results` is for `cloud: vertex`" in (refused := workspace.run("validate")).err + refused.out


def test_stored_results_are_read_as_one_file_in_bounded_pieces() -> None:
    """Lines across pieces and files, as many bytes at once as a piece has."""
    lines = [b"%d " % i + b"x" * (i % 700) + b"\n" for i in range(2_000)]
    whole = b"".join(lines)
    halves = {"gs://b/1": whole[:300_001], "gs://b/2": b"", "gs://b/3": whole[300_001:]}

    class Pieces:
        def files_of(self, *_: object, **__: object) -> tuple[StoredFile, ...]:
            return ()

        def problem(self, file: StoredFile) -> str:
            return "" if file.uri in halves else "is gone"

        def pieces(self, file: StoredFile) -> Iterator[bytes]:
            content = halves[file.uri]
            yield from (content[i : i + 1_000] for i in range(0, len(content), 1_000))

    files = tuple(StoredFile(uri, 1, len(content), "") for uri, content in halves.items())
    with open_lines(StoredResults(files, Pieces())) as read:
        assert list(read) == lines
    assert StoredResults(files, Pieces()).problem() == ""
