"""Results without keys: each finds a row that asked just this, and each row is given one answer."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.canon import canonical_json, key_hash, wire_key
from batchform.plan.shard import shard_line
from batchform.run.parse import Parsed, parse_file, parser_for
from batchform.run.rejoin import Rejoiner, request_digest

TEXT = parser_for("text", None)


def request(text: str, **config: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": {"temperature": 0, **config}}


def sent(*texts: str) -> list[bytes]:
    """Lines of an input: row 0, 1, … ask these texts."""
    return [shard_line(key_hash(str(i)).hex(), canonical_json(request(t))).rstrip(b"\n") for i, t in enumerate(texts)]


def result(text: str, *, key: str | None = None, status: str = "", **more: Any) -> dict[str, Any]:
    answer = {"candidates": [{"content": {"parts": [{"text": f"to {text}"}]}, "finishReason": "STOP"}]}
    line: dict[str, Any] = {"request": request(text), "response": {} if status else answer, "status": status, **more}
    return line if key is None else {**line, "key": wire_key(key)}


def read(tmp_path: Path, lines: list[dict[str, Any]], texts: list[str]) -> tuple[Parsed, list[tuple[str, str, str]]]:
    """What was met, and (row, class, text) of each line in order."""
    raw, to = tmp_path / "raw.jsonl", tmp_path / "readings.parquet"
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    met = parse_file(raw, to, parser=TEXT, sent=lambda: sent(*texts))
    rows = {key_hash(str(i)): str(i) for i in range(len(texts))}
    found = duckdb.sql(f"SELECT key_hash, class, text FROM '{to}' ORDER BY line").fetchall()
    return met, [(rows[key.bytes], cls, text) for key, cls, text in found]


def test_lines_without_keys_find_their_rows(tmp_path: Path) -> None:
    met, found = read(tmp_path, [result("b"), result("a")], ["a", "b"])
    assert met.strays == 0 and found == [("1", "answered", "to b"), ("0", "answered", "to a")]


def test_a_key_that_came_back_as_something_else_counts_as_none(tmp_path: Path) -> None:
    lines = [{**result("a"), "key": key} for key in (None, "", 0, {})]
    met, found = read(tmp_path, lines, ["a"] * 4)
    assert met.strays == 0 and sorted(row for row, _, _ in found) == ["0", "1", "2", "3"]


def test_rows_of_one_request_get_one_answer_each(tmp_path: Path) -> None:
    _, found = read(tmp_path, [result("a"), result("b"), result("a"), result("a")], ["a", "a", "b", "a"])
    assert sorted(row for row, _, _ in found) == ["0", "1", "2", "3"]


def test_a_row_that_came_with_its_key_is_not_answered_twice(tmp_path: Path) -> None:
    """The line without a key comes first, and must not take the row whose own line is still to come."""
    _, found = read(tmp_path, [result("a"), result("a", key="0")], ["a", "a"])
    assert [row for row, _, _ in found] == ["1", "0"]


def test_a_repetition_beyond_all_rows_is_a_repetition(tmp_path: Path) -> None:
    met, found = read(tmp_path, [result("a"), result("a")], ["a"])
    assert met.strays == 0 and [row for row, _, _ in found] == ["0", "0"]
    met, found = read(tmp_path, [result("a", key="0"), result("a")], ["a"])
    assert met.strays == 0 and [row for row, _, _ in found] == ["0", "0"]


def test_a_request_that_nobody_sent_is_a_stray(tmp_path: Path) -> None:
    met, found = read(tmp_path, [result("z")], ["a"])
    assert met.strays == 1 and found == []


def test_without_the_input_there_is_nothing_to_join_with(tmp_path: Path) -> None:
    met, found = read(tmp_path, [result("a")], [])
    assert met.strays == 1 and found == []


def test_a_status_is_a_failure_whatever_the_response(tmp_path: Path) -> None:
    lines = [
        result("a", key="0", status='Bad Request: {"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}'),
        {**result("b", key="1"), "status": "Deadline exceeded"},
        result("c", key="2", status='{"error": {"code": 429, "message": "slow down"}}'),
        {**result("d", key="3"), "response": {}},
        result("e", key="4"),
    ]
    _, found = read(tmp_path, lines, ["a", "b", "c", "d", "e"])
    assert [cls for _, cls, _ in found] == ["invalid_request", "internal", "rate_limited", "empty", "answered"]


# --- what the service does to a request that it repeats ---------------------------------------------------------------

leaves = st.one_of(
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.text(max_size=5),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def normalised(value: Any, rng: random.Random) -> Any:
    """The value as an importer may write it: names in another order, nulls and empty parts added, 0 as 0.0."""
    if isinstance(value, dict):
        items = [(name, normalised(v, rng)) for name, v in value.items()]
        items += [(f"added{i}", rng.choice([None, {}, []])) for i in range(rng.randrange(3))]
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [normalised(v, rng) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5 else value


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=4), trees, max_size=4), st.integers())
def test_a_request_is_known_however_it_is_written(value: dict[str, Any], seed: int) -> None:
    again = json.loads(json.dumps(normalised(value, random.Random(seed))))
    assert request_digest(again) == request_digest(value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.randoms(use_true_random=False), st.data())
def test_every_row_gets_one_answer_to_its_own_request(
    texts: list[str], rng: random.Random, data: st.DataObject
) -> None:
    """Whichever lines lost their keys, and in whatever order they come."""
    keyed = data.draw(st.sets(st.integers(0, len(texts) - 1)))
    order = list(range(len(texts)))
    rng.shuffle(order)
    joiner = Rejoiner(sent(*texts), [wire_key(str(i)) for i in keyed])
    served = Counter([wire_key(str(i)) for i in keyed])
    for i in order:
        if i not in keyed:
            key = joiner.key(normalised(request(texts[i]), rng))
            assert key is not None
            served[key] += 1
            assert texts[[wire_key(str(j)) for j in range(len(texts))].index(key)] == texts[i]
    assert served == Counter(wire_key(str(i)) for i in range(len(texts)))
