"""Rows as REST answers them, page by page. A token names the version it began with, so that pages belong together."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from batchform.emulator.calls import AGAIN, Call
from batchform.emulator.warehouse import catalog, rows
from batchform.emulator.warehouse.catalog import TableRef, TableRow, Version
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.fields import Field
from batchform.emulator.warehouse.shown import STAMPS, rest_row
from batchform.emulator.warehouse.warehouse import Warehouse

_ROWS: Final = 50_000
_BYTES: Final = 10 * 1024**2


class Wanted(msgspec.Struct, frozen=True):
    """What part of a table is asked for. limit: rows, None for as many as a page holds."""

    limit: int | None = None
    start: int = 0
    token: str = ""
    stamps: str = "FLOAT64"
    fields: str = ""

    @classmethod
    def of_call(cls, call: Call) -> Wanted:
        """From a query string. Raises Declined."""
        query = call.request.query_params
        limit = query.get("maxResults")
        stamps = "INT64" if query.get("formatOptions.useInt64Timestamp", "").lower() == "true" else "FLOAT64"
        return cls(
            limit=None if limit is None else number(limit, "maxResults"),
            start=number(query.get("startIndex") or "0", "startIndex"),
            token=AGAIN.sub("", query.get("pageToken") or ""),
            stamps=checked_stamps(query.get("formatOptions.timestampOutputFormat") or stamps),
            fields=query.get("selectedFields") or "",
        )


def checked_stamps(value: str) -> str:
    """Raises Declined."""
    if value not in STAMPS:
        raise invalid(f"Invalid value for timestampOutputFormat: {value}. It is one of {', '.join(STAMPS)}.")
    return value


def number(value: str, name: str) -> int:
    """Raises Declined."""
    if not value.isdecimal():
        raise invalid(f"Invalid value for {name}: {value} is not a number of 0 or more.")
    return int(value)


def page(warehouse: Warehouse, ref: TableRef, wanted: Wanted) -> dict[str, Any]:
    """`totalRows`, `rows` (none when none were asked for) and `pageToken`."""
    table = warehouse.find(ref)
    if "view" in table.meta:
        raise invalid(f"Cannot list a table of type VIEW: {ref}.")
    version, start = _place(warehouse, table, wanted)
    shown: dict[str, Any] = {"totalRows": str(version.rows)}
    if wanted.limit == 0:
        return shown
    fields = _selected(version, wanted.fields)
    stop = min(version.rows, start + min(wanted.limit or _ROWS, _ROWS))
    found: list[msgspec.Raw] = []
    size, cells = 0, rest_row(fields, wanted.stamps)
    for row in rows.dicts(rows.batches(warehouse, version, fields=fields, start=start, stop=stop)):
        encoded = msgspec.json.encode(cells(row))
        size += len(encoded)
        if found and size > _BYTES:
            break
        found.append(msgspec.Raw(encoded))
    shown["rows"] = found
    after = start + len(found)
    if found and after < version.rows:
        shown["pageToken"] = f"{version.number}.{after}"
    return shown


def _place(warehouse: Warehouse, table: TableRow, wanted: Wanted) -> tuple[Version, int]:
    if not wanted.token:
        return warehouse.version(table), wanted.start
    number_, _, start = wanted.token.partition(".")
    if not (number_.isdecimal() and start.isdecimal()):
        raise invalid(f"Invalid page token: {wanted.token}")
    with warehouse.catalog.reading() as db:
        version = catalog.numbered(db, table.key, int(number_))
    if version is None:
        raise Declined(404, f"Not found: the rows of table {table.ref} that this page token names are gone.")
    return version, int(start)


def _selected(version: Version, names: str) -> list[Field]:
    if not names:
        return list(version.schema)
    return select(version.schema, names.split(","))


def select(schema: tuple[Field, ...], names: list[str]) -> list[Field]:
    """Columns in the order of the table. Raises Declined for one that is not there."""
    wanted = {name.strip().lower() for name in names}
    found = [f for f in schema if f.name.lower() in wanted]
    if missing := sorted(wanted - {f.name.lower() for f in found}):
        raise invalid(f"The following selected fields do not exist in the table schema: {', '.join(missing)}")
    return found
