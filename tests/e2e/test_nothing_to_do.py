"""A plan of which nothing is to do is remembered, and forgotten as soon as anything it was made from is another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests_e2e_kit import Workspace

from batchform.adapters.sources import paths
from batchform.plan import unchanged
from batchform.plan.diff import Diff
from batchform.plan.unchanged import sealed
from batchform.ports import Relation
from batchform.rows.keyed import KeyedRows


@pytest.fixture
def settled(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An applied project whose files count as old, planned once, so that the next plan remembers it."""
    monkeypatch.setattr(paths, "_SETTLE_NS", 0)
    workspace.apply()
    assert workspace.actions() == {"keep": 6} and is_kept(workspace)
    return workspace


def is_kept(workspace: Workspace) -> bool:
    return (workspace.root / ".batchform/cache/plans/triage.json").exists()


def spoil(workspace: Workspace) -> None:
    """Make what is kept tell itself apart from what is read."""
    path = workspace.root / ".batchform/cache/plans/triage.json"
    kept = json.loads(path.read_bytes().partition(b"\n")[2])
    path.write_bytes(sealed(json.dumps({**kept, "rows": 7, "counts": {"keep": 7}}).encode()))


def test_the_same_plan_is_made_without_reading_rows(settled: Workspace) -> None:
    read = settled.plan()
    spoil(settled)
    assert settled.actions() == {"keep": 7}  # nothing was read
    (settled.root / ".batchform/cache/plans/triage.json").unlink()
    assert settled.plan() == read
    assert settled.plan() == read  # remembered
    assert "No changes. 6 rows are up to date." in settled.ok("plan").out


def test_what_is_remembered_needs_no_engine(settled: Workspace) -> None:
    code = "import sys; from batchform.adapters.sources import paths; paths._SETTLE_NS = 0; "
    code += "from batchform.cli import run; "
    for command in ("plan", "validate"):
        done = subprocess.run(
            [sys.executable, "-c", f"{code}run(['{command}']); sys.exit('duckdb' in sys.modules)"],
            cwd=settled.root, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done


def test_rows_that_change_are_seen(settled: Workspace) -> None:
    spoil(settled)
    settled.rows([settled.row(i) if i != 3 else settled.row(i, body="TEXT 3") for i in range(1, 7)])
    assert settled.actions() == {"keep": 5, "rerun": 1}


@pytest.mark.parametrize("name", ["templates/triage.j2", "specs/triage.yaml"])
def test_so_are_specs_and_templates(settled: Workspace, name: str) -> None:
    spoil(settled)
    path = settled.root / name
    old, new = ("Title", "Headline") if name.endswith("j2") else ("temperature: 0", "temperature: 1")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert settled.actions() == {"rerun": 6}


def test_so_is_what_was_asked_for_by_hand(settled: Workspace) -> None:
    spoil(settled)
    settled.ok("rerun", "triage", "--key", "T-2")
    assert settled.actions() == {"keep": 5, "rerun": 1}


def test_so_is_a_destination_that_is_gone(settled: Workspace) -> None:
    spoil(settled)
    (settled.root / "results/triage.jsonl").unlink()
    assert settled.actions() == {"redeliver": 6}


def test_so_is_a_destination_that_somebody_wrote(settled: Workspace) -> None:
    """What was delivered is not what is there: it is shown, and written anew for nothing."""
    spoil(settled)
    path = settled.root / "results/triage.jsonl"
    delivered = path.read_bytes()
    path.write_bytes(delivered + b'{"id": "mine"}\n')
    assert settled.actions() == {"redeliver": 6}
    verified = settled.run("ledger", "verify")
    assert verified.code == 1 and "holds 1 row that the ledger does not know" in verified.out + verified.err
    settled.ok("sync")
    assert path.read_bytes() == delivered
    assert settled.actions() == {"keep": 6} and len(settled.billed()) == 6


def test_so_is_a_ledger_that_was_damaged(settled: Workspace) -> None:
    spoil(settled)
    segment = next((settled.root / ".batchform/segments").glob("rows-*.parquet"))
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes()[:-9])
    assert settled.run("plan").code == 1


def test_what_is_saved_is_read(settled: Workspace, tmp_path: Path) -> None:
    spoil(settled)
    assert settled.run("plan", "--json", "--out", str(tmp_path / "saved")).json["specs"][0]["actions"]["keep"] == 6


def test_so_is_what_was_asked_for_and_is_lost(settled: Workspace) -> None:
    """Whether it was taken up is told by the very rows that it names."""
    settled.ok("rerun", "triage", "--key", "T-2")
    settled.apply()
    assert settled.actions() == {"keep": 6} == settled.actions()
    (asked,) = (settled.root / ".batchform").rglob("rerun*.parquet")
    asked.unlink()
    assert settled.run("plan").code == 1


def test_so_are_results_that_come_back(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_SETTLE_NS", 0)
    sent = {"response_schema": {"type": "object", "properties": {"category": {"type": "string"}}}}
    workspace.spec(generation_config=sent)
    workspace.apply()
    archive = workspace.root / ".batchform/archive"
    archive.rename(archive.with_name("away"))
    workspace.spec(generation_config=sent, output={"schema": {"type": "object"}})
    for _ in range(2):
        assert workspace.plan()["notes"] == ["6 rows cannot be read anew: their results are archived no longer"]
    archive.with_name("away").rename(archive)
    assert workspace.actions() == {"reparse": 6}


def test_so_is_a_file_under_another_name(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link leads to the same bytes, and its name is a column."""
    monkeypatch.setattr(paths, "_SETTLE_NS", 0)
    workspace.write("texts/a.txt", "Alpha")
    link = workspace.root / "data/one.txt"
    link.symlink_to("../texts/a.txt")
    workspace.spec(
        source={"type": "files", "path": "data/*.txt"},
        prompt={"user": {"text": "{{ text }}"}},
        idempotency={"key": ["name"]},
    )
    workspace.apply()
    assert workspace.actions() == {"keep": 1} and is_kept(workspace)
    link.rename(link.with_name("two.txt"))
    assert workspace.actions() == {"run": 1, "forget": 1}


def test_what_it_would_cost_to_ask_again_is_the_same_in_every_plan(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_SETTLE_NS", 0)
    workspace.spec(idempotency={"key": ["id"], "on_prompt_change": "keep"})
    workspace.apply()
    workspace.write("templates/triage.j2", "Headline: {{ title }}\nBody: {{ body }}\n")
    first = workspace.plan()
    assert first["actions"]["keep"] == first["change"]["rows"] == 6
    assert workspace.plan() == first


def test_young_files_are_read_again(settled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(settled)
    monkeypatch.setattr(paths, "_SETTLE_NS", 1 << 62)
    assert settled.actions() == {"keep": 6}


def test_a_note_that_is_broken_or_cannot_be_written_is_none(settled: Workspace) -> None:
    notes = settled.root / ".batchform/cache/plans"
    whole = (notes / "triage.json").read_bytes()
    spoilt = (b"{", b"", whole[:-1], whole.replace(b"keep", b"k\xa5ep"), whole.replace(b'"rows":6', b'"rows":7'))
    for text in spoilt:
        assert text != whole
        (notes / "triage.json").write_bytes(text)
        assert settled.plan()["source"]["rows"] == 6
    (notes / "triage.json").unlink()
    notes.rmdir()
    notes.write_text("in the way", encoding="utf-8")
    assert settled.actions() == {"keep": 6}


def test_a_note_of_which_a_part_came_to_the_disk_is_none(tmp_path: Path) -> None:
    """A kill leaves a note whole or not at all, since it is renamed into its place; a power failure may leave a part or
    zeros. What was left half written beside it is removed by a later plan."""
    kept = unchanged.Kept(tmp_path / "triage.json", lambda: "stamp")
    rows = KeyedRows(Relation(sql="", columns={}, described="data/tickets.csv"), 6, {}, (("id", "id"),), {}, ("note",))
    half, another = tmp_path / "triage.json.1", tmp_path / "triage.json.2"
    for path in (half, another):
        path.write_text("{", encoding="utf-8")
    os.utime(half, (0, 0))
    unchanged.keep(kept, "state", rows, Diff({"keep": 6}, {}, 6))
    assert sorted(tmp_path.iterdir()) == [kept.path, another]
    found = unchanged.recall(kept, "state")
    assert found is not None and found[0].rows == 6 and unchanged.recall(kept, "another") is None
    whole = kept.path.read_bytes()
    for size in range(len(whole)):
        for rest in (b"", b"\0" * (len(whole) - size), b"\xff" * (len(whole) - size)):
            kept.path.write_bytes(whole[:size] + rest)
            assert unchanged.recall(kept, "state") is None, (size, rest)


@pytest.mark.parametrize(
    "more",
    [
        {"query": "SELECT * FROM source"},
        {"where": "id IN (SELECT id FROM read_csv('data/tickets.csv', all_varchar=true))"},
        {"where": "id IN (TABLE 'data/ids.csv')"},
        {"where": "now() > '2020-01-01'"},
    ],
)
def test_queries_may_read_more_than_the_files(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    monkeypatch.setattr(paths, "_SETTLE_NS", 0)
    workspace.write("data/ids.csv", "id\n" + "".join(f"T-{i}\n" for i in range(1, 7)))
    workspace.spec(source={"type": "csv", "path": "data/tickets.csv", **more})
    workspace.apply()
    assert workspace.actions() == {"keep": 6} and not is_kept(workspace)
