"""CSV records in Python, by the rules that DuckDB reads them with: where they stand, and what is wrong with one.

The rules: a quote opens a cell only at its start (one space before it is forgiven), is doubled inside it, and may be
followed by spaces, or by spaces and another quoted piece of the cell. Anything else is text. Blank lines are no rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from batchform.adapters.sources.paths import SourceFile
from batchform.adapters.sources.text import MAX_LINE, check_utf8, lines
from batchform.errors import Place, SourceError


class Dialect(Struct, frozen=True):
    """delimiter: UTF-8 bytes; quote: one byte, or empty for none."""

    delimiter: bytes = b","
    quote: bytes = b'"'


class Record(Struct, frozen=True):
    """line: 1-based physical line it starts in; raw: its bytes without the line end; cells: as read."""

    line: int
    raw: bytes
    cells: list[bytes]


class _Open(Struct):
    """A record that is being read: cells so far, and the pieces of a quoted cell that is not closed yet."""

    line: int = 0
    raw: list[bytes] = field(default_factory=list)
    size: int = 0
    cells: list[bytes] = field(default_factory=list)
    quoted: list[bytes] | None = None


def records(chunks: Iterator[bytes], dialect: Dialect, file: SourceFile) -> Iterator[Record]:
    """All records, blank lines included. Raises SourceError with file and line for what is no CSV."""
    current = _Open()
    number = 0
    for number, line in enumerate(lines(chunks, file), 1):
        check_utf8(line, number, file)
        body = line.rstrip(b"\r\n")  # one line end: `lines` splits at every other
        if current.quoted is None:
            if not dialect.quote or dialect.quote not in body:
                yield Record(number, body, body.split(dialect.delimiter))
                continue
            current = _Open(line=number)
        current.raw.append(body)
        current.size += len(line)
        if current.size > MAX_LINE:
            raise _unclosed(current, file)
        _continue(current, body, line[len(body) :], dialect, file, number)
        if current.quoted is None:
            yield Record(current.line, b"".join(current.raw), current.cells)
        else:
            current.raw.append(line[len(body) :])
    if current.quoted is not None:
        raise _unclosed(current, file)


def _unclosed(current: _Open, file: SourceFile) -> SourceError:
    return SourceError(
        "a quoted cell is opened here and never closed.",
        hint="Close it, or set source.quote if the file quotes otherwise (empty for not at all).",
        place=Place(file.name, current.line),
    )


def _continue(current: _Open, body: bytes, end: bytes, dialect: Dialect, file: SourceFile, number: int) -> None:
    """Read one physical line into the open record."""
    quote, delimiter = dialect.quote, dialect.delimiter
    at = 0
    while True:
        if current.quoted is None:
            skip = 1 if body[at : at + 1] == b" " and delimiter != b" " else 0
            if body[at + skip : at + skip + 1] != quote:
                stop = body.find(delimiter, at)
                current.cells.append(body[at:] if stop < 0 else body[at:stop])
                if stop < 0:
                    return
                at = stop + len(delimiter)
                continue
            current.quoted = []
            at += skip + 1
        stop = body.find(quote, at)
        if stop < 0:
            current.quoted.append(body[at:] + end)
            return
        current.quoted.append(body[at:stop])
        at = stop + 1
        if body[at : at + 1] == quote:
            current.quoted.append(quote)
            at += 1
            continue
        rest = at
        while delimiter != b" " and body[rest : rest + 1] == b" ":
            rest += 1
        if rest > at and body[rest : rest + 1] == quote:
            current.quoted.append(body[at:rest])  # "x" "y" is one cell: x y
            at = rest + 1
            continue
        current.cells.append(b"".join(current.quoted))
        current.quoted = None
        if rest == len(body):
            return
        if not body.startswith(delimiter, rest):
            raise SourceError(
                f"text follows the closing quote of cell {len(current.cells)}.",
                hint='A quote inside a quoted cell is written twice: "say ""hi"""',
                place=Place(file.name, number),
            )
        at = rest + len(delimiter)


def data_records(chunks: Iterator[bytes], dialect: Dialect, file: SourceFile) -> Iterator[Record]:
    """The rows: records after the header, without blank lines, each with as many cells as the header."""
    width, header = 0, 0
    for record in records(chunks, dialect, file):
        if not width:
            width, header = len(record.cells), record.line
            continue
        if not record.raw:
            continue
        if len(record.cells) != width:
            raise SourceError(
                f"{len(record.cells)} cells where the header in line {header} has {width}.",
                hint="Check the delimiter and the quotes of this line.",
                place=Place(file.name, record.line),
            )
        yield record


def normalised(chunks: Iterator[bytes], dialect: Dialect, file: SourceFile) -> Iterator[bytes]:
    """The same records, each ended by LF: for files with mixed line ends, which DuckDB refuses."""
    for record in records(chunks, dialect, file):
        yield record.raw + b"\n"
