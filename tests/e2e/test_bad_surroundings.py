"""What can fail around a run: destination, ledger, key, disk, another apply. One clear error each, nothing touched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bad_input_kit import Break, both, refused, spec, write
from tests_e2e_kit import Result, Workspace

from batchform.emulator import EmulatorServer


def edited(w: Workspace) -> None:
    """Six rows to pay for."""
    w.rows([w.row(i, body="edited") for i in range(1, 7)])


def untouched(project: Workspace, *says: str, plans: str = "yes", code: int = 1) -> None:
    """`apply` refuses before anything is recorded or paid for; so does `plan`, unless it can plan all the same."""
    before, billed = project.snapshot(), project.billed()
    found = project.run("plan")
    if plans == "yes":
        assert found.code == 0, found.err
    else:
        refused(found, *says, code=code)
    refused(project.run("apply", "--yes"), *says, code=code)
    assert (project.snapshot(), project.billed()) == (before, billed)


# --- destinations ---------------------------------------------------------------------------------------------------


def foreign_file(w: Workspace) -> None:
    w.write("results/mine.csv", "name,year\nAda,1815\n")
    w.spec(destination={"type": "csv", "path": "results/mine.csv"})


def folder_in_its_place(w: Workspace) -> None:
    (w.root / "results/triage.jsonl").unlink()
    (w.root / "results/triage.jsonl").mkdir()


def foreign_table(w: Workspace) -> None:
    with contextlib.closing(sqlite3.connect(w.root / "results/x.db")) as con:
        con.execute("CREATE TABLE t (a)")
        con.commit()


def to(**destination: Any) -> Break:
    return spec(destination=destination)


DATABASE = to(type="sqlite", path="results/x.db", table="t")
DESTINATIONS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "folder": (folder_in_its_place, ("results/triage.jsonl is a folder", "end the path with /")),
    "foreign-file": (foreign_file, ("results/mine.csv", "batchform did not")),
    "below-a-file": (both(write("taken", "x"), to(type="csv", path="taken/x.csv")), ("taken/x.csv", "is a file, not")),
    "file-for-parts": (both(write("taken", "x"), to(type="csv", path="taken/")), ("taken", "file")),
    "no-database": (both(write("results/x.db", "no database" * 99), DATABASE), ("results/x.db", "not a database")),
    "foreign-table": (both(foreign_table, DATABASE), ("table t of results/x.db", "did not make it")),
}


@pytest.mark.parametrize("name", DESTINATIONS)
def test_a_destination_that_cannot_be_written_is_refused_before_anything_is_paid_for(
    project: Workspace, name: str
) -> None:
    breaking, says = DESTINATIONS[name]
    edited(project)
    breaking(project)
    untouched(project, "specs/triage.yaml:2:9", *says)
    assert "apply will refuse: " in project.run("plan").out, "whoever reviews the plan is told"
    folder = str(project.root / "saved")
    project.ok("plan", "--out", folder)
    refused(project.run("apply", folder), *says)


# --- ledger ---------------------------------------------------------------------------------------------------------

HEAD = ".batchform/head.json"
RESTORE = ("Restore the ledger", "batchform ledger verify")
REPAIR = ("`batchform ledger repair` puts it right without guessing",)


def head(change: Callable[[bytes], bytes]) -> Break:
    return lambda w: (w.root / HEAD).write_bytes(change((w.root / HEAD).read_bytes()))


def newer(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "format_version": 99, "format": 99}).encode()


def segment(kind: str, change: Callable[[bytes], bytes]) -> Break:
    def alter(w: Workspace) -> None:
        path = min((w.root / ".batchform/segments").glob(f"{kind}-*"))
        path.write_bytes(change(path.read_bytes()))

    return alter


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def a_file(w: Workspace) -> None:
    shutil.rmtree(w.root / ".batchform")
    w.write(".batchform", "x")


LEDGERS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "head-garbage": (head(lambda _: b"garbage"), ("head.json is not a ledger's head", *REPAIR)),
    "head-empty": (head(lambda _: b""), ("head.json is empty", *REPAIR)),
    "head-half-written": (head(lambda c: c[: len(c) // 2]), ("head.json is not a ledger's head", *REPAIR)),
    "head-missing": (lambda w: (w.root / HEAD).unlink(), ("head.json is missing, but", "other files", *REPAIR)),
    "newer-version": (head(newer), ("newer batchform", "format 99", "pip install -U batchform")),
    "events-half-written": (segment("events", lambda c: c[:-20]), ("is truncated", "the head says", *RESTORE)),
    "events-flipped": (segment("events", flipped), ("was altered", *RESTORE)),
    "rows-half-written": (segment("rows", lambda c: c[:-20]), ("is truncated", "the head says", *RESTORE)),
    "rows-flipped": (segment("rows", flipped), ("was altered", *RESTORE)),
    "a-file": (a_file, (".batchform/head.json cannot be read", "Not a directory")),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_a_damaged_ledger_is_left_as_it_is(project: Workspace, name: str) -> None:
    breaking, says = LEDGERS[name]
    edited(project)
    breaking(project)
    untouched(project, *says, plans="no")


def test_damaged_answers_are_told_by_plan_and_made_again_for_nothing(project: Workspace) -> None:
    next((project.root / ".batchform/answers").iterdir()).write_bytes(b"garbage")
    edited(project)
    before = project.snapshot()
    refused(project.run("plan"), ".batchform/answers/", "is damaged", "batchform sync", "for nothing")
    assert project.snapshot() == before
    project.rows([project.row(i) for i in range(1, 7)])
    project.spec(destination={"type": "csv", "path": "results/again.csv"})
    project.apply()
    assert (project.actions(), len(project.billed())) == ({"keep": 6}, 6)


def test_files_that_no_head_names_do_no_harm(project: Workspace) -> None:
    edited(project)
    project.write(".batchform/segments/rows-triage-x.parquet", "half")
    project.write(".batchform/.tmp/half", "half")
    assert project.apply().json["rows"] == {"triage": {"answered": 6}}


# --- key ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("gateway"), job_seconds=0) as server:
        yield server


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, ("no API key", "GOOGLE_API_KEY", "GEMINI_API_KEY", "aistudio.google.com")),
        (" ", ("no API key",)),
        ("invalid", ("API key not valid", "Check the API key")),
        ("caf\xe9", ("GEMINI_API_KEY holds characters that no key has",)),
    ],
    ids=["missing", "blank", "refused", "odd"],
)
def test_a_missing_or_refused_key(
    project: Workspace, gateway: EmulatorServer, monkeypatch: pytest.MonkeyPatch, key: str | None, says: tuple[str, ...]
) -> None:
    if key is not None:
        monkeypatch.setenv("GEMINI_API_KEY", key)
    project.project(backends={"local": {"type": "gemini", "base_url": gateway.url}})
    project.rows([project.row(i, body="edited") for i in range(1, 6)])
    assert project.actions() == {"rerun": 5, "forget": 1}, "what is free is not recorded either"
    untouched(project, *says)
    assert gateway.bill_summary().requests == 0


def test_a_released_limit_is_not_recorded_when_the_key_is_refused(project: Workspace, gateway: EmulatorServer) -> None:
    project.project(backends={"local": {"type": "gemini", "base_url": gateway.url}})
    project.spec(limits={"max_rows": 1})
    project.rows([project.row(i, body="edited") for i in range(1, 6)])
    before = project.snapshot()
    refused(project.run("apply", "--yes", "--allow", "max_rows", "--reason", "known"), "no API key", code=1)
    assert project.snapshot() == before


# --- processes: permissions, a full disk, another apply -------------------------------------------------------------


def start(project: Workspace, *arguments: str, prepare: str = "pass") -> subprocess.Popen[str]:
    """prepare: what the process does before it is batchform. No code of this process runs in it: it has threads."""
    become = f"import os, sys; {prepare}; os.execv(sys.executable, [sys.executable, '-m', 'batchform', *sys.argv[1:]])"
    return subprocess.Popen(
        [sys.executable, "-c", become, *arguments],
        cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


WITHOUT_PRIVILEGES = "import ctypes; os.geteuid() or [ctypes.CDLL(None).prctl(24, c, 0, 0, 0) for c in (1, 2)]"
"""Let root be stopped by permissions as others are: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH end at exec, by
PR_CAPBSET_DROP."""


def test_an_unreadable_source(project: Workspace) -> None:
    before = project.snapshot()
    (project.root / "data/tickets.csv").chmod(0)
    found = result(start(project, "plan", prepare=WITHOUT_PRIVILEGES))
    refused(found, "specs/triage.yaml:15:9", "data/tickets.csv cannot be read: permission denied")
    assert project.snapshot() == before


def test_an_unwritable_destination(project: Workspace) -> None:
    edited(project)
    before, billed = project.snapshot(), project.billed()
    (project.root / "results").chmod(0o555)
    found = result(start(project, "apply", "--yes", prepare=WITHOUT_PRIVILEGES))
    (project.root / "results").chmod(0o755)
    refused(found, "results/triage.jsonl cannot be written", "not writable")
    assert (project.snapshot(), project.billed()) == (before, billed)


def no_more_than(size: int) -> str:
    """Files end at this size, as if the disk were full."""
    ignored = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    return f"{ignored}; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


def test_a_full_disk_in_the_middle_of_a_shard(project: Workspace) -> None:
    project.rows([project.row(i) for i in range(1, 400)])
    project.spec(prompt={"user": {"text": "{{ title * 200 }}"}})
    before, billed = project.snapshot(), project.billed()
    says = ("the disk is full", "could not be written", "Free some space")
    refused(result(start(project, "plan", "--out", "saved", prepare=no_more_than(400_000))), *says)
    assert not (project.root / "saved").exists()
    refused(result(start(project, "apply", "--yes", prepare=no_more_than(400_000))), *says)
    assert (project.snapshot(), project.billed()) == (before, billed)
    assert project.actions() == {"rerun": 6, "run": 393}


def test_a_full_disk_while_the_source_is_read(project: Workspace) -> None:
    project.rows([project.row(i, body=os.urandom(2000).hex()) for i in range(1, 300)])
    before = project.snapshot()
    refused(result(start(project, "apply", "--yes", prepare=no_more_than(200_000))), "the disk is full", "Free some")
    assert project.snapshot() == before


def test_two_applies_at_once_pay_once(project: Workspace) -> None:
    project.project(backends={"local": {"type": "emulator", "job_seconds": 1, "poll": "50ms"}})
    edited(project)
    running = [start(project, "apply", "--yes", "--json") for _ in range(2)]
    found = sorted((result(process) for process in running), key=lambda r: r.code)
    assert [r.code for r in found] in ([0, 0], [0, 5]), [(r.code, r.out, r.err) for r in found]
    if found[1].code == 5:
        refused(found[1], "at work", code=5)
    assert (project.actions(), len(project.billed())) == ({"keep": 6}, 12)
    assert len(set(project.billed())) == 12


def test_nothing_is_made_where_nothing_was_applied(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHFORM_DEBUG")
    workspace.write("templates/triage.j2", "{{ titel }}")
    names = sorted(p for p in workspace.root.rglob("*"))
    refused(workspace.run("plan"), "no column `titel`")
    refused(workspace.run("apply", "--yes"), "no column `titel`")
    assert sorted(p for p in workspace.root.rglob("*")) == names
