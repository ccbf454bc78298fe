"""Projects whose ledger, source and destination lie in Cloud Storage, through the command line, over real sockets."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_e2e_kit import Workspace

from bucket_kit import Bucket


@pytest.fixture
def remote(workspace: Workspace, bucket: Bucket) -> Workspace:
    """The kit's project with everything but its own files in a bucket: two files of rows, no answers yet."""
    workspace.project(ledger=bucket.uri("ledger"))
    workspace.spec(
        source={"type": "csv", "path": bucket.uri("data/*.csv")},
        destination={"type": "jsonl", "path": bucket.uri("out/triage.jsonl")},
    )
    put_rows(bucket, "data/a.csv", 1, 2, 3)
    put_rows(bucket, "data/b.csv", 4, 5)
    shutil.rmtree(workspace.root / "data")
    return workspace


def put_rows(bucket: Bucket, name: str, *numbers: int, **changes: str) -> None:
    out = io.StringIO()
    rows = [Workspace.row(n, **changes) for n in numbers]
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    bucket.put(name, out.getvalue().encode())


@pytest.fixture
def calls(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Requests that Google's client sends, as `GET /path`, from when the list was last emptied."""
    seen: list[str] = []

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if found := re.search(r'"([A-Z]+) (\S+) HTTP', record.getMessage()):
                seen.append(f"{found[1]} {found[2]}")

    log = logging.getLogger("urllib3.connectionpool")
    handler = Listen()
    with caplog.at_level(logging.DEBUG, log.name):
        log.addHandler(handler)
        yield seen
        log.removeHandler(handler)


def answers(bucket: Bucket, name: str = "out/triage.jsonl") -> list[str]:
    return [json.loads(line)["id"] for line in bucket.get(name).splitlines()]


def test_the_whole_story(remote: Workspace, bucket: Bucket, calls: list[str]) -> None:
    assert remote.actions() == {"run": 5}
    assert {call.partition(" ")[0] for call in calls} == {"GET"}, "planning only reads"
    assert bucket.names() == ["data/a.csv", "data/b.csv"]
    remote.apply()
    assert answers(bucket) == ["T-1", "T-2", "T-3", "T-4", "T-5"]
    calls.clear()
    assert remote.actions() == {"keep": 5}
    assert {call.partition(" ")[0] for call in calls} == {"GET"}
    assert not [c for c in calls if "alt=media" in c and ("data%2F" in c or "segments%2F" in c)], (
        "all that was read before"
    )
    put_rows(bucket, "data/b.csv", 4, 6)
    assert remote.actions() == {"run": 1, "keep": 4, "forget": 1}
    remote.apply()
    assert answers(bucket) == ["T-1", "T-2", "T-3", "T-4", "T-5", "T-6"]
    assert len(remote.billed()) == 6
    assert remote.ok("ledger", "verify", "--json").json["ok"]


def test_nothing_local_is_needed(remote: Workspace) -> None:
    """Another machine has the project's files and the bucket, and knows all."""
    remote.apply()
    for name in ("cache", "tmp"):
        shutil.rmtree(remote.root / ".batchform" / name, ignore_errors=True)
    assert remote.actions() == {"keep": 5}
    assert remote.ok("status").code == 0
    found = remote.ok("results", "triage", "--json").out
    assert "T-5" in found


def test_commands_of_the_ledger(remote: Workspace, bucket: Bucket, tmp_path: Path) -> None:
    remote.apply()
    put_rows(bucket, "data/c.csv", 7)
    remote.apply()
    assert "serial" in remote.ok("ledger", "list").out
    remote.ok("ledger", "export", str(tmp_path / "exported"), "--format", "csv")
    assert "T-7" in (tmp_path / "exported" / "rows.csv").read_text()
    assert "Folded" in remote.ok("ledger", "compact", "--keep", "0s").out
    assert remote.actions() == {"keep": 6}
    bucket.bucket.blob("ledger/head.json").delete()
    assert remote.run("plan").code == 1
    assert "head.json is" in remote.ok("ledger", "repair").out
    assert remote.actions() == {"keep": 6}
    assert remote.ok("ledger", "verify", "--json").json["ok"]


def test_a_plan_saved_in_a_bucket_is_shown_and_applied(remote: Workspace, bucket: Bucket) -> None:
    place = bucket.uri("plans/1")
    said = remote.ok("plan", "--out", place).out
    assert f"batchform apply {place}" in said
    assert ".unfinished" not in " ".join(bucket.names("plans/"))
    recorded = json.loads(bucket.get("plans/1/bundle.json"))["plan"]["specs"][0]["source_versions"]
    assert recorded == [f"{bucket.uri(n)}#{bucket.generation(n)}" for n in ("data/a.csv", "data/b.csv")]
    assert "triage" in remote.ok("show", place).out
    shutil.rmtree(remote.root / ".batchform")  # as on another machine
    remote.ok("apply", place)
    assert len(answers(bucket)) == 5
    again = remote.run("apply", place)
    assert again.code == 4
    assert "the ledger moved" in again.err


def test_a_plan_is_stale_when_an_object_was_replaced(remote: Workspace, bucket: Bucket, calls: list[str]) -> None:
    place = bucket.uri("plans/1")
    remote.ok("plan", "--out", place)
    put_rows(bucket, "data/b.csv", 4, 5)  # the very same bytes, in another generation
    calls.clear()
    stale = remote.run("apply", place)
    assert stale.code == 4
    assert "the source of triage changed" in stale.err
    assert not [c for c in calls if "alt=media" in c and "data%2F" in c], "a listing tells"
    remote.ok("plan", "--out", place)
    remote.ok("apply", place)
    assert len(answers(bucket)) == 5


def test_places_of_plans_that_are_none(remote: Workspace, bucket: Bucket) -> None:
    taken = remote.run("plan", "--out", bucket.uri("data"))
    assert (taken.code, "is not empty and holds no saved plan" in taken.err) == (64, True)
    assert remote.run("plan", "--out", bucket.uri()).code == 64
    none = remote.run("apply", bucket.uri("plans/none"))
    assert (none.code, "holds no saved plan" in none.err) == (64, True)
    remote.ok("plan", "--out", bucket.uri("plans/1"))
    bucket.put("plans/1/specs/triage/shard-0000.jsonl", b"{}\n")
    changed = remote.run("apply", bucket.uri("plans/1"))
    assert changed.code == 4
    assert bucket.uri("plans/1/specs/triage/shard-0000.jsonl") in changed.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": {"type": "csv", "path": "gs://{bucket}/data/x*.csv"}}, "No object matches"),
        ({"source": {"type": "csv", "path": "gs://{bucket}/data/c.csv"}}, "there is b.csv, a.csv"),
        ({"source": {"type": "csv", "path": "gs://no-such-{bucket}/a.csv"}}, "There is no bucket"),
        ({"source": {"type": "csv", "path": "gs://{bucket}/data/"}}, "is a folder"),
        ({"source": {"type": "csv", "path": "gs://{bucket}/data/bad.csv"}}, "gs://{bucket}/data/bad.csv:3"),
    ],
)
def test_what_cannot_be_read_is_named_as_the_user_does(
    remote: Workspace, bucket: Bucket, change: dict[str, dict[str, str]], said: str
) -> None:
    bucket.put("data/bad.csv", b"id,title,body\nT-1,a,b\nT-2,a,b,c\n")
    source = {name: value.format(bucket=bucket.name) for name, value in change["source"].items()}
    remote.spec(source=source)
    found = remote.run("plan")
    assert found.code == 1
    assert said.format(bucket=bucket.name) in found.err
    assert "cache" not in found.err


def test_nobody_listens(remote: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    found = remote.run("plan")
    assert found.code == 1
    assert "there is no connection to the service" in found.err
    assert "STORAGE_EMULATOR_HOST" in found.err


READING = (
    *(["plan"], ["status"], ["explain", "triage", "T-1"], ["results", "triage"], ["jobs", "list"]),
    *(["ledger", "list"], ["ledger", "verify", "--deep"], ["ledger", "export", "exported"]),
)


def test_commands_that_only_read_ask_for_nothing_else(remote: Workspace, calls: list[str]) -> None:
    """`roles/storage.objectViewer` is enough: objects are read and listed, the bucket itself is not touched."""
    remote.apply()
    for command in READING:
        calls.clear()
        remote.ok(*command)
        assert calls, command
        assert {call.partition(" ")[0] for call in calls} == {"GET"}, command
        assert not [c for c in calls if re.fullmatch(r"GET /storage/v1/b/[^/]+", c.partition("?")[0])], command


def test_a_ledger_moves_there_and_back_by_copying_its_files(applied: Workspace, bucket: Bucket) -> None:
    folder = applied.root / ".batchform"
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith((".lock", ".tmp/", "tmp-", "cache/", "emulator/")):
            bucket.put(f"ledger/{name}", path.read_bytes())
    applied.project(ledger=bucket.uri("ledger"))
    applied.rows([applied.row(n) for n in range(1, 8)])
    assert applied.actions() == {"keep": 6, "run": 1}
    applied.apply()
    for name in bucket.names("ledger/"):
        target = applied.root / "moved" / name.removeprefix("ledger/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bucket.get(name))
    applied.project(ledger="moved")
    assert applied.actions() == {"keep": 7}
    assert len(applied.billed()) == 7


def test_part_folders_and_files_as_rows(remote: Workspace, bucket: Bucket) -> None:
    bucket.put("docs/a.txt", b"first text")
    bucket.put("docs/deep/b.txt", b"second text")
    remote.write("templates/triage.j2", "{{ path }}: {{ text }}\n")
    remote.spec(
        source={"type": "files", "path": bucket.uri("docs/**/*.txt")},
        destination={"type": "csv", "path": bucket.uri("out/")},
        idempotency={"key": ["path"]},
    )
    remote.apply()
    assert len(bucket.names("out/part-")) == 1
    bucket.put("docs/c.txt", b"third text")
    remote.apply()
    first, second = (bucket.get(name).decode() for name in bucket.names("out/part-"))
    assert first.count("\n") == 3
    assert bucket.uri("docs/c.txt") in second
    assert remote.ok("ledger", "verify", "--json").json["ok"]
    bucket.bucket.blob(bucket.names("out/part-")[0]).delete()
    assert remote.actions() == {"redeliver": 3}
    remote.apply()
    assert len(bucket.names("out/part-")) == 1


def test_a_ledger_is_repaired_from_a_backup_in_a_bucket(remote: Workspace, bucket: Bucket) -> None:
    remote.apply()
    for name in bucket.names("ledger/"):
        bucket.put(name.replace("ledger/", "backup/", 1), bucket.get(name))
    lost = next(n for n in bucket.names("ledger/segments/") if "rows-" in n)
    bucket.put(lost, b"spoiled")
    found = remote.run("ledger", "verify")
    assert (found.code, lost.removeprefix("ledger/") in found.out) == (1, True)
    assert "taken from the backup" in remote.ok("ledger", "repair", "--from", bucket.uri("backup")).out
    assert remote.actions() == {"keep": 5}
    assert bucket.names("ledger/damaged/")
