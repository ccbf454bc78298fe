"""Tables for the rest of the emulator: what a Vertex job reads and writes, without HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from batchform.emulator.store import Store
from batchform.emulator.warehouse import changes, rows, values
from batchform.emulator.warehouse.catalog import TableRef
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.fields import Schema, read_schema
from batchform.emulator.warehouse.shown import plain_row
from batchform.emulator.warehouse.warehouse import of

__all__ = ["TableRef", "Tables"]
_BATCH: Final = 2_000


class Tables:
    """The tables of an emulator's BigQuery. `TableRef.parse("bq://project.dataset.table")` names one.

    Methods raise `Declined` (a Refusal): 404 for a dataset or table that is not there, 409 for one that is,
    400 for rows that do not fit.
    """

    def __init__(self, store: Store) -> None:
        self._warehouse = of(store)

    def location(self, project: str, dataset: str) -> str:
        """Where a dataset is: `US`, `EU`, `europe-west4`."""
        return self._warehouse.dataset(project, dataset).location

    def create_dataset(self, project: str, dataset: str, location: str = "US") -> None:
        """A new, empty dataset."""
        changes.create_dataset(self._warehouse, project, dataset, location, {})

    def exists(self, ref: TableRef) -> bool:
        """Whether there is such a table or view."""
        try:
            self._warehouse.find(ref)
        except Declined:
            return False
        return True

    def schema(self, ref: TableRef) -> Schema:
        """Its columns: `field.name`, `field.type` (STRING, INTEGER, RECORD, JSON, …), `field.mode`."""
        return self._warehouse.version(self._warehouse.find(ref)).schema

    def count(self, ref: TableRef) -> int:
        """How many rows it has now."""
        return self._warehouse.version(self._warehouse.find(ref)).rows

    def rows(self, ref: TableRef) -> Iterator[dict[str, Any]]:
        """All rows as they are now, in order, as objects for JSON: JSON columns as values, NUMERIC and times as text.

        What changes while it is read does not show. A few thousand rows are held at a time.
        """
        version = self._warehouse.version(self._warehouse.find(ref))
        return map(plain_row(version.schema), rows.dicts(rows.batches(self._warehouse, version)))

    def create(self, ref: TableRef, fields: Iterable[Mapping[str, Any]]) -> None:
        """A new, empty table. fields: as REST has them, `{"name": "key", "type": "STRING", "mode": "NULLABLE"}`."""
        changes.create(self._warehouse, ref, read_schema({"fields": [dict(f) for f in fields]}))

    def append(self, ref: TableRef, new_rows: Iterable[Mapping[str, Any]]) -> int:
        """Add rows, all of them or (when one does not fit) none; how many. Values are as in JSON.

        A column that is left out is null; text for a JSON column is JSON. Rows are taken in batches.
        """
        table = self._warehouse.find(ref)
        schema = self._warehouse.version(table).schema
        convert, pending, count = values.record(schema, json_strings=True), iter(new_rows), 0
        with rows.RowWriter(self._warehouse, schema) as writer:
            while batch := list(islice(pending, _BATCH)):
                try:
                    writer.add([convert(_exact(row)) for row in batch])
                except values.Misfit as e:
                    raise invalid(f"A row does not fit table {ref}: {e.path}: {e.message}") from e
                count += len(batch)
        if writer.file is not None:
            changes.append(self._warehouse, table, schema, [writer.file])
        return count


def _exact(row: Mapping[str, Any]) -> Any:
    """As it is read from JSON."""
    return values.decode(values.json_text(dict(row)))
