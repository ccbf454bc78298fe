"""Rows from JSON: `jsonl` (an object per line) and `json` (an array of objects).

A column's type depends on all rows, and a row's value never depends on other rows: only-text columns are VARCHAR,
only-boolean BOOLEAN, integers that fit 64 bits BIGINT, only-fractional DOUBLE, text mixed with numbers VARCHAR (the
number's own digits). Everything else (objects, lists, mixed, larger integers) is JSON text, to be decoded per value.
Absent and null are both NULL. Columns are in alphabetical order, since objects have none.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import Struct

from batchform.adapters.sources.delimited import glob_escape
from batchform.adapters.sources.paths import Remote, SourceFile, describe, expand, read_from
from batchform.adapters.sources.snapshot import Snapshot, check_columns, locate, take, temp_path
from batchform.adapters.sources.sql import quote_name, quote_text, source_error
from batchform.adapters.sources.text import MAX_LINE, check_utf8, is_compressed, utf8_chunks
from batchform.errors import Place, SourceError
from batchform.ports import Relation
from batchform.spec.model import FileSource

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MAX_COLUMNS = 5_000
_MAX_EXPLAINED = 256 << 20  # bytes of an array that is read whole to find its error


class _Plain(Struct, frozen=True):
    file: SourceFile
    path: Path
    size: int
    rows: int


class JsonSource:
    """The `json` and `jsonl` sources."""

    def __init__(self, spec: FileSource, *, root: Path, allow: Sequence[Path], remote: Remote | None = None) -> None:
        self._spec, self._root, self._allow, self._remote = spec, root, allow, remote
        self._lines = spec.type == "jsonl"
        self._files: list[SourceFile] = []
        self._snapshot: Snapshot | None = None

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Read all files into a snapshot. Raises SourceError, with file and line for a bad row."""
        files = expand(self._spec.path, root=self._root, allow=self._allow, remote=self._remote)
        with ExitStack() as cleanup:
            plain = [self._plain(con, file, cleanup) for file in files]
            try:
                snapshot = self._read(con, plain)
            except _duckdb().Error as error:
                raise self._explain(files, error) from error
        self._files, self._snapshot = files, snapshot
        return Relation(snapshot.sql, snapshot.columns, describe(files, self._spec.path), **read_from(files))

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """`file:line` of each row of JSON lines, `file: element N` of an array."""
        places = itertools.chain.from_iterable(self._places(con, file) for file in self._files)
        return locate(con, self._snapshot, ordinals, places)

    def _places(self, con: DuckDBPyConnection, file: SourceFile) -> Iterator[str]:
        if self._lines:
            for number, line in _lines(file):
                if line.strip():
                    yield f"{file.name}:{number}"
            return
        with ExitStack() as cleanup:
            plain = self._plain(con, file, cleanup)
            row = con.execute(f"SELECT count(*) FROM {self._objects([plain])}").fetchone()
        for number in range(int(row[0]) if row else 0):
            yield f"{file.name}: element {number + 1}"

    def _plain(self, con: DuckDBPyConnection, file: SourceFile, cleanup: ExitStack) -> _Plain:
        """The file as DuckDB reads it: itself, or a copy without compression and byte order mark."""
        with file.path.open("rb") as stream:
            marked = stream.read(3) == b"\xef\xbb\xbf"
        path = file.path
        size = rows = 0
        end = b""
        if marked or is_compressed(file):
            path = temp_path(con, ".jsonl")
            cleanup.callback(path.unlink, missing_ok=True)
            with path.open("wb") as out:
                for chunk in utf8_chunks(file):
                    out.write(chunk)
        for chunk in utf8_chunks(file) if path == file.path else _bytes(path):
            size += len(chunk)
            rows += chunk.count(b"\n") if self._lines else chunk.count(b"{")
            end = chunk.rstrip()[-1:] or end
        if not size:
            raise SourceError(f"{file.name} is empty.", hint=f"It must hold {self._expected()}.")
        if not self._lines and end != b"]":  # DuckDB takes an array that is cut off behind a comma
            raise self._explain([file], ValueError(f"the array has no end: the last byte is {end!r}"))
        return _Plain(file, path, size, max(rows, 1))

    def _expected(self) -> str:
        return "one JSON object per line" if self._lines else "one array of JSON objects"

    def _read(self, con: DuckDBPyConnection, plain: Sequence[_Plain]) -> Snapshot:
        names = self._names(con, plain)
        types = self._types(con, plain, names)
        return take(
            con,
            self._reader(plain, types),
            where=self._spec.where,
            query=self._spec.query,
            row_bytes=sum(p.size for p in plain) / sum(p.rows for p in plain),
        )

    def _names(self, con: DuckDBPyConnection, plain: Sequence[_Plain]) -> list[str]:
        """All keys of all rows."""
        found = con.execute(
            "SELECT DISTINCT unnest(CASE WHEN json_type(json) = 'OBJECT' THEN json_keys(json) ELSE [NULL] END) "
            f"FROM {self._objects(plain)} LIMIT {_MAX_COLUMNS + 1}"
        ).fetchall()
        files = [p.file for p in plain]
        if any(row[0] is None for row in found):
            raise self._explain(files, ValueError("a row is not a JSON object"))
        names = sorted(str(row[0]) for row in found)
        if not names:
            raise SourceError(f"{describe(files, self._spec.path)} holds no rows, and so no columns.")
        if len(names) > _MAX_COLUMNS:
            raise SourceError(
                f"{describe(files, self._spec.path)} has more than {_MAX_COLUMNS} different keys.",
                hint="Keys are columns: put what varies from row to row into one object of its own.",
            )
        check_columns(names, describe(files, self._spec.path))
        return names

    def _types(self, con: DuckDBPyConnection, plain: Sequence[_Plain], names: Sequence[str]) -> dict[str, str]:
        """The narrowest type that holds every value of each column, from all rows."""
        as_json = self._reader(plain, dict.fromkeys(names, "JSON"))
        facts = ", ".join(
            f"bit_or(CASE coalesce(json_type({c}), 'NULL') "
            "WHEN 'VARCHAR' THEN 1 WHEN 'BOOLEAN' THEN 2 WHEN 'NULL' THEN 0 "
            f"WHEN 'ARRAY' THEN 8 WHEN 'OBJECT' THEN 8 WHEN 'DOUBLE' THEN CASE WHEN regexp_matches({c}::VARCHAR, "
            f"'^-?[0-9]+$') THEN 32 WHEN {c}::VARCHAR SIMILAR TO '-?(NaN|Inf.*)' THEN 64 ELSE 16 END "
            f"ELSE CASE WHEN TRY_CAST({c}::VARCHAR AS BIGINT) IS NULL THEN 32 ELSE 4 END END)"
            for c in map(quote_name, names)
        )
        row = con.execute(f"SELECT {facts} FROM {as_json}").fetchone() or ()
        if any(kinds is not None and kinds & 64 for kinds in row):
            raise self._explain([p.file for p in plain], ValueError("NaN and Infinity are not JSON"))
        return {name: _column_type(kinds or 0) for name, kinds in zip(names, row, strict=True)}

    def _reader(self, plain: Sequence[_Plain], types: dict[str, str]) -> str:
        columns = ", ".join(f"{quote_text(name)}: {quote_text(kind)}" for name, kind in types.items())
        return f"read_json({self._arguments(plain)}, columns = {{{columns}}}, hive_partitioning = false)"

    def _objects(self, plain: Sequence[_Plain]) -> str:
        return f"read_json_objects({self._arguments(plain)})"

    def _arguments(self, plain: Sequence[_Plain]) -> str:
        paths = ", ".join(quote_text(glob_escape(p.path)) for p in plain)
        form = "newline_delimited" if self._lines else "array"
        return f"[{paths}], format = '{form}', compression = 'none', maximum_object_size = {MAX_LINE}"

    def _explain(self, files: Sequence[SourceFile], error: Exception) -> SourceError:
        """Find the place that DuckDB refused, by reading the files again in Python."""
        if isinstance(error, (ValueError, _duckdb().InvalidInputException)):
            try:
                for file in files:
                    _check_lines(file) if self._lines else _check_array(file)
            except SourceError as found:
                return found
        return source_error(error, "source.where" if self._spec.where is not None else describe(files, self._spec.path))


def _duckdb() -> Any:
    import duckdb

    return duckdb


def _column_type(kinds: int) -> str:
    """kinds, or-ed: 1 text, 2 boolean, 4 integer, 8 list or object, 16 fraction, 32 integer beyond 64 bits."""
    if kinds in (0, 1) or (kinds & 1 and not kinds & (2 | 8)):
        return "VARCHAR"
    return {2: "BOOLEAN", 4: "BIGINT", 16: "DOUBLE"}.get(kinds, "JSON")


def _bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def _lines(file: SourceFile) -> Iterator[tuple[int, bytes]]:
    """Numbered lines. JSON lines end with LF; a CR before it is white space."""
    held: list[bytes] = []
    number = 0
    for chunk in utf8_chunks(file):
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            number += 1
            yield number, b"".join([*held, part])
            held = []
        held.append(rest)
    if last := b"".join(held):
        yield number + 1, last


def _check_lines(file: SourceFile) -> None:
    for number, line in _lines(file):
        if not line.strip():
            continue
        place = Place(file.name, number)
        check_utf8(line, number, file, hint="JSON is UTF-8: convert the file.")
        if len(line) > MAX_LINE:
            raise SourceError(f"the row is longer than {MAX_LINE >> 20} MiB.", place=place)
        value = _parsed(line.decode(), place, one_line=True)
        if not isinstance(value, dict):
            raise SourceError(f"the line holds {_kind(value)}, not an object.", place=place)


def _check_array(file: SourceFile) -> None:
    if file.path.stat().st_size > _MAX_EXPLAINED:
        return
    content = b"".join(utf8_chunks(file))
    for number, line in enumerate(content.split(b"\n"), 1):
        check_utf8(line, number, file, hint="JSON is UTF-8: convert the file.")
    value = _parsed(content.decode(), Place(file.name))
    if not isinstance(value, list):
        raise SourceError(
            f"{file.name} holds {_kind(value)}, not an array.", hint="For one object per line, set type: jsonl."
        )
    for number, item in enumerate(value, 1):
        if not isinstance(item, dict):
            raise SourceError(f"{file.name}: element {number} is {_kind(item)}, not an object.")


def _parsed(text: str, place: Place, *, one_line: bool = False) -> Any:
    try:
        value = json.loads(text, parse_constant=_constant, object_pairs_hook=_pairs)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = place.line if one_line else error.lineno
        at = Place(place.path, line, error.colno)
        raise SourceError(f"not valid JSON: {error.msg}.", place=at) from error
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise SourceError(f"{half} is half of a surrogate pair, and no character.", place=place) from error
    except ValueError as error:
        raise SourceError(f"not valid JSON: {error}.", place=place) from error
    except RecursionError as error:
        raise SourceError("the JSON is nested too deeply.", place=place) from error
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice in one object")
        found[key] = value
    return found


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
