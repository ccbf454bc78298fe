"""docs/ledger.md: its queries run on a real ledger, its table of the head is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ledger_kit import database, intent, open_ledger, rows_file

from batchform.ledger.compact import compact
from batchform.ledger.records import Collected, Head, Segment, StateSeen, Submitted
from batchform.ledger.segments import STATUSES

DOCS = Path(__file__).parents[2] / "docs" / "ledger.md"
AT = "2026-03-01T12:00:00Z"


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(tmp_path / ".batchform")
    ledger.commit([intent("t1", rows=2)], [rows_file(tmp_path / "1", ["a", "b"], status="in_flight", tag="t1")])
    ledger.commit([Submitted(at=AT, tag="t1", job="batches/1")])
    compact(ledger, database)
    collected = Collected(at="2026-03-01T12:00:01Z", tag="t1", archive="archive/t1.jsonl.gz", answers=None)
    ledger.commit([collected], [rows_file(tmp_path / "2", ["a"], status="answered", tag="t1", cost_usd=0.5)])
    ledger.commit([StateSeen(at="2026-03-01T12:00:02Z", tag="t1", state="SUCCEEDED", counts={"total": 2})])
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_project")
def test_the_queries_run() -> None:
    rows, events = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.S)
    with database() as con:
        assert con.execute(rows).fetchall() == [
            ("a", "answered", "t1", None, 0.5, 4),
            ("b", "in_flight", "t1", None, None, 1),
        ]
        assert sorted(kind for kind, *_ in con.execute(events).fetchall()) == [
            "Collected",
            "Intent",
            "StateSeen",
            "Submitted",
        ]


def test_every_field_of_the_head_is_documented() -> None:
    """Columns and events are kept current by scripts/make_reference.py."""
    section = DOCS.read_text().partition("\n## head.json\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == list(Head.__struct_fields__)
    for field in Segment.__struct_fields__:
        assert f"`{field}`" in section


def test_every_status_is_documented() -> None:
    page = DOCS.read_text()
    for status in STATUSES:
        assert f"`{status}`, " in page
