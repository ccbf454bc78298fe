"""Plans in a terminal: golden files at 80 and 140 columns, with colour and without."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from rich.cells import cell_len
from view_plans import (
    APPROVABLE,
    FULL,
    GATE_FAILED,
    HELD,
    MOVING,
    PLANS,
    STAGED,
    SUMMARY,
    TRIAGE,
    UP_TO_DATE,
    actions,
    check_golden,
    plan,
)

from batchform.plan.model import Action, Plan, Reason
from batchform.view.console import PLAIN_WIDTH, make_console
from batchform.view.summary import quiet_line, sum_line, whys
from batchform.view.terminal import print_plan

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def rendered(of: Plan, *, width: int, color: bool = False) -> str:
    out = io.StringIO()
    print_plan(of, make_console(file=out, width=width, color=color))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("color", [True, False], ids=["color", "plain"])
def test_a_plan_looks_as_agreed(width: int, color: bool) -> None:
    suffix = "ansi" if color else "txt"
    check_golden(f"plan-{width}.{suffix}", rendered(FULL, width=width, color=color))
    check_golden(f"edit-{width}.{suffix}", rendered(APPROVABLE, width=width, color=color))
    check_golden(f"stages-{width}.{suffix}", rendered(plan(STAGED, GATE_FAILED), width=width, color=color))
    check_golden(f"moving-{width}.{suffix}", rendered(MOVING, width=width, color=color))
    check_golden(f"held-{width}.{suffix}", rendered(plan(HELD, UP_TO_DATE), width=width, color=color))


@pytest.mark.parametrize("width", [80, 140])
def test_no_line_is_wider_than_the_terminal_and_colour_is_never_the_only_carrier(width: int) -> None:
    colored = rendered(FULL, width=width, color=True)
    assert all(cell_len(line) <= width for line in ANSI.sub("", colored).splitlines())
    public = replace(FULL, specs=tuple(replace(s, preview="public") for s in FULL.specs))
    assert [line.rstrip() for line in ANSI.sub("", colored).splitlines()] == [
        line.rstrip() for line in rendered(public, width=width).splitlines()
    ]


@settings(deadline=None)
@given(PLANS)
def test_nothing_in_a_plan_can_steer_the_terminal(any_plan: Plan) -> None:
    text = ANSI.sub("", rendered(any_plan, width=80, color=True))
    assert all(c == "\n" or c.isprintable() or c in "\u200c\u200d\u00a0\u202f\u2003\u3000" for c in text)


def test_row_text_of_private_specs_shows_only_at_a_terminal() -> None:
    assert "Cite the ticket id." in rendered(plan(TRIAGE), width=80, color=True)
    piped = rendered(plan(TRIAGE), width=80)
    assert "Cite the ticket id." not in piped
    assert "T-1881" not in piped
    assert "2 samples not shown" in piped
    assert "Summarise" in rendered(plan(SUMMARY), width=80)


def test_a_row_that_is_asked_again_unchanged_is_said_to_be_the_same() -> None:
    sample = replace(TRIAGE.samples[0], before=TRIAGE.samples[0].request)
    assert "the same request as before" in rendered(plan(replace(TRIAGE, samples=(sample,))), width=80, color=True)


def test_a_plan_with_nothing_to_do_is_one_line() -> None:
    assert rendered(plan(UP_TO_DATE), width=80) == "\nNo changes. 420 rows are up to date.\n"
    waiting = replace(UP_TO_DATE, actions=actions(keep=1, in_flight=12, unknown=1))
    assert quiet_line(plan(waiting)) == (
        "No changes. 1 row is up to date. 12 rows are in flight. "
        "1 row is in a submission whose outcome is not known yet."
    )


def test_what_is_held_is_never_quiet() -> None:
    assert quiet_line(plan(HELD)) is None
    assert quiet_line(plan(replace(UP_TO_DATE, actions=actions(redeliver=3)))) is None


def test_notes_of_a_plan_with_nothing_to_do_still_show() -> None:
    noted = replace(UP_TO_DATE, notes=("model x is shut down on 2026-12-01, in 10 days.",))
    assert "note: summary: model x" in rendered(plan(noted), width=80)


def test_the_sum_line_names_what_is_free_and_what_is_partial() -> None:
    assert sum_line(FULL) == "Plan: 1,924 to send ($0.61), 5 redelivered, 3 forgotten, 48,011 held, 914 untouched"
    assert sum_line(plan(HELD, partial=True)) == "Plan, only extract: 0 to send, 420 held, 0 untouched"
    assert sum_line(plan(SUMMARY, purpose="retry")).startswith("Plan (retry): 420 to send")


def test_reasons_stand_beside_an_action_only_where_the_counts_leave_no_doubt() -> None:
    words, other = whys(TRIAGE)
    assert words[Action.RUN] == "new_key"
    assert words[Action.RERUN] == "prompt_changed 280, row_changed 20"
    assert words[Action.HELD] == "48,000 limit max_rows of last week; 11 failed: blocked is not in retry.on"
    assert other == ""
    words, other = whys(replace(TRIAGE, reasons={Reason.NEW_KEY: 1204, Reason.PREVIOUS_FAILED: 311}))
    assert words[Action.RUN] == "new_key"
    assert Action.RERUN not in words
    assert other == "previous_failed"


def test_a_pipe_gets_plain_text_of_a_fixed_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    console = make_console(file=io.StringIO())
    assert console.width == PLAIN_WIDTH
    assert not console.is_terminal


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    print_plan(FULL, make_console(file=out, width=80))
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?3[0-7]m", out.getvalue())


def test_lines_have_no_trailing_spaces() -> None:
    assert not [line for line in rendered(FULL, width=80).splitlines() if line != line.rstrip()]


def test_a_terminal_without_the_symbols_gets_replacements_and_no_traceback() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_plan(FULL, make_console(file=stream, width=80))
    stream.flush()
    assert b"Plan: 1,924 to send" in raw.getvalue()
