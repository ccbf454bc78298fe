"""Schemas that are well formed, and that no answer can fit: every row would be paid for and fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from batchform.spec.wording import shown
from batchform.spec.yaml_source import NodePath

Problem = tuple[NodePath, str, str]
"""Path, message, hint."""

_BOUNDS: Final = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LARGEST: Final = 2**1023
"""What surely fits into a double, which the services hold numbers in."""


def senseless(schema: Mapping[str, Any], at: NodePath) -> Iterator[Problem]:
    """What is wrong with one subschema by itself, those below it aside."""
    if schema.get("enum") == []:
        yield (*at, "enum"), "`enum` is empty, and no answer fits it", "Name the values, or leave it out."
    for least, most in _BOUNDS:
        low, high = _number(schema.get(least)), _number(schema.get(most))
        if low is not None and high is not None and low > high:
            message = f"`{least}` {shown(str(low), 40)} is above `{most}` {shown(str(high), 40)}, and no answer fits"
            yield (*at, least), message, "Exchange them, or leave one out."
    for name in _NUMBERS:
        value = _number(schema.get(name))
        if value is not None and abs(value) > _LARGEST:
            yield (*at, name), f"`{name}` is a number that the service cannot hold", "Leave it out."


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
