"""Columns of other databases as Arrow and DuckDB have them. No value is changed: what fits no type is text.

PostgreSQL names the type of each column, of a query as well. Of other databases only the values tell: a column's type
is then what all of its values are, and what is mixed is text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from msgspec import Struct

if TYPE_CHECKING:
    import pyarrow as pa

_DIGITS: Final = 38  # of DuckDB's widest DECIMAL
_BYTES: Final = (bytes, bytearray, memoryview)


class Column(Struct, frozen=True):
    """arrow: type in the snapshot; read_as: DuckDB type to read text as, or ""; convert: from the driver's value to
    one that Arrow takes, None where they are the same."""

    name: str
    arrow: Any
    read_as: str = ""
    convert: Callable[[Any], Any] | None = None


# --- PostgreSQL --------------------------------------------------------------------------------------------------

_AS_THEY_ARE: Final[Mapping[int, str]] = {
    16: "bool", 21: "int16", 23: "int32", 20: "int64", 26: "int64", 700: "float32", 701: "float64",
    25: "string", 1043: "string", 1042: "string", 19: "string", 17: "binary",
    1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz",
}  # fmt: skip
_AS_TEXT: Final[Mapping[int, str]] = {2950: "UUID", 114: "JSON", 3802: "JSON"}  # what the text is read as
_NUMERIC: Final = 1700
_ARRAYS: Final[Mapping[int, int]] = {
    1000: 16, 1005: 21, 1007: 23, 1016: 20, 1028: 26, 1021: 700, 1022: 701, 1009: 25, 1015: 1043, 1014: 1042,
    1003: 19, 1001: 17, 1182: 1082, 1183: 1083, 1115: 1114, 1185: 1184, 1231: _NUMERIC,
    2951: 2950, 199: 114, 3807: 3802,
}  # fmt: skip


def postgres_column(described: Sequence[Any], *, array: bool) -> tuple[Column, str]:
    """A column and the type that the database must cast it to, "" for none.

    described: of the driver's cursor: name, type's number, …, precision and scale at 4 and 5; array: whether a type
    that is not built in is an array.
    """
    import pyarrow as pa

    name, oid = str(described[0]), int(described[1])
    if element := _ARRAYS.get(oid):
        column, cast = _postgres_scalar(name, element, described)
        read_as = f"{column.read_as}[]" if column.read_as else ""
        convert = _each(column.convert) if column.convert else None
        return Column(name, pa.list_(column.arrow), read_as, convert), f"{cast}[]" if cast else ""
    if array:
        return Column(name, pa.list_(pa.string())), "text[]"
    return _postgres_scalar(name, oid, described)


def is_builtin(oid: int) -> bool:
    """Whether the type's number is known here."""
    return oid in _AS_THEY_ARE or oid in _AS_TEXT or oid in _ARRAYS or oid == _NUMERIC


def _postgres_scalar(name: str, oid: int, described: Sequence[Any]) -> tuple[Column, str]:
    import pyarrow as pa

    if oid == _NUMERIC:
        precision, scale = described[4], described[5]
        if precision is not None and scale is not None and 0 <= scale <= precision <= _DIGITS and precision > 0:
            return Column(name, pa.decimal128(precision, scale)), ""
        return Column(name, pa.string()), "text"
    if known := _AS_THEY_ARE.get(oid):
        return Column(name, _arrow(known), convert=bytes if known == "binary" else None), ""
    return Column(name, pa.string(), _AS_TEXT.get(oid, "")), "text"


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [None if value is None else convert(value) for value in values]


def _arrow(kind: str) -> pa.DataType:
    import pyarrow as pa

    odd = {
        "time": pa.time64("us"), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
        "date": pa.date32(), "bool": pa.bool_(),
    }  # fmt: skip
    return odd.get(kind) or getattr(pa, kind)()


# --- other databases ---------------------------------------------------------------------------------------------


class Seen:
    """What the values of one column are, gathered batch by batch."""

    def __init__(self) -> None:
        self.kinds: set[type] = set()
        self.aware: set[bool] = set()
        self.widest = 0  # digits before the point
        self.scale = 0
        self.endless = False
        self.least = self.most = 0

    def add(self, values: Sequence[Any]) -> None:
        kinds = set(map(type, values)) - {type(None)}
        self.kinds |= kinds
        if int in kinds:
            numbers = [v for v in values if type(v) is int]
            self.least, self.most = min(self.least, *numbers, 0), max(self.most, *numbers, 0)
        if datetime in kinds:
            self.aware |= {v.tzinfo is not None for v in values if type(v) is datetime}
        if Decimal in kinds:
            for value in values:
                if type(value) is Decimal:
                    self._measure(value)

    def _measure(self, value: Decimal) -> None:
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):  # NaN and infinities
            self.endless = True
            return
        self.scale = max(self.scale, -exponent)
        self.widest = max(self.widest, len(digits) + exponent)

    def column(self, name: str) -> Column:
        """The column that holds all of these values."""
        import pyarrow as pa

        if len(self.kinds) == 1:
            return self._plain(name, next(iter(self.kinds)))
        if not self.kinds:
            return Column(name, pa.string())
        if self.kinds == {int, Decimal}:
            self.widest = max(self.widest, len(str(max(self.most, -self.least))))
            if kind := self._decimal():
                return Column(name, kind, convert=Decimal)
        if self.kinds <= {list, dict}:
            return Column(name, pa.string(), "JSON", _json)
        if all(issubclass(kind, _BYTES) for kind in self.kinds):
            return Column(name, pa.binary(), convert=bytes)
        return Column(name, pa.string(), convert=_text)

    def _plain(self, name: str, kind: type) -> Column:
        import pyarrow as pa

        if kind is int and not (self.least >= -(2**63) and self.most < 2**63):
            fits = self.least >= -(2**127) and self.most < 2**127
            return Column(name, pa.string(), "HUGEINT" if fits else "", str)
        if kind is Decimal:
            found = self._decimal()
            return Column(name, found) if found else Column(name, pa.string(), convert=str)
        if kind is datetime:
            if len(self.aware) > 1:
                return Column(name, pa.string(), convert=_text)
            return Column(name, _arrow("timestamptz" if self.aware == {True} else "timestamp"))
        plain = {bool: "bool", int: "int64", float: "float64", str: "string", date: "date", time: "time"}
        if kind in plain:
            return Column(name, _arrow(plain[kind]))
        if issubclass(kind, _BYTES):
            return Column(name, pa.binary(), convert=bytes)
        if issubclass(kind, UUID):
            return Column(name, pa.string(), "UUID", str)
        if kind in (list, dict):
            return Column(name, pa.string(), "JSON", _json)
        return Column(name, pa.string(), convert=_text)

    def _decimal(self) -> pa.DataType | None:
        import pyarrow as pa

        fits = not self.endless and max(self.widest, 0) + self.scale <= _DIGITS
        return pa.decimal128(_DIGITS, self.scale) if fits else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _text(value: Any) -> str:
    """A number is its digits; bytes must be UTF-8."""
    return bytes(value).decode() if isinstance(value, _BYTES) else str(value)
