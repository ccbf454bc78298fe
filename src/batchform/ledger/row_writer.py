"""Writing row states from Python, a column at a time, as a Parquet file that the ledger takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from batchform.ledger.records import ROW_COLUMNS

ROW_GROUP: Final = 30_720  # rows; a writer holds a group of all columns in memory, twice
_HIGH_CARDINALITY: Final = {"key", "key_hash", "row_fp", "request_fp", "answer_fp", "answer_key_hash"}


class RowStateWriter:
    """A Parquet file of row states. Use it in `with`: an exception removes the file.

    Columns are named in ROW_COLUMNS. `constants` hold for all rows; each `append` gives further columns as equally
    long sequences or Arrow arrays; what is in neither is NULL. Values: UUID columns take 16 bytes, hex text or
    uuid.UUID, BLOB columns bytes, TIMESTAMPTZ columns timezone-aware datetimes; None is NULL. `rows` counts.
    """

    def __init__(self, path: Path, *, constants: Mapping[str, Any] | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self.rows = 0
        self._constants = {c: v for c, v in (constants or {}).items() if v is not None}
        _known(self._constants)
        types = _arrow_types()
        self._schema = pa.schema([(c, types[c]) for c in ROW_COLUMNS])
        self._pending: list[Any] = []
        self._pending_rows = 0
        self._file = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[c for c in ROW_COLUMNS if c not in _HIGH_CARDINALITY],  # type: ignore[arg-type,unused-ignore]
            store_schema=False,
        )

    def append(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows: column name → one value per row."""
        _known(columns)
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of one batch differ in length: {sorted(lengths)}")
        count = lengths.pop()
        if not count:
            return
        arrays = [self._column(field, columns.get(field.name), count) for field in self._schema]
        self._pending.append(_batch(arrays, self._schema))
        self._pending_rows += count
        self.rows += count
        if self._pending_rows >= ROW_GROUP:
            self._flush()

    def close(self) -> int:
        """Finish the file; the number of rows in it."""
        self._flush()
        self._file.close()
        return self.rows

    def abandon(self) -> None:
        """Close and remove the file."""
        self._pending.clear()
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self.abandon()
            return
        try:
            self.close()
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending:
            # Not ROW_GROUP: the last batch reached beyond it, and would leave a tiny group of its own.
            table = pa.Table.from_batches(self._pending, self._schema)
            self._file.write_table(table, row_group_size=2 * ROW_GROUP)
            self._pending.clear()
            self._pending_rows = 0

    def _column(self, field: Any, values: Any, count: int) -> Any:
        import pyarrow as pa

        if values is not None:
            return _array(field.type, values)
        constant = self._constants.get(field.name)
        if constant is None:
            return pa.nulls(count, field.type)
        one = _array(field.type, [constant])
        return one.take(pa.repeat(0, count)) if _is_uuid(field.type) else pa.repeat(one[0], count)


def _known(columns: Mapping[str, Any]) -> None:
    if unknown := sorted(set(columns) - set(ROW_COLUMNS)):
        raise ValueError(f"not columns of a row state: {', '.join(unknown)}")


def _arrow_types() -> dict[str, Any]:
    import pyarrow as pa

    by_duckdb = {
        "VARCHAR": pa.string(),
        "UUID": pa.uuid(),
        "BLOB": pa.binary(),
        "UTINYINT": pa.uint8(),
        "INTEGER": pa.int32(),
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    }
    return {c: by_duckdb[kind] for c, kind in ROW_COLUMNS.items()}


def _is_uuid(kind: Any) -> bool:
    import pyarrow as pa

    return bool(kind == pa.uuid())


def _array(kind: Any, values: Any) -> Any:
    """One Arrow array of a column's type."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        if values.type == kind:
            return values
        if _is_uuid(kind):
            return pa.ExtensionArray.from_storage(kind, values.cast(pa.binary(16)))
        return values.cast(kind)
    if not _is_uuid(kind):
        return pa.array(values, kind)
    return pa.ExtensionArray.from_storage(kind, pa.array(_uuid_bytes(values), pa.binary(16)))


def _uuid_bytes(values: Sequence[Any]) -> Sequence[bytes | None]:
    """16 bytes each, from bytes, hex text (with or without dashes) or uuid.UUID. All of one kind, as the first."""
    first = next(iter(islice((v for v in values if v is not None), 1)), b"")
    if isinstance(first, bytes):
        return values
    if isinstance(first, str):
        return [None if v is None else bytes.fromhex(v.replace("-", "")) for v in values]
    return [None if v is None else v.bytes for v in values]


def _batch(arrays: Sequence[Any], schema: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(list(arrays), schema=schema)
