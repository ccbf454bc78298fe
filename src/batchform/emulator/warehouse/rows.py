"""Rows of tables: written into new Parquet files, read back in batches from any row on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from batchform.emulator.store import new_id
from batchform.emulator.warehouse.catalog import File, Version
from batchform.emulator.warehouse.declined import Declined
from batchform.emulator.warehouse.fields import Field, Schema, arrow_schema, bytes_sql, quoted, text
from batchform.emulator.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS: Final = 16_384
"""Rows of a Parquet row group: what is held in memory at a time."""
GROUP_BYTES: Final = 32 * 1024**2


class RowWriter:
    """A new file of a table. `with RowWriter(…) as w: w.add(rows)`, then `w.file`; without rows there is none."""

    def __init__(self, warehouse: Warehouse, schema: Schema) -> None:
        self._warehouse, self._schema, self._arrow = warehouse, schema, arrow_schema(schema)
        self._id = new_id(24)
        self._writer: Any = None
        self.file: File | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Rows as `values.record` makes them."""
        import pyarrow as pa

        self.add_table(pa.Table.from_pylist(rows, schema=self._arrow))

    def add_table(self, rows: pa.Table) -> None:
        """Rows in Arrow, of the schema's types."""
        import pyarrow.parquet as pq

        if self._warehouse.closing.is_set():
            raise Declined(400, "The emulator is being stopped.", reason="stopped")
        if self._writer is None:
            path = self._warehouse.path(self._id)
            self._writer = pq.ParquetWriter(path, self._arrow, compression="zstd", compression_level=1)
        if rows.num_rows:
            share = max(1, rows.num_rows * GROUP_BYTES // max(rows.nbytes, 1))
            self._writer.write_table(rows, row_group_size=min(GROUP_ROWS, share))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.close()
        if error is not None:
            self._warehouse.path(self._id).unlink(missing_ok=True)
        else:
            self.file = measured(self._warehouse, self._id, self._schema)


def measured(warehouse: Warehouse, file: str, schema: Schema) -> File | None:
    """What is in a file; without rows it is removed."""
    import pyarrow.parquet as pq

    path = warehouse.path(file)
    rows = pq.read_metadata(path).num_rows
    if not rows:
        path.unlink()
        return None
    sums = ", ".join(f"coalesce(sum({bytes_sql(f, quoted(f.name))}), 0)::BIGINT" for f in schema)
    with warehouse.engine.cursor() as cursor:
        found = cursor.execute(f"SELECT {sums} FROM read_parquet({text(str(path))})").fetchone()
    assert found is not None
    return File(file, rows, {f.name: size for f, size in zip(schema, found, strict=True)})


def batches(
    warehouse: Warehouse,
    version: Version,
    *,
    fields: Sequence[Field] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[pa.Table]:
    """Rows [start, stop) of a version, a row group at a time, with all or some of its columns."""
    import pyarrow.parquet as pq

    wanted = tuple(version.schema if fields is None else fields)
    end = version.rows if stop is None else min(stop, version.rows)
    first = 0
    for file in version.files:
        if first + file.rows > start and first < end:
            with pq.ParquetFile(warehouse.path(file.id), arrow_extensions_enabled=False) as parquet:
                yield from _groups(parquet, wanted, start - first, end - first)
        first += file.rows


def _groups(parquet: Any, wanted: Sequence[Field], start: int, stop: int) -> Iterator[pa.Table]:
    names = set(parquet.schema_arrow.names)
    there = [f.name for f in wanted if f.name in names]
    first = 0
    for i in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(i).num_rows
        begin, end = max(start - first, 0), min(stop - first, count)
        if begin < end:
            table = parquet.read_row_group(i, columns=there, use_threads=False)
            yield _shaped(table, wanted, count).slice(begin, end - begin)
        first += count


def _shaped(table: pa.Table, wanted: Sequence[Field], rows: int) -> pa.Table:
    """With the columns that the file does not have yet, and with the schema's types."""
    import pyarrow as pa

    schema = arrow_schema(wanted)
    columns = [
        table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(rows, f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def dicts(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    """Rows one by one."""
    for table in tables:
        for batch in table.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()
