"""The importer's view of JSON lines: one table, whose columns are worked out from all lines, as BigQuery loads do it.

That is where the traps are: what no column can hold fails the whole job, and what one line has all lines get, as null.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Struct, field

MAX_DEPTH: Final = 15
MAX_COLUMNS: Final = 10_000

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_FLOAT: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_KINDS: Final = {str: "STRING", bool: "BOOLEAN", int: "INTEGER", float: "FLOAT", dict: "RECORD"}


class ImportFault(Exception):
    """The whole import fails. message: where and why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Column(Struct):
    """A column. kind: STRING, INTEGER, FLOAT, BOOLEAN, RECORD, or "" when unknown; fields: of a RECORD."""

    name: str
    kind: str = ""
    repeated: bool | None = None
    fields: dict[str, Column] = field(default_factory=dict)


class Columns:
    """Columns of all lines so far."""

    def __init__(self) -> None:
        self.root = Column("", "RECORD", repeated=False)
        self._count = 0

    def add(self, row: dict[str, Any]) -> None:
        """Take in one line. Raises ImportFault for what a table cannot hold."""
        self._fields(self.root, row, "", 0)

    def _fields(self, column: Column, value: dict[str, Any], path: str, depth: int) -> None:
        if not value and depth:
            raise ImportFault(f"{path}: an empty object is a RECORD without fields, which a table cannot hold.")
        if depth > MAX_DEPTH:
            raise ImportFault(f"{path}: nested more than {MAX_DEPTH} levels deep.")
        for name, item in value.items():
            at = f"{path}.{name}" if path else name
            known = column.fields.get(name) or self._new(column, name, at)
            self._value(known, item, at, depth + 1)

    def _new(self, column: Column, name: str, path: str) -> Column:
        if not _NAME.fullmatch(name):
            rule = "only letters, digits and underscores, no digit first, at most 300 characters"
            raise ImportFault(f'{path}: Invalid field name "{name}": {rule}.')
        twin = next((known for known in column.fields if known.lower() == name.lower()), None)
        if twin is not None:
            raise ImportFault(f'{path}: Duplicate (case-insensitive) field names: "{twin}" and "{name}".')
        self._count += 1
        if self._count > MAX_COLUMNS:
            raise ImportFault(f"{path}: more than {MAX_COLUMNS} columns.")
        column.fields[name] = made = Column(name)
        return made

    def _value(self, column: Column, value: Any, path: str, depth: int) -> None:
        repeated = isinstance(value, list)
        if column.repeated is None:
            column.repeated = repeated
        elif column.repeated != repeated:
            raise ImportFault(f"{path}: an array in one line and no array in another.")
        if not repeated:
            self._item(column, value, path, depth)
            return
        for item in value:
            if isinstance(item, list):
                raise ImportFault(f"{path}: an array inside an array, which a table cannot hold.")
            self._item(column, item, path, depth)

    def _item(self, column: Column, value: Any, path: str, depth: int) -> None:
        if value is None:
            raise ImportFault(f"{path}: null is not allowed; leave the field out.")
        kind = _KINDS[type(value)]
        if column.kind != kind:
            if {column.kind, kind} == {"INTEGER", "FLOAT"}:
                kind = "FLOAT"
            elif column.kind:
                raise ImportFault(f"{path}: {column.kind} in one line and {kind} in another.")
            column.kind = kind
        if kind == "RECORD":
            self._fields(column, value, path, depth)


class Tags:
    """The columns beside `request`: what their values come back as. Texts that all look like numbers are numbers."""

    def __init__(self) -> None:
        self.looks: dict[str, str] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Look at the values of one line."""
        for name, value in row.items():
            if not isinstance(value, str):
                continue
            before, now = self.looks.get(name), _look(value)
            if before is None or before == now:
                self.looks[name] = now
            elif {before, now} == {"INTEGER", "FLOAT"}:
                self.looks[name] = "FLOAT"
            else:
                self.looks[name] = "STRING"


def _look(text: str) -> str:
    if _INTEGER.fullmatch(text):
        return "INTEGER"
    if _FLOAT.fullmatch(text):
        return "FLOAT"
    return "BOOLEAN" if text.lower() in ("true", "false") else "STRING"


def tag(value: Any, look: str) -> Any:
    """A value beside `request` as it comes back: coerced, and emptied if it is an array or an object."""
    if isinstance(value, (list, dict)):
        return type(value)()
    if not isinstance(value, str):
        return value
    match look:
        case "INTEGER":
            return int(value)
        case "FLOAT":
            return float(value)
        case "BOOLEAN":
            return value.lower() == "true"
        case _:
            return value


def filled(value: Any, column: Column | None) -> Any:
    """A value with every field that its column has: those that other lines have and this one has not are null."""
    if column is None or column.kind != "RECORD":
        return value
    if isinstance(value, list):
        return [filled(item, column) for item in value]
    if not isinstance(value, dict):
        return value
    shown: dict[str, Any] = {}
    for name, known in column.fields.items():
        shown[name] = filled(value[name], known) if name in value else None
    return shown


def without_nulls(value: Any) -> Any:
    """What was sent, from what came back: without the nulls that the table has put in."""
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return value
