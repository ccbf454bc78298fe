"""Answers of a spec, read from the ledger's archive as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

    from batchform.cli.looking import Answers

_BATCH_ROWS: Final = 4_096


class Results:
    """All answers of a spec, in the columns of its destination, in order of keys. Each reading is of the ledger as it
    is then, and holds no more than a batch in memory."""

    def __init__(self, spec: str, read: Callable[[], AbstractContextManager[Answers]]) -> None:
        """Use `Project.results`."""
        self.spec = spec
        self._read = read

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each answer as column → value. A JSON column is text."""
        for batch in self.batches():
            yield from batch.to_pylist()

    def count(self) -> int:
        """How many there are."""
        with self._read() as found:
            return int(found.con.execute(f"SELECT count(*) FROM {found.relation}").fetchall()[0][0])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        with self._read() as found:
            return found.columns

    def batches(self, rows: int = _BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The answers as Arrow record batches of at most so many rows."""
        with self._read() as found:
            yield from _reader(found, rows)

    def to_arrow(self) -> pa.Table:
        """All answers as one Arrow table, in memory; `polars.from_arrow` and `.to_pandas()` take it on."""
        with self._read() as found:
            return _reader(found, _BATCH_ROWS).read_all()


def _reader(found: Answers, rows: int) -> pa.RecordBatchReader:
    from batchform.rows.sql import identifier

    listed = ", ".join(map(identifier, found.columns))
    return found.con.sql(f"SELECT {listed} FROM {found.relation} ORDER BY bf_order").to_arrow_reader(rows)
