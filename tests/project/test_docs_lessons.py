"""docs/lessons.md: each lesson names a rule that exists or says why none is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchform.rules import catalogue

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "lessons.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| lesson |")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_lesson_has_a_rule_or_a_reason_why_not(row: tuple[str, str, str]) -> None:
    lesson, today, does = row
    assert lesson
    assert today
    codes = re.findall(r"BF\d{3}", does)
    assert codes or re.match(r"no rule: \S", does)
    assert set(codes) <= set(catalogue())


def test_no_lesson_is_lost() -> None:
    assert len(ROWS) == 45
    assert len({row[0] for row in ROWS}) == len(ROWS)
