"""Parsed answers are derived: lost or damaged, they come back from the archived results for nothing, or are named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests_e2e_kit import Workspace

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
CONFIG = {"max_output_tokens": 64, "response_schema": SCHEMA}


def answers(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / ".batchform/answers").glob("*.parquet"))


def content(path: Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(path).to_pylist(), key=lambda r: str(r["key_hash"]))


def spoil(path: Path, damage: str) -> None:
    sound = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"xx": b"xx", "empty": b"", "cut": sound[:-5], "zeros": bytes(len(sound))}[damage])


DAMAGES = ["missing", "xx", "empty", "cut", "zeros"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", [("apply", "--yes"), ("sync",)])
def test_lost_answers_come_back_as_they_were(workspace: Workspace, damage: str, command: tuple[str, ...]) -> None:
    workspace.apply()
    (path,) = answers(workspace)
    before, delivered = content(path), workspace.delivered()
    spoil(path, damage)
    (workspace.root / "results/triage.jsonl").unlink()
    verified = workspace.run("ledger", "verify")
    assert path.name in verified.out and "`batchform sync` makes it again" in verified.out
    assert verified.code == 1, "its destination is gone as well"
    workspace.ok(*command)
    assert content(path) == before, "with the requests that they answer"
    assert workspace.delivered() == delivered
    assert workspace.ok("ledger", "verify").out == "The ledger holds together.\n"
    assert len(workspace.billed()) == 6


@pytest.mark.parametrize("damage", DAMAGES)
def test_who_only_reads_names_the_file_and_the_way_out(workspace: Workspace, damage: str) -> None:
    workspace.apply()
    (path,) = answers(workspace)
    spoil(path, damage)
    read = workspace.run("results", "triage")
    what = "missing" if damage == "missing" else "damaged"
    assert read.code == 1
    assert f".batchform/answers/{path.name} is {what}." in read.err
    assert "`batchform sync` makes it again from the archived results, for nothing." in read.err
    workspace.rows([workspace.row(i, body="new") for i in range(1, 7)])
    planned = workspace.run("plan")
    if damage != "missing":
        assert (planned.code, f"answers/{path.name} is damaged." in planned.err) == (1, True)
    assert "internal error" not in planned.err + read.err


def test_what_is_lost_for_good_is_not_said_to_come_back(workspace: Workspace) -> None:
    workspace.apply()
    for folder in ("answers", "archive"):
        shutil.rmtree(workspace.root / ".batchform" / folder)
    (workspace.root / "results/triage.jsonl").unlink()
    told = workspace.run("apply", "--yes")
    assert (told.code, "is missing." in told.err, "makes it again" in told.err) == (1, True, False)
    assert "`batchform rerun` asks for these rows anew" in told.err
    for key in range(1, 7):
        workspace.ok("rerun", "triage", "--key", f"T-{key}")
    workspace.apply()
    assert len(workspace.delivered()) == 6 and workspace.actions() == {"keep": 6}


def damage_inside(path: Path) -> None:
    """Footer and end are whole; what they describe is not."""
    sound = path.read_bytes()
    path.write_bytes(sound[:4] + b"\xff" * (len(sound) // 4) + sound[4 + len(sound) // 4 :])


@pytest.mark.parametrize("command", [("apply", "--yes"), ("sync",)])
def test_damage_inside_is_noticed_when_it_is_read_and_made_again(
    workspace: Workspace, command: tuple[str, ...]
) -> None:
    workspace.apply()
    (path,) = answers(workspace)
    before = content(path)
    damage_inside(path)
    broken = path.read_bytes()
    (workspace.root / "results/triage.jsonl").unlink()
    read = workspace.run("results", "triage")
    assert (read.code, f"{path.name} is damaged" in read.err, "ledger repair" in read.err) == (1, True, True)
    workspace.ok(*command)
    assert (content(path), len(workspace.delivered()), len(workspace.billed())) == (before, 6, 6)
    assert [p.read_bytes() for p in (workspace.root / ".batchform/damaged").rglob("*.parquet")] == [broken]


def test_damage_inside_is_found_by_verify_and_mended_by_repair(workspace: Workspace) -> None:
    workspace.apply()
    (path,) = answers(workspace)
    before = content(path)
    damage_inside(path)
    verified = workspace.run("ledger", "verify")
    assert (verified.code, f"{path.name} is damaged" in verified.out) == (1, True)
    assert "mend: batchform ledger repair && batchform sync" in verified.out
    workspace.ok("ledger", "repair")
    workspace.ok("sync")
    assert content(path) == before
    workspace.ok("ledger", "verify")


def test_damage_inside_without_an_archive_is_not_set_aside(workspace: Workspace) -> None:
    workspace.apply()
    (path,) = answers(workspace)
    damage_inside(path)
    (archive,) = (workspace.root / ".batchform/archive").glob("*.jsonl.gz")
    archive.write_bytes(archive.read_bytes()[:-4])
    (workspace.root / "results/triage.jsonl").unlink()
    refused = workspace.run("sync")
    assert (refused.code, f"{path.name} is damaged" in refused.err, path.exists()) == (1, True, True)
    repaired = workspace.run("ledger", "repair")
    assert (repaired.code, path.exists(), "Its archive cannot be read either" in repaired.out) == (1, True, True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_answer_of_an_earlier_prompt_is_still_not_paid_for_again(workspace: Workspace, damage: str) -> None:
    workspace.apply()
    (path,) = answers(workspace)
    prompt = {"user": {"text": "Another prompt: {{ body }}"}}
    workspace.spec(prompt=prompt)
    workspace.apply()
    assert len(workspace.billed()) == 12
    spoil(path, damage)
    workspace.spec()
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 12)


@pytest.mark.parametrize("damage", DAMAGES)
def test_answers_that_are_read_otherwise_by_now(workspace: Workspace, damage: str) -> None:
    workspace.spec(generation_config=CONFIG)
    workspace.apply()
    (path,) = answers(workspace)
    workspace.spec(generation_config=CONFIG, output={"schema": {"type": "object"}})
    spoil(path, damage)
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed()), len(workspace.delivered())) == ({"keep": 6}, 6, 6)
    (again,) = [p for p in answers(workspace) if p != path]
    spoil(again, damage)
    assert again.name in workspace.run("ledger", "verify").out
    (workspace.root / "results/triage.jsonl").unlink()
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed()), len(workspace.delivered())) == ({"keep": 6}, 6, 6)


def test_a_damaged_archive_is_found(workspace: Workspace) -> None:
    workspace.apply()
    (path,) = (workspace.root / ".batchform/archive").glob("*.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-4])
    verified = workspace.run("ledger", "verify")
    assert (verified.code, f"archive/{path.name} is damaged" in verified.out) == (1, True)
    assert workspace.actions() == {"keep": 6}
    spoil(*answers(workspace), "missing")
    refused = workspace.run("sync")
    assert (refused.code, f"archive/{path.name} is damaged" in refused.err) == (1, True)
