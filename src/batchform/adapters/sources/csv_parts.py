"""A large CSV file in pieces. DuckDB reads a file that has line breaks within quotes by one reader, which holds all of
it in memory; several small files it holds one or two at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Final

from batchform.adapters.sources.text import CHUNK

PART_BYTES: Final = 16_000_000
_MARK: Final = b"\xef\xbb\xbf"


def cut(path: Path, *, quote: bytes, end: bytes, new: Callable[[], Path]) -> list[Path]:
    """Copies of a file's records in files of about PART_BYTES, in order, each with the header, cut between records.

    quote: one byte; end: the last byte of a record's line end; new: a path that is not taken. A file whose header is
    longer than a chunk stays whole.
    """
    with path.open("rb") as source:
        first = source.read(CHUNK)
        at = next(_record_ends(first, quote, end, odd=False), 0)
        if not at:
            return [path]
        header = first[:at].removeprefix(_MARK)
        source.seek(at)
        return _copied(source, header, quote, end, new)


def _copied(source: IO[bytes], header: bytes, quote: bytes, end: bytes, new: Callable[[], Path]) -> list[Path]:
    made, written, odd = [new()], len(header), False
    target = made[0].open("wb")
    try:
        target.write(header)
        for chunk in iter(partial(source.read, CHUNK), b""):
            cut_at = -1
            if written + len(chunk) > PART_BYTES:
                cut_at = max(_record_ends(chunk, quote, end, odd=odd), default=-1)
            odd ^= chunk.count(quote) % 2 == 1
            if cut_at < 0:
                written += target.write(chunk)
                continue
            target.write(chunk[:cut_at])
            target.close()
            made.append(new())
            target = made[-1].open("wb")
            written = target.write(header) + target.write(chunk[cut_at:])
    except BaseException:
        for part in made:
            part.unlink(missing_ok=True)
        raise
    finally:
        target.close()
    return made


def _record_ends(chunk: bytes, quote: bytes, end: bytes, *, odd: bool) -> Iterator[int]:
    """Offsets behind record ends: behind the first one of each stretch outside of quotes, and behind its last.

    odd: whether the chunk begins within quotes.
    """
    at = 0
    for i, part in enumerate(chunk.split(quote)):
        if (i + odd) % 2 == 0 and end in part:
            yield at + part.find(end) + 1
            yield at + part.rfind(end) + 1
        at += len(part) + 1
