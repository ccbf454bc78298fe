"""Strict YAML: plain values, and where each key and value stands.

YAML 1.1 as PyYAML's safe loader reads it, with these differences: mapping keys are always text, as in JSON (`on:` is
the key "on"); timestamps stay text; duplicate keys, tags, NaN and infinity are refused. Whatever is wrong with a file
becomes a Diagnostic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct, field

from batchform.errors import Diagnostic, Place
from batchform.spec.wording import shown, source_line

MAX_BYTES: Final = 1_000_000
_MAX_VALUES: Final = 100_000
_MAX_DEPTH: Final = 200  # of collections in each other

NodePath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + t for t in ("str", "int", "float", "bool", "null", "timestamp", "value"))
_KEPT_AS_TEXT = frozenset((_TAG + "timestamp", _TAG + "value"))
_CONTAINERS = frozenset((_TAG + "map", _TAG + "seq"))
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Spot(Struct, frozen=True):
    """1-based line and column of a node; style: `|`, `>`, `'`, `"` or empty, how a scalar is written."""

    line: int
    column: int
    style: str = ""


class Document(Struct, frozen=True):
    """A file's value and the places of its nodes.

    env: path → raw text, where `${ENV:…}` was replaced; broken: nodes that were complained about when they were read.
    """

    path: str
    value: Any
    lines: tuple[str, ...] = ()
    keys: Mapping[NodePath, Spot] = field(default_factory=dict)
    values: Mapping[NodePath, Spot] = field(default_factory=dict)
    env: Mapping[NodePath, str] = field(default_factory=dict)
    broken: frozenset[NodePath] = frozenset()

    def place(self, *path: str | int, on_key: bool = False) -> Place:
        """Where the node stands, or else the nearest one above it."""
        spot = self._spot(path, on_key=on_key)
        if spot is None:
            return Place(self.path)
        text = self.lines[spot.line - 1] if 0 < spot.line <= len(self.lines) else ""
        return Place(self.path, spot.line, spot.column, source_line(text, spot.column))

    def style(self, *path: str | int) -> str:
        """How the scalar at this path is written."""
        spot = self.values.get(path)
        return spot.style if spot else ""

    def diagnostic(
        self,
        rule: str,
        message: str,
        path: NodePath,
        *,
        on_key: bool = False,
        hint: str = "",
        severity: str = "error",
    ) -> Diagnostic:
        """A complaint about the node at `path`."""
        return Diagnostic(rule, message, self.place(*path, on_key=on_key), hint, severity)

    def get(self, *path: str | int) -> Any:
        """The value at this path, None if there is none."""
        found = self.value
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def shown(self, value: object, *path: str | int) -> str:
        """The value as a message may show it: as written when it came from the environment."""
        return shown(self.env.get(path, value))

    def _spot(self, path: NodePath, *, on_key: bool) -> Spot | None:
        for end in range(len(path), -1, -1):
            at = path[:end]
            first, second = (self.keys, self.values) if on_key and end == len(path) else (self.values, self.keys)
            if spot := first.get(at) or second.get(at):
                return spot
        return None


def leaves(value: Any, path: NodePath = ()) -> Iterator[tuple[NodePath, Any]]:
    """Every value below mappings and lists, with where it stands; `path`: of the value itself."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i))
    else:
        yield path, value


def read_text(path: Path, shown_path: str, *, limit: int = MAX_BYTES) -> str | Diagnostic:
    """The text of a small UTF-8 file, or what is wrong with it."""

    def bad(rule: str, message: str, hint: str = "", line: int = 0, column: int = 0) -> Diagnostic:
        return Diagnostic(rule, message, Place(shown_path, line, column), hint)

    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            return bad("unreadable-file", f"the file {what}")
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        return bad("unreadable-file", f"the file cannot be read: {reason}")
    if len(data) > limit:
        return bad(
            "file-too-large", f"the file has more than {limit:,} bytes", "Split it, or move texts to templates/."
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        kind = "UTF-8" if data.startswith(b"\xef") else "UTF-16"
        return bad(
            "byte-order-mark",
            f"the file starts with a {kind} byte order mark",
            "Save it as UTF-8 without a mark.",
            1,
            1,
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        before = data[: exc.start]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode(errors="replace")) + 1
        message = f"byte 0x{data[exc.start]:02x} is not UTF-8"
        return bad("not-utf-8", message, "Save the file as UTF-8.", before.count(b"\n") + 1, column)
    if match := _CONTROL.search(text):
        line, column = _line_and_column(text, match.start())
        name = "NUL" if match[0] == "\0" else f"the control character U+{ord(match[0]):04X}"
        return bad("control-character", f"{name} may not stand in a text file", "Remove it.", line, column)
    return text


def _line_and_column(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def read_yaml(path: Path, shown_path: str) -> tuple[Document | None, list[Diagnostic]]:
    """Read one YAML file whose top is a mapping. The document is None when nothing of it can be used."""
    text = read_text(path, shown_path)
    if isinstance(text, Diagnostic):
        return None, [text]
    return parse_yaml(text, shown_path)


def parse_yaml(text: str, shown_path: str) -> tuple[Document | None, list[Diagnostic]]:
    """Parse the text of one YAML file whose top is a mapping."""
    lines = tuple(text.splitlines())
    try:
        node = _composed(text)
        if node is None:
            return None, [Diagnostic("empty-file", "the file is empty", Place(shown_path, 1, 1))]
        reader = _Reader(shown_path, lines)
        value = reader.read(node, ())
    except yaml.reader.ReaderError as exc:
        message = f"the character U+{exc.character:04X} may not stand in YAML"
        place = Place(shown_path, *_line_and_column(text, exc.position))
        return None, [Diagnostic("control-character", message, place, "Remove it, or write it as an escape.")]
    except yaml.MarkedYAMLError as exc:
        return None, [_syntax_error(exc, shown_path, lines)]
    except yaml.YAMLError as exc:
        return None, [Diagnostic("yaml-syntax", shown(exc, 200), Place(shown_path))]
    except RecursionError:
        return None, [Diagnostic("yaml-too-deep", "the file is nested too deeply", Place(shown_path))]
    document = Document(shown_path, value, lines, reader.keys, reader.values, broken=frozenset(reader.broken))
    if not isinstance(value, dict):
        reader.problems.append(
            document.diagnostic("not-a-mapping", "the top of the file must be a mapping of fields, `name: value`", ())
        )
        return None, reader.problems
    return document, reader.problems


def _composed(text: str) -> yaml.Node | None:
    """The nodes of the only document in a text; None when there is none.

    libyaml reads them in a tenth of the time, where PyYAML has it. What it refuses is read again by PyYAML, whose words
    are the better ones.
    """
    if yaml.__with_libyaml__ and _suits_libyaml(text):
        with suppress(yaml.YAMLError):
            return _single_node(yaml.CSafeLoader(text))
    return _single_node(yaml.SafeLoader(text))


def _single_node(loader: yaml.SafeLoader | yaml.CSafeLoader) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _suits_libyaml(text: str) -> bool:
    """Whether it may compose a text: of a value that is left out it does not know the line. Raises RecursionError for
    what is nested so deeply that it would end the process."""
    depth = 0
    with suppress(yaml.YAMLError):  # which the composer will meet as well
        for event in yaml.parse(text, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise RecursionError
            if isinstance(event, yaml.ScalarEvent) and not event.value and event.implicit[0]:
                return False
    return True


class _TooLarge(yaml.MarkedYAMLError):
    pass


class _Reader:
    """Turns composed nodes into values, notes where they stand, and collects what is wrong with them."""

    def __init__(self, path: str, lines: tuple[str, ...]) -> None:
        self.keys: dict[NodePath, Spot] = {}
        self.values: dict[NodePath, Spot] = {}
        self.problems: list[Diagnostic] = []
        self.broken: set[NodePath] = set()
        self._constructor = yaml.constructor.SafeConstructor()
        self._path = path
        self._lines = lines
        self._open: set[int] = set()
        self._count = 0

    def read(self, node: yaml.Node, at: NodePath) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES or id(node) in self._open:
            what = "an alias contains itself" if id(node) in self._open else f"more than {_MAX_VALUES:,} values"
            raise _TooLarge(problem=what, problem_mark=node.start_mark)
        self.values[at] = _spot(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if node.tag not in _CONTAINERS:
            self._complain("yaml-tag", f"the tag `{shown(node.tag)}` is not supported", node, at, "Write plain YAML.")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(child, (*at, i)) for i, child in enumerate(node.value)]
            return self._mapping(node, at)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, at: NodePath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = self._key(key_node, at)
            if key is None:
                continue
            if key in result:
                first = self.keys[(*at, key)]
                message = f"`{shown(key)}` is given twice; the first is on line {first.line}"
                self._complain("duplicate-key", message, key_node, None, "Remove one of them.")
                continue
            self.keys[(*at, key)] = _spot(key_node)
            result[key] = self.read(value_node, (*at, key))
        for other in merged:
            self._merge(other, result, at)
        return result

    def _merge(self, other: yaml.Node, into: dict[str, Any], at: NodePath) -> None:
        """`<<: *other`: keys that are not there yet."""
        if not isinstance(other, yaml.MappingNode) or id(other) in self._open:
            self._complain("yaml-merge", "`<<` takes a mapping", other, at)
            return
        self._open.add(id(other))
        for key_node, value_node in other.value:
            if key_node.tag == _TAG + "merge":
                self._merge(value_node, into, at)
                continue
            key = self._key(key_node, at)
            if key is not None and key not in into:
                self.keys[(*at, key)] = _spot(key_node)
                into[key] = self.read(value_node, (*at, key))
        self._open.discard(id(other))

    def _key(self, node: yaml.Node, at: NodePath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS and node.tag != _TAG + "null":
            return str(node.value)
        line = self._lines[node.start_mark.line] if node.start_mark.line < len(self._lines) else ""
        hint = 'Quote Jinja expressions: "{{ … }}".' if "{{" in line else ""
        self._complain("bad-key", "a key must be text", node, at, hint)
        return None

    def _scalar(self, node: yaml.ScalarNode, at: NodePath) -> Any:
        if node.tag in _KEPT_AS_TEXT:
            return str(node.value)
        if node.tag not in _SCALARS:
            self._complain("yaml-tag", f"the tag `{shown(node.tag)}` is not supported", node, at, "Write plain YAML.")
            return None
        try:
            value = self._constructor.construct_object(node)
        except (ValueError, OverflowError):
            self._complain("bad-number", "this is not a number that can be read", node, at, "Quote it if it is text.")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._complain("bad-number", f"{value} has no JSON form", node, at)
            return None
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            self._complain("bad-text", "a lone surrogate is not Unicode text", node, at)
            return None
        return value

    def _complain(self, rule: str, message: str, node: yaml.Node, at: NodePath | None, hint: str = "") -> None:
        if at is not None:
            self.broken.add(at)
        spot = _spot(node)
        line = self._lines[spot.line - 1] if spot.line <= len(self._lines) else ""
        place = Place(self._path, spot.line, spot.column, source_line(line, spot.column))
        self.problems.append(Diagnostic(rule, message, place, hint))


def _spot(node: yaml.Node) -> Spot:
    style = node.style if isinstance(node, yaml.ScalarNode) else ""
    return Spot(node.start_mark.line + 1, node.start_mark.column + 1, style or "")


def _syntax_error(exc: yaml.MarkedYAMLError, path: str, lines: tuple[str, ...]) -> Diagnostic:
    mark = exc.problem_mark or exc.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = exc.problem or exc.context or "bad syntax"
    rule, message, hint = "yaml-syntax", f"bad YAML: {shown(problem, 160)}", ""
    if isinstance(exc, _TooLarge):
        rule, message, hint = "yaml-too-large", f"{problem}", "Aliases count each time they are used."
    elif "'\\t'" in problem:
        message, hint = "a tab stands where YAML wants spaces", "Indent with spaces."
    elif problem == "but found another document":
        rule, message, hint = "several-documents", "the file holds several YAML documents", "Write one spec per file."
    elif "cannot start any token" in problem or "expected <block end>" in problem:
        hint = "Quote the value if it is text; check the indentation."
    elif exc.context and exc.context != problem:
        message += f" ({shown(exc.context)}"
        message += f" that starts on line {exc.context_mark.line + 1})" if exc.context_mark else ")"
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    return Diagnostic(rule, message, Place(path, line, column, source_line(text, column)), hint)
