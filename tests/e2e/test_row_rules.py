"""Rules on single rows: what a plan refuses to send, and what it only says."""

from __future__ import annotations

from tests_e2e_kit import Workspace

KEY = "AIzaSyA" + "0" * 32


def test_a_plan_that_would_send_a_key_is_refused_and_shows_none_of_it(workspace: Workspace) -> None:
    rows = [workspace.row(i) for i in range(1, 4)]
    rows[1]["body"] = f"please use {KEY} until monday"
    workspace.rows(rows)
    for command in (("plan",), ("apply", "--yes")):
        refused = workspace.run(*command)
        assert refused.code == 1
        assert (
            "what looks like an API key of Google at $.contents[0].parts[0].text [BF701 secret-in-row]" in refused.err
        )
        assert "1 row (`T-2`)" in refused.err
        assert KEY not in refused.out + refused.err
    assert "triage   no rows yet" in workspace.ok("status").out


def test_who_knows_better_says_why(workspace: Workspace) -> None:
    rows = [workspace.row(1)]
    rows[0]["body"] = KEY
    workspace.rows(rows)
    workspace.spec(ignore=[{"rule": "BF701", "reason": "made up for our tests"}])
    assert workspace.plan()["rows_to_send"] == 1


def test_a_warning_is_a_note_of_the_plan_with_its_count(workspace: Workspace) -> None:
    rows = [workspace.row(i) for i in range(1, 10)]
    for row in rows[:7]:
        row["body"] = r"see C:\Users\anna\report.docx" if row["id"] == "T-3" else "see /home/anna/report.txt"
    workspace.rows(rows)
    shown = workspace.ok("plan").out
    assert "BF702 7 rows (`T-1`, `T-2`, `T-3`, `T-4`, `T-5`, …) would send a path" in " ".join(shown.split())
    assert workspace.plan()["rows_to_send"] == 9


def test_answered_rows_are_not_judged_again(workspace: Workspace) -> None:
    """What was sent is sent: only what would be sent now can be refused."""
    rows = [workspace.row(1)]
    rows[0]["body"] = KEY
    workspace.rows(rows)
    workspace.spec(ignore=[{"rule": "BF701", "reason": "made up for our tests"}])
    workspace.ok("apply", "--yes")
    workspace.spec()
    assert workspace.plan()["rows_to_send"] == 0


def test_a_long_row_is_named_with_its_bytes(workspace: Workspace) -> None:
    rows = [workspace.row(1), workspace.row(2)]
    rows[1]["body"] = "x" * 1_000_000
    workspace.write("templates/triage.j2", "{% for _ in range(9) %}{{ body }}{% endfor %}")
    workspace.rows(rows)
    refused = workspace.run("plan")
    assert refused.code == 1
    assert "1 row (`T-2`) would send more than the 1,048,576 tokens that gemini-3.5-flash-lite takes" in refused.err
