"""Reads a message as strictly as the service: either spelling is taken, unknown fields and wrong types are not."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec

from batchform import canon
from batchform.emulator.grammar import ENUMS, FIELDS, MESSAGES, decoder, snake
from batchform.emulator.refusal import Refusal, bad_field


class Misfit(Exception):
    """A message that does not follow the grammar. field: the name to blame; path: where, in snake_case."""

    def __init__(self, message: str, *, field: str = "", path: str = "", unknown: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.path = path
        self.unknown = unknown

    def refusal(self) -> Refusal:
        """As an answer to a call whose body does not fit."""
        if not self.unknown:
            return bad_field(self.message, self.path)
        at = f" at '{self.path}'" if self.path else ""
        return bad_field(
            f'Invalid JSON payload received. Unknown name "{self.field}"{at}: Cannot find field.', self.path
        )

    def on_line(self, number: int, line: bytes) -> str:
        """As one sentence about a line of a batch file."""
        what = f"no such field: '{self.field}'" if self.unknown else self.message
        return f"Error on line {number}: invalid JSON, near column {_column(line, self.field)}: {what}"


def _column(line: bytes, field: str) -> int:
    """1-based column of the first place where a field of this name stands; 1 if it is nowhere."""
    found = re.search(re.escape(msgspec.json.encode(field)) + rb"\s*:", line) if field else None
    return len(line[: found.start()].decode(errors="replace")) + 1 if found else 1


_plain = msgspec.json.Decoder(float_hook=lambda text: canon.normalise(float(text)))


@cache
def _checker(message: str) -> msgspec.json.Decoder[Any]:
    return decoder(message)


def read(message: str, raw: bytes) -> dict[str, Any]:
    """The message with camelCase names, canonical types and numbers (`canon.normalise`). Raises Misfit."""
    try:
        _checker(message).decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return normalise(message, _parse(raw))
    value: dict[str, Any] = _parse(raw)
    return value


def _parse(raw: bytes) -> Any:
    try:
        value = _plain.decode(raw)
        if _LONG.search(raw) and _too_large(value):
            raise Misfit("Invalid JSON payload received. A number is too large for a double.")
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Misfit(f"Invalid JSON payload received. {e}") from e
    except RecursionError as e:
        raise Misfit("Invalid JSON payload received. It is nested too deeply.") from e
    return value


_LONG: Final = re.compile(rb"[0-9]{308}")


def _too_large(value: Any) -> bool:
    """Whether a whole number anywhere in it has no double: the service knows no others."""
    if isinstance(value, dict):
        return any(map(_too_large, value.values()))
    if isinstance(value, list):
        return any(map(_too_large, value))
    return isinstance(value, int) and abs(value) >= 2**1024


def normalise(message: str, value: Any, path: str = "", field: str = "") -> dict[str, Any]:
    """A parsed message with snake_case, nulls, numbers as text and so on brought to one form. Raises Misfit."""
    if not isinstance(value, dict):
        raise _wrong(path, field, message, value)
    known, types = FIELDS[message], MESSAGES[message]
    out: dict[str, Any] = {}
    for name, item in value.items():
        camel = known.get(name)
        if camel is None:
            raise Misfit(f"no such field: '{name}'", field=name, path=path, unknown=True)
        if item is None and types[camel] != "value":
            continue
        at = f"{path}.{snake(camel)}" if path else snake(camel)
        if camel in out:
            raise Misfit(f"Multiple values for the field '{camel}'.", field=name, path=at)
        out[camel] = _value(types[camel], item, at, name)
    return out


def _value(kind: str, value: Any, path: str, field: str) -> Any:
    if kind.startswith("["):
        if not isinstance(value, list):
            raise _wrong(path, field, kind, value)
        return [_value(kind[1:-1], item, f"{path}[{i}]", field) for i, item in enumerate(value)]
    if kind.startswith("{"):
        if not isinstance(value, dict):
            raise _wrong(path, field, kind, value)
        return {k: _value(kind[1:-1], item, f"{path}['{k}']", field) for k, item in value.items()}
    if kind in MESSAGES:
        return normalise(kind, value, path, field)
    if kind in ENUMS:
        return _enum(kind, value, path, field)
    try:
        return _SCALARS[kind](value)
    except (ValueError, TypeError, binascii.Error) as e:
        raise _wrong(path, field, kind, value) from e


def _enum(kind: str, value: Any, path: str, field: str) -> str:
    words = ENUMS[kind]
    if isinstance(value, str) and value.upper() in words:
        return value.upper()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
        return words[value]
    raise _wrong(path, field, kind, value)


def _wrong(path: str, field: str, kind: str, value: Any) -> Misfit:
    shown = msgspec.json.encode(value).decode()
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    names = {
        "string": "TYPE_STRING",
        "int": "TYPE_INT32",
        "number": "TYPE_FLOAT",
        "bool": "TYPE_BOOL",
        "bytes": "TYPE_BYTES",
    }
    word = names.get(kind, kind)
    return Misfit(f"Invalid value at '{path or 'body'}' ({word}), {shown}", field=field, path=path)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    number = int(value) if isinstance(value, (int, str)) else value
    if int(number) != number:
        raise ValueError
    return int(number)


def _number(value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    number: float | int = canon.normalise(float(value)) if isinstance(value, str) else value
    return number


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _bytes(value: Any) -> str:
    """Standard base64 of a value in either alphabet, padded or not."""
    text = _string(value).replace("-", "+").replace("_", "/")
    padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
    return base64.b64encode(base64.b64decode(padded, validate=True)).decode()


def _struct(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "string": _string,
    "int": _int,
    "number": _number,
    "bool": _bool,
    "bytes": _bytes,
    "struct": _struct,
    "value": lambda value: value,
}
