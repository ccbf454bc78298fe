"""`plan --out` that was killed: the same command goes on, and takes nothing for its own that is not."""

from __future__ import annotations

import shutil

from tests_e2e_kit import Workspace


def test_the_same_command_goes_on_where_one_was_killed(workspace: Workspace) -> None:
    workspace.ok("plan", "--out", "saved")
    saved = workspace.root / "saved"
    assert not (saved / ".unfinished").exists()
    (saved / ".unfinished").touch()
    (saved / "bundle.json").unlink()
    refused = workspace.run("apply", "saved")
    assert refused.code == 64 and "holds no saved plan" in refused.err
    workspace.ok("plan", "--out", "saved")
    workspace.ok("apply", "saved")
    assert len(workspace.delivered()) == 6


def test_killed_while_an_earlier_plan_was_removed(workspace: Workspace) -> None:
    workspace.ok("plan", "--out", "saved")
    saved = workspace.root / "saved"
    (saved / ".unfinished").touch()
    shutil.rmtree(saved / "specs")
    refused = workspace.run("apply", "saved")
    assert refused.code == 4 and "is missing from the saved plan" in refused.err
    workspace.ok("plan", "--out", "saved")
    workspace.ok("apply", "saved")


def test_a_folder_of_somebody_else_is_refused_and_left_alone(workspace: Workspace) -> None:
    mine = workspace.write("saved/notes.txt", "mine")
    refused = workspace.run("plan", "--out", "saved")
    assert refused.code == 64 and "is not empty" in refused.err
    assert [p.name for p in (workspace.root / "saved").iterdir()] == ["notes.txt"] and mine.read_text() == "mine"
