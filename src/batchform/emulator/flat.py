"""Lays a JSON Schema flat: each schema becomes alternatives without `$ref`, `anyOf`, `oneOf` and `allOf`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice, product
from typing import Any, Final
from urllib.parse import unquote

_MAX_ALTERNATIVES: Final = 64
_COMBINATORS: Final = frozenset({"$ref", "$dynamicRef", "anyOf", "oneOf", "allOf", "const"})
_ANNOTATIONS: Final = frozenset(
    {"$defs", "definitions", "title", "description", "default", "examples", "$id", "$schema"}
)
_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")

Flat = dict[str, Any]


class Unsatisfiable(ValueError):
    """No value can follow the schema, or none that ends."""


class Flattener:
    """Alternatives of every schema inside one root."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[int, list[Flat]] = {}
        self._keep: list[Any] = []  # id() is only a key while the object lives
        self._open: set[int] = set()

    def alternatives(self, schema: Any) -> list[Flat]:
        """What a value may follow: one of these. Empty: nothing can."""
        known = self._known.get(id(schema))
        if known is None:
            known = list(islice(self._lay(schema), _MAX_ALTERNATIVES))
            self._known[id(schema)] = known
            self._keep.append(schema)
        return known

    def _lay(self, schema: Any) -> Iterator[Flat]:
        if schema is False or id(schema) in self._open:  # a reference that leads back here adds no way out
            return
        if schema is True:
            yield {}
            return
        self._open.add(id(schema))
        try:
            base = {k: v for k, v in schema.items() if k not in _COMBINATORS and k not in _ANNOTATIONS}
            groups: list[list[Flat]] = [[base]]
            if "const" in schema:
                groups.append([{"enum": [schema["const"]]}])
            for ref in ("$ref", "$dynamicRef"):
                if ref in schema:
                    groups.append(list(self._lay(self._resolve(schema[ref]))))
            groups.extend(
                [f for branch in schema[name] for f in self._lay(branch)]
                for name in ("anyOf", "oneOf")
                if name in schema
            )
            groups.extend(list(self._lay(part)) for part in schema.get("allOf", ()))
        finally:
            self._open.discard(id(schema))
        for combination in islice(product(*groups), _MAX_ALTERNATIVES):
            merged = _merge_all(combination)
            if merged is not None:
                yield merged

    def _resolve(self, ref: str) -> Any:
        if ref == "#":
            return self._root
        if not ref.startswith("#/"):
            found = _anchored(self._root, ref)
            if found is None:
                raise Unsatisfiable(f"the reference '{ref}' does not lead into this schema")
            return found
        node = self._root
        for step in unquote(ref[2:]).split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (KeyError, IndexError, ValueError, TypeError) as e:
                raise Unsatisfiable(f"the reference '{ref}' leads nowhere") from e
        return node


def _anchored(node: Any, ref: str) -> Any:
    if isinstance(node, dict):
        if node.get("$id") == ref or (node.get("$anchor") is not None and ref == f"#{node['$anchor']}"):
            return node
        node = list(node.values())
    if isinstance(node, list):
        return next((found for item in node if (found := _anchored(item, ref)) is not None), None)
    return None


def _merge_all(parts: tuple[Flat, ...]) -> Flat | None:
    merged: Flat = {}
    for part in parts:
        for name, value in part.items():
            merged[name] = _merged(name, merged[name], value) if name in merged else value
    types = types_of(merged)
    if "enum" in merged:
        merged["enum"] = [v for v in merged["enum"] if any(is_a(v, t) for t in types)]
        return merged if merged["enum"] else None
    return merged if types else None


def _merged(name: str, a: Any, b: Any) -> Any:
    """Both of two values of one keyword."""
    if name in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
        return max(a, b)
    if name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
        return min(a, b)
    if name == "type":
        return [t for t in _TYPES if t in _narrow(a, b)]
    if name == "enum":
        return [v for v in a if any(same(v, w) for w in b)]
    if name == "required":
        return [*a, *(n for n in b if n not in a)]
    if name == "properties":
        return {**a, **{n: {"allOf": [a[n], s]} if n in a else s for n, s in b.items()}}
    if name in ("items", "additionalProperties"):
        return {"allOf": [a, b]}
    if name == "uniqueItems":
        return a or b
    if name == "multipleOf" and float(a).is_integer() and float(b).is_integer():
        return math.lcm(int(a), int(b))
    return b


def _narrow(a: Any, b: Any) -> set[str]:
    first, second = ({t} if isinstance(t, str) else set(t) for t in (a, b))
    both = first & second
    if "integer" in first | second and "number" in first | second and "integer" not in both:
        both = both | {"integer"}
    return both


def types_of(flat: Flat) -> list[str]:
    """The types that a value of a flat schema may have; guessed from its keywords when it does not say."""
    kind = flat.get("type")
    if kind is not None:
        return [kind] if isinstance(kind, str) else list(kind)
    if "enum" in flat:
        return list(_TYPES)
    for guess, words in _SIGNS.items():
        if not words.isdisjoint(flat):
            return [guess]
    return ["string"]


_SIGNS: Final = {
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
}


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: true is not 1, 1.0 is 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


def is_a(value: Any, kind: str) -> bool:
    """Whether a JSON value has a JSON Schema type."""
    match value:
        case None:
            return kind == "null"
        case bool():
            return kind == "boolean"
        case int() | float():
            return kind == "number" or (kind == "integer" and float(value).is_integer())
        case str():
            return kind == "string"
        case list():
            return kind == "array"
        case _:
            return kind == "object"
