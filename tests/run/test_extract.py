"""JSON out of answers that wrap it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchform.run.extract import json_in
from batchform.run.parse import parser_for

WRAPPED: dict[str, tuple[str, Any]] = {
    "alone": ('{"a": 1}', {"a": 1}),
    "a scalar alone": ("17", 17),
    "a fence": ('```json\n{"a": 1}\n```', {"a": 1}),
    "a fence without a language": ("```\n[1, 2]\n```\n", [1, 2]),
    "a fence of tildes, indented": ('  ~~~ json\n  {"a": 1}\n  ~~~', {"a": 1}),
    "words around a fence": ('Sure! Here it is:\n\n```json\n{"a": 1}\n```\n\nLet me know.', {"a": 1}),
    "a fence within the JSON": ('```json\n{"a": "```"}\n```', {"a": "```"}),
    "a fence of code beside one of JSON": ('```python\nx = [1\n```\n```json\n{"a": 1}\n```', {"a": 1}),
    "words before": ('The answer is {"a": {"b": [1]}}', {"a": {"b": [1]}}),
    "words after": ('{"a": 1}\n\nI chose 1 because of the text.', {"a": 1}),
    "brackets in words": ('As said [see above] the result: {"a": 1}.', {"a": 1}),
    "braces in a text of the JSON": ('Result: {"a": "} {"}', {"a": "} {"}),
    "said twice alike": ('{"a": 1} that is: {"a": 1}', {"a": 1}),
}
REFUSED = {
    "nothing": "I cannot answer that.",
    "cut off": '```json\n{"a": 1',
    "two that differ": '{"a": 1} or {"a": 2}',
    "two fences that differ": '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```',
    "a number in words": "It is 17.",
    "not a number": "NaN",
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("label", WRAPPED)
def test_it_is_found(label: str) -> None:
    text, value = WRAPPED[label]
    assert json_in(text) == value
    reading = parser_for("json_in_text", None).read({"response": {"candidates": [_candidate(text)]}})
    assert reading.cls == "answered"
    assert json.loads(reading.response or "") == value
    assert reading.text == text  # what the model said stays as it was


@pytest.mark.parametrize("label", REFUSED)
def test_what_nobody_can_tell_is_invalid_output(label: str) -> None:
    reading = parser_for("json_in_text", None).read({"response": {"candidates": [_candidate(REFUSED[label])]}})
    assert reading.cls == "invalid_output"
    assert reading.response is None


def _candidate(text: str) -> dict[str, Any]:
    return {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PROSE = st.text(alphabet=st.characters(exclude_characters="[]{}`~", exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), PROSE, PROSE)
def test_any_object_is_found_in_any_prose(value: dict[str, Any], before: str, after: str) -> None:
    text = json.dumps(value)
    assert json_in(f"{before}{text}{after}") == value
    if "```" not in text:
        assert json_in(f"{before}\n```json\n{text}\n```\n{after}") == value


@given(st.text())
def test_it_never_fails_otherwise(text: str) -> None:
    with suppress(ValueError):
        json_in(text)
