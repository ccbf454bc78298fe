"""The columns of a file that is already there: what batchform made is told from what it did not."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

_LONGEST_HEADER: Final = 1 << 20  # bytes
_LONGEST_LINE: Final = 1 << 26  # bytes


def columns_in(path: Path, *, format: str) -> list[str] | None:  # noqa: A002
    """Names of the columns of a jsonl, csv or parquet file, in order; None if it is no such file. Raises OSError."""
    with path.open("rb") as file:
        return columns_of(file, format=format)


def columns_of(file: IO[bytes], *, format: str) -> list[str] | None:  # noqa: A002
    """The same of an open file, of which only the first or last bytes are read."""
    return _READERS[format](file)


def _of_jsonl(file: IO[bytes]) -> list[str] | None:
    line = file.readline(_LONGEST_LINE)
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return list(first) if isinstance(first, dict) else None


def _of_csv(file: IO[bytes]) -> list[str] | None:
    head = file.read(_LONGEST_HEADER)
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < _LONGEST_HEADER else "replace")
        return next(csv.reader(io.StringIO(text, newline=""), strict=True), None)
    except (ValueError, csv.Error):
        return None


def _of_parquet(file: IO[bytes]) -> list[str] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(file).names)
    except pa.ArrowException:
        return None


_READERS: Final[Mapping[str, Callable[[IO[bytes]], list[str] | None]]] = {
    "jsonl": _of_jsonl,
    "csv": _of_csv,
    "parquet": _of_parquet,
}
