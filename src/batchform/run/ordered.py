"""Many wide rows in order, in bounded memory.

DuckDB sorts narrow rows well, but holds much of wide ones in memory, the more the more threads it has, and gives up at
its limit. Here rows whose rank is known are dealt to files by ranges of rank, and each file is sorted by itself: every
row is written twice, whatever their number, and memory is one file's rows.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

FAN_OUT: Final = 32
FILE_BYTES: Final = 32 << 20
"""Up to this size, a file's rows are sorted in memory."""

_BATCH_ROWS = 4_096
_ROW_GROUP = 8_192


def write_ordered(
    con: DuckDBPyConnection, select: str, to: Path, *, ranks: int, folder: Path, file_bytes: int = FILE_BYTES
) -> None:
    """Write a query's rows, ordered by its first column, as Parquet.

    select: its first column holds distinct integers from 0 to below `ranks`; folder: for files that live while this
    runs; it must not exist.
    """
    import pyarrow.parquet as pq

    folder.mkdir()
    try:
        reader = con.sql(select).to_arrow_reader(_BATCH_ROWS)
        with pq.ParquetWriter(to, reader.schema, compression="lz4") as writer:
            for table in _sorted(reader, 0, ranks, folder, file_bytes):
                writer.write_table(table, row_group_size=_ROW_GROUP)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sorted(batches: Iterable[Any], low: int, high: int, folder: Path, file_bytes: int) -> Iterator[pa.Table]:
    """Tables of rows with ranks from `low` to below `high`, which follow one another in order."""
    import pyarrow as pa

    width = max(1, -(-(high - low) // FAN_OUT))
    for index, path in sorted(_dealt(batches, low, width, folder).items()):
        start = low + index * width
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as rows:
            if path.stat().st_size > file_bytes and width > 1:
                deeper = folder / path.stem
                deeper.mkdir()
                yield from _sorted(rows, start, start + width, deeper, file_bytes)
            else:
                yield rows.read_all().sort_by(rows.schema.names[0])
        path.unlink()


def _dealt(batches: Iterable[Any], low: int, width: int, folder: Path) -> dict[int, Path]:
    """Deal rows to one file per range of `width` ranks; returns the files by the number of their range."""
    import pyarrow as pa

    writers: dict[int, Any] = {}
    paths: dict[int, Path] = {}
    try:
        for batch in batches:
            ordered = batch.sort_by(batch.schema.names[0])
            ranks = ordered.column(0).to_pylist()
            start = 0
            while start < len(ranks):
                index = (ranks[start] - low) // width
                end = bisect_left(ranks, low + (index + 1) * width, start)
                if index not in writers:
                    paths[index] = folder / f"{index}.arrow"
                    writers[index] = pa.ipc.new_stream(str(paths[index]), batch.schema)
                writers[index].write_batch(ordered.slice(start, end - start))
                start = end
    finally:
        for writer in writers.values():
            writer.close()
    return paths
