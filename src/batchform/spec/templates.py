"""Prompt templates: compiled once with everything they include, rendered for millions of rows.

A template may read `templates/` and nothing else. What it can reach is known when it is compiled: names of included
templates are written out, so the digest of the closure and the columns that it can read are facts, not observations.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from jinja2 import BaseLoader, TemplateNotFound, TemplateSyntaxError, nodes
from jinja2.environment import Template as JinjaTemplate
from jinja2.nodes import EvalContext
from msgspec.structs import replace

from batchform.canon import digest_of
from batchform.errors import Diagnostic, InvalidProject, Place
from batchform.spec.environment import has_reference
from batchform.spec.resolved import Template
from batchform.spec.template_env import (
    GLOBALS,
    FlatContext,
    Row,
    RowContext,
    TemplateEnvironment,
    without_addresses,
)
from batchform.spec.template_errors import explain_render_error
from batchform.spec.template_reads import ROW, DynamicReferenceError, columns_read, line_reading, references
from batchform.spec.wording import shown, source_line, suggestion
from batchform.spec.yaml_source import read_text

__all__ = ["CompiledTemplate", "TemplateSet", "explain_render_error", "simple_parts"]

INLINE: Final = "<inline>"

_SPECIAL = frozenset((ROW, "self", "super", *GLOBALS))

_BROKEN = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_OWN_SCOPE = (nodes.Block, nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.EvalContextModifier)


class CompiledTemplate:
    """A compiled template and its closure; implements `spec.resolved.Template`.

    parts: literal texts and bare columns when the template is nothing else; places: jinja name → where its lines stand
    (path, line of its first line, whether line numbers can be added to it); sources: jinja name → text.
    """

    def __init__(
        self,
        compiled: JinjaTemplate,
        *,
        name: str,
        digest: str,
        columns: frozenset[str] | None,
        uses_row: bool,
        flat: bool,
        parts: tuple[tuple[str, str], ...] | None,
        stateful: tuple[JinjaTemplate, ...],
        sources: Mapping[str, str],
        places: Mapping[str, Place],
    ) -> None:
        self.name = name
        self.digest = digest
        self.columns = columns
        self.parts = parts
        self.constant = columns is not None and not columns
        self.sources = sources
        self.places = places
        self._compiled = compiled
        self._uses_row = uses_row
        self._stateful = stateful
        self._text: str | None = None
        self._run: Callable[[Any], Any] = compiled.root_render_func
        self._eval_ctx = EvalContext(compiled.environment) if flat else None

    def render(self, values: Mapping[str, Any]) -> str:
        """Text for one row, given at least the columns that the template can read. Raises jinja2 and other errors."""
        if self._text is not None:
            return self._text
        if self._uses_row:
            values = {**values, ROW: Row(values)}
        if self._eval_ctx is not None:
            context: RowContext = FlatContext(values, self._eval_ctx)
        else:
            compiled = self._compiled
            context = RowContext(compiled.environment, values, compiled.name, compiled.blocks)  # type: ignore[arg-type]
        for module in self._stateful:
            module._module = None  # Jinja keeps imported modules: what one row did to them must not reach the next
        text = "".join(self._run(context))
        if "0x" in text:
            without_addresses(text, values, self.sources.values())
        if self.constant:
            self._text = text
        return text

    def place(self, jinja_name: str | None, line: int) -> Place:
        """Where a line of one of the closure's templates stands in the files that the user wrote."""
        start = self.places.get(jinja_name or "", Place(self.name))
        return _at(start, line, self.sources.get(jinja_name or "", ""))

    def where(self, column: str) -> Place:
        """Where the template, or one that it includes, reads a column: the first place, or else the template."""
        for name, text in self.sources.items():
            line = line_reading(column, self._compiled.environment.parse(text, name))
            if not line:
                continue
            place = self.place(name, line)
            found = re.search(rf"\b{re.escape(column)}\b", place.text)
            whole = place.column == 0 and self.places[name].line == 0  # shown as the user wrote it, indentation and all
            return replace(place, column=found.start() + 1) if found and whole else place
        return Place(self.name)


class TemplateSet:
    """The templates of a project: files under `root`, compiled on demand, each read once."""

    def __init__(self, root: Path, *, shown_root: str = "templates") -> None:
        self._root = root
        self._shown_root = shown_root
        self._texts: dict[str, str] = {}
        self._absent: dict[str, tuple[str, str, str]] = {}
        self._files: dict[str, CompiledTemplate] = {}
        self._env = TemplateEnvironment(_Loader(self._read))

    def file(self, name: str, *, place: Place | None = None) -> CompiledTemplate:
        """Compile a file of the template folder. place: where its name is written. Raises InvalidProject."""
        if name not in self._files:
            try:
                self._read(name)
            except _Unreadable as exc:
                raise InvalidProject([exc.diagnostic(place)]) from None
            self._files[name] = self._compile(name, self._texts[name], self._shown(name), self._places(name))
        return self._files[name]

    def inline(self, text: str, *, place: Place, exact_lines: bool = False) -> CompiledTemplate:
        """Compile a text that stands in a spec. Raises InvalidProject.

        place: of the text's node; exact_lines: its first line is the one after `place.line` (a `|` block).
        """
        start = Place(place.path, place.line) if exact_lines else replace(place, column=place.column or 1)
        return self._compile(INLINE, text, INLINE, {INLINE: start})

    def names(self) -> list[str]:
        """The files of the template folder, for suggestions."""
        found = []
        for folder, folders, files in os.walk(self._root):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            relative = PurePosixPath(Path(folder).relative_to(self._root).as_posix())
            found += [str(relative / f) for f in sorted(files) if not f.startswith(".")]
            if len(found) > 1000:
                break
        return found

    # --- reading -------------------------------------------------------------------------------------------------

    def _shown(self, name: str) -> str:
        return shown(f"{self._shown_root}/{name}", 200)

    def _places(self, name: str) -> dict[str, Place]:
        return {name: Place(self._shown(name))}

    def _read(self, name: str) -> str:
        """The text of a template file. Raises _Unreadable."""
        if name in self._texts:
            return self._texts[name]
        if name in self._absent:  # and stays so: what is sent must not depend on when a file appears
            raise _Unreadable(*self._absent[name])
        pure = PurePosixPath(name)
        if not name or name != name.strip() or "\\" in name or "\0" in name or pure.is_absolute() or ".." in pure.parts:
            raise _Unreadable(
                "template-outside",
                f"`{shown(name)}` is not the name of a file in {self._shown_root}/",
                "Names are relative to that folder, with `/`, and never leave it.",
            )
        path = self._root / pure
        try:
            inside = path.resolve().is_relative_to(self._root.resolve())
            mode = path.stat().st_mode if inside else 0
        except (OSError, RuntimeError, ValueError):
            raise self._not_found(name) from None
        if not inside:
            message = f"`{shown(name)}` is a link that leaves {self._shown_root}/"
            raise _Unreadable("template-outside", message, "Copy the file into that folder.")
        if not stat.S_ISREG(mode):
            raise self._not_found(name)
        text = read_text(path, self._shown(name))
        if isinstance(text, Diagnostic):
            raise _Unreadable(text.rule, text.message, text.hint, text.place)
        if line := has_reference(text):
            message = "${ENV:…} works only in batchform.yaml"
            hint = (
                "What is sent must not depend on the environment. To send these very characters write {{ '$' }}{ENV:…}."
            )
            raise _Unreadable("env-not-allowed", message, hint, Place(self._shown(name), line))
        self._texts[name] = text
        return text

    def _not_found(self, name: str) -> _Unreadable:
        prefix = f"{self._shown_root}/"
        if name.startswith(prefix) and (self._root / name[len(prefix) :]).is_file():
            hint = f"Names are relative to {prefix}: write {name[len(prefix) :]}."
        else:
            hint = (
                suggestion(name, self.names()[:20], noun=f"Files in {prefix}") or f"There are no files in {prefix} yet."
            )
        self._absent[name] = "template-not-found", f"there is no template `{shown(name)}` in {prefix}", hint
        return _Unreadable(*self._absent[name])

    # --- compiling -----------------------------------------------------------------------------------------------

    def _compile(self, root: str, text: str, shown_name: str, places: dict[str, Place]) -> CompiledTemplate:
        sources, absent = {root: text}, set[str]()
        trees: dict[str, nodes.Template] = {}
        self._collect(root, sources, trees, absent, places, ())
        tree = trees[root]
        parts = _parts(tree)
        flat = next(tree.find_all(_OWN_SCOPE), None) is None and not any(
            node.name in GLOBALS for node in tree.find_all(nodes.Name)
        )
        uses_row = any(node.name == ROW for t in trees.values() for node in t.find_all(nodes.Name))
        try:
            compiled = self._env.from_string(tree) if root == INLINE else self._env.get_template(root)
            used = tuple(self._env.get_template(name) for name in sources if name != root)
            columns = columns_read(root, {n: self._env.parse(s, n) for n, s in sources.items()})
        except TemplateSyntaxError as exc:
            raise InvalidProject([self._syntax_error(exc, sources, places, root)]) from None
        except _BROKEN as exc:
            message = f"the template cannot be compiled: {shown(exc, 160) or type(exc).__name__}"
            raise InvalidProject([_problem("template-syntax", message, places[root], 0, text)]) from None
        closure = {"text": text, "uses": {n: s for n, s in sources.items() if n != root}, "absent": sorted(absent)}
        return CompiledTemplate(
            compiled,
            name=shown_name,
            digest=digest_of("template", closure),
            columns=columns,
            uses_row=uses_row,
            flat=flat,
            parts=parts,
            stateful=() if all(_stateless(t) for n, t in trees.items() if n != root) else used,
            sources=sources,
            places=places,
        )

    def _collect(
        self,
        name: str,
        sources: dict[str, str],
        trees: dict[str, nodes.Template],
        absent: set[str],
        places: dict[str, Place],
        above: tuple[str, ...],
    ) -> None:
        """Parse a template and all that it names. Raises InvalidProject."""
        source, place = sources[name], places[name]
        try:
            tree = self._env.parse(source, name)
            named = list(references(tree))
        except TemplateSyntaxError as exc:
            raise InvalidProject([self._syntax_error(exc, sources, places, name)]) from None
        except DynamicReferenceError as exc:
            hint = "Write the name in quotes, and choose between several with {% if %}."
            raise InvalidProject([_problem("template-dynamic", str(exc), place, exc.line, source, hint)]) from None
        except _BROKEN as exc:
            message = f"the template cannot be parsed: {shown(exc, 160) or type(exc).__name__}"
            raise InvalidProject([_problem("template-syntax", message, place, 0, source)]) from None
        trees[name] = tree
        for other, line, optional in named:
            if other == name or other in above:
                message = f"`{shown(name)}` includes itself through `{shown(other)}`"
                raise InvalidProject([_problem("template-cycle", message, place, line, source)])
            if other not in sources:
                try:
                    sources[other] = self._read(other)
                except _Unreadable as exc:
                    if optional and exc.rule == "template-not-found":
                        absent.add(other)
                        continue
                    raise InvalidProject([exc.diagnostic(_at(place, line, source))]) from None
                places[other] = Place(self._shown(other))
            self._collect(other, sources, trees, absent, places, (*above, name))

    def _syntax_error(
        self, exc: TemplateSyntaxError, sources: Mapping[str, str], places: Mapping[str, Place], name: str
    ) -> Diagnostic:
        at = exc.name if exc.name is not None and exc.name in sources else name
        message, hint = shown(exc.message or "bad template syntax", 200).rstrip("."), ""
        for noun, known in (("filter", self._env.filters), ("test", self._env.tests)):
            if message.startswith(f"No {noun} named "):
                wanted = message.split("'")[1]
                message = f"there is no {noun} `{wanted}`"
                hint = suggestion(wanted, sorted(known), noun=f"{noun.title()}s")
        return _problem("template-syntax", message, places[at], exc.lineno, sources[at], hint)


class _Unreadable(TemplateNotFound):
    """A template file that may not or cannot be read."""

    def __init__(self, rule: str, message: str, hint: str = "", place: Place | None = None) -> None:
        super().__init__(None, message)
        self.rule, self.hint, self.place = rule, hint, place

    def diagnostic(self, place: Place | None) -> Diagnostic:
        """The complaint: in the file itself if the trouble is there, or else where its name is written."""
        return Diagnostic(self.rule, self.message or "", self.place or place or Place("templates"), self.hint)


class _Loader(BaseLoader):
    """Gives Jinja the texts that the set has read, so that rendering never touches the disk."""

    def __init__(self, read: Callable[[str], str]) -> None:
        self._read = read

    def get_source(self, environment: Any, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:  # noqa: ARG002
        return self._read(template), None, None


def _problem(rule: str, message: str, start: Place, line: int, source: str, hint: str = "") -> Diagnostic:
    """A complaint about a line of a template that begins at `start`."""
    return Diagnostic(rule, message, _at(start, line, source), hint)


def _at(start: Place, line: int, source: str) -> Place:
    """Where a line of a template that begins at `start` stands; inline text not written line by line has one place."""
    if start.column or not line:
        return start
    lines = source.splitlines()
    text = lines[line - 1] if line <= len(lines) else ""
    return Place(start.path, start.line + line, text=source_line(text, 1))


def simple_parts(template: Template) -> list[tuple[str, str]] | None:
    """("text", t) and ("column", name) in order, when a template is only literal text and bare columns; else None."""
    parts = getattr(template, "parts", None)
    return None if parts is None else list(parts)


def _stateless(tree: nodes.Template) -> bool:
    """Whether a template does nothing at its top but define macros: nothing that a row could change or use up."""
    return all(
        isinstance(node, (nodes.Macro, nodes.Import, nodes.FromImport))
        or (isinstance(node, nodes.Assign) and isinstance(node.node, nodes.Const))
        or (isinstance(node, nodes.Output) and all(isinstance(n, nodes.TemplateData) for n in node.nodes))
        for node in tree.body
    )


def _parts(tree: nodes.Template) -> tuple[tuple[str, str], ...] | None:
    parts: list[tuple[str, str]] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                parts.append(("text", node.data))
            elif isinstance(node, nodes.Const) and isinstance(node.value, str):
                parts.append(("text", node.value))
            elif isinstance(node, nodes.Name) and node.name not in _SPECIAL:
                parts.append(("column", node.name))
            elif isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == ROW:
                parts.append(("column", node.attr))
            else:
                return None
    return tuple(parts)
