"""What no file of a project should hold: keys, and paths of one person's machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from batchform.errors import Diagnostic, Place
from batchform.spec.resolved import ResolvedSpec, Template
from batchform.spec.secrets import HOME, MARKS, secret_in
from batchform.spec.yaml_source import Document, leaves

_MARKS: Final = re.compile(MARKS)
_TEXTS: Final = ("prompt", "description", "ignore", "request", "generation_config", "output")
"""Where a text is what is sent or said, and no path."""


def lint_texts(document: Document) -> Iterator[Diagnostic]:
    """Complaints about the lines and the paths of batchform.yaml or a spec."""
    yield from _secrets(document.path, document.lines)
    for path, value in leaves(document.value):
        if isinstance(value, str) and path and path[0] not in _TEXTS and HOME.match(value) and path not in document.env:
            message = "this folder is on one person's machine, and whoever else runs the project has it not"
            hint = "Write it relative to the project, or ${ENV:NAME} in batchform.yaml."
            yield document.diagnostic("personal-folder", message, path, hint=hint, severity="warning")


def lint_templates(spec: ResolvedSpec) -> Iterator[Diagnostic]:
    """Complaints about the files that a spec's prompt is made of."""
    seen: set[str] = set()
    templates: list[Template] = [turn.template for turn in spec.turns]
    for template in [spec.system, *templates]:
        for place, text in _texts(template) if template is not None else ():
            if str(place) not in seen:
                seen.add(str(place))
                yield from _secrets(place.path, text.split("\n"), first=place.line)


def _texts(template: Template) -> Iterator[tuple[Place, str]]:
    """Where the texts of a template and of those that it includes stand, but for what stands in the spec itself."""
    sources = getattr(template, "sources", None)
    if sources is None:  # an example: a text of its own
        yield template.place(None, 0), template.render({})
        return
    for name, text in sources.items():
        place = template.places[name]  # type: ignore[attr-defined]
        if place.line == 0:
            yield place, text


def _secrets(path: str, lines: Sequence[str], *, first: int = 0) -> Iterator[Diagnostic]:
    """Keys in lines, each without the line itself. first: number of the line where they begin, 0 for a whole file."""
    for i, line in enumerate(lines):
        if _MARKS.search(line) and (kind := secret_in(line)):
            hint = "Take it out and revoke it: who can read the repository, or its history, can use it."
            place = Place(path, first or i + 1)
            yield Diagnostic("secret-in-file", f"this is what looks like {kind}", place, hint=hint)
