"""tabledata.insertAll: rows that are there at once, each insertId at most once."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from batchform.emulator.warehouse import changes, values
from batchform.emulator.warehouse.catalog import Conflict, TableRef, TableRow
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.rows import RowWriter
from batchform.emulator.warehouse.values import Misfit
from batchform.emulator.warehouse.warehouse import Warehouse

REMEMBERED_SECONDS: Final = 600.0
"""How long an insertId is known. The service promises a minute."""
MAX_ROWS: Final = 50_000


def insert_all(warehouse: Warehouse, ref: TableRef, body: bytes) -> list[dict[str, Any]]:
    """What is wrong with which row; without `skipInvalidRows` one wrong row stops all. Raises Declined."""
    try:
        request = values.decode(body)
        entries = request["rows"]
        given = [(entry.get("insertId"), entry["json"]) for entry in entries]
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as e:
        raise invalid(f"Invalid insertAll request: {e}") from e
    if not given:
        raise invalid("No rows present in the request.")
    if len(given) > MAX_ROWS:
        raise invalid(f"Too many rows present in the request: {len(given)}, at most {MAX_ROWS}.")
    table = warehouse.find(ref)
    if "view" in table.meta:
        raise invalid(f"Cannot add rows to a table of type VIEW: {ref}.")
    for _ in range(20):
        try:
            return _insert(warehouse, table, request, given)
        except Conflict:
            continue
    raise invalid(f"Table {ref} is changed by others all the time.")


def _insert(
    warehouse: Warehouse, table: TableRow, request: dict[str, Any], given: list[tuple[Any, Any]]
) -> list[dict[str, Any]]:
    schema = warehouse.version(table).schema
    convert = values.record(schema, ignore_unknown=bool(request.get("ignoreUnknownValues")), json_strings=True)
    good: list[tuple[str | None, dict[str, Any]]] = []
    wrong: dict[int, dict[str, Any]] = {}
    for i, (insert_id, row) in enumerate(given):
        try:
            good.append((insert_id, convert(row)))
        except Misfit as e:
            wrong[i] = {"reason": "invalid", "location": e.path, "debugInfo": "", "message": e.message}
    if wrong and not request.get("skipInvalidRows"):
        stopped = {"reason": "stopped", "location": "", "debugInfo": "", "message": ""}
        return [{"index": i, "errors": [wrong.get(i, stopped)]} for i in range(len(given))]
    _commit(warehouse, table, schema, good)
    return [{"index": i, "errors": [error]} for i, error in wrong.items()]


def _commit(warehouse: Warehouse, table: TableRow, schema: Any, good: list[tuple[str | None, dict[str, Any]]]) -> None:
    now = warehouse.now()
    with warehouse.catalog.reading() as db:
        marks = "SELECT insert_id FROM inserted WHERE table_key = ? AND at > ?"
        known = {i for (i,) in db.execute(marks, (table.key, now - REMEMBERED_SECONDS)).fetchall()}
    new_ids: list[str] = []
    rows = []
    for insert_id, row in good:
        if insert_id:
            if insert_id in known:
                continue
            known.add(insert_id)
            new_ids.append(insert_id)
        rows.append(row)
    if not rows:
        return
    with RowWriter(warehouse, schema) as writer:
        writer.add(rows)

    def remember(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM inserted WHERE table_key = ? AND at <= ?", (table.key, now - REMEMBERED_SECONDS))
        try:
            db.executemany("INSERT INTO inserted VALUES (?, ?, ?)", [(table.key, i, now) for i in new_ids])
        except sqlite3.IntegrityError:
            raise Conflict from None  # the same rows came in twice at once

    try:
        changes.append(warehouse, table, schema, [writer.file] if writer.file else [], remember)
    except Conflict:
        raise
    except sqlite3.Error as e:
        raise Declined(400, f"The emulator could not keep these rows: {e}") from e
