"""What all destinations share: the rows are first written, in order, to a hidden file beside the destination."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform.errors import DestinationError
from batchform.rows.sql import identifier, literal
from batchform.rows.stream import stream

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SUFFIX: Final = ".batchform-tmp"

_ROW_GROUP = 8_192  # rows; DuckDB holds several groups in memory, and answers are long
_WIDER_THAN_PARQUET = ("HUGEINT", "UHUGEINT")  # Parquet would hold them as floats
_UTC = "strftime({} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A hidden file of our own in the target's folder, which is made if need be; removed at the end unless renamed.

    What a killed delivery left behind is removed first. A living one holds a lock on its file and is let alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    path = target.parent / f".{target.name}.{secrets.token_hex(4)}{SUFFIX}"
    with path.open("xb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    prefix = f".{target.name}."
    for entry in list(os.scandir(target.parent)):
        if entry.name.startswith(prefix) and entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
            with open(entry.path, "rb") as found:  # noqa: PTH123
                try:
                    fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                Path(entry.path).unlink(missing_ok=True)


def write_rows(con: DuckDBPyConnection, relation: str, path: Path, *, format: str) -> int:  # noqa: A002
    """Write a relation's rows, in its order, as jsonl, csv or parquet. Returns how many.

    Equal rows give equal bytes. Memory is bounded by DuckDB's limit, whatever the number of rows.
    """
    columns = column_types(con, relation)
    if format == "parquet":
        selected = ", ".join(f"{_parquet(c, kind)} AS {identifier(c)}" for c, kind in columns)
        [(rows,)] = con.execute(
            f"COPY (SELECT {selected} FROM {relation}) TO {literal(str(path))} "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP}, USE_TMP_FILE false)"
        ).fetchall()
        return int(rows)
    line = _json_line(columns) if format == "jsonl" else _csv_line(columns)
    rows = 0
    # Not COPY: for rows in a fixed order it holds whole batches of 122,880 rows and more in memory.
    with path.open("w", encoding="utf-8", newline="") as out:
        if format == "csv":
            out.write(",".join(_quoted(c) for c, _ in columns) + "\n")
        for batch in stream(con, f"SELECT {line} FROM {relation}"):
            rows += len(batch)
            out.writelines(f"{text}\n" for (text,) in batch)
    return rows


def column_types(con: DuckDBPyConnection, relation: str) -> list[tuple[str, str]]:
    """(name, DuckDB type) of a relation's columns."""
    return [(name, kind) for name, kind, *_ in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()]


def as_text(name: str, kind: str) -> str:
    """SQL of a column as text, times in ISO 8601 UTC."""
    column = identifier(name)
    return _UTC.format(column) if kind == "TIMESTAMP WITH TIME ZONE" else f"CAST({column} AS VARCHAR)"


def _parquet(name: str, kind: str) -> str:
    """JSON as plain strings: not every reader takes Parquet's JSON type for text."""
    column = identifier(name)
    return f"CAST({column} AS VARCHAR)" if kind == "JSON" or kind in _WIDER_THAN_PARQUET else column


def _json_line(columns: Sequence[tuple[str, str]]) -> str:
    pairs = []
    for name, kind in columns:
        value = identifier(name)
        if kind == "TIMESTAMP WITH TIME ZONE":
            value = as_text(name, kind)
        elif kind in ("DOUBLE", "FLOAT"):
            value = f"CASE WHEN isfinite({value}) THEN {value} END"  # JSON has no NaN and no infinity
        elif kind == "FLOAT[]":  # as DOUBLE, each number would be twice as long
            value = f"CAST(CAST({value} AS VARCHAR) AS JSON)"
        pairs.append(f"{literal(name)}, {value}")
    return f"CAST(json_object({', '.join(pairs)}) AS VARCHAR)"


def _csv_line(columns: Sequence[tuple[str, str]]) -> str:
    """NULL is nothing, empty text is `""`."""
    fields = []
    for name, kind in columns:
        text = as_text(name, kind)
        quoted = f"""'"' || replace({text}, '"', '""') || '"'"""
        fields.append(
            f"CASE WHEN {text} IS NULL THEN '' "
            f"WHEN {text} = '' OR regexp_matches({text}, '[\",\\r\\n]') THEN {quoted} ELSE {text} END"
        )
    return " || ',' || ".join(fields)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if not name or any(c in name for c in '",\r\n') else name


@contextmanager
def refusing(shown: str) -> Iterator[None]:
    """Turn what disks and databases say into a DestinationError. The destination must be as it was by then."""
    import duckdb

    try:
        yield
    except OSError as error:
        raise DestinationError(f"{shown} cannot be written: {error.strerror or error}.", hint=_HINT) from error
    except (duckdb.Error, sqlite3.Error) as error:
        raise DestinationError(f"{shown} cannot be written: {_first_line(error)}.", hint=_HINT) from error


_HINT = "Nothing was changed there, and no answer is lost: put this right and run `batchform sync`."


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def check_folder(folder: Path, *, shown: str) -> None:
    """Raise DestinationError unless a file can be made in a folder that exists or can be made."""
    at = folder
    while not at.exists() and at != at.parent:
        at = at.parent
    if not at.is_dir():
        raise DestinationError(f"{shown} cannot be written: {at} is a file, not a folder.")
    if not os.access(at, os.W_OK | os.X_OK):
        raise DestinationError(
            f"{shown} cannot be written: the folder {at} is not writable.", hint="Change its permissions or the path."
        )
