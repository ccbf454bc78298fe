"""Many wide rows in order, in bounded memory.

DuckDB sorts narrow rows well, but holds much of wide ones in memory, the more the more threads it has, and gives up at
its limit. Here rows are dealt to files by ranges of their key, and each file is sorted by itself: every row is written
twice, whatever their number, and memory is one file's rows.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T", int, str)

FAN_OUT: Final = 64
FILE_BYTES: Final = 24 << 20
"""Up to this size, a file's rows are sorted in memory."""

BATCH_ROWS: Final = 4_096
"""Rows of a batch that readers had best give."""

_ROWS_PER_FILE = 16_384
_ROW_GROUP = 8_192
_SAMPLED = 4_096


def write_ordered(
    readers: Iterable[pa.RecordBatchReader],
    to: Path,
    *,
    cuts: Sequence[Any],
    folder: Path,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Write rows, ordered by their first column, as Parquet.

    readers: at least one, of one schema, read one after the other; the first column holds distinct texts or integers,
    none NULL; cuts: ascending values of it, between which the rows are about evenly many; folder: for files that live
    while this runs; it must not exist.
    """
    import pyarrow.parquet as pq

    folder.mkdir()
    try:
        rest = iter(readers)
        first = next(rest)
        batches = chain(first, chain.from_iterable(rest))
        with pq.ParquetWriter(to, first.schema, compression="lz4") as writer:
            for table in _even(_sorted(batches, cuts, folder, file_bytes)):
                writer.write_table(table, row_group_size=_ROW_GROUP)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cuts_of(sample: Iterable[T], *, rows: int) -> list[T]:
    """Cuts for so many rows, of which this is a sample."""
    return _cuts(sample, rows // _ROWS_PER_FILE + 1)


def _cuts(sample: Iterable[T], files: int) -> list[T]:
    """Cuts that part the rows into so many files, as far as FAN_OUT and the sample go."""
    found = sorted(set(sample))
    count = min(files, FAN_OUT, len(found))
    return [found[len(found) * i // count] for i in range(1, count)]


def _even(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in whole row groups, so that equal rows give equal files however they were dealt."""
    import pyarrow as pa

    held: pa.Table | None = None
    for table in tables:
        joined = pa.concat_tables([held, table]) if held is not None else table
        whole = joined.num_rows - joined.num_rows % _ROW_GROUP
        if whole:
            yield joined.slice(0, whole)
        held = joined.take(pa.array(range(whole, joined.num_rows), pa.int64()))  # a copy: it must not hold the rest
    if held is not None and held.num_rows:
        yield held


def _sorted(batches: Iterable[Any], cuts: Sequence[Any], folder: Path, file_bytes: int) -> Iterator[pa.Table]:
    """Tables of rows that follow one another in order."""
    import pyarrow as pa

    for _, path in sorted(_dealt(batches, cuts, folder).items()):
        with pa.OSFile(str(path)) as file:
            finer = _finer(file, path, file_bytes)
            with pa.ipc.open_stream(file) as rows:
                if finer:
                    deeper = folder / path.stem
                    deeper.mkdir()
                    yield from _sorted(rows, finer, deeper, file_bytes)
                else:
                    yield rows.read_all().combine_chunks().sort_by(rows.schema.names[0])
        path.unlink()


def _finer(file: Any, path: Path, file_bytes: int) -> list[Any]:
    """Cuts for the rows of a file that is too large to sort; none if it is not, or has one row."""
    import pyarrow as pa

    size = path.stat().st_size
    if size <= file_bytes:
        return []
    sample: list[Any] = []
    with pa.ipc.open_stream(file) as rows:
        for batch in rows:
            keys = batch.column(0)
            step = max(1, len(keys) * size // (_SAMPLED * max(batch.nbytes, 1)))
            sample += keys.take(pa.array(range(0, len(keys), step))).to_pylist()
    file.seek(0)
    return _cuts(sample, max(2, 2 * size // max(file_bytes, 1)))


def _dealt(batches: Iterable[Any], cuts: Sequence[Any], folder: Path) -> dict[int, Path]:
    """Deal rows to one file for each range between cuts; returns the files by the number of their range."""
    import pyarrow as pa

    writers: dict[int, Any] = {}
    paths: dict[int, Path] = {}
    try:
        for batch in batches:
            ordered = batch.sort_by(batch.schema.names[0])
            keys = ordered.column(0).to_pylist()
            start = 0
            while start < len(keys):
                index = bisect_right(cuts, keys[start])
                end = bisect_left(keys, cuts[index], start) if index < len(cuts) else len(keys)
                if index not in writers:
                    paths[index] = folder / f"{index}.arrow"
                    writers[index] = pa.ipc.new_stream(str(paths[index]), batch.schema)
                writers[index].write_batch(ordered.slice(start, end - start))
                start = end
    finally:
        for writer in writers.values():
            writer.close()
    return paths
