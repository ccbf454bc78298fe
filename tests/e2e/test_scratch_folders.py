"""What a killed command leaves in its private folder holds prompts: the next command removes it, and nothing else."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from tests_e2e_kit import Workspace

from batchform.cli.scratch import Scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def left(folder: Path, *, lock: bool = True) -> Path:
    folder.mkdir()
    (folder / "shard-0000.jsonl").write_text("a prompt", encoding="utf-8")
    if lock:
        (folder / ".lock").touch()
    return folder


def test_what_killed_commands_left_is_removed(applied: Workspace, temporary: Path) -> None:
    there = [left(applied.root / ".batchform/tmp-killed"), left(temporary / "batchform-run-killed")]
    old = left(applied.root / ".batchform/tmp-of-yore", lock=False)
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    applied.ok("plan")
    assert not any(folder.exists() for folder in (*there, old))
    assert not list(temporary.iterdir()) and not list((applied.root / ".batchform").glob("tmp-*"))


def test_before_there_is_a_ledger_too(workspace: Workspace, temporary: Path) -> None:
    left(temporary / "batchform-run-killed")
    workspace.ok("plan")
    assert not list(temporary.iterdir())


def test_a_command_at_work_keeps_its_folder(applied: Workspace, temporary: Path) -> None:
    at_work = left(applied.root / ".batchform/tmp-at-work")
    beginning = left(applied.root / ".batchform/tmp-beginning", lock=False)
    strange = left(temporary / "batchform-run-by-hand", lock=False)
    with (at_work / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        applied.ok("plan")
    assert all((folder / "shard-0000.jsonl").is_file() for folder in (at_work, beginning, strange))


def test_a_command_killed_before_it_held_its_lock_or_while_it_removed_its_folder(applied: Workspace) -> None:
    ledger = applied.root / ".batchform"
    (ledger / "tmp-no-lock-yet").mkdir()
    (ledger / "tmp-lock-not-in-place").mkdir()
    (ledger / "tmp-lock-not-in-place/.lock-new").touch()
    applied.ok("plan")
    assert not list(ledger.glob("tmp-*"))


def test_the_lock_is_the_last_thing_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = Scratch(tmp_path)
    (scratch.path / "plan").mkdir()
    (scratch.path / "prompts.jsonl").write_text("a prompt", encoding="utf-8")
    before_last: list[list[str]] = []
    remove = shutil.rmtree

    def watched(path: Path, *, ignore_errors: bool) -> None:
        if Path(path) == scratch.path:
            before_last.append([entry.name for entry in scratch.path.iterdir()])
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", watched)
    scratch.close()
    assert before_last == [[".lock"]] and not scratch.path.exists()


def test_a_folder_that_another_name_points_to_is_let_alone(applied: Workspace, tmp_path: Path) -> None:
    elsewhere = left(tmp_path / "elsewhere")
    (applied.root / ".batchform/tmp-link").symlink_to(elsewhere)
    applied.ok("plan")
    assert (elsewhere / "shard-0000.jsonl").is_file()
