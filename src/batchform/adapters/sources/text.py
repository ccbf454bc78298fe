"""Text files as a stream of clean UTF-8: decompressed with every checksum verified, decoded, without a BOM.

DuckDB reads gzip without its checksum and takes half a zstd file for a whole one, so compression is undone here.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator

from batchform.adapters.sources.paths import SourceFile
from batchform.errors import Place, SourceError

CHUNK = 1 << 20
MAX_LINE = 8 << 20
"""Bytes of one row. The API takes less, and readers hold several rows at once."""

_BOM = codecs.BOM_UTF8
_SET_ENCODING = "Set source.encoding, such as latin-1 or cp1252, if the file is meant to be so."


def is_compressed(file: SourceFile) -> bool:
    """Whether the name says gzip or zstd. Names decide, content never does."""
    return file.name.lower().endswith((".gz", ".zst"))


def is_utf8(encoding: str) -> bool:
    """Whether an encoding is UTF-8 by any of its names. Raises SourceError for one that does not exist."""
    try:
        "x".encode(encoding)  # a LookupError for codecs that are not of text
        return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    except (LookupError, ValueError) as error:
        raise SourceError(
            f"source.encoding {encoding!r} is unknown.",
            hint="Use a name that Python knows, such as utf-8, utf-16, latin-1 or cp1252.",
        ) from error


def utf8_chunks(file: SourceFile, encoding: str = "utf-8") -> Iterator[bytes]:
    """The file's text in pieces, as UTF-8 without a byte order mark. UTF-8 itself is passed on unchecked."""
    raw = _decompressed(file)
    chunks = raw if is_utf8(encoding) else _recoded(raw, file, encoding)
    first = True
    for chunk in chunks:
        yield chunk.removeprefix(_BOM) if first else chunk
        first = False


def lines(chunks: Iterator[bytes], file: SourceFile) -> Iterator[bytes]:
    """Physical lines with their ends, which are LF, CRLF or CR. Raises SourceError for a line above MAX_LINE."""
    held = b""
    number = 0
    for chunk in chunks:
        parts = (held + chunk).splitlines(keepends=True)
        # The last part may go on in the next chunk, and CR may turn out to be CRLF.
        held = parts.pop() if parts and not parts[-1].endswith(b"\n") else b""
        number += len(parts)
        if len(held) > MAX_LINE:
            raise SourceError(
                f"a line is longer than {MAX_LINE >> 20} MiB.",
                hint="Check the quotes and line ends before it.",
                place=Place(file.name, number + 1),
            )
        yield from parts
    yield from held.splitlines(keepends=True)


def check_utf8(line: bytes, number: int, file: SourceFile, *, hint: str = _SET_ENCODING) -> None:
    """Raise SourceError if a line is not UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8.",
            hint=hint,
            place=Place(file.name, number),
        ) from error


def _decompressed(file: SourceFile) -> Iterator[bytes]:
    name = file.name.lower()
    try:
        if name.endswith(".gz"):
            with gzip.open(file.path, "rb") as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
        elif name.endswith(".zst"):
            import pyarrow as pa

            with pa.input_stream(str(file.path), compression="zstd") as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
        else:
            with file.path.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SourceError(f"{file.name} is not a whole gzip file: {error}.") from error
    except OSError as error:
        if error.errno is None:  # pyarrow's decompressor
            raise SourceError(f"{file.name} is not a whole zstd file: {error}.") from error
        raise SourceError(f"{file.name} cannot be read: {error.strerror}.") from error


def _recoded(raw: Iterator[bytes], file: SourceFile, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    number = 1
    at_end = False
    while not at_end:
        chunk = next(raw, b"")
        at_end = not chunk
        try:
            text = decoder.decode(chunk, final=at_end)
        except UnicodeError as error:  # UTF-16 without a byte order mark is no UnicodeDecodeError
            if isinstance(error, UnicodeDecodeError):
                number += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
            raise SourceError(
                f"the text is not {encoding}: {getattr(error, 'reason', error)}.",
                hint="Set source.encoding to what the file is written in.",
                place=Place(file.name, number),
            ) from error
        number += text.count("\n")
        if text:
            yield text.encode()
