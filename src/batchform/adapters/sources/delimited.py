"""Rows from CSV files. Every cell is text; nothing is guessed; what DuckDB reads loosely is refused here.

An empty cell without quotes is NULL, an empty cell in quotes is ''. The dialect and the encoding are the spec's, the
first record names the columns, and several files must have the same columns, in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchform.adapters.sources.csv_parts import PART_BYTES, cut
from batchform.adapters.sources.paths import Remote, SourceFile, describe, expand, read_from
from batchform.adapters.sources.records import Dialect, data_records, normalised, records
from batchform.adapters.sources.snapshot import Snapshot, check_columns, locate, take, temp_path
from batchform.adapters.sources.sql import quote_name, quote_text, source_error
from batchform.adapters.sources.text import CHUNK, MAX_LINE, is_compressed, is_utf8, utf8_chunks
from batchform.errors import Place, SourceError
from batchform.ports import Relation
from batchform.spec.model import FileSource

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_REPORT = "Please report this with the file's header; as a way out, write the file again with all cells quoted."
# A null string that no cell holds: with it DuckDB refuses a superfluous delimiter at the end of a row.
_NO_NULL = "\x01batchform\x01"


class _Plain(Struct, frozen=True):
    """A file as DuckDB reads it. path: the file itself, or its clean copy in the temp folder; parts: what is read, the
    same or pieces of it."""

    file: SourceFile
    path: Path
    parts: tuple[Path, ...]
    header: tuple[str, ...]
    size: int
    lines: int
    quotes: int
    breaks: bool  # a line end may stand within quotes
    dangling: bool  # some line ends with a delimiter
    end: str  # line end of all records


class _Scan(Struct):
    """What one pass over the bytes shows."""

    size: int = 0
    lf: int = 0
    cr: int = 0
    crlf: int = 0
    quotes: int = 0
    breaks: bool = False
    dangling: bool = False

    @property
    def end(self) -> str:
        """The one line end of the file, or "" if there are several."""
        if self.cr == 0:
            return "\n"
        if self.lf == 0:
            return "\r"
        return "\r\n" if self.cr == self.crlf == self.lf else ""


class CsvSource:
    """The `csv` source."""

    def __init__(self, spec: FileSource, *, root: Path, allow: Sequence[Path], remote: Remote | None = None) -> None:
        self._spec, self._root, self._allow, self._remote = spec, root, allow, remote
        self._dialect = _dialect(spec)
        self._encoding = spec.encoding or "utf-8"
        self._files: list[SourceFile] = []
        self._snapshot: Snapshot | None = None

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Read all files into a snapshot. Raises SourceError, with file and line for a bad row."""
        files = expand(self._spec.path, root=self._root, allow=self._allow, remote=self._remote)
        with ExitStack() as cleanup:
            plain = [self._plain(con, file, cleanup) for file in files]
            _same_columns(plain)
            lines = sum(p.lines for p in plain)
            try:
                self._check_ends(con, plain)
                snapshot = take(
                    con,
                    self._reader(plain),
                    where=self._spec.where,
                    query=self._spec.query,
                    row_bytes=sum(p.size for p in plain) / max(lines, 1),
                )
            except _duckdb().Error as error:
                raise self._explain(files, error) from error
        self._files, self._snapshot = files, snapshot
        return Relation(snapshot.sql, snapshot.columns, describe(files, self._spec.path), **read_from(files))

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """`file:line` of each row; reads the files again up to the last of them."""
        places = itertools.chain.from_iterable(self._places(file) for file in self._files)
        return locate(con, self._snapshot, ordinals, places)

    def _places(self, file: SourceFile) -> Iterator[str]:
        for record in data_records(utf8_chunks(file, self._encoding), self._dialect, file):
            yield f"{file.name}:{record.line}"

    def _plain(self, con: DuckDBPyConnection, file: SourceFile, cleanup: ExitStack) -> _Plain:
        """Scan a file once, and copy it if DuckDB could not read it as it is."""
        path = file.path
        chunks = utf8_chunks(file, self._encoding)
        if is_compressed(file) or not is_utf8(self._encoding):
            path = temp_path(con, ".csv")
            cleanup.callback(path.unlink, missing_ok=True)
            chunks = _copied(chunks, path)
        scan = _scan(chunks, self._dialect, file)
        if not scan.size:
            raise SourceError(f"{file.name} is empty.", hint="A CSV file needs at least its header line.")
        if not scan.end:
            path = temp_path(con, ".csv")
            cleanup.callback(path.unlink, missing_ok=True)
            rows = normalised(utf8_chunks(file, self._encoding), self._dialect, file)
            for _ in _copied(rows, path):
                pass
        header = _header(file, self._dialect, self._encoding)
        lines = max(scan.lf, scan.cr)
        breaks, end = scan.breaks or bool(scan.quotes % 2), scan.end or "\n"
        parts = [path]
        if breaks and scan.size > 2 * PART_BYTES:
            parts = cut(path, quote=self._dialect.quote, end=end[-1:].encode(), new=lambda: temp_path(con, ".csv"))
            for part in parts:
                if part != path:
                    cleanup.callback(part.unlink, missing_ok=True)
        return _Plain(file, path, tuple(parts), header, scan.size, lines, scan.quotes, breaks, scan.dangling, end)

    def _reader(self, plain: Sequence[_Plain], *, null: str = "") -> str:
        """FROM-able SQL over all files, in order; neighbours with one column order share a reader."""
        columns = ", ".join(map(quote_name, plain[0].header))
        # Blank lines are no rows; with a single column DuckDB takes some for one.
        filled = f" WHERE {columns} IS NOT NULL" if len(plain[0].header) == 1 and not null else ""
        selects = []
        for _, group in itertools.groupby(plain, key=lambda p: (p.header, p.end)):
            selects.append(f"SELECT {columns} FROM {self._read_csv(list(group), null)}{filled}")
        return f"({' UNION ALL '.join(selects)})"

    def _read_csv(self, files: Sequence[_Plain], null: str) -> str:
        quote = quote_text(self._dialect.quote.decode())
        names = ", ".join(f"{quote_text(name)}: 'VARCHAR'" for name in files[0].header)
        # Not told, DuckDB takes a line break in a quoted name for the line end of the file, and drops rows. Told CRLF,
        # it drops them all, but finds that out by itself.
        new_line = {"\n": "new_line = '\\n', ", "\r": "new_line = '\\r', "}.get(files[0].end, "")
        # Parallel reading splits files in places where a line break inside a quoted cell is taken for a row's end.
        # Serial reading holds the whole file in memory.
        parallel = not any(file.breaks for file in files)
        return (
            f"read_csv([{', '.join(quote_text(glob_escape(p)) for f in files for p in f.parts)}], auto_detect = false, "
            f"header = true, columns = {{{names}}}, delim = {quote_text(self._dialect.delimiter.decode())}, "
            f"quote = {quote}, escape = {quote}, nullstr = {quote_text(null)}, allow_quoted_nulls = false, "
            f"{new_line}compression = 'none', hive_partitioning = false, strict_mode = true, null_padding = false, "
            f"parallel = {str(parallel).lower()}, max_line_size = {MAX_LINE}, buffer_size = {4 * MAX_LINE})"
        )

    def _check_ends(self, con: DuckDBPyConnection, plain: Sequence[_Plain]) -> None:
        """Two things that DuckDB forgives: empty cells beyond the last column, and a last cell that is never closed.

        The first it refuses if empty is not its null string. The second it drops, with its row, when it reads serially:
        then the count of quotes is odd, unless a bare cell holds one, or the file does not end with the last row.
        Only such files are read again in Python, which knows.
        """
        for file in plain:
            # One read shows both, but of a single column one without NULLs takes blank lines for rows.
            both = file.dangling and len(file.header) > 1
            if file.dangling and not (both and file.quotes):
                con.execute(f"SELECT count(*) FROM {self._reader([file], null=_NO_NULL)}").fetchall()
            if not file.quotes:
                continue
            reader = self._reader([file], null=_NO_NULL if both else "")
            found = con.execute(f"SELECT count(*), last({quote_name(file.header[-1])}) FROM {reader}").fetchone()
            rows, cell = found or (0, None)
            if file.quotes % 2 or not rows or not _ends_with(file, str(cell or ""), self._dialect):
                records = data_records(utf8_chunks(file.file, self._encoding), self._dialect, file.file)
                if rows != (there := sum(1 for _ in records)):
                    raise SourceError(f"{file.file.name} was read as {rows} rows, and has {there}.", hint=_REPORT)

    def _explain(self, files: Sequence[SourceFile], error: Exception) -> SourceError:
        """Find the place that DuckDB refused, by reading the files again in Python."""
        if isinstance(error, (ValueError, _duckdb().InvalidInputException)):
            try:
                for file in files:
                    for _ in data_records(utf8_chunks(file, self._encoding), self._dialect, file):
                        pass
            except SourceError as found:
                return found
        return source_error(error, "source.where" if self._spec.where is not None else describe(files, self._spec.path))


def glob_escape(path: Path) -> str:
    """A path that DuckDB takes as it is, since it would expand globs in it."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path))


def _duckdb() -> Any:
    import duckdb

    return duckdb


def _dialect(spec: FileSource) -> Dialect:
    delimiter = {r"\t": "\t"}.get(spec.delimiter or ",", spec.delimiter or ",")
    quote = '"' if spec.quote is None else spec.quote
    if any(c in "\r\n\0" for c in delimiter + quote) or len(delimiter.encode()) > 4:
        raise SourceError(f"source.delimiter {delimiter!r} cannot separate cells.", hint="Use one character.")
    if quote and (not quote.isascii() or quote in delimiter):
        raise SourceError(f"source.quote {quote!r} must be one ASCII character that is not in the delimiter.")
    return Dialect(delimiter.encode(), quote.encode())


def _copied(chunks: Iterator[bytes], path: Path) -> Iterator[bytes]:
    try:
        with path.open("wb", buffering=CHUNK) as out:
            for chunk in chunks:
                out.write(chunk)
                yield chunk
    except OSError as error:
        raise SourceError(f"The temp folder {path.parent} cannot be written: {error.strerror}.") from error


def _scan(chunks: Iterator[bytes], dialect: Dialect, file: SourceFile) -> _Scan:
    scan = _Scan()
    tail = b""
    dangling = [dialect.delimiter + end for end in (b"\n", b"\r")]
    for chunk in chunks:
        if (at := chunk.find(b"\0")) >= 0:
            line = 1 + max(scan.lf + chunk.count(b"\n", 0, at), scan.cr + chunk.count(b"\r", 0, at))
            raise SourceError(
                "the text holds a NUL byte.",
                hint="Remove it, or set source.encoding if the file is UTF-16.",
                place=Place(file.name, line),
            )
        scan.size += len(chunk)
        scan.lf += chunk.count(b"\n")
        if b"\r" in chunk:
            scan.cr += chunk.count(b"\r")
            scan.crlf += chunk.count(b"\r\n")
        scan.crlf += tail.endswith(b"\r") and chunk.startswith(b"\n")
        if dialect.quote and dialect.quote in chunk:
            parts = chunk.split(dialect.quote)
            within = b"".join(parts[1 - scan.quotes % 2 :: 2])
            scan.breaks = scan.breaks or b"\n" in within or b"\r" in within
            scan.quotes += len(parts) - 1
        elif scan.quotes % 2:
            scan.breaks = scan.breaks or b"\n" in chunk or b"\r" in chunk
        seam = tail + chunk[:1]
        scan.dangling = scan.dangling or any(end in chunk or end in seam for end in dangling)
        tail = (tail + chunk)[-len(dialect.delimiter) :]
    scan.dangling = scan.dangling or tail == dialect.delimiter
    return scan


def _header(file: SourceFile, dialect: Dialect, encoding: str) -> tuple[str, ...]:
    first = next(records(utf8_chunks(file, encoding), dialect, file), None)
    place = Place(file.name, 1)
    if first is None or not first.raw:
        raise SourceError("the first line is blank, and must name the columns.", place=place)
    names = tuple(cell.decode() for cell in first.cells)
    try:
        check_columns(names, "the header")
    except SourceError as error:
        raise SourceError(error.message, hint=error.hint, place=place) from None
    return names


def _ends_with(file: _Plain, cell: str, dialect: Dialect) -> bool:
    """Whether the file ends with `cell`, either bare or in quotes that are closed."""
    value, quote = cell.encode(), dialect.quote
    closed = quote + value.replace(quote, quote + quote) + quote
    with file.path.open("rb") as stream:
        stream.seek(max(0, file.path.stat().st_size - len(closed) - CHUNK))
        tail = stream.read()
    end = tail.rstrip(b"\r\n")
    before = (dialect.delimiter, b"\n", b"\r")
    if end.endswith(value) and end.removesuffix(value).endswith(before):
        return True
    trimmed = end.rstrip(b" ")
    return trimmed.endswith(closed) and trimmed.removesuffix(closed).removesuffix(b" ").endswith(before)


def _same_columns(plain: Sequence[_Plain]) -> None:
    first = plain[0]
    for other in plain[1:]:
        differing(first.file.name, first.header, other.file.name, other.header)


def differing(first: str, columns: Sequence[str], other: str, others: Sequence[str]) -> None:
    """Raise SourceError if two files differ in the set of their columns."""
    parts = []
    if lacks := [name for name in columns if name not in set(others)]:
        parts.append(f"lacks {', '.join(map(repr, lacks))}")
    if adds := [name for name in others if name not in set(columns)]:
        parts.append(f"adds {', '.join(map(repr, adds))}")
    if parts:
        raise SourceError(
            f"{other} {' and '.join(parts)}, compared with {first}.",
            hint="Files of one source must have the same columns, in any order.",
        )
