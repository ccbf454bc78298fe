"""What is kept → cells as REST answers them, and plain JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from batchform.emulator.warehouse.fields import Field
from batchform.emulator.warehouse.values import micros, plain_decimal

Show = Callable[[Any], Any]
STAMPS: Final = ("FLOAT64", "INT64", "ISO8601_STRING")
"""How REST may show timestamps: seconds, microseconds, text."""


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _seconds(value: Any) -> str:
    return repr(micros(value) / 1_000_000)


def _moment(value: Any) -> str:
    fraction = f".{value.microsecond:06}" if value.microsecond else ""
    return f"{value.year:04}-{value.month:02}-{value.day:02}T{value:%H:%M:%S}{fraction}"


_TEXT: Final[dict[str, Show]] = {
    "STRING": str,
    "BYTES": lambda value: base64.b64encode(value).decode(),
    "INTEGER": str,
    "FLOAT": _float,
    "NUMERIC": plain_decimal,
    "BIGNUMERIC": str,
    "BOOLEAN": lambda value: "true" if value else "false",
    "DATE": lambda value: value.isoformat(),
    "TIME": lambda value: value.isoformat(),
    "DATETIME": _moment,
    "GEOGRAPHY": str,
    "INTERVAL": str,
    "RANGE": str,
    "JSON": str,
}


def rest_row(schema: Sequence[Field], stamps: str = "FLOAT64") -> Show:
    """Row → `{"f": [{"v": …}]}`. stamps: one of STAMPS."""
    cells = [(f.name, _cell(f, stamps)) for f in schema]
    return lambda row: {"f": [{"v": cell(row[name])} for name, cell in cells]}


def _cell(field: Field, stamps: str) -> Show:
    one: Show
    if field.type == "RECORD":
        one = rest_row(field.fields, stamps)
    elif field.type == "TIMESTAMP":
        one = {"INT64": lambda v: str(micros(v)), "ISO8601_STRING": _zulu}.get(stamps, _seconds)
    else:
        one = _TEXT[field.type]
    if field.repeated:
        return lambda value: [{"v": one(entry)} for entry in value or ()]
    return lambda value: None if value is None else one(value)


def plain_row(schema: Sequence[Field], *, integers_as_text: bool = False) -> Show:
    """Row → an object for JSON: numbers as numbers, NUMERIC as text, JSON as its value, BYTES in base64.

    integers_as_text: as exports write them.
    """
    cells = [(f.name, _plain(f, integers_as_text)) for f in schema]
    return lambda row: {name: cell(row[name]) for name, cell in cells}


def _plain(field: Field, integers_as_text: bool) -> Show:
    one: Show
    if field.type == "RECORD":
        one = plain_row(field.fields, integers_as_text=integers_as_text)
    elif field.type == "INTEGER":
        one = str if integers_as_text else int
    elif field.type == "TIMESTAMP":
        one = _utc if integers_as_text else _zulu
    else:
        one = _PLAIN.get(field.type) or _TEXT[field.type]
    if field.repeated:
        return lambda value: [one(entry) for entry in value or ()]
    return lambda value: None if value is None else one(value)


def _zulu(value: Any) -> str:
    return _moment(value) + "Z"


def _utc(value: Any) -> str:
    return _moment(value).replace("T", " ") + " UTC"


_PLAIN: Final[dict[str, Show]] = {
    "FLOAT": lambda value: value if math.isfinite(value) else _float(value),
    "BOOLEAN": bool,
    "JSON": msgspec.json.decode,
}
