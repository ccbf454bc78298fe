"""What becomes of an answer: a table of finishReason, parts, promptFeedback and schema, kept in outcomes.json, shown in
docs/answers.md, and run through the parser as result lines of a file."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import msgspec
import pyarrow.parquet as pq
import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.ledger.records import ANSWER_DETAILS
from batchform.run.classify import ANSWERED, classify
from batchform.run.parse import parse_file, parser_for
from batchform.spec.model import FailureClass
from examples_kit import examples

TABLE: dict[str, dict[str, dict[str, str]]] = json.loads((Path(__file__).parent / "outcomes.json").read_text())
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CALL = {"functionCall": {"name": "f", "args": {"order": "7"}}}
STEPS = [{"executableCode": {"language": "PYTHON", "code": "1"}}, {"codeExecutionResult": {"outcome": "OUTCOME_OK"}}]
PARTS: dict[str, tuple[bool, list[dict[str, Any]]]] = {
    "text": (False, [{"text": "words"}]),
    "JSON that fits": (True, [{"text": '{"a": 1}'}]),
    "JSON that does not fit": (True, [{"text": '{"a": "1"}'}]),
    "text in place of JSON": (True, [{"text": "words"}]),
    "no parts": (False, []),
    "thoughts only": (False, [{"text": "hm", "thought": True}]),
    "function call": (False, [CALL]),
    "function call beside text": (True, [{"text": "I shall look."}, CALL]),
    "code that was run": (False, STEPS),
}
"""Parts of an answer; whether it is to be JSON of a schema."""


def response_of(finish: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    content = {"role": "model", **({"parts": parts} if parts else {})}
    return {"candidates": [{"content": content, "index": 0, **({"finishReason": finish} if finish else {})}]}


def classes(tmp_path: Path, responses: list[tuple[bool, dict[str, Any]]]) -> list[str]:
    """The class of each response, by the parser, out of files of result lines."""
    found: dict[int, str] = {}
    for strict in (False, True):
        lines = [(i, r) for i, (held, r) in enumerate(responses) if held == strict]
        raw, readings = tmp_path / "raw.jsonl", tmp_path / "readings.parquet"
        raw.write_text("".join(json.dumps({"key": f"k{i:032x}", "response": r}) + "\n" for i, r in lines))
        parser = parser_for("json", SCHEMA) if strict else parser_for("text", None)
        parse_file(raw, readings, parser=parser)
        for (i, _), cls in zip(lines, pq.read_table(readings)["class"].to_pylist(), strict=True):
            found[i] = cls
    return [found[i] for i in range(len(responses))]


def test_every_finish_reason_with_every_kind_of_parts(tmp_path: Path) -> None:
    cases = [(finish, kind) for finish in TABLE["finishReason"] for kind in PARTS]
    found = classes(tmp_path, [(PARTS[kind][0], response_of(finish, PARTS[kind][1])) for finish, kind in cases])
    told = dict(zip(cases, found, strict=True))
    assert told == {(f, k): cls for f, row in TABLE["finishReason"].items() for k, cls in row.items()}


def test_every_block_reason(tmp_path: Path) -> None:
    for reason, row in TABLE["blockReason"].items():
        feedback = {"promptFeedback": {"blockReason": reason} if reason else {"safetyRatings": []}}
        both = {**feedback, **response_of("STOP", [{"text": "words"}])}
        found = classes(tmp_path, [(False, feedback), (False, both)])
        assert found == [row["no candidate"], row["a candidate with text"]], reason


def test_the_table_has_every_word_of_the_sdk_and_one_to_come() -> None:
    finish = {str(m.value) for m in types.FinishReason} | {"A_WORD_TO_COME", ""}
    assert set(TABLE["finishReason"]) == finish
    assert set(TABLE["blockReason"]) == {str(m.value) for m in types.BlockedReason} | {"A_WORD_TO_COME", ""}
    known = {ANSWERED, *get_args(FailureClass)}
    assert {cls for part in TABLE.values() for row in part.values() for cls in row.values()} <= known


GROUNDING = {"webSearchQueries": ["q"], "groundingChunks": [{"web": {"uri": "https://example.com", "novel": 1}}]}


def test_what_stands_beside_the_text_is_kept() -> None:
    parts = [{"text": "hm ", "thought": True}, *STEPS, {"text": "so", "thought": True}, {"text": "answer"}, CALL]
    response = response_of("STOP", parts)
    response["candidates"][0] |= {
        "groundingMetadata": GROUNDING,
        "citationMetadata": {"citations": [{"uri": "https://example.org", "startIndex": 1}]},
        "urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "https://example.net"}]},
    }
    reading = classify({"response": response})
    assert (reading.cls, reading.text, reading.thoughts) == (ANSWERED, "answer", "hm so")
    kept = {n: msgspec.json.decode(getattr(reading, n)) for n in ANSWER_DETAILS if n != "thoughts"}
    assert kept == {
        "function_calls": [CALL["functionCall"]],
        "tool_steps": STEPS,
        "citations": [{"uri": "https://example.org", "startIndex": 1}],
        "grounding": GROUNDING,
        "url_context": {"urlMetadata": [{"retrievedUrl": "https://example.net"}]},
    }


def test_older_citations_are_citations() -> None:
    response = response_of("RECITATION", [])
    response["candidates"][0]["citationMetadata"] = {"citationSources": [{"uri": "https://example.org"}]}
    reading = classify({"response": response})
    assert (reading.cls, reading.citations) == ("blocked", '[{"uri":"https://example.org"}]')


# --- words and fields to come ------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NEW_FIELDS = st.dictionaries(st.from_regex(r"new[A-Z][a-z]{1,8}", fullmatch=True), JSON, max_size=3)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every object within an answer."""
    if isinstance(value, dict):
        return [at, *(p for k, v in value.items() for p in _paths(v, (*at, k)))]
    return [p for i, v in enumerate(value) for p in _paths(v, (*at, i))] if isinstance(value, list) else []


def _whole() -> dict[str, Any]:
    response = response_of("STOP", [{"text": "hm", "thought": True}, {"text": '{"a": 1}'}, *STEPS])
    response["candidates"][0] |= {"groundingMetadata": GROUNDING, "safetyRatings": [{"category": "C"}]}
    whole = {"key": "k", "response": {**response, "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 5}}}
    return deepcopy(whole)


@given(st.sampled_from(_paths(_whole())), NEW_FIELDS)
@settings(max_examples=examples(300), deadline=None)
def test_fields_to_come_change_nothing_that_is_read(path: tuple[Any, ...], fields: dict[str, Any]) -> None:
    line = _whole()
    at: Any = line
    for step in path:
        at = at[step]
    at.update(fields)
    parser = parser_for("json", SCHEMA)
    plain, reading = parser.read(_whole()), parser.read(line)
    inside = ("tool_steps", "citations", "grounding", "url_context")  # kept as they came
    assert reading._replace(**dict.fromkeys(inside)) == plain._replace(**dict.fromkeys(inside))
    assert all((getattr(reading, n) is None) == (getattr(plain, n) is None) for n in inside)


@given(st.sampled_from([p for p in _paths({"x": _whole()}) if p]), JSON)
@settings(max_examples=examples(500), deadline=None)
def test_nothing_that_stands_anywhere_breaks_a_reading(path: tuple[Any, ...], value: Any) -> None:
    whole = {"x": _whole()}
    at: Any = whole
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    for parser in (parser_for("json", SCHEMA), parser_for("text", None)):
        assert parser.read(whole["x"]).cls in {ANSWERED, *get_args(FailureClass)}


@pytest.mark.parametrize("odd", [1, None, ["STOP"], {"a": 1}, True])
def test_reasons_that_are_no_words(odd: Any) -> None:
    line = {"response": {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": odd}]}}
    assert classify(line).cls == ANSWERED
    assert classify({"response": {"promptFeedback": {"blockReason": odd}}}).cls == "empty"
