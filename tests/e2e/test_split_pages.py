"""PDFs that are asked about in parts: one request for some pages, one delivered row for the file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from attached_kit import pdf, project, uploads
from tests_e2e_kit import Workspace

from batchform.errors import SourceError
from batchform.rows.pdf import cut

LOCAL: dict[str, Any] = {"type": "emulator", "job_seconds": 0, "poll": "10ms"}
ROWS = [{"id": "7", "image": "media/long.pdf"}, {"id": "8", "image": "media/short.pdf"}]
COLUMNS = {
    "text": "text",
    "parts": "parts",
    "tokens": "usage.prompt_token_count",
    "file": "row.image",
    "shown": "{{ key }} of {{ row.image }}",
}


def documents(workspace: Workspace, *, long: bytes | None = None, most: int = 2, **spec: Any) -> None:
    """Seven (five pages) and eight (two)."""
    if not (workspace.root / "media/long.pdf").exists() or long:
        workspace.write("media/long.pdf", long or pdf(5))
        workspace.write("media/short.pdf", pdf(2))
    to = {"type": "jsonl", "path": "results/triage.jsonl", "columns": COLUMNS}
    attachment = {"path": "{{ image }}", "split_pages": most, **spec.pop("attachment", {"inline_up_to": 1})}
    project(workspace, attachment, rows=ROWS, **{"destination": to, **spec})


def pages(row: dict[str, Any]) -> list[tuple[int, int]]:
    return [(p["first_page"], p["last_page"]) for p in row["parts"]]


@pytest.mark.parametrize("how", ["uploaded", "inline", "staged"])
def test_parts_are_asked_and_one_row_is_delivered(workspace: Workspace, how: str) -> None:
    workspace.project(backends={"local": {**LOCAL, "cloud": "vertex" if how == "staged" else "gemini"}})
    documents(workspace, attachment={"inline_up_to": "1M" if how == "inline" else 1})
    plan = workspace.plan()
    assert {name: n for name, n in plan["actions"].items() if n} == {"run": 4}
    said = "2 rows of the source: 1 PDF longer than `split_pages`, so 4 requests. "
    assert any(note.startswith(said) for note in plan["notes"])

    workspace.apply()

    assert len(workspace.billed()) == 4
    long, short = workspace.delivered()
    assert (long["id"], pages(long), long["file"]) == ("7", [(1, 2), (3, 4), (5, 5)], "media/long.pdf")
    assert long["text"] == "\n\n".join(p["text"] for p in long["parts"]) and long["text"].count("picture 7") == 3
    assert long["tokens"] == sum(p["prompt_tokens"] for p in long["parts"])
    assert long["shown"] == "7 of media/long.pdf"
    assert (short["id"], pages(short)) == ("8", [(None, None)])
    assert workspace.actions() == {"keep": 4}
    if how == "uploaded":
        assert len(uploads(workspace)) == 4


def test_what_a_key_of_a_row_means(workspace: Workspace) -> None:
    documents(workspace)
    shown = [json.loads(line) for line in workspace.ok("render", "triage", "--key", "7", "--json").out.splitlines()]
    assert [line["request"]["contents"][0]["parts"][0]["fileData"]["fileUri"][71:] for line in shown] == [
        "#pages=1-2",
        "#pages=3-4",
        "#pages=5-5",
    ]
    tried = workspace.ok("try", "triage", "--key", "7", "--json").out.splitlines()
    assert [json.loads(line)["class"] for line in tried] == ["answered"] * 3
    workspace.apply()
    explained = workspace.ok("explain", "triage", "7", "--json").out.splitlines()
    assert [json.loads(line)["key"] for line in explained] == [line["key"] for line in shown]
    assert len(workspace.ok("results", "triage", "--key", "7", "--json").out.splitlines()) == 1
    part = shown[1]["key"]
    assert part.startswith("7 [pages 3-4 of 5 in ")
    workspace.ok("rerun", "triage", "--key", part)
    assert workspace.actions() == {"rerun": 1, "keep": 3}
    workspace.ok("rerun", "triage", "--key", "7")
    assert workspace.actions() == {"rerun": 3, "keep": 1}
    workspace.ok("rerun", "triage", "--where", "image LIKE '%short%'")
    assert workspace.actions() == {"rerun": 4}
    workspace.apply()
    assert len(workspace.billed()) == 11 and workspace.actions() == {"keep": 4}
    assert "has no row with key '9'" in workspace.run("rerun", "triage", "--key", "9").err


def test_a_part_that_fails_is_sent_again_alone_and_its_row_waits_for_it(workspace: Workspace) -> None:
    failed = {"call": "batches.create", "times": 1, "do": {"type": "row_error", "status": 500, "rows": [2]}}
    workspace.write("faults.yaml", json.dumps({"faults": [failed]}))
    workspace.project(backends={"local": {**LOCAL, "faults": "faults.yaml"}})
    documents(workspace, tolerate_failed=1)

    workspace.ok("apply", "--yes")
    assert [row["id"] for row in workspace.delivered()] == ["8"]
    assert len(workspace.billed()) == 3 and workspace.actions() == {"rerun": 1, "keep": 3}
    workspace.ok("sync", "--wait")

    assert [row["id"] for row in workspace.delivered()] == ["7", "8"]
    assert len(workspace.billed()) == 4 == len(set(workspace.billed()))
    workspace.ok("ledger", "verify")


def test_a_row_whose_parts_are_not_complete_is_neither_planned_nor_missed(workspace: Workspace) -> None:
    failed = {"call": "batches.create", "times": 1, "do": {"type": "row_error", "status": 500, "rows": [2]}}
    workspace.write("faults.yaml", json.dumps({"faults": [failed]}))
    workspace.project(backends={"local": {**LOCAL, "faults": "faults.yaml"}})
    limits = {"max_changed_percent": 50, "changed_floor": 0}
    documents(workspace, tolerate_failed=1, limits=limits)
    workspace.rows(ROWS[:1])

    workspace.ok("apply", "--yes")

    assert workspace.actions() == {"rerun": 1, "keep": 2}
    assert "not delivered" not in workspace.ok("ledger", "verify").out
    workspace.write("media/long.pdf", pdf(6))
    found = workspace.run("plan")
    assert found.code == 3 and "3 of 3 answered rows (100.0 %) would be sent again" in found.out + found.err


def test_parts_move_to_a_new_key_and_are_no_rows_without_split_pages(workspace: Workspace) -> None:
    documents(workspace)
    workspace.apply()
    documents(workspace, idempotency={"key": "no-{{ id }}"}, moved={"key": ["id"]})
    assert "run" not in workspace.actions()
    workspace.apply()
    assert len(workspace.billed()) == 4
    assert [pages(row) for row in workspace.delivered()] == [[(1, 2), (3, 4), (5, 5)], [(None, None)]]

    project(workspace, "{{ image }}", rows=ROWS, idempotency={"key": "no-{{ id }}"})
    assert workspace.actions() == {"run": 1, "redeliver": 1, "forget": 3}
    workspace.apply()
    assert [row["key"] for row in workspace.delivered()] == ["no-7", "no-8"]


def test_a_library_that_is_installed_later_counts_the_pages(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write("media/long.pdf", pdf(5))
    workspace.write("media/short.pdf", pdf(2))
    for name in ("long", "short"):
        os.utime(workspace.root / f"media/{name}.pdf", (1, 1))  # settled: what is known of it is kept
    documents(workspace)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pypdf", None)
        assert "pip install 'batchform[pdf]'" in workspace.run("plan").err
    assert workspace.actions() == {"run": 4}


def test_whatever_a_damaged_file_does_to_the_library_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(pdf(2).replace(b"/Type /Pages /Kids [3 0 R", b""))  # an AssertionError of pypdf
    with pytest.raises(SourceError, match=r"x\.pdf cannot be read as a PDF"):
        cut(path, 1, 1, name="x.pdf")


@pytest.mark.parametrize("prune", [False, True])
def test_versions_of_a_file_never_meet_and_the_row_stays_meanwhile(workspace: Workspace, prune: bool) -> None:
    to = {"type": "sqlite", "path": "results/t.sqlite", "table": "t", "columns": COLUMNS, "prune": prune}
    documents(workspace, destination=to)
    workspace.apply()
    first = _table(workspace)
    failed = {"call": "batches.create", "times": 1, "do": {"type": "row_error", "status": 500, "rows": [1]}}
    workspace.write("faults.yaml", json.dumps({"faults": [failed]}))
    workspace.project(backends={"local": {**LOCAL, "faults": "faults.yaml"}})
    unshrunk = {"max_shrink_percent": 0, "changed_floor": 0}  # no row has left the source
    documents(workspace, long=pdf(3), destination=to, tolerate_failed=1, limits=unshrunk)
    assert workspace.actions() == {"run": 2, "keep": 1, "forget": 3}

    workspace.ok("apply", "--yes")
    assert _table(workspace) == first
    workspace.ok("sync", "--wait")
    assert {key: pages({"parts": parts}) for key, parts in _table(workspace).items()} == {
        "7": [(1, 2), (3, 3)],
        "8": [(None, None)],
    }

    documents(workspace, long=pdf(5), destination=to)  # as it was
    billed = len(workspace.billed())
    workspace.apply()
    assert _table(workspace) == first and len(workspace.billed()) == billed

    workspace.rows(ROWS[1:])
    workspace.apply()
    assert list(_table(workspace)) == (["8"] if prune else ["7", "8"])


def _table(workspace: Workspace) -> dict[str, Any]:
    import sqlite3

    con = sqlite3.connect(workspace.root / "results/t.sqlite")
    try:
        return {str(key): json.loads(parts) for key, parts in con.execute("SELECT id, parts FROM t ORDER BY id")}
    finally:
        con.close()


def test_another_number_of_pages_sends_only_what_it_parts_otherwise(workspace: Workspace) -> None:
    documents(workspace, most=1000)
    workspace.apply()
    assert len(workspace.billed()) == 2
    documents(workspace, most=3)
    assert workspace.actions() == {"run": 2, "keep": 1, "forget": 1}
    workspace.apply()
    assert [pages(row) for row in workspace.delivered()] == [[(1, 3), (4, 5)], [(None, None)]]
    documents(workspace, most=4)
    assert workspace.actions() == {"run": 2, "keep": 1, "forget": 2}
    workspace.apply()
    assert [pages(row) for row in workspace.delivered()] == [[(1, 4), (5, 5)], [(None, None)]]


def test_answers_in_json_are_lists_of_what_the_parts_say(workspace: Workspace) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "integer"}, "names": {"type": "array"}}}
    columns = {"all": "response", "totals": "response.total", "sum": "{{ response | sum(attribute='total') }}"}
    documents(
        workspace,
        generation_config={"response_schema": {**schema, "required": ["total"]}},
        destination={"type": "parquet", "path": "results/t.parquet", "columns": columns},
    )
    workspace.apply()

    import duckdb

    found = duckdb.sql(
        f'SELECT id, "all", totals, "sum" FROM \'{workspace.root}/results/t.parquet\' ORDER BY id'
    ).fetchall()
    assert [key for key, *_ in found] == ["7", "8"]
    for count, (_, every, totals, total) in zip((3, 1), found, strict=True):
        answers = json.loads(every)
        assert len(answers) == count and [a["total"] for a in answers] == json.loads(totals)
        assert int(total) == sum(json.loads(totals))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two": ({"prompt": {"user": {"text": "x"}, "attachments": 2}}, "it has 2 PDFs that are longer than `split_pages`"),
    "key": ({"idempotency": {"key": "{{ id }} [pages 1-2 of 5 in 0123456789ab]"}}, "ends like that of a part of a PDF"),
    "same key": ({"idempotency": {"key": "{{ id[:0] }}k"}}, "2 rows of triage have the key 'k'"),
    "no PDF": ({"long": b"%PDF-1.4 no"}, "The pages of media/long.pdf cannot be counted"),
    "flatten": ({"destination": {"type": "jsonl", "path": "x.jsonl", "flatten": True}}, "destination.flatten makes"),
    "task": ({"task": "image", "model": "gemini-2.5-flash-image", "image": {"folder": "x"}}, "`task: image` has one"),
    "duplicates": ({"idempotency": {"key": ["id"], "duplicates": "last"}}, "picks one of several rows"),
    "kept": ({"idempotency": {"key": ["id"], "on_row_change": "keep"}}, "the parts of a changed PDF are new"),
    "cache": ({"cache": {"attachments": ["{{ image }}"]}}, "each part of a PDF is another"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_in_parts_is_refused(workspace: Workspace, case: str) -> None:
    changes, said = REFUSED[case]
    changes = dict(changes)
    if case == "two":
        both = [{"path": "{{ image }}", "split_pages": 2}] * 2
        documents(workspace)
        workspace.spec(prompt={"user": {"text": "x"}, "attachments": both})
    else:
        documents(workspace, **changes)
    found = workspace.run("plan")
    assert found.code == 1 and said in " ".join(found.err.split()), found.err


def test_a_part_that_fails_for_good_leaves_nothing_to_do(workspace: Workspace) -> None:
    failed = {"call": "batches.create", "times": "all", "do": {"type": "row_error", "status": 400, "rows": [2]}}
    workspace.write("faults.yaml", json.dumps({"faults": [failed]}))
    workspace.project(backends={"local": {**LOCAL, "faults": "faults.yaml"}})
    documents(workspace, tolerate_failed=1)
    workspace.rows(ROWS[:1])

    workspace.ok("apply", "--yes")

    assert workspace.actions() == {"keep": 2, "held": 1}
    [spec] = json.loads(workspace.ok("status", "--json").out)["specs"]
    assert spec["undelivered"] == 0 and not (workspace.root / "results/triage.jsonl").exists()
