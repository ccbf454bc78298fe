"""The floor of a collection: result lines decoded by msgspec into typed values and written as Parquet.

python benchmarks/baselines/bare_collect.py validated|none OUT.parquet RESULTS.jsonl.gz [RESULTS.jsonl.gz …]

validated: the text of an answer is decoded, too, into the type of its schema. Nothing is joined, archived or recorded.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

_BATCH = 10_000


class _Part(msgspec.Struct):
    text: str = ""


class _Content(msgspec.Struct):
    parts: list[_Part] = []


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content
    finish_reason: str = ""


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0
    candidates_token_count: int = 0


class _Response(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] = []
    usage_metadata: _Usage = msgspec.field(default_factory=_Usage)


class _Line(msgspec.Struct):
    key: str
    response: _Response


def _as_text(text: str) -> _Answer:
    return _Answer("", 0, text)


class _Answer(msgspec.Struct):
    category: str
    urgency: int
    summary: str


_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("category", pa.string()),
        ("urgency", pa.int64()),
        ("summary", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
    ]
)


def main() -> None:
    schema, *names = sys.argv[1:]
    to, *results = map(Path, names)
    line, answer = msgspec.json.Decoder(_Line), msgspec.json.Decoder(_Answer).decode
    if schema == "none":
        answer = _as_text
    rows: list[tuple[object, ...]] = []
    with pq.ParquetWriter(to, _SCHEMA) as file:
        for path in results:
            with gzip.open(path) as lines:
                for raw in lines:
                    found = line.decode(raw)
                    candidate, usage = found.response.candidates[0], found.response.usage_metadata
                    said = answer("".join(part.text for part in candidate.content.parts))
                    rows.append(
                        (found.key, said.category, said.urgency, said.summary, candidate.finish_reason,
                         usage.prompt_token_count, usage.candidates_token_count)
                    )  # fmt: skip
                    if len(rows) == _BATCH:
                        _write(file, rows)
        if rows:
            _write(file, rows)


def _write(file: pq.ParquetWriter, rows: list[tuple[object, ...]]) -> None:
    columns = zip(*rows, strict=True)
    file.write_table(pa.table([pa.array(c, t) for c, t in zip(columns, _SCHEMA.types, strict=True)], schema=_SCHEMA))
    rows.clear()


if __name__ == "__main__":
    main()
