"""docs/lessons.md: each lesson names a rule that exists or says why none is needed; no rule on requests is left out."""

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
_BESIDE = {"BF501", "BF502", "BF503", "BF530", "BF531"}
"""Of BF4 to BF7, those that are about files of a project and not about what batches taught."""


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


def test_rules_about_models_requests_and_rows_come_from_a_lesson() -> None:
    named = set(re.findall(r"BF\d{3}", TEXT))
    taught = {code for code in catalogue() if "BF401" <= code < "BF800"} - _BESIDE
    assert taught - named - {"BF403"} == set()
