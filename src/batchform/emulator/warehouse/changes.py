"""Changes of tables, each in one transaction: created, added to, replaced, dropped."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from batchform.emulator.store import new_id
from batchform.emulator.warehouse import catalog
from batchform.emulator.warehouse.catalog import Conflict, File, TableRef, TableRow
from batchform.emulator.warehouse.declined import Declined
from batchform.emulator.warehouse.fields import Schema
from batchform.emulator.warehouse.warehouse import Warehouse

SMALL_BYTES: Final = 1_000_000
SMALL_FILES: Final = 24
Also = Callable[[sqlite3.Connection], None]
"""What else belongs into the same transaction."""


def create_dataset(warehouse: Warehouse, project: str, name: str, location: str, meta: dict[str, Any]) -> None:
    """Raises Declined 409 when it is there."""
    now = warehouse.now()
    row = (project, name, location, msgspec.json.encode(meta).decode(), now, now, new_id())
    try:
        with warehouse.catalog.writing() as db:
            db.execute("INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise Declined(409, f"Already Exists: Dataset {project}:{name}") from None


def create(
    warehouse: Warehouse, ref: TableRef, schema: Schema, meta: dict[str, Any] | None = None, also: Also | None = None
) -> TableRow:
    """A new, empty table. Raises Declined: 404 without its dataset, 409 when it is there."""
    now = warehouse.now()
    home = warehouse.dataset(ref.project, ref.dataset)
    expires = (meta or {}).get("expirationTime")
    lifetime = home.meta.get("defaultTableExpirationMs")
    until = float(expires) / 1000 if expires else now + float(lifetime) / 1000 if lifetime else None
    try:
        with warehouse.catalog.writing() as db:
            catalog.create_table(db, ref, schema, meta or {}, now, until)
            if also:
                also(db)
    except sqlite3.IntegrityError:
        raise Declined(409, f"Already Exists: Table {ref}") from None
    return warehouse.find(ref)


def append(
    warehouse: Warehouse, table: TableRow, schema: Schema, files: Sequence[File], also: Also | None = None
) -> None:
    """Rows after those that are there. Raises Conflict when the schema changed meanwhile."""
    with warehouse.catalog.writing() as db:
        catalog.advance(db, table.key, 0, schema, files, warehouse.now(), append=True)
        if also:
            also(db)
    _join_small(warehouse, table)


def _join_small(warehouse: Warehouse, table: TableRow) -> None:
    """Many small files become one, so that tables which are streamed into stay quick to read."""
    from batchform.emulator.warehouse import rows

    with warehouse.catalog.reading() as db:
        version = catalog.version(db, table.key)
    if version is None:
        return
    tail = 0
    for file in reversed(version.files):
        if file.bytes >= SMALL_BYTES:
            break
        tail += 1
    if tail < SMALL_FILES:
        return
    kept, small = version.files[:-tail], version.files[-tail:]
    before = sum(f.rows for f in kept)
    with rows.RowWriter(warehouse, version.schema) as writer:
        for batch in rows.batches(warehouse, version, start=before):
            writer.add_table(batch)
    assert writer.file is not None or not small
    joined = (*kept, writer.file) if writer.file else kept
    try:
        with warehouse.catalog.writing() as db:
            catalog.advance(db, table.key, version.number, version.schema, joined, version.at, append=False)
    except Conflict:
        return  # somebody was quicker; next time
