"""The comment of a pull request."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from view_plans import (
    APPROVABLE,
    EVIL,
    FULL,
    GATE_FAILED,
    HELD,
    MOVING,
    PLANS,
    STAGED,
    TRIAGE,
    UP_TO_DATE,
    check_golden,
    plan,
)

from batchform.plan.model import Plan
from batchform.view.markdown import MAX_CHARS, code, fenced, html, plain, plan_markdown

OWN_TAGS = re.compile(r"</?(details|summary)>|^<!-- batchform:plan:[a-z0-9_-]* -->$", re.MULTILINE)


def outside_code(text: str) -> str:
    """The text without fences and code spans, the way CommonMark pairs backticks."""
    text = re.sub(r"^(`{3,})[^\n`]*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    # From left to right: a backslash escapes a backtick outside of a span, and is a character like any other in one.
    return re.sub(r"\\[`\\]|(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", text)


def test_a_comment_looks_as_agreed() -> None:
    check_golden("plan.md", plan_markdown(FULL))
    check_golden("held.md", plan_markdown(plan(HELD, UP_TO_DATE, environment="prod", partial=True)))
    check_golden("edit.md", plan_markdown(APPROVABLE))
    check_golden("stages.md", plan_markdown(plan(STAGED, GATE_FAILED)))
    check_golden("moving.md", plan_markdown(MOVING))
    check_golden("no-changes.md", plan_markdown(plan(UP_TO_DATE)))


def test_verdict_and_money_come_first() -> None:
    lines = plan_markdown(plan(TRIAGE, HELD)).splitlines()
    assert lines[0] == "<!-- batchform:plan:acme-support -->"
    assert lines[1] == "### ✗ batchform: acme-support is held by max_usd"
    assert "1,504 to send ($0.57)" in lines[3]
    assert plan_markdown(FULL).splitlines()[1] == "### ✓ batchform: acme-support, $0.61 expected"


def test_row_text_and_keys_show_only_where_the_spec_makes_them_public() -> None:
    text = plan_markdown(FULL)
    assert "printer" not in text
    assert "T-1881" not in text
    assert "Summarise" in text
    assert "T-1881" in plan_markdown(plan(replace(TRIAGE, preview="public")))


@settings(deadline=None)
@given(PLANS)
def test_untrusted_text_stays_text(any_plan: Plan) -> None:
    text = plan_markdown(any_plan)
    assert len(text) <= MAX_CHARS
    assert all(c == "\n" or c.isprintable() or c in "\u200b\u200c\u200d\u00a0\u202f\u2003\u3000" for c in text)
    prose = OWN_TAGS.sub("", outside_code(text))
    assert "<" not in prose
    assert not re.search(r"@(?!\u200b)", prose)
    assert "://" not in prose
    assert not re.search(r"(?<!&)#\d", prose)


@settings(deadline=None)
@given(st.text(max_size=80) | st.just(EVIL))
def test_a_code_span_and_a_fence_cannot_be_left(text: str) -> None:
    span = code(text)
    fence = re.match("`+", span)
    assert fence
    assert fence[0] not in span[len(fence[0]) : -len(fence[0])]
    assert "\n" not in span
    block = fenced(text.split("\n"))
    fence = re.match("`{3,}", block)
    assert fence
    assert block.count(fence[0]) == 2


def test_prose_neither_mentions_nor_links_nor_marks_up() -> None:
    assert plain("@team <b> [x](y) *z* snake_case _q_") == (
        "@\u200bteam &lt;b&gt; \\[x\\](y) \\*z\\* snake_case \\_q\\_"
    )
    assert html("GH-1 #2 www.x.y http://z # 3") == "GH\u200b-1 #\u200b2 www\u200b.x.y http:\u200b//z # 3"


def test_a_comment_that_would_be_too_long_keeps_its_head_and_says_what_it_left_out() -> None:
    public = replace(TRIAGE, preview="public", samples=TRIAGE.samples * 200)
    text = plan_markdown(plan(*(replace(public, name=f"s{i}") for i in range(20))))
    assert len(text) <= MAX_CHARS
    assert "30,080 to send" in text
    assert text.count("what and why") == 20
    assert re.search(r"\*[0-9]+ more sections are left out", text)
    assert text.count("<details>") == text.count("</details>")
    small = plan_markdown(plan(*(replace(public, name=f"s{i}") for i in range(20))), max_chars=6_000)
    assert len(small) <= 6_000
    assert "| `s19` |" in small


def test_prose_starts_no_block_and_holds_no_formula() -> None:
    assert [plain(t) for t in ("# h", "- a", "1. x", "12) y", "===")] == [
        "\\# h",
        "\\- a",
        "1\\. x",
        "12\\) y",
        "\\===",
    ]
    assert plain("$x$ costs $0.40 to $1.10") == "&#36;x&#36; costs $0.40 to $1.10"
    assert plain("0.115 tokens") == "0.115 tokens"


def test_a_fence_gives_gitlab_no_orders() -> None:
    assert fenced(["/merge", "a /b"]) == "```\n\u200b/merge\na /b\n```\n"
