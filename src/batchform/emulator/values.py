"""Fills in one alternative of a flat schema."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any, Final

from msgspec import Struct

from batchform.emulator.draw import Draw, matching
from batchform.emulator.flat import Flat, Flattener, Unsatisfiable, same, types_of

_DEEP: Final = 4  # from here on optional things are left out, so that recursive schemas end
_NULL_ONE_IN: Final = 8
_TRIES: Final = 8
_MOST_SCHEMAS: Final = 5_000

_FORMATS: Final = {
    "date-time": "2026-01-{d:02}T{h:02}:00:00Z",
    "date": "2026-01-{d:02}",
    "time": "{h:02}:00:00Z",
    "duration": "P{d}D",
    "email": "user{n}@example.com",
    "idn-email": "user{n}@example.com",
    "hostname": "host{n}.example.com",
    "idn-hostname": "host{n}.example.com",
    "ipv4": "192.0.2.{d}",
    "ipv6": "2001:db8::{n:x}",
    "uri": "https://example.com/{n}",
    "uri-reference": "/{n}",
    "iri": "https://example.com/{n}",
    "iri-reference": "/{n}",
    "uuid": "00000000-0000-4000-8000-{n:012x}",
    "json-pointer": "/{n}",
    "relative-json-pointer": "{d}",
    "regex": "^{n}$",
}


class _Choice(Struct, frozen=True):
    """One way to fill in a schema. types: without "null" when nullable; members: name, schema, required."""

    flat: Flat
    types: list[str]
    nullable: bool
    members: list[tuple[str, Any, bool]]


class Filler:
    """Values for the schemas inside one root."""

    def __init__(self, flattener: Flattener) -> None:
        self._flattener = flattener
        self._heights: dict[int, float] = {}
        self._choices: dict[int, list[_Choice]] = {}
        self._open: set[int] = set()

    def prepare(self, schema: Any) -> None:
        """Plan every schema that a value can lead to. Raises Unsatisfiable unless some value that ends follows it."""
        if math.isinf(self._height(schema)):
            raise Unsatisfiable("no finite value can follow the schema (contradiction, or recursion that is required)")
        ahead = [schema]
        while ahead:
            found = ahead.pop()
            if isinstance(found, bool) or id(found) in self._choices:
                continue
            if len(self._choices) > _MOST_SCHEMAS:
                raise Unsatisfiable("the schema is too large, or grows without end")
            for choice in self._choose(found):
                ahead += [member[1] for member in choice.members]
                prefix, items, _, _ = _array_shape(choice.flat)
                ahead += [*prefix, items, choice.flat.get("additionalProperties", True)]

    def value(self, schema: Any, draw: Draw, depth: int = 0) -> Any:
        """A value that follows the schema; it must have a finite height."""
        choices = self._choices.get(id(schema)) or self._choose(schema)
        choice = choices[0] if depth > _DEEP or len(choices) == 1 else choices[draw.below(len(choices))]
        flat = choice.flat
        if "enum" in flat:
            return flat["enum"][draw.below(len(flat["enum"]))]
        if choice.nullable and (depth > _DEEP or draw.below(_NULL_ONE_IN) == 0):
            return None
        match choice.types[draw.below(len(choice.types))]:
            case "object":
                return self._object(choice, draw, depth)
            case "array":
                return self._array(flat, draw, depth)
            case "string":
                return _string(flat, draw)
            case "integer":
                return _integer(flat, draw)
            case "number":
                return _number(flat, draw)
            case "boolean":
                return draw.below(2) == 1
            case _:
                return None

    def _choose(self, schema: Any) -> list[_Choice]:
        """The alternatives that can be filled in, smallest first."""
        flats = [(self._flat_height(flat), flat) for flat in self._flattener.alternatives(schema)]
        finite = sorted((pair for pair in flats if not math.isinf(pair[0])), key=lambda pair: pair[0])
        choices = [self._choice(flat) for _, flat in finite]
        self._choices[id(schema)] = choices
        return choices

    def _choice(self, flat: Flat) -> _Choice:
        types = [t for t in types_of(flat) if not math.isinf(self._type_height(flat, t))]
        nullable = "null" in types and len(types) > 1
        properties, required = flat.get("properties", {}), flat.get("required", [])
        others = flat.get("additionalProperties", True)
        names = [*(n for n in flat.get("propertyOrdering", ()) if n in properties), *properties, *required]
        members = [(name, properties.get(name, others), name in required) for name in dict.fromkeys(names)]
        return _Choice(
            flat,
            [t for t in types if t != "null" or not nullable],
            nullable,
            [m for m in members if m[2] or not math.isinf(self._height(m[1]))],
        )

    def _object(self, choice: _Choice, draw: Draw, depth: int) -> dict[str, Any]:
        flat = choice.flat
        spare = flat.get("maxProperties", math.inf) - len(set(flat.get("required", ())))
        out: dict[str, Any] = {}
        for name, schema, required in choice.members:
            if not required:
                if depth >= _DEEP or spare < 1:
                    continue
                spare -= 1
            out[name] = self._other(schema, draw, depth)
        others, least = flat.get("additionalProperties", True), flat.get("minProperties", 0)
        if isinstance(others, dict) and "properties" not in flat and spare >= 1 and depth < _DEEP:
            least = max(least, 1)
        if len(out) < least and others is not False and not math.isinf(self._height(others)):
            for n in itertools.count():
                out.setdefault(f"{draw.words[n % len(draw.words)]}{n or ''}", self._other(others, draw, depth))
                if len(out) >= least:
                    break
        return out

    def _other(self, schema: Any, draw: Draw, depth: int) -> Any:
        return draw.phrase(1, None) if schema is True else self.value(schema, draw, depth + 1)

    def _array(self, flat: Flat, draw: Draw, depth: int) -> list[Any]:
        prefix, items, least, most = _array_shape(flat)
        fillable = next((i for i, schema in enumerate([*prefix, items]) if math.isinf(self._height(schema))), math.inf)
        most = max(least, min(most, fillable) if depth < _DEEP else 0)
        wanted = (
            least + draw.below(int(min(max(most - least, 0), 2)) + 1) if least else int(min(most, 1 + draw.below(3)))
        )
        out: list[Any] = []
        for i in range(wanted):
            schema = prefix[i] if i < len(prefix) else items
            for _ in range(_TRIES if flat.get("uniqueItems") else 1):
                value = self._other(schema, draw, depth)
                if not flat.get("uniqueItems") or not any(same(value, v) for v in out):
                    out.append(value)
                    break
            else:
                fresh = self._fresh(schema, out)
                if fresh is None:
                    break
                out.append(fresh)
        return out

    def _fresh(self, schema: Any, taken: list[Any]) -> Any:
        """A value that is not in the list yet, for sets that chance does not fill: enums and small ranges."""
        for flat in self._flattener.alternatives(schema):
            numbers = range(math.ceil(flat.get("minimum", 0)), math.floor(flat.get("maximum", 0)) + 1)
            candidates = flat.get("enum", [False, True] if flat.get("type") == "boolean" else numbers)
            if flat.get("type") == "string" and "enum" not in flat:
                candidates = [
                    draw_text
                    for n in range(len(taken) + 1)
                    if (draw_text := f"{n}".rjust(flat.get("minLength", 0), "x"))
                ]
            for value in candidates:
                if not any(same(value, v) for v in taken):
                    return value
        return None

    # heights: how many levels the smallest value has; infinite when there is none

    def _height(self, schema: Any) -> float:
        if isinstance(schema, bool):
            return 0 if schema else math.inf
        known = self._heights.get(id(schema))
        if known is None:
            if id(schema) in self._open:
                return math.inf
            self._open.add(id(schema))
            try:
                known = min((self._flat_height(f) for f in self._flattener.alternatives(schema)), default=math.inf)
            finally:
                self._open.discard(id(schema))
            if not self._open or not math.isinf(known):  # "infinite" seen from inside a cycle is not the last word
                self._heights[id(schema)] = known
        return known

    def _flat_height(self, flat: Flat) -> float:
        if "enum" in flat:
            return 0
        return min((self._type_height(flat, t) for t in types_of(flat)), default=math.inf)

    def _type_height(self, flat: Flat, kind: str) -> float:
        if kind == "object":
            properties, others = flat.get("properties", {}), flat.get("additionalProperties", True)
            needed = [properties.get(name, others) for name in flat.get("required", ())]
            return 1 + max(map(self._height, needed), default=0)
        if kind == "array":
            prefix, items, least, most = _array_shape(flat)
            needed = [*prefix[:least], *([items] if least > len(prefix) else [])]
            return 1 + max(map(self._height, needed), default=0) if least <= most else math.inf
        if kind in ("integer", "number"):
            low, high = _bounds(flat)
            open_ended = math.isinf(low) or math.isinf(high)
            fits = low <= high and (kind == "number" or open_ended or math.ceil(low) <= math.floor(high))
            return 0 if fits else math.inf
        if kind == "string":
            return 0 if flat.get("minLength", 0) <= flat.get("maxLength", math.inf) else math.inf
        return 0


def _array_shape(flat: Flat) -> tuple[list[Any], Any, int, float]:
    """prefixItems, items, minItems, maxItems; draft 7 wrote the prefix under `items`."""
    prefix, items = flat.get("prefixItems", []), flat.get("items", True)
    if isinstance(items, list):
        prefix, items = items, flat.get("additionalItems", True)
    most = flat.get("maxItems", math.inf)
    return prefix, items, flat.get("minItems", 0), min(most, len(prefix)) if items is False else most


def _bounds(flat: Flat) -> tuple[float, float]:
    low, high = flat.get("minimum", -math.inf), flat.get("maximum", math.inf)
    if flat.get("exclusiveMinimum", -math.inf) >= low:
        low = math.nextafter(flat["exclusiveMinimum"], math.inf) if "exclusiveMinimum" in flat else low
    if flat.get("exclusiveMaximum", math.inf) <= high:
        high = math.nextafter(flat["exclusiveMaximum"], -math.inf) if "exclusiveMaximum" in flat else high
    return low, high


def _integer(flat: Flat, draw: Draw) -> int | float:
    low, high = _bounds(flat)
    step = flat.get("multipleOf", 1)
    step = int(step) if float(step).is_integer() else 1
    first = (
        math.ceil(low / step)
        if math.isfinite(low)
        else (min(0, math.floor(high / step) - 99) if math.isfinite(high) else 0)
    )
    last = math.floor(high / step) if math.isfinite(high) else first + 99
    value = step * (first + draw.below(max(1, min(last - first + 1, 1_000_000))))
    return value if abs(value) < 2**63 else float(value)  # JSON knows no difference, its writer does


def _number(flat: Flat, draw: Draw) -> float:
    low, high = _bounds(flat)
    if "multipleOf" in flat:
        end = low if math.isfinite(low) else high
        steps = end / flat["multipleOf"] if math.isfinite(end) else 0.0
        if math.isfinite(steps):
            return float((math.ceil(steps) if end == low else math.floor(steps)) * flat["multipleOf"])
    low = low if math.isfinite(low) else min(0.0, high - 100 if math.isfinite(high) else 0.0)
    high = high if math.isfinite(high) else low + 100
    exact = low + (high / 100 - low / 100) * draw.below(101)
    nice = round(exact, 2)
    return float(next((v for v in (nice, exact) if low <= v <= high), low))


def _string(flat: Flat, draw: Draw) -> str:
    low, high = flat.get("minLength", 0), flat.get("maxLength")
    if "pattern" in flat:
        for _ in range(_TRIES):
            text = matching(flat["pattern"], draw)
            if (
                text is not None
                and len(text) >= low
                and (high is None or len(text) <= high)
                and re.search(flat["pattern"], text)
            ):
                return text
    form = _FORMATS.get(flat.get("format", ""))
    if form is not None:
        return form.format(d=1 + draw.below(28), h=draw.below(24), n=draw.below(1000))
    return draw.phrase(low, high)
