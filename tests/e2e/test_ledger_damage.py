"""A damaged, lost or put-back ledger, as a user meets it: named, mended by one command, and never paid for twice."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests_e2e_kit import Workspace

HOLD = """
import fcntl, sys
from datetime import UTC, datetime
from pathlib import Path
from batchform.adapters.local_blobs import LocalBlobs
from batchform.ledger.store import Ledger

class Clock:
    def now(self): return datetime.now(UTC)
    def sleep(self, seconds): pass

root = Path(sys.argv[1])
with Ledger.open(LocalBlobs(root), clock=Clock(), who="bob@ci").lease(300), (root / ".lock").open("r+") as lock:
    if sys.argv[2] == "all":
        fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_at_work(workspace: Workspace, what: str = "lease") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease, or all that there is to hold."""
    command = [sys.executable, "-c", HOLD, str(workspace.root / ".batchform"), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def head(workspace: Workspace) -> Path:
    return workspace.root / ".batchform/head.json"


@pytest.mark.parametrize("loss", ["gone", "torn", "empty"])
def test_a_lost_head_is_mended_by_one_command(workspace: Workspace, loss: str) -> None:
    workspace.apply()
    sound = head(workspace).read_bytes()
    head(workspace).unlink()
    if loss != "gone":
        head(workspace).write_bytes(sound[:200] if loss == "torn" else b"")
    for command in (("status",), ("plan",), ("apply", "--yes"), ("sync",), ("jobs", "list"), ("ledger", "compact")):
        refused = workspace.run(*command)
        assert (refused.code, "head.json" in refused.err, "batchform ledger repair" in refused.err) == (1, True, True)
        assert "internal error" not in refused.err
    (found,) = json.loads(workspace.run("ledger", "verify", "--deep", "--json").out)["findings"]
    assert (found["file"], found["repair"]) == ("head.json", "batchform ledger repair")
    assert "would be mended: head.json" in workspace.ok("ledger", "repair", "--dry-run").out
    assert "mended: head.json" in workspace.ok("ledger", "repair").out
    assert head(workspace).read_bytes() == sound
    assert workspace.ok("ledger", "verify", "--deep").out == "The ledger holds together.\n"
    assert workspace.ok("ledger", "repair").out == "Nothing to mend.\n"
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


def test_a_head_that_was_put_back_pays_for_nothing_twice(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1)])
    workspace.apply()
    old = head(workspace).read_bytes()
    workspace.rows([workspace.row(i) for i in range(1, 7)])
    workspace.apply()
    head(workspace).write_bytes(old)
    for command in (("plan",), ("apply", "--yes"), ("sync",)):
        refused = workspace.run(*command)
        assert (refused.code, "went back" in refused.err, "batchform ledger repair" in refused.err) == (1, True, True)
    workspace.ok("ledger", "repair")
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


def test_a_backup_of_the_whole_folder_is_found_out_by_what_lies_outside(workspace: Workspace) -> None:
    """The ledger alone cannot know: it is whole. The service has jobs that it does not, and says so."""
    workspace.rows([workspace.row(1)])
    workspace.apply()
    ledger, backup = workspace.root / ".batchform", workspace.root / "backup"
    shutil.copytree(ledger, backup, ignore=shutil.ignore_patterns("emulator"))
    workspace.rows([workspace.row(i) for i in range(1, 7)])
    workspace.apply()
    for name in ("head.json", "heads", "segments", "archive", "answers"):
        target = ledger / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
        source = backup / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    shallow = workspace.run("ledger", "verify")
    assert (shallow.code, "holds 5 rows that the ledger does not know" in shallow.out) == (1, True)
    deep = workspace.run("ledger", "verify", "--deep")
    assert "error: This ledger sent bf-triage-" in deep.out
    assert "(SUCCEEDED), and does not know it." in deep.out
    assert "until then apply nothing" in deep.out
    assert (deep.code, "holds 5 rows that the ledger does not know" in deep.out) == (1, True)
    rows = [workspace.row(i) for i in range(1, 7)]
    workspace.rows([*rows, workspace.row(7)])
    refused = workspace.run("apply", "--yes")
    assert (refused.code, "is an older copy of itself" in refused.err, len(workspace.billed())) == (8, True, 6)
    workspace.rows(rows)
    workspace.ok("apply", "--yes")  # the very rows that were sent: their job is taken over
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)
    workspace.ok("ledger", "verify", "--deep")


def test_a_job_that_an_older_copy_forgot_can_be_given_up(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1)])
    workspace.apply()
    ledger = workspace.root / ".batchform"
    shutil.copytree(ledger, workspace.root / "backup", ignore=shutil.ignore_patterns("emulator"))
    workspace.rows([workspace.row(i) for i in range(1, 3)])
    workspace.apply()
    shutil.move(ledger / "emulator", workspace.root / "backup/emulator")
    shutil.rmtree(ledger)
    shutil.move(workspace.root / "backup", ledger)
    shutil.rmtree(workspace.root / "results")
    workspace.rows([workspace.row(i) for i in range(1, 4)])
    named = re.search(r"batches/\w+", workspace.run("apply", "--yes").err)
    assert named is not None and len(workspace.billed()) == 2
    assert workspace.run("jobs", "disown", named[0]).code == 64  # nobody was asked
    workspace.ok("jobs", "disown", "--yes", named[0])
    assert len(workspace.apply().json["created"]) == 1 and len(workspace.billed()) == 4
    workspace.ok("ledger", "verify", "--deep")


def test_a_segment_comes_back_from_a_backup(workspace: Workspace) -> None:
    workspace.apply()
    shutil.copytree(workspace.root / ".batchform", workspace.root / "backup")
    for path in (workspace.root / ".batchform/segments").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    (archive,) = (workspace.root / ".batchform/archive").glob("*.jsonl.gz")
    archive.write_bytes(b"")
    refused = workspace.run("plan")
    assert (refused.code, "is truncated" in refused.err) == (1, True)
    found = json.loads(workspace.run("ledger", "verify", "--json").out)["findings"]
    assert {f["repair"] for f in found} == {"batchform ledger repair --from BACKUP"}
    assert workspace.run("ledger", "repair").code == 1
    assert workspace.run("ledger", "repair", "--from", "nowhere").code == 64
    workspace.ok("ledger", "repair", "--from", str(workspace.root / "backup"))
    assert workspace.ok("ledger", "verify").out == "The ledger holds together.\n"
    assert workspace.actions() == {"keep": 6}


# --- destinations ------------------------------------------------------------------------------------------------


def lines(workspace: Workspace, change: str) -> None:
    path = workspace.root / "results/triage.jsonl"
    held = path.read_text().splitlines(keepends=True)
    if change == "gone":
        path.unlink()
    else:
        path.write_text("".join({"lacks": held[1:], "strange": [*held, held[0].replace("T-1", "T-99")]}[change]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("gone", "results/triage.jsonl is gone"),
        ("lacks", "lacks 1 row that were delivered"),
        ("strange", "holds 1 row that the ledger does not know"),
    ],
)
def test_a_destination_that_disagrees(workspace: Workspace, change: str, says: str) -> None:
    workspace.apply()
    workspace.ok("ledger", "verify")
    lines(workspace, change)
    found = workspace.run("ledger", "verify")
    assert (found.code, says in found.out) == (1, True), found.out
    if change != "gone":
        (workspace.root / "results/triage.jsonl").unlink()
    workspace.ok("sync")
    workspace.ok("ledger", "verify")
    assert len(workspace.billed()) == 6


@pytest.mark.parametrize(
    "destination",
    [
        {"type": "csv", "path": "results/t.csv"},
        {"type": "parquet", "path": "results/t.parquet"},
        {"type": "jsonl", "path": "results/parts/"},
        {"type": "sqlite", "path": "results/t.sqlite", "table": "t"},
        {"type": "duckdb", "path": "results/t.duckdb", "table": "t"},
    ],
    ids=lambda d: f"{d['type']}{'-parts' if d['path'].endswith('/') else ''}",
)
def test_every_destination_can_be_compared(workspace: Workspace, destination: dict[str, str]) -> None:
    workspace.rows([workspace.row(i, id=f"00{i}") for i in range(1, 4)])
    workspace.spec(destination=destination)
    workspace.apply()
    workspace.rows([workspace.row(i, id=f"00{i}", body="new" if i == 2 else "old") for i in range(1, 5)])
    workspace.apply()
    assert workspace.ok("ledger", "verify", "--deep").out == "The ledger holds together.\n"
    if destination["type"] == "sqlite":
        with sqlite3.connect(workspace.root / "results/t.sqlite") as con:
            con.execute("DELETE FROM t WHERE id = '002'")
        con.close()
        assert "lacks 1 row" in workspace.run("ledger", "verify", "--deep").out


# --- two writers -------------------------------------------------------------------------------------------------


def test_the_second_writer_stops_and_says_who_is_at_work(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1)])
    workspace.apply()
    workspace.rows([workspace.row(i) for i in range(1, 4)])
    with another_at_work(workspace) as process:
        refused = workspace.run("apply", "--yes")
        assert refused.code == 5
        assert (
            f"bob@ci (process {process.pid} on " in refused.err
            and "has been at work on .batchform since " in refused.err
        )
        assert len(workspace.billed()) == 1
    workspace.apply()  # that process was killed: its lease is taken over
    assert len(workspace.billed()) == 3


def test_a_dead_holders_lease_is_taken_over_with_a_note(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1)])
    workspace.apply()
    workspace.rows([workspace.row(i) for i in range(1, 4)])
    with another_at_work(workspace) as process:
        pass
    done = workspace.ok("apply", "--yes")
    assert "Took over the lease of bob@ci since " in done.out + done.err
    assert f"process {process.pid} is gone" in done.out + done.err


def test_readers_wait_for_nobody(workspace: Workspace) -> None:
    workspace.apply()
    with another_at_work(workspace, "all"):
        for command in (
            ("status",), ("plan",), ("jobs", "list"), ("results", "triage"), ("explain", "triage", "T-1"),
            ("ledger", "list"), ("ledger", "verify"), ("ledger", "verify", "--deep"), ("ledger", "repair", "--dry-run"),
        ):  # fmt: skip
            assert workspace.run(*command).code == 0, command


def test_two_applies_at_once_pay_once(workspace: Workspace) -> None:
    """Both plan on the same ledger; whoever comes second stops, or finds nothing left to send."""
    workspace.ok("plan")
    command = [sys.executable, "-m", "batchform", "apply", "--yes"]
    both = [
        subprocess.Popen(command, cwd=workspace.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in both]
    assert {code for _, _, code in ended} <= {0, 4, 5}, ended
    assert 0 in {code for _, _, code in ended}, ended
    assert "Traceback" not in "".join(err for _, err, _ in ended)
    workspace.apply()
    assert (len(workspace.billed()), len(set(workspace.billed()))) == (6, 6)
    assert (workspace.actions(), len(workspace.delivered())) == ({"keep": 6}, 6)
    workspace.ok("ledger", "verify", "--deep")
