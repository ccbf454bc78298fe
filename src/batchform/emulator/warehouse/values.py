"""Values: what JSON and CSV say → what is kept; what is kept → what REST and JSON show."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from batchform.emulator.warehouse.fields import Field

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMERIC: Final = (29, 9)
_BIGNUMERIC: Final = (39, 38)
_STAMP: Final = re.compile(r"(\d{1,4}-\d{1,2}-\d{1,2})(?:[Tt ](\d{1,2}:\d{1,2}(?::\d{1,2}(?:\.\d{1,6})?)?))?(.*)")
_ZONE: Final = re.compile(r"\s*(?:(Z|UTC)|([+-])(\d{1,2})(?::?(\d{2}))?)?", re.IGNORECASE)
_INTERVAL: Final = re.compile(r"-?\d+-\d+ -?\d+ -?\d+:\d+:\d+(\.\d{1,6})?")
_RANGE: Final = re.compile(r"\[(UNBOUNDED|\d{4}-\d\d-\d\d[^,]*), (UNBOUNDED|\d{4}-\d\d-\d\d[^,]*)\)")
_DECODER: Final = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")

Convert = Callable[[Any], Any]


class Misfit(Exception):
    """A value that does not fit its field. path: `items[2].price`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path, self.message = path, message


def decode(line: bytes | str) -> Any:
    """JSON, with fractions as Decimal, so that NUMERIC loses no digit. Raises msgspec.DecodeError."""
    return _DECODER.decode(line)


def json_text(value: Any) -> str:
    """A decoded value as the text of a JSON column."""
    return _ENCODER.encode(value).decode()


def record(schema: Sequence[Field], *, ignore_unknown: bool = False, json_strings: bool = False) -> Convert:
    """What makes a row (a dict of what is kept) of a decoded JSON object. It raises Misfit.

    ignore_unknown: fields that the schema does not have are dropped; json_strings: text for a JSON column is JSON.
    """
    converters = {f.name.lower(): (f, _of_field(f, ignore_unknown, json_strings)) for f in schema}
    blank: dict[str, Any] = {f.name: [] if f.repeated else None for f in schema}
    required = [f.name for f in schema if f.required]

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Misfit("", f"This field is a record, not {_shown(value)}.")
        row = dict(blank)
        for name, given in value.items():
            found = converters.get(name.lower())
            if found is None:
                if ignore_unknown:
                    continue
                raise Misfit(name, f"no such field: {name}.")
            field, one = found
            try:
                row[field.name] = one(given)
            except Misfit as e:
                raise Misfit(f"{field.name}.{e.path}" if e.path else field.name, e.message) from None
        for name in required:
            if row[name] is None:
                raise Misfit(name, f"Missing required field: {name}.")
        return row

    return convert


def _of_field(field: Field, ignore_unknown: bool, json_strings: bool) -> Convert:
    if field.type == "RECORD":
        one = record(field.fields, ignore_unknown=ignore_unknown, json_strings=json_strings)
    elif field.type == "JSON":
        one = _json_or_text if json_strings else json_text
    else:
        one = SCALARS[field.type]
    if field.repeated:
        return lambda value: _each(one, value)
    return lambda value: None if value is None else one(value)


def _each(one: Convert, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Misfit("", "This field is repeated: send a list.")
    kept = []
    for i, entry in enumerate(value):
        if entry is None:
            raise Misfit(f"[{i}]", "Only optional fields can be set to NULL: an array cannot hold it.")
        try:
            kept.append(one(entry))
        except Misfit as e:
            raise Misfit(f"[{i}].{e.path}" if e.path else f"[{i}]", e.message) from None
    return kept


def _shown(value: Any) -> str:
    shown = value if isinstance(value, str) else json_text(value)
    return shown if len(shown) <= 100 else shown[:100] + "…"


def _bad(kind: str, value: Any) -> Misfit:
    return Misfit("", f"Cannot convert value to {kind} (bad value): {_shown(value)}")


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, Decimal)):
        return json_text(value)
    raise _bad("string", value)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _bad("bytes", value)
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise _bad("bytes (base64)", value) from None


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise _bad("integer", value)
    try:
        exact = Decimal(value.strip() if isinstance(value, str) else value)
        number = int(exact)
    except (InvalidOperation, ValueError, OverflowError):
        raise _bad("integer", value) from None
    if number != exact or not -(2**63) <= number < 2**63:
        raise _bad("integer", value)
    return number


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise _bad("double", value)
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise _bad("double", value) from None


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("true", "t", "yes", "y", "1", 1):
        return True
    if word in ("false", "f", "no", "n", "0", 0):
        return False
    raise _bad("boolean", value)


def _decimal(value: Any, kind: str, digits: tuple[int, int]) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise _bad(kind, value)
    try:
        number = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise _bad(kind, value) from None
    sign_less, whole, fraction = number.copy_abs(), *digits
    exponent = number.as_tuple().exponent
    if not number.is_finite() or sign_less >= Decimal(10) ** whole:
        raise Misfit("", f"Invalid {kind} value: {_shown(value)} (at most {whole} digits before the point)")
    if isinstance(exponent, int) and -exponent > fraction and number.normalize().as_tuple().exponent < -fraction:  # type: ignore[operator]
        raise Misfit("", f"Invalid {kind} value: {_shown(value)} (at most {fraction} digits after the point)")
    return number


def _bignumeric(value: Any) -> str:
    return plain_decimal(_decimal(value, "BIGNUMERIC", _BIGNUMERIC))


def plain_decimal(value: Decimal) -> str:
    """Without exponent and without zeros at the end."""
    shown = format(value, "f")
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown) or "0"


def _stamp(value: str, kind: str) -> tuple[datetime, str]:
    """The naive part, and what stands behind it."""
    found = _STAMP.fullmatch(value.strip())
    if not found:
        raise _bad(kind, value)
    day, clock, rest = found[1], found[2] or "00:00:00", found[3]
    try:
        return datetime.combine(_day(day), _clock(clock)), rest
    except ValueError:
        raise _bad(kind, value) from None


def _day(value: str) -> date:
    year, month, day = value.split("-")
    return date(int(year), int(month), int(day))


def _clock(value: str) -> time:
    hour, minute, second = [*value.split(":"), "0", "0"][:3]
    whole, _, fraction = second.partition(".")
    return time(int(hour), int(minute), int(whole), int(fraction.ljust(6, "0") or 0))


def _timestamp(value: Any) -> datetime:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return _after_epoch(Decimal(value), value)
    if not isinstance(value, str):
        raise _bad("timestamp", value)
    try:
        return _after_epoch(Decimal(value.strip()), value)
    except InvalidOperation:
        pass
    moment, rest = _stamp(value, "timestamp")
    zone = _ZONE.fullmatch(rest)
    if not zone:
        raise _bad("timestamp", value)
    offset = timedelta(hours=int(zone[3] or 0), minutes=int(zone[4] or 0))
    try:
        return (moment + offset if zone[2] == "-" else moment - offset).replace(tzinfo=UTC)
    except OverflowError:
        raise _bad("timestamp", value) from None


def _after_epoch(seconds: Decimal, value: Any) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=int(seconds * 1_000_000))
    except (OverflowError, InvalidOperation, ValueError):
        raise _bad("timestamp", value) from None


def _datetime(value: Any) -> datetime:
    if not isinstance(value, str):
        raise _bad("datetime", value)
    moment, rest = _stamp(value, "datetime")
    if rest.strip() not in ("", "Z"):
        raise _bad("datetime", value)
    return moment


def _date(value: Any) -> date:
    if not isinstance(value, str):
        raise _bad("date", value)
    try:
        return _day(value.strip())
    except ValueError:
        raise _bad("date", value) from None


def _time(value: Any) -> time:
    if not isinstance(value, str):
        raise _bad("time", value)
    try:
        return _clock(value.strip())
    except ValueError:
        raise _bad("time", value) from None


def _json_or_text(value: Any) -> str:
    if isinstance(value, str):
        try:
            return json_text(decode(value))
        except msgspec.DecodeError:
            raise _bad("JSON", value) from None
    return json_text(value)


def _shaped(value: Any, kind: str, shape: re.Pattern[str]) -> str:
    """Text as BigQuery itself writes it, and in no other of the forms that it reads."""
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise _bad(kind, value)
    return value


def _between(value: Any) -> Any:
    """A range that comes as an object, as text."""
    if isinstance(value, dict) and set(value) <= {"start", "end"}:
        return f"[{value.get('start') or 'UNBOUNDED'}, {value.get('end') or 'UNBOUNDED'})"
    return value


SCALARS: Final[dict[str, Convert]] = {
    "STRING": _string,
    "BYTES": _bytes,
    "INTEGER": _integer,
    "FLOAT": _float,
    "NUMERIC": lambda value: _decimal(value, "NUMERIC", _NUMERIC),
    "BIGNUMERIC": _bignumeric,
    "BOOLEAN": _boolean,
    "TIMESTAMP": _timestamp,
    "DATE": _date,
    "TIME": _time,
    "DATETIME": _datetime,
    "GEOGRAPHY": _string,
    "INTERVAL": lambda value: _shaped(value, "interval", _INTERVAL),
    "RANGE": lambda value: _shaped(_between(value), "range", _RANGE),
    "JSON": _json_or_text,
}


def micros(value: datetime) -> int:
    """Microseconds since 1970."""
    return (value - EPOCH) // _MICROSECOND
