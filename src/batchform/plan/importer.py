"""What the importer of Vertex AI cannot load: it reads JSON lines into columns, as a BigQuery load does, and one line
that does not fit fails the whole job hours after the create call has said yes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from batchform.spec.generation import camel

_COLUMN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_NO_COLUMNS: Final = ("$defs", "$schema", "$ref")
_NAMED_BY_USERS: Final = frozenset({"properties", "args", "response", "labels"})
"""Below these, names are the user's own: two that differ in style are two things."""
_AROUND: Final = 3
"""Levels of a line above what a request's own parts hold: the line, the request, the part."""

Path = tuple[str, ...]
"""Names, and `[0]` for the items of lists."""


class Problem(Struct, frozen=True):
    """Something that the importer does not take. across: it is only one beside the request `other`, whose key is
    given ("" for the same one)."""

    path: Path
    message: str
    hint: str
    across: bool = False
    other: str = ""


class _Column(Struct):
    """What a column is known to hold. kind: "" where any will do; spelled: as the API's name was first written."""

    kind: str
    path: Path
    key: str
    spelled: Path


class Columns:
    """The columns that the requests of one job ask for. deepest: levels of a line that the importer takes.

    `look` at each request that may differ in form from those before; it remembers columns, not requests.
    """

    def __init__(self, deepest: int) -> None:
        self._deepest = deepest
        self._seen: dict[Path, _Column] = {}

    def look(self, request: Mapping[str, Any], key: str = "") -> Iterator[Problem]:
        """What is wrong with a request, by itself or beside those before it."""
        for path, value in _walk(request, ()):
            yield from self._alone(path, value)
            yield from self._beside(path, value, key)

    def _alone(self, path: Path, value: Any) -> Iterator[Problem]:
        name = path[-1]
        if value is None:
            yield Problem(
                path, f"`{worded(path)}` is null, and the importer of Vertex AI refuses nulls", "Leave it out."
            )
        if value == {}:
            alone = name in ("codeExecution", "urlContext")
            hint = "Say something in it: google_search, for one, takes {exclude_domains: [example.com]}."
            hint = "It has no settings: use `via: bigquery`, or a backend of `type: gemini`." if alone else hint
            yield Problem(path, f"`{worded(path)}` is empty, and the importer of Vertex AI refuses empty objects", hint)
        if name in _NO_COLUMNS:
            hint = "Write the schema out, without $defs and $ref."
            yield Problem(path, f"`{worded(path)}` fails the importer of Vertex AI", hint)
        elif name[:1] != "[" and not _COLUMN.fullmatch(name):
            hint = "Begin with a letter or _, then letters, digits and _ only."
            yield Problem(path, f"`{worded(path)}` is no name that the importer of Vertex AI takes", hint)
        if isinstance(value, Mapping):
            if sum(p[:1] != "[" for p in path) + _AROUND > self._deepest:
                message = f"`{worded(path)}` is nested too deep: the importer takes {self._deepest} levels"
                yield Problem(path, message, "Flatten it.")
            yield from _same_but_for_case(path, value)

    def _beside(self, path: Path, value: Any, key: str) -> Iterator[Problem]:
        kind, column = _kind(value), _column(path)
        known = self._seen.get(column)
        if known is None:
            self._seen[column] = _Column(kind, path, key, path)
            return
        other = known.key if known.key != key else ""
        if path[-1] != known.spelled[-1] and path[-1][:1] != "[":
            message = f"`{worded(path)}` is `{worded(known.spelled)}` elsewhere: they would be two columns"
            yield Problem(path, message, "Spell both alike.", across=True, other=other)
        if kind and known.kind and kind != known.kind:
            message = (
                f"`{worded(path)}` is {kind}, and `{worded(known.path)}` is {known.kind}: the importer takes one type"
            )
            yield Problem(path, message, "Write both alike.", across=True, other=other)
        elif kind and not known.kind:
            self._seen[column] = _Column(kind, path, key, known.spelled)


def form_of(value: Any) -> object:
    """Equal for two values that ask for the same columns: names and types, and not what is said."""
    if isinstance(value, dict):
        return tuple([(name, form_of(inner)) for name, inner in value.items()])
    if isinstance(value, list):
        return ("[]", *dict.fromkeys(form_of(inner) for inner in value))
    return type(value)


def worded(path: Path) -> str:
    """`tools[0].googleSearch`."""
    return ".".join(path).replace(".[", "[")


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value within a request, with its path."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(inner, (*path, str(name)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, inner in enumerate(value):
            yield from _walk(inner, (*path, f"[{i}]"))


def _column(path: Path) -> Path:
    """What a path is to the importer: items of a list share a column, and so should the two spellings of a name."""
    names: list[str] = []
    for i, name in enumerate(path):
        own = i and path[i - 1] in _NAMED_BY_USERS
        names.append("[]" if name[:1] == "[" else name if own else camel(name))
    return tuple(names)


def _same_but_for_case(path: Path, value: Mapping[str, Any]) -> Iterator[Problem]:
    names: dict[str, str] = {}
    for name in value:
        other = names.setdefault(str(name).casefold(), str(name))
        if other != name:
            message = f"`{worded((*path, str(name)))}` and `{other}` differ in case only, and columns do not"
            yield Problem((*path, str(name)), message, "Rename one of them.")


def _kind(value: Any) -> str:
    """The type of column that a value asks for; "" where any will do."""
    if value == [] or value is None:
        return ""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, Mapping) else "a list"
