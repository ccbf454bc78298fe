"""Copies of the newest heads, each written before its swap: what a lost, torn or exchanged head is known by.

A copy that follows the present head, and is the only one, belongs to a commit that was killed right before its end:
whoever commits next finishes it. Copies further ahead prove that the head was put back to an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from batchform.errors import LedgerCorrupt
from batchform.ledger import segments as seg
from batchform.ledger.records import Head, tag_of_results
from batchform.ports import Blobs

FOLDER: Final = "heads/"
RECENT: Final = 64  # tokens kept in a head
REPAIR: Final = "`batchform ledger repair` puts it right without guessing, and keeps what it replaces."

_KEEP: Final = 3  # serials of which copies stay when old ones are removed
_MOST: Final = 8  # copies before that is done: each removal waits for the disk


class Copy(Struct, frozen=True):
    """A copy by its name. serial and writer are those of the head that it holds."""

    name: str
    serial: int
    writer: str


def copy_name(head: Head) -> str:
    """`heads/<serial>-<writer's token>.json`."""
    return f"{FOLDER}{head.serial:010d}-{head.writer}.json"


def copies(blobs: Blobs) -> list[Copy]:
    """All copies, oldest serial first. Other files in the folder are passed over."""
    return sorted(_parsed(blobs.list(FOLDER)), key=lambda c: (c.serial, c.name))


def _parsed(names: Sequence[str]) -> Iterator[Copy]:
    for name in names:
        serial, dash, writer = name.removeprefix(FOLDER).removesuffix(".json").partition("-")
        if dash and serial.isascii() and serial.isdigit() and name.endswith(".json"):
            yield Copy(name, int(serial), writer)


def keep(blobs: Blobs, head: Head) -> None:
    """Store the copy of a head that is about to be swapped in."""
    blobs.write_new(copy_name(head), seg.encode_head(head))


def prune(blobs: Blobs, head: Head) -> None:
    """After its swap: remove copies of commits that lost against it, and now and then those that are old."""
    found = copies(blobs)
    crowded = len(found) > _MOST
    for copy in found:
        lost = copy.serial == head.serial and copy.writer != head.writer
        if lost or (crowded and copy.serial <= head.serial - _KEEP):
            blobs.delete(copy.name)


def left_without(blobs: Blobs) -> list[str]:
    """Names of what only a ledger that had a head can hold. Inputs are archived before the first commit: they prove
    nothing."""
    found = [name for folder in (seg.FOLDER, FOLDER, "answers/") for name in blobs.list(folder)]
    return found + [name for name in blobs.list("archive/") if tag_of_results(name)]


def read(blobs: Blobs, copy: Copy) -> Head | None:
    """The head that a copy holds; None if it is damaged or gone."""
    try:
        head = seg.decode_head(blobs.read(copy.name), blobs.describe(), name=copy.name)
    except (FileNotFoundError, LedgerCorrupt):
        return None
    return head if copy_name(head) == copy.name else None


def follows(after: Head, before: Head) -> bool:
    """Whether `after` was made on top of `before`, with nothing in between."""
    return (
        after.lineage == before.lineage
        and after.serial == before.serial + 1
        and after.recent == (after.writer, *before.recent)[:RECENT]
    )


def descends(later: Head, earlier: Head) -> bool:
    """Whether `earlier` is in the history of `later`, as far as its tokens reach back."""
    if later.lineage != earlier.lineage or later.serial < earlier.serial:
        return False
    back = later.serial - earlier.serial
    return back >= len(later.recent) or later.recent[back] == earlier.writer


def ready(blobs: Blobs, head: Head) -> Head | None:
    """The head of the one commit that lacks nothing but its swap on top of `head`; None if there is none, or several:
    those are racing, or their writers were killed."""
    ahead = [copy for copy in copies(blobs) if copy.serial > head.serial]
    if len(ahead) != 1 or (found := read(blobs, ahead[0])) is None:
        return None
    return found if follows(found, head) else None


def ahead_of(blobs: Blobs, head: Head) -> Copy | None:
    """A copy that proves that `head` is not the newest one, or not of this history. Only certain if the head is still
    the same after this was called."""
    for copy in reversed(copies(blobs)):
        if copy.serial <= head.serial:
            return None
        if copy.serial > head.serial + 1:
            return copy
        found = read(blobs, copy)
        if found is not None and not follows(found, head):
            return copy
    return None


def put_back(blobs: Blobs, head: Head, newest: Copy) -> LedgerCorrupt:
    """The error for a head that is older than the ledger."""
    return LedgerCorrupt(
        f"{blobs.describe()}/head.json went back: it is at serial {head.serial}, but {newest.name} was written at "
        f"serial {newest.serial}. Rows that were sent since would be sent, and paid for, again.",
        hint=f"{REPAIR} Whoever wants an older backup must restore the whole folder, with nothing left beside it.",
    )
