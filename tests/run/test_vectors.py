"""What result lines say of embeddings: one vector, of the right length, of finite numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchform.run.parse import decode_line
from batchform.run.vectors import read_vector


def line(response: Any, **more: Any) -> bytes:
    return json.dumps({"key": "k", "response": response, **more}).encode()


def test_a_vector_is_kept_as_it_came() -> None:
    read = read_vector(decode_line(line({"tokenCount": "7", "embedding": {"values": [0.1, -2, 3e-08]}})), dimensions=3)
    assert (read.cls, read.response, read.text) == ("answered", "[0.1,-2,3e-8]", None)
    assert (read.prompt_tokens, read.output_tokens, read.total_tokens) == (7, None, 7)


def test_usage_metadata_counts_before_the_token_count() -> None:
    said = {"usageMetadata": {"promptTokenCount": 5}, "tokenCount": "9", "embedding": {"values": [1.0]}}
    assert read_vector(decode_line(line(said)), dimensions=None).prompt_tokens == 5


@pytest.mark.parametrize(
    ("values", "cls", "words"),
    [
        ([0.5, 0.5], "invalid_output", "has 2 dimensions, and 3 were asked for"),
        ([0.5] * 4, "invalid_output", "has 4 dimensions, and 3 were asked for"),
        ([0.5, float("nan"), 0.5], "invalid_output", "holds 'NaN' at 1, which is no finite number"),
        ([0.5, "NaN", 0.5], "invalid_output", "holds 'NaN' at 1"),
        ([0.5, float("inf"), 0.5], "invalid_output", "holds 'Infinity' at 1"),
        ([True, 0.5, 0.5], "invalid_output", "holds 'True' at 0"),
        ([None, 0.5, 0.5], "invalid_output", "holds 'None' at 0"),
        ([], "empty", "holds no vector"),
        ("abc", "empty", "holds no vector"),
    ],
)
def test_what_is_no_such_vector_is_no_answer(values: Any, cls: str, words: str) -> None:
    read = read_vector(decode_line(line({"embedding": {"values": values}, "tokenCount": "3"})), dimensions=3)
    assert read.cls == cls and words in (read.message or "")
    assert read.response is None and read.prompt_tokens == 3


def test_several_vectors_are_no_answer() -> None:
    several = {"embeddings": [{"values": [1.0]}, {"values": [2.0]}]}
    assert read_vector(decode_line(line(several)), dimensions=None).cls == "invalid_output"
    assert read_vector(decode_line(line({"embeddings": [{"values": [1.0]}]})), dimensions=1).cls == "answered"
    assert read_vector(decode_line(line({"embeddings": []})), dimensions=1).cls == "empty"


def test_errors_are_read_as_those_of_other_requests() -> None:
    refused = json.dumps({"key": "k", "error": {"code": 3, "message": "too long"}}).encode()
    assert read_vector(decode_line(refused), dimensions=None).cls == "invalid_request"
    assert read_vector(decode_line(line({}, status="Internal: x")), dimensions=None).cls == "internal"
    assert read_vector([], dimensions=None).cls == "internal"
