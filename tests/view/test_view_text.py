"""Figures and untrusted text as people read them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.spec.wording import counted, money
from batchform.view.requests import prompt_lines, request_diff, request_lines
from batchform.view.text import clipped, duration, safe, safe_lines, size, tokens


@settings(deadline=None)
@given(st.text())
def test_safe_text_is_one_printable_line_and_stays_so(text: str) -> None:
    shown = safe(text)
    assert all(c.isprintable() or c in "\u200c\u200d\u00a0\u202f\u2003\u3000" for c in shown)
    assert safe(shown) == shown
    assert all("\n" not in line for line in safe_lines(text))


def test_honest_text_is_left_alone() -> None:
    for text in ("plain", "Größe 42 µm", "日本語　テキスト", "می\u200cخواهم", "👩\u200d🔬"):
        assert safe(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("\x9b", "\\x9b"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        (0, "$0.00"),
        (0.000012, "$0.000012"),
        (0.00123, "$0.0012"),
        (0.567, "$0.57"),
        (1234.5, "$1,234.50"),
        (1e-12, "$0.000000000"),
    ],
)
def test_money(usd: float, shown: str) -> None:
    assert money(usd) == shown


def test_other_figures() -> None:
    assert [tokens(n) for n in (0, 98_765, 999_999, 1_610_000)] == ["0", "98,765", "999,999", "1.61 M"]
    assert [size(n) for n in (0, 999, 1000, 233_000, 12_300_000, 2 * 10**12, 10**16)] == [
        "0 B", "999 B", "1.0 kB", "233.0 kB", "12.3 MB", "2.0 TB", "10,000.0 TB",
    ]  # fmt: skip
    assert [duration(s) for s in (-5, 45, 720, 11_100, 187_200)] == ["0 s", "45 s", "12 min", "3 h 05 min", "2 d 4 h"]
    assert [counted(n, "row") for n in (0, 1, 1204)] == ["0 rows", "1 row", "1,204 rows"]
    assert clipped("abcdef", 4) == "abc…"


REQUEST = {
    "contents": [
        {"role": "user", "parts": [{"text": "one\ntwo"}, {"fileData": {"fileUri": "files/x"}}]},
        {"role": "model", "parts": [{"text": "yes"}]},
    ],
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "generationConfig": {"temperature": 0},
}


def test_a_request_reads_as_turns_and_fields() -> None:
    text = json.dumps(REQUEST)
    turns = ["[user]", "one", "two", '{"fileData": {"fileUri": "files/x"}}', "[model]", "yes"]
    assert prompt_lines(text) == turns
    assert request_lines(text) == [
        "[system]",
        "Be brief.",
        *turns,
        "[generationConfig]",
        "{",
        '  "temperature": 0',
        "}",
    ]


def test_the_difference_of_two_requests_is_by_line() -> None:
    after = {
        **REQUEST,
        "systemInstruction": {"parts": [{"text": "Be very brief."}]},
        "generationConfig": {"temperature": 1},
    }
    assert request_diff(json.dumps(REQUEST), json.dumps(after)) == [
        ("@", "…"), (" ", "[system]"), ("-", "Be brief."), ("+", "Be very brief."), (" ", "[user]"),
        ("@", "…"), (" ", "{"), ("-", '  "temperature": 0'), ("+", '  "temperature": 1'), (" ", "}"),
    ]  # fmt: skip


@settings(deadline=None)
@given(
    st.text()
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_whatever_a_request_is_it_can_be_shown(text: str) -> None:
    assert all(safe(line) == line for line in request_lines(text) + prompt_lines(text))
