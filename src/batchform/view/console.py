"""The one place that makes rich consoles. Imported late: rich costs tens of milliseconds."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

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


def grid(rows: list[tuple[RenderableType, ...]], *, right: tuple[int, ...] = (), indent: int = 2) -> Padding:
    """Aligned columns; all but the last keep their width, and the last one wraps under itself."""
    table = Table.grid(padding=(0, 2, 0, 0))
    columns = len(rows[0]) if rows else 0
    for i in range(columns):
        table.add_column(justify="right" if i in right else "left", no_wrap=i < columns - 1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return Padding(table, (0, 0, 0, indent), expand=False)


def line(*parts: tuple[str, str] | str, indent: int = 0) -> Padding:
    """One paragraph of styled pieces; wraps under its own start."""
    return Padding(Text.assemble(*parts, overflow="fold"), (0, 0, 0, indent), expand=False)
