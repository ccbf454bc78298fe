"""Every result line has a class; which one is a table."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.run.classify import ANSWERED, Decode, Reading, classify, key_of
from batchform.run.extract import json_in
from batchform.run.parse import parser_for
from batchform.spec.model import FailureClass
from examples_kit import examples

CLASSES = {ANSWERED, *get_args(FailureClass)}


def answer(text: str | None = "hello", finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    content = {"content": {"parts": [{"text": text}], "role": "model"}} if text is not None else {}
    return {"key": "k", "response": {"candidates": [{**content, "finishReason": finish, "index": 0}], **more}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (answer(), "answered"),
        (answer(finish=None), "answered"),
        (answer(finish="A_WORD_TO_COME"), "answered"),
        (answer(finish="MAX_TOKENS"), "truncated"),
        (answer(None, "MAX_TOKENS"), "truncated"),
        (answer(None, "SAFETY"), "blocked"),
        (answer("half", "RECITATION"), "blocked"),
        (answer(None, "MALFORMED_FUNCTION_CALL"), "invalid_output"),
        (answer(""), "empty"),
        (answer(None), "empty"),
        (answer(None, "OTHER"), "empty"),
        ({"response": {"candidates": []}}, "empty"),
        ({"response": {"promptFeedback": {"blockReason": "SAFETY"}}}, "blocked"),
        ({"response": {}}, "empty"),
        ({"key": "k"}, "empty"),
        ({"error": {"code": 13}}, "internal"),
        ({"error": {"code": 14, "message": "later"}}, "internal"),
        ({"error": {"code": 500}}, "internal"),
        ({"error": {"code": 503}}, "internal"),
        ({"error": {"code": "503"}}, "internal"),
        ({"error": {"status": "UNAVAILABLE"}}, "internal"),
        ({"error": {"code": 99}}, "internal"),
        ({"error": "something"}, "internal"),
        ({"error": {"code": 8}}, "rate_limited"),
        ({"error": {"code": 429}}, "rate_limited"),
        ({"error": {"code": 3}}, "invalid_request"),
        ({"error": {"code": 400}}, "invalid_request"),
        ({"error": {"code": 418}}, "invalid_request"),
        ({"error": {"code": 1}}, "cancelled"),
        ({"status": {"code": 13}}, "internal"),
        ({"status": "Bad Request"}, "internal"),
        ([], "internal"),
        (None, "internal"),
    ],
)
def test_the_table(line: Any, expected: str) -> None:
    reading = classify(line)
    assert reading.cls == expected
    assert (reading.message is None) == (expected == ANSWERED)


def test_thoughts_are_no_text() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "a"}, {"inlineData": {}}, {"text": "b"}, "odd", {"text": 5}]
    line = {"response": {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}}
    assert classify(line).text == "ab"


def test_usage_is_read_as_it_comes() -> None:
    usage = {
        "promptTokenCount": 11,
        "candidatesTokenCount": "5",
        "thoughtsTokenCount": -1,
        "cachedContentTokenCount": 2**70,
        "totalTokenCount": True,
    }
    reading = classify(answer(usageMetadata=usage, modelVersion="m-1"))
    assert reading[-5:] == (11, 5, None, None, None) and reading.model_version == "m-1"


def test_a_blocked_prompt_says_why_and_is_billed() -> None:
    feedback = {"blockReason": "JAILBREAK", "blockReasonMessage": "no"}
    line = {"response": {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 9}}}
    reading = classify(line)
    assert (reading.cls, reading.prompt_tokens) == ("blocked", 9) and "JAILBREAK. no" in str(reading.message)


SCHEMA = {
    "type": "object",
    "required": ["category"],
    "properties": {"category": {"enum": ["bug", "praise"]}, "tags": {"type": "array", "items": {"type": "string"}}},
}


@pytest.mark.parametrize(
    ("text", "expected", "told"),
    [
        ('{"category": "bug"}', "answered", ""),
        ('  {"category":"bug","more":1.5}\n', "answered", ""),
        ('{"category": "cat"}', "invalid_output", "at category"),
        ('{"category": "bug", "tags": ["a", 1]}', "invalid_output", "at tags/1"),
        ("{}", "invalid_output", "required"),
        ('{"category": "bug"', "invalid_output", "is not JSON"),
        ("NaN", "invalid_output", "is not JSON"),
        ("[" * 100_000, "invalid_output", "is not JSON"),
    ],
)
def test_json_answers_are_held_against_the_schema(text: str, expected: str, told: str) -> None:
    reading = parser_for("json", SCHEMA).read(answer(text))
    assert reading.cls == expected and told in (reading.message or "") and reading.text == text
    assert (reading.response is None) == (expected != "answered")
    if reading.response:
        assert json.loads(reading.response) == json.loads(text)


def test_json_without_a_schema_is_any_json() -> None:
    assert parser_for("json", None).read(answer("[1, 2]")).response == "[1,2]"
    assert parser_for("text", SCHEMA).read(answer("[1, 2]")).response is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["response", "error", "status", "key", "metadata", "candidates", "content", "parts", "text", "thought", "code",
     "finishReason", "usageMetadata", "promptTokenCount", "promptFeedback", "blockReason", "message", "STOP",
     "MAX_TOKENS", "SAFETY", '{"a":1}']
)  # fmt: skip
ODD = st.recursive(
    JSON | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=examples(150), deadline=None)
@given(ODD, st.sampled_from([None, msgspec.json.decode, json_in]))
def test_no_json_makes_it_raise(line: Any, decode: Decode | None) -> None:
    reading = classify(line, decode=decode, validate=lambda _: "")
    assert isinstance(reading, Reading) and reading.cls in CLASSES
    assert (reading.message is None) == (reading.cls == ANSWERED)
    for count in reading[-5:]:
        assert count is None or 0 <= count < 2**63
    assert all(v is None or isinstance(v, str) for v in reading[:-5])
    key = key_of(line)
    assert key is None or isinstance(key, str)


@settings(max_examples=examples(100), deadline=None)
@given(JSON.filter(lambda v: json.dumps(v).isascii()))
def test_valid_json_answers_come_through_unchanged(value: Any) -> None:
    try:
        text = msgspec.json.encode(value).decode()
        value = msgspec.json.decode(text)
    except (ValueError, UnicodeError):
        return
    reading = parser_for("json", None).read(answer(text))
    assert reading.cls == ANSWERED and reading.response is not None
    assert msgspec.json.decode(reading.response) == value


def test_a_file_that_expired_before_its_job_read_it_is_worth_another_attempt() -> None:
    gone = "You do not have permission to access the File bfa-12 or it may not exist."
    line = {"key": "k1", "error": {"code": 403, "status": "PERMISSION_DENIED", "message": gone}}
    assert classify(line).cls == "expired"
    line["error"] = {"code": 403, "status": "PERMISSION_DENIED", "message": "The caller does not have permission."}
    assert classify(line).cls == "invalid_request"
