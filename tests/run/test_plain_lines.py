"""Plain lines are read as any other line would be, only faster."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from batchform.run.classify import classify, key_of
from batchform.run.extract import json_in
from batchform.run.parse import decode_line
from batchform.run.plain_lines import PlainLines, plain

PLAIN: dict[str, Any] = {
    "key": "k" + "0" * 32,
    "response": {
        "candidates": [
            {"content": {"parts": [{"text": '{"a": 1}'}], "role": "model"}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {
            "promptTokenCount": 148,
            "candidatesTokenCount": "23",
            "totalTokenCount": 171,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 148}],
        },
        "modelVersion": "m-1",
        "responseId": "OvBpI4tOJWT8yE7L",
    },
}
PLACES: list[tuple[str | int, ...]] = [
    ("key",), ("status",), ("error",), ("metadata",), ("request",), ("response",), ("new",),
    ("response", "candidates"), ("response", "usageMetadata"), ("response", "modelVersion"), ("response", "new"),
    ("response", "promptFeedback"), ("response", "candidates", 0), ("response", "candidates", 0, "content"),
    ("response", "candidates", 0, "finishReason"), ("response", "candidates", 0, "groundingMetadata"),
    ("response", "candidates", 0, "content", "parts"), ("response", "candidates", 0, "content", "parts", 0),
    ("response", "candidates", 0, "content", "parts", 0, "text"),
    ("response", "candidates", 0, "content", "parts", 0, "thought"),
    ("response", "usageMetadata", "promptTokenCount"), ("response", "usageMetadata", "thoughtsTokenCount"),
    ("response", "usageMetadata", "totalTokenCount"), ("response", "usageMetadata", "new"),
]  # fmt: skip
ODD = st.sampled_from(
    [None, "", "x", "STOP", "SAFETY", "MAX_TOKENS", 0, 7, -1, 7.0, 1.5, 2**62, 2**70, True, "12", [], {}, [None], [{}],
     {"text": "t"}, [{"text": "a"}, {"text": "b"}], [{"text": ""}], [{"content": {"parts": [{"text": "c"}]}}],
     {"key": "k"}, {"parts": [{"text": "p"}]}, "\ud800", "é\u2028", '{"b": [1]}', "```json\n{}\n```"]
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), ODD), max_size=3)


def changed(changes: list[tuple[tuple[str | int, ...], Any]]) -> dict[str, Any]:
    line = json.loads(json.dumps(PLAIN))
    for place, value in changes:
        at: Any = line
        try:
            for step in place[:-1]:
                at = at[step]
            at[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    return line


@given(CHANGES, st.sampled_from([None, msgspec.json.decode, json_in]), st.booleans(), st.booleans())
def test_a_plain_line_is_read_as_classify_reads_it(changes: Any, decode: Any, judged: bool, ascii_only: bool) -> None:
    validate = (lambda value: "" if value == {"a": 1} else "no") if judged else None
    line = json.dumps(changed(changes), ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = PlainLines(decode, validate).read(line)
    value = decode_line(line)
    if found is not None:
        assert found == (key_of(value), classify(value, decode=decode, validate=validate))
    if not changes:
        assert found is not None


@given(st.binary(max_size=4), st.integers(0, 400))
def test_a_damaged_line_is_plain_only_if_it_is_read_the_same(damage: bytes, at: int) -> None:
    line = bytearray(json.dumps(PLAIN).encode())
    line[at : at + len(damage)] = damage
    found = PlainLines(None, None).read(bytes(line))
    if found is not None:
        value = decode_line(bytes(line))
        assert found == (key_of(value), classify(value))


def test_a_file_of_other_lines_is_given_up_on_soon() -> None:
    lines, other = PlainLines(None, None), json.dumps(changed([(("new",), 1)])).encode()
    assert [lines.read(other) for _ in range(300)] == [None] * 300
    assert plain(json.dumps(PLAIN).encode()) is not None
    assert lines.read(json.dumps(PLAIN).encode()) is None, "it is not looked for any more"
