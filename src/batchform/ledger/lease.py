"""The lease: a note that says who is at work. A courtesy: safety rests on the swapped head alone."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from batchform.errors import LedgerMoved
from batchform.ledger.segments import timestamp
from batchform.ports import Blobs, Clock

NAME: Final = "lease.json"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """`lease.json`. since, expires: RFC 3339."""

    holder: str
    host: str
    pid: int
    since: str
    expires: str
    token: str


@dataclass
class Lease:
    """A lease in hand. takeover: a sentence on whose stale lease was taken over, else empty."""

    blobs: Blobs
    clock: Clock
    note: Note
    ttl: float
    takeover: str = ""

    def renew(self) -> None:
        """Extend it by its ttl from now. Long runs call this now and then."""
        now = self.clock.now()
        self.note = msgspec.structs.replace(self.note, expires=timestamp(now + timedelta(seconds=self.ttl)))
        self.blobs.delete(NAME)
        with suppress(FileExistsError):  # another one was quicker: a courtesy is not fought for
            self.blobs.write_new(NAME, msgspec.json.encode(self.note))


@contextmanager
def lease(blobs: Blobs, clock: Clock, *, who: str, ttl: float) -> Iterator[Lease]:
    """Hold the lease for the block. Raises LedgerMoved, naming the holder, when another live process has it."""
    now = clock.now()
    note = Note(
        holder=who,
        host=socket.gethostname(),
        pid=os.getpid(),
        since=timestamp(now),
        expires=timestamp(now + timedelta(seconds=ttl)),
        token=secrets.token_hex(6),
    )
    mine = Lease(blobs, clock, note, ttl)
    other = _read(blobs)
    if other:
        if why := _stale(other, now):
            mine.takeover = f"Took over the lease of {other.holder} since {other.since}: {why}."
            blobs.delete(NAME)
        else:
            raise _held(blobs, other)
    try:
        blobs.write_new(NAME, msgspec.json.encode(note))
    except FileExistsError:
        raise _held(blobs, _read(blobs) or note) from None
    try:
        yield mine
    finally:
        left = _read(blobs)
        if left and left.token == note.token:
            blobs.delete(NAME)


def _read(blobs: Blobs) -> Note | None:
    """The present lease; one that cannot be read counts as none, so that it never stands in the way."""
    try:
        return msgspec.json.decode(blobs.read(NAME), type=Note)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        blobs.delete(NAME)
        return None


def _stale(note: Note, now: datetime) -> str:
    """Why a lease no longer counts, or nothing."""
    if datetime.fromisoformat(note.expires) <= now:
        return f"it expired at {note.expires}"
    if note.host == socket.gethostname() and not _alive(note.pid):
        return f"process {note.pid} is gone"
    return ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _held(blobs: Blobs, note: Note) -> LedgerMoved:
    return LedgerMoved(
        f"{note.holder} (process {note.pid} on {note.host}) has been at work on {blobs.describe()} since {note.since}.",
        hint=f"Wait for it and run again. If that process is gone, its lease ends at {note.expires} by itself.",
    )
