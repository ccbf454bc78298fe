"""Many row segments into one file: the latest record of each key, in bounded memory.

DuckDB would join the wide records with all keys of the table at once. Here keys are compared in ranges of their hash,
which leaves one byte for each record, and then the records stream past those bytes, file by file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from batchform.ledger.records import ROW_COLUMNS
from batchform.ledger.relation import Part
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.segments import parquet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RECORDS_AT_ONCE: Final = 500_000
"""About so many records have their keys compared together; more only when there are very many."""

_MOST_RANGES: Final = 64  # each reads the key hashes of all records
_BATCH_ROWS: Final = 2_048
_HASHES: Final = 1 << 128


def merge_rows(con: DuckDBPyConnection, parts: Sequence[Part], to: Path) -> int:
    """Write the latest record of each key, serials filled in, in order of commit. Returns how many.

    parts: in order of commit; one commit holds a key once. Raises what DuckDB and Arrow raise for a damaged file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    starts = [0, *accumulate(pq.read_metadata(part.path).num_rows for part in parts)]
    latest = _latest(con, parts, starts)
    with RowStateWriter(to) as writer:
        for part, start in zip(parts, starts, strict=False):
            done = start
            with pq.ParquetFile(part.path, pre_buffer=False, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(ROW_COLUMNS)):
                    flags = pa.py_buffer(latest[done : done + batch.num_rows])
                    mask = pa.Array.from_buffers(pa.uint8(), batch.num_rows, [None, flags]).cast(pa.bool_())
                    done += batch.num_rows
                    writer.append(_filled(batch.filter(mask), part))
    return writer.rows


def _latest(con: DuckDBPyConnection, parts: Sequence[Part], starts: Sequence[int]) -> bytearray:
    """One byte for each record of all parts, in order: 1 for those that no later record replaces."""
    # One scan of all files, not one for each: DuckDB plans every scan of a query anew.
    place = f"({starts[:-1]}::BIGINT[])[file_index::BIGINT + 1] + file_row_number"
    records = f"SELECT key_hash, {place} AS place FROM {parquet([part.path for part in parts])}"
    latest = bytearray(starts[-1])
    for condition in _ranges(starts[-1]):
        found = con.sql(f"SELECT max(place) FROM ({records}) WHERE {condition} GROUP BY key_hash")
        for batch in found.to_arrow_reader(_BATCH_ROWS):
            for place in batch.column(0).to_pylist():
                latest[place] = 1
    return latest


def _ranges(records: int) -> Iterator[str]:
    """Conditions that part the key hashes evenly. They are bits of a digest, so the keys are parted evenly as well."""
    count = min(_MOST_RANGES, -(-records // RECORDS_AT_ONCE))
    for index in range(count):
        first, last = _HASHES * index // count, _HASHES * (index + 1) // count - 1
        yield f"key_hash BETWEEN '{UUID(int=first)}'::UUID AND '{UUID(int=last)}'::UUID"


def _filled(batch: Any, part: Part) -> dict[str, Any]:
    """The columns of a batch, with the serial of the commit where the records have none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if not part.base:
        serial = pa.scalar(part.serial, pa.int64())
        known = pc.coalesce(columns["answer_serial"], serial)
        columns["changed_serial"] = pa.repeat(serial, batch.num_rows)
        columns["answer_serial"] = pc.if_else(columns["answer_fp"].is_valid(), known, pa.scalar(None, pa.int64()))
    return columns
