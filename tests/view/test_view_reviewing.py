"""Explanations by group, and what was spent, in terminals of 80 and 140 columns."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console
from view_plans import EVIL, check_golden

from batchform.plan.explain_groups import Group, SpecExplanation
from batchform.plan.model import Action, Reason
from batchform.plan.spend_report import SpendRow
from batchform.view.console import make_console
from batchform.view.explained import print_groups
from batchform.view.spend import print_spend

CHANGED = "the input differs from the recorded one"
FOUND = SpecExplanation(
    {Action.RUN: 1_204, Action.RERUN: 280, Action.HELD: 48_031, Action.KEEP: 12},
    {Reason.NEW_KEY: 1_204, Reason.PROMPT_CHANGED: 260, Reason.ROW_CHANGED: 20},
    {"on_prompt_change: ask (prompt_changed)": 48_031},
    (
        Group(CHANGED, 48_291, (("prompt", "sha256:7f3a91c0", "sha256:02be44d0"),), ("T-1881", "T-9", EVIL)),
        Group("never answered", 1_204, (), ("T-50001",)),
        Group(
            CHANGED, 20,
            (("model", "gemini-3.5-flash", "gemini-3.5-pro"), ("schema", None, "sha256:aa11"), ("row", None, None)),
            ("T-3",),
        ),
    ),
)  # fmt: skip
SPENT = [
    SpendRow(("octocat", "triage"), 3, 51_204, 21.31, 20.02, 0.57, 61_200_000, 9_700_000),
    SpendRow(("runner@build-17.example.internal", EVIL), 1, 420, 0.04, 0.0423, 0.0, 58_000, 26_880),
]


def told(print_: Callable[[Console], None], width: int) -> str:
    out = io.StringIO()
    print_(make_console(file=out, width=width, color=False))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_what_a_reviewer_reads(width: int) -> None:
    groups = told(lambda console: print_groups("triage", FOUND, console), width)
    check_golden(f"groups-{width}.txt", groups)
    spent = told(lambda console: print_spend(("approver", "spec"), SPENT, console), width)
    check_golden(f"spend-{width}.txt", spent)
    assert "\x1b" not in groups + spent
    assert max(len(line) for line in (groups + spent).splitlines()) <= width
    assert told(lambda console: print_spend(("spec",), [], console), width).strip() == "Nothing was spent."
