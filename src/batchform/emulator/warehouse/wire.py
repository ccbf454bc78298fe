"""Protocol Buffers by hand: the few messages of the Storage Read API.

Google's generated classes live under `google.`, which nothing outside the adapters may import, and they would make the
emulator read what a client writes with the client's own code. Eight small messages need only two of the encoding's
four kinds of field: numbers and bytes. A field that is not known here is skipped, as the format asks for.
"""

from __future__ import annotations

from collections.abc import Iterable

Value = int | bytes | str
Fields = dict[int, list[int | bytes]]


class Malformed(ValueError):
    """Bytes that are no message."""


def encode(fields: Iterable[tuple[int, Value]]) -> bytes:
    """A message of (number, value): whole numbers as varints (0 is left out), text and messages as bytes."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            if value:
                out += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return bytes(out)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes) -> Fields:
    """Number → values in order. Raises Malformed."""
    found: Fields = {}
    at = 0
    while at < len(data):
        key, at = _read(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 0:
            value, at = _read(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(kind) or (_read(data, at) if kind == 2 else (len(data) + 1, at))
            value, at = data[at : at + size], at + size
        if at > len(data):
            raise Malformed("A field is longer than its message.")
        found.setdefault(number, []).append(value)
    return found


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
    raise Malformed("A number does not end.")


def number(fields: Fields, key: int, default: int = 0) -> int:
    """The last value of a numeric field, as a signed number of 64 bits."""
    value = fields.get(key, [default])[-1]
    if not isinstance(value, int):
        raise Malformed(f"Field {key} is no number.")
    return value - (1 << 64) if value >= 1 << 63 else value


def data_of(fields: Fields, key: int) -> bytes:
    """The last value of a field of bytes."""
    value = fields.get(key, [b""])[-1]
    if not isinstance(value, bytes):
        raise Malformed(f"Field {key} is a number.")
    return value


def text_of(fields: Fields, key: int) -> str:
    """The last value of a field of text."""
    return _text(data_of(fields, key))


def texts_of(fields: Fields, key: int) -> list[str]:
    """All values of a field of text."""
    return [_text(v) if isinstance(v, bytes) else str(v) for v in fields.get(key, [])]


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise Malformed(f"Text is not UTF-8: {e}.") from e


def message(fields: Fields, key: int) -> Fields:
    """A message within a message; an empty one when it is not there."""
    return decode(data_of(fields, key))
