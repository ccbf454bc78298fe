"""The one place that makes rich consoles. Imported late: rich costs tens of milliseconds."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_WIDTH = 120
"""Columns where nobody can tell: a file, a pipe, a CI log."""


def make_console(*, file: IO[str] | None = None, width: int | None = None, color: bool | None = None) -> Console:
    """A console for people. color: None follows the terminal, NO_COLOR and FORCE_COLOR; width: None follows
    it too.

    Markup, emoji codes and highlighting are off: what is printed may hold text of rows.
    """
    stream = file or sys.stdout
    if isinstance(stream, io.TextIOWrapper) and "utf" not in (stream.encoding or "").lower():
        stream.reconfigure(errors="replace")  # a symbol that the terminal lacks must not end the run
    options: dict[str, Any] = {}
    if color is not None:
        options = {"force_terminal": color, "no_color": not color, "color_system": "standard" if color else None}
    if width is None and not stream.isatty() and "COLUMNS" not in os.environ:
        width = PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False, **options)


def plain_table() -> Table:
    """A table without lines; its columns are the caller's."""
    from rich.table import Table  # plans need none

    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")


class Grid(Struct, frozen=True):
    """Aligned columns; all but the last keep their width, and the last wraps under itself. No trailing spaces."""

    rows: Sequence[tuple[Text, ...]]
    right: tuple[int, ...] = ()
    indent: int = 2

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = range(len(self.rows[0]) - 1 if self.rows else 0)
        widths = [max(row[i].cell_len for row in self.rows) for i in kept]
        start = self.indent + sum(widths) + 2 * len(widths)
        for row in self.rows:
            lead = Text(" " * self.indent)
            for i in kept:
                gap = " " * (widths[i] - row[i].cell_len)
                lead.append_text(Text.assemble(gap, row[i], "  ") if i in self.right else row[i] + Text(gap + "  "))
            for line_ in row[-1].wrap(console, max(options.max_width - start, 16)) or [Text()]:
                lead.append_text(line_)
                lead.rstrip()
                yield lead
                lead = Text(" " * start)


class Paragraph(Struct, frozen=True):
    """Text that wraps under its own start. No trailing spaces."""

    text: Text
    indent: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line_ in self.text.wrap(console, max(options.max_width - self.indent, 16)):
            line_.rstrip()
            yield Text(" " * self.indent).append_text(line_)


def line(*parts: tuple[str, str] | str, indent: int = 0) -> Paragraph:
    """A paragraph of styled pieces."""
    return Paragraph(Text.assemble(*parts), indent)
