"""Result lines into Parquet: one bad line costs one row at most, and memory holds one batch."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.canon import key_hash, wire_key
from batchform.run.answers import write_answers
from batchform.run.parse import Parsed, decode_line, key_hash_of, parse_file, parser_for
from examples_kit import examples

TEXT = parser_for("text", None)


def line(key: str, text: str = "hello", **usage: int) -> bytes:
    response = {
        "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}],
        "usageMetadata": usage,
    }
    return json.dumps({"response": response, "key": wire_key(key)}).encode()


def parsed(tmp_path: Path, *lines: bytes) -> tuple[Parsed, Path]:
    raw, to = tmp_path / "raw.jsonl", tmp_path / "readings.parquet"
    raw.write_bytes(b"\n".join(lines))
    return parse_file(raw, to, parser=TEXT), to


def rows(path: Path, columns: str = "*") -> list[tuple[Any, ...]]:
    return duckdb.sql(f"SELECT {columns} FROM '{path}' ORDER BY line").fetchall()


def test_lines_become_rows_with_their_numbers(tmp_path: Path) -> None:
    met, to = parsed(tmp_path, line("a"), b"", line("b", "two"), b"  ")
    assert met == Parsed(lines=2)
    assert rows(to, "replace(key_hash::VARCHAR, '-', ''), class, text, line") == [
        (key_hash("a").hex(), "answered", "hello", 1),
        (key_hash("b").hex(), "answered", "two", 3),
    ]


def test_no_lines_make_an_empty_table(tmp_path: Path) -> None:
    met, to = parsed(tmp_path)
    assert met == Parsed() and rows(to) == []


def test_a_bad_line_costs_only_itself(tmp_path: Path) -> None:
    stray = b'{"key": "row-17", "response": {}}'
    met, to = parsed(tmp_path, line("a"), b"\x00\xff{", b'{"key": "k', b"[1]", stray, b'{"response": {}}', line("b"))
    assert (met.lines, met.unreadable, met.strays) == (7, 3, 2) and met.examples == ["row-17", "None"]
    assert [r[0] for r in rows(to, "line")] == [1, 7]


def test_an_answer_is_not_lost_to_one_bad_character(tmp_path: Path) -> None:
    bad_utf8 = line("a", "gr?sse").replace(b"?", b"\xfc")
    surrogate = line("b", "S").replace(b'"S"', rb'"\ud800 high"')
    control = line("c", "S").replace(b'"S"', b'"tab\there"')
    mark = b"\xef\xbb\xbf" + line("d", "marked")
    met, to = parsed(tmp_path, bad_utf8, surrogate, control, mark)
    assert met.unreadable == 0
    assert rows(to, "text") == [("gr\ufffdsse",), ("? high",), ("tab\there",), ("marked",)]


def test_gzip_is_read_as_it_is(tmp_path: Path) -> None:
    raw, to = tmp_path / "raw.gz", tmp_path / "readings.parquet"
    raw.write_bytes(gzip.compress(line("a") + b"\n"))
    assert parse_file(raw, to, parser=TEXT).lines == 1 and len(rows(to)) == 1


@pytest.mark.parametrize(
    "key", ["", "k", "x" + "0" * 32, "k" + "0" * 31, "k" + "g" * 32, "k" + "0 " * 16, "k" + "é" * 32]
)
def test_keys_that_cannot_be_ours(key: str) -> None:
    assert key_hash_of(key) is None and key_hash_of(None) is None


@settings(max_examples=examples(200), deadline=None)
@given(st.text())
def test_wire_keys_come_back(key: str) -> None:
    assert key_hash_of(wire_key(key)) == key_hash(key)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary() | st.text().map(lambda t: json.dumps({"a": t}).encode()))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    value = decode_line(data)
    json.dumps(value, ensure_ascii=False).encode()  # and what comes out can be stored


# --- answers -----------------------------------------------------------------------------------------------------


def answers(
    tmp_path: Path, lines: list[bytes], asked: list[str], known: list[str]
) -> tuple[dict[str, Any], dict[str, int]]:
    met, readings = parsed(tmp_path, *lines)
    with duckdb.connect() as con:
        for name, keys in (("asked", asked), ("known", known)):
            con.execute(f"CREATE TABLE {name} (key VARCHAR, key_hash UUID, request_fp BLOB)")
            for key in keys:
                con.execute(
                    f"INSERT INTO {name} VALUES (?, CAST(? AS UUID), ?)", [key, key_hash(key).hex(), key.encode()]
                )
        moved = "(SELECT key_hash FROM known ANTI JOIN asked USING (key_hash))"
        made = write_answers(
            con, readings, tmp_path / "answers.parquet", tag="t", parse_digest="sha256:p",
            requests="asked", known="known", moved=moved, parsed=met,
        )  # fmt: skip
        found = con.execute(
            f"SELECT k.key, class, text, line, a.request_fp FROM '{made.path}' a LEFT JOIN known k USING (key_hash)"
        ).fetchall()
        return {str(f[0]): f[1:] for f in found}, {k: v for k, v in made.anomalies.items() if v}


def test_the_first_answer_wins(tmp_path: Path) -> None:
    failed = json.dumps({"key": wire_key("a"), "error": {"code": 13}}).encode()
    found, odd = answers(
        tmp_path, [failed, line("a", "one"), line("a", "two"), line("b"), line("b")], ["a", "b"], ["a", "b"]
    )
    assert found["a"] == ("answered", "one", 2, b"a") and found["b"] == ("answered", "hello", 4, b"b")
    assert odd == {"duplicate": 3, "conflicting": 1}


def test_shuffled_strange_and_moved_keys(tmp_path: Path) -> None:
    found, odd = answers(tmp_path, [line("c"), line("nobody"), line("a"), b"{}", b"!"], ["a"], ["a", "b", "c"])
    assert found["a"][3] == b"a" and found["c"][3] is None
    assert odd == {"unknown_key": 2, "moved": 1, "unreadable": 1}


# --- memory ------------------------------------------------------------------------------------------------------

PEAK = """
import resource, sys
from pathlib import Path
from batchform.run.parse import parse_file, parser_for
parse_file(Path(sys.argv[1]), Path(sys.argv[2]), parser=parser_for("text", None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mb(raw: Path, to: Path) -> int:
    done = subprocess.run([sys.executable, "-c", PEAK, str(raw), str(to)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_is_that_of_a_batch(tmp_path: Path) -> None:
    """Twelve times the lines take about the same memory: what grows is the file."""
    peaks = []
    for count in (10_000, 120_000):
        raw = tmp_path / f"{count}.jsonl"
        with raw.open("wb") as f:
            for i in range(count):
                f.write(line(str(i), "word " * 60 + str(i), promptTokenCount=i) + b"\n")
        peaks.append(peak_mb(raw, tmp_path / "readings.parquet"))
    assert peaks[1] < peaks[0] * 1.25 + 10, peaks
