"""Why a template could not be rendered for a row, in a sentence that names the line, the row and the nearest column."""

from __future__ import annotations

import re
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import SecurityError, UndefinedError

from batchform.errors import SourceError
from batchform.spec.wording import shown, suggestion

if TYPE_CHECKING:
    from batchform.spec.resolved import Template

_UNDEFINED = re.compile(r"^'([^']*)' is undefined")
_NO_ATTRIBUTE = re.compile(r"has no attribute '([^']*)'")


def explain_render_error(
    template: Template, exc: BaseException, key: str, columns: tuple[str, ...] = ()
) -> SourceError:
    """The error of one row, ready to be shown. columns: of the source, for suggestions; else those it was given."""
    name, line, values = _innermost(exc.__traceback__)
    place = template.place(name, line)
    reason, hint = _reason(exc, columns or tuple(values))
    row = f" for the row with key {shown(key)!r}" if key else ""
    return SourceError(f"the template cannot be rendered{row}: {reason}", hint=hint, place=place)


def _innermost(traceback: TracebackType | None) -> tuple[str | None, int, dict[str, Any]]:
    """Template name, line and the row's values where an exception passed through template code."""
    name, line, values = None, 0, dict[str, Any]()
    while traceback is not None:
        frame = traceback.tb_frame
        template = frame.f_globals.get("__jinja_template__")
        if template is not None:
            name = template.name or "<inline>"
            line = template.get_corresponding_lineno(traceback.tb_lineno)
            context = frame.f_locals.get("context")
            if context is not None and not values:
                values = dict(context.parent)
        traceback = traceback.tb_next
    return name, line, values


def _reason(exc: BaseException, columns: tuple[str, ...]) -> tuple[str, str]:
    known = [c for c in columns if c != "row"]
    if isinstance(exc, SecurityError):
        return f"the sandbox refuses it: {shown(exc, 200)}", "Templates see the row and nothing else."
    if isinstance(exc, UndefinedError):
        message = shown(exc, 200)
        if match := _UNDEFINED.match(message):
            return f"`{match[1]}` is undefined", suggestion(match[1], known, noun="Columns")
        if match := _NO_ATTRIBUTE.search(message):
            hint = suggestion(match[1], known, noun="Columns") if "Row object" in message else ""
            return f"there is no `{match[1]}` here ({message})", hint
        return message, ""
    if isinstance(exc, RecursionError):
        return "it calls itself without end", "Give the macro a case in which it stops."
    if isinstance(exc, MemoryError):
        return "its text does not fit into memory", ""
    return f"{type(exc).__name__}: {shown(exc, 200)}", ""
