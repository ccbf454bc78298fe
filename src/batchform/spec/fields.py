"""What all models of the user's files are made of: durations, counts, names, and a base that refuses unknown fields."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

NAME_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,46}[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def parse_duration(value: Any) -> float:
    """Seconds from `90`, `90s`, `15m`, `2h`, `30d`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", str(value))
    if not match:
        raise ValueError(f"{value!r} is not a duration: write 30s, 15m, 2h or 7d")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def parse_count(value: Any) -> int:
    """A whole number from `50000`, `50k`, `50M`, `1G` (decimal)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGbB]?)\s*", str(value))
    if not match or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a count: write 50000, 50k or 50M")
    return int(float(match[1]) * _COUNT_UNITS[match[2].lower()])


Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=float | str), Field(ge=0)]
Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | str), Field(ge=1)]


def Wire(default: Any = ..., **kwargs: Any) -> Any:  # noqa: N802  (reads as a Field)
    """A field whose value can change what is sent: the request, which rows ask it, or whose answers count."""
    if "default_factory" not in kwargs:
        kwargs["default"] = default
    return Field(json_schema_extra={"wire": True}, **kwargs)


class Strict(BaseModel):
    """Base of all models: unknown fields are refused, values never coerced across types, instances frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True, defer_build=True)


class InlineText(Strict):
    """A template written in the spec itself."""

    text: str = Wire(description="The template itself.")


TemplateRef = str | InlineText
