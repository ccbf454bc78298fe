"""What one job has changed and not yet committed: read by its own statements, committed at once or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from batchform.emulator.store import new_id
from batchform.emulator.warehouse import catalog
from batchform.emulator.warehouse.catalog import Conflict, File, TableRef, TableRow, Version
from batchform.emulator.warehouse.declined import Declined
from batchform.emulator.warehouse.fields import Schema
from batchform.emulator.warehouse.warehouse import Warehouse

Step = Callable[[sqlite3.Connection], None]


class _Pending(msgspec.Struct):
    table: TableRow
    base: int
    version: Version
    added: tuple[File, ...]
    append: bool


class Workspace:
    """Reads see the changes of the same workspace; others see them after `commit`."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._pending: dict[TableRef, _Pending] = {}
        self._steps: list[Step] = []

    def read(self, ref: TableRef, at: float | None = None) -> tuple[TableRow, Version]:
        """A table and its rows. at: as of a time, in seconds since 1970. Raises Declined."""
        pending = self._pending.get(ref)
        if pending is not None and at is None:
            return pending.table, pending.version
        table = self._warehouse.find(ref)
        return table, self._warehouse.version(table, at)

    def append(self, table: TableRow, version: Version, files: Sequence[File], schema: Schema | None = None) -> None:
        """Rows after those of a version; also with more columns."""
        self._put(table, version, (*version.files, *files), tuple(files), schema or version.schema, append=True)

    def replace(self, table: TableRow, version: Version, files: Sequence[File], schema: Schema | None = None) -> None:
        """Rows instead of those of a version."""
        self._put(table, version, tuple(files), tuple(files), schema or version.schema, append=False)

    def _put(
        self,
        table: TableRow,
        version: Version,
        files: tuple[File, ...],
        added: tuple[File, ...],
        schema: Schema,
        *,
        append: bool,
    ) -> None:
        shown = msgspec.structs.replace(version, files=files, schema=schema)
        before = self._pending.get(table.ref)
        if before is None:
            self._pending[table.ref] = _Pending(table, version.number, shown, added, append)
        elif before.append and append:
            self._pending[table.ref] = _Pending(table, before.base, shown, (*before.added, *added), append=True)
        else:
            self._pending[table.ref] = _Pending(table, before.base, shown, files, append=False)

    def create(self, ref: TableRef, schema: Schema, files: Sequence[File], meta: dict[str, Any]) -> None:
        """A new table with rows. Raises Declined 409 at commit when somebody was quicker."""
        warehouse = self._warehouse
        now, home = warehouse.now(), warehouse.dataset(ref.project, ref.dataset)
        lifetime = meta.get("expirationTime") or home.meta.get("defaultTableExpirationMs")
        expires = None
        if lifetime:
            expires = float(lifetime) / 1000 + (0 if "expirationTime" in meta else now)

        def step(db: sqlite3.Connection) -> None:
            try:
                key = catalog.create_table(db, ref, schema, meta, now, expires)
            except sqlite3.IntegrityError:
                raise Declined(409, f"Already Exists: Table {ref}") from None
            if files:
                catalog.advance(db, key, 1, schema, files, now, append=True)

        self._steps.append(step)

    def drop(self, table: TableRow) -> None:
        """The table is gone."""
        self._steps.append(lambda db: catalog.drop_table(db, table.key))

    def expect(self, table: TableRow) -> None:
        """At commit nobody else has changed it since it was read; otherwise Conflict."""

        def step(db: sqlite3.Connection) -> None:
            if not db.execute("SELECT 1 FROM tables WHERE key = ? AND etag = ?", (table.key, table.etag)).fetchone():
                raise Conflict

        self._steps.append(step)

    def set_meta(self, table: TableRow, meta: dict[str, Any]) -> None:
        """Replace what REST may set."""
        row = (msgspec.json.encode(meta).decode(), new_id(), self._warehouse.now(), table.key)

        def step(db: sqlite3.Connection) -> None:
            db.execute("UPDATE tables SET meta = ?, etag = ?, modified = ? WHERE key = ?", row)

        self._steps.append(step)

    def commit(self, also: Step | None = None) -> None:
        """Make it so, with what else belongs into the same transaction. Raises Conflict, Declined."""
        changed = list(self._pending.values())
        if changed or self._steps or also:
            with self._warehouse.catalog.writing() as db:
                for step in self._steps:
                    step(db)
                for p in changed:
                    now = self._warehouse.now()
                    catalog.advance(db, p.table.key, p.base, p.version.schema, p.added, now, append=p.append)
                if also:
                    also(db)
        self.forget()

    def forget(self) -> None:
        """Take everything back that was not committed."""
        self._pending.clear()
        self._steps.clear()


__all__ = ["Conflict", "Workspace"]
