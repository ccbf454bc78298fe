"""Results as a fault schedule wants them: applied when they are written, since nobody downloads them from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from batchform.emulator import faults
from batchform.emulator.fault_kinds_rows import FileKind, ResultKind


def spoilt(kinds: Sequence[dict[str, Any]], lines: Iterable[bytes], *, in_files: bool) -> Iterator[bytes]:
    """The lines, changed by each kind in turn. in_files: they are bytes of files, which have ends that can be torn."""
    found = [line.rstrip(b"\n") for line in lines]
    schedule = faults.load([{"call": "vertex.batches.create", "do": do} for do in kinds])
    whole: list[FileKind] = []
    for fault in schedule.faults:
        if isinstance(fault.do, FileKind):
            whole.append(fault.do)
        elif isinstance(fault.do, ResultKind):
            found = fault.do.lines(found)
    body = b"".join(line + b"\n" for line in found)
    for kind in whole if in_files else ():
        body = kind.body(body)
    yield from body.splitlines(keepends=True) if in_files else (line + b"\n" for line in found)
