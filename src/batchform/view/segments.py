"""The ledger's live segments, for people."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.text import Text

from batchform.ledger.head import Head
from batchform.view.console import Grid, line, make_console
from batchform.view.text import safe

SEGMENTS: Final = "segments/"


def print_segments(place: str, head: Head, console: Console | None = None) -> None:
    """A line a segment, in the order of the head. Bytes and rows are exact."""
    console = console or make_console()
    console.print(line((safe(place), "bold"), f"   serial {head.serial}, {head.written_at}"))
    console.print(line(f"lineage {head.lineage}", indent=2))
    if not head.segments:
        return
    console.print()
    names = ("serial", "rows", "bytes", f"file in {SEGMENTS}")
    rows = [tuple(Text(name, style="bold") for name in names)]
    for segment in head.segments:
        count = f"{segment.rows:,}" if segment.kind == "rows" else ""
        about = f"{segment.name.removeprefix(SEGMENTS)}{' (base)' if segment.base else ''}"
        rows.append((Text(str(segment.serial)), Text(count), Text(f"{segment.bytes:,}"), Text(safe(about))))
    console.print(Grid(rows, right=(0, 1, 2), indent=0))
