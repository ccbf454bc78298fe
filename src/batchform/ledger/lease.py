"""The lease: a note that says who is at work. A courtesy: safety rests on the swapped head alone.

Notes are numbered objects, `lease/<n>.json`; the highest number counts. Taking, extending and giving up are each the
creation of the next number, which succeeds for one writer only: nobody can remove or replace what another just wrote.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct, field

from batchform.errors import BatchformError, LedgerMoved
from batchform.ledger.segments import timestamp
from batchform.ports import Blobs, Clock

FOLDER: Final = "lease/"

_SKEW: Final = 60.0  # seconds that clocks of two hosts may differ without a word
_ATTEMPTS: Final = 10


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered note. since, expires: RFC 3339 by the holder's clock; seconds: from one renewal to the end."""

    holder: str
    host: str
    pid: int
    since: str
    expires: str
    seconds: float
    token: str
    released: bool = False


class Lease(Struct):
    """A lease in hand. takeover: a sentence on whose stale lease was taken over, or why there is none; else empty."""

    blobs: Blobs
    clock: Clock
    note: Note
    takeover: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def renew(self) -> bool:
        """Extend it by its seconds from now. False if another has taken it over: a courtesy is not fought for."""
        until = self.clock.now() + timedelta(seconds=self.note.seconds)
        return self._replace(msgspec.structs.replace(self.note, expires=timestamp(until)))

    def release(self) -> None:
        """Give it up, unless another has taken it over."""
        self._replace(msgspec.structs.replace(self.note, released=True))

    def _replace(self, note: Note) -> bool:
        with self._lock:
            if self.note.released:
                return False
            number, current = _current(self.blobs)
            if current is None or current.token != note.token or not _claim(self.blobs, number + 1, note):
                return False
            self.note = note
            return True


@contextmanager
def lease(blobs: Blobs, clock: Clock, *, who: str, ttl: float) -> Iterator[Lease]:
    """Hold the lease for the block; it is renewed in the background. ttl: seconds after which it ends if this process
    is gone. Raises LedgerMoved, naming the holder, when another live process has it."""
    mine = Lease(blobs, clock, _note(clock, who=who, ttl=ttl))
    try:
        mine.takeover = _take(mine)
    except LedgerMoved:
        raise
    except (BatchformError, OSError) as error:
        mine.takeover = f"No lease could be taken, others cannot see who is at work: {error}"
    done = threading.Event()
    renewal = threading.Thread(target=_keep, args=(mine, done), name="lease", daemon=True)
    renewal.start()
    try:
        yield mine
    finally:
        done.set()
        renewal.join()
        with suppress(BatchformError, OSError):
            mine.release()


def _note(clock: Clock, *, who: str, ttl: float) -> Note:
    now = clock.now()
    return Note(
        holder=who,
        host=socket.gethostname(),
        pid=os.getpid(),
        since=timestamp(now),
        expires=timestamp(now + timedelta(seconds=ttl)),
        seconds=ttl,
        token=secrets.token_hex(6),
    )


def _take(mine: Lease) -> str:
    """Become the holder. Returns a sentence if a stale lease was taken over. Raises LedgerMoved."""
    for _ in range(_ATTEMPTS):
        number, other = _current(mine.blobs)
        why = "" if other is None or other.released else _stale(other, mine.clock.now())
        if other is not None and not other.released and not why:
            raise _held(mine.blobs, other)
        if _claim(mine.blobs, number + 1, mine.note):
            return f"Took over the lease of {other.holder} since {other.since}: {why}." if other and why else ""
    raise LedgerMoved(f"{mine.blobs.describe()} is too busy: {_ATTEMPTS} leases came first.", hint="Run again.")


def _keep(mine: Lease, done: threading.Event) -> None:
    """Renew until told to stop, or taken over."""
    while not done.wait(mine.note.seconds / 3):
        with suppress(BatchformError, OSError):
            if not mine.renew():
                return


def _numbered(blobs: Blobs) -> dict[int, str]:
    stems = {name: name.removeprefix(FOLDER).removesuffix(".json") for name in blobs.list(FOLDER)}
    return {int(stem): name for name, stem in stems.items() if stem.isascii() and stem.isdigit()}


def _current(blobs: Blobs) -> tuple[int, Note | None]:
    """The highest number and its note: None if there is none, or none that can be read, which never is an obstacle."""
    for _ in range(_ATTEMPTS):
        found = _numbered(blobs)
        if not found:
            return 0, None
        number = max(found)
        try:
            return number, msgspec.json.decode(blobs.read(found[number]), type=Note)
        except FileNotFoundError:
            continue  # replaced by a higher one in between
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return number, None
    return number, None


def _claim(blobs: Blobs, number: int, note: Note) -> bool:
    """Write the note of this number; False if another writer was first. Lower numbers are past."""
    try:
        blobs.write_new(f"{FOLDER}{number:08d}.json", msgspec.json.encode(note))
    except FileExistsError:
        return False
    for past, name in _numbered(blobs).items():
        if past < number:
            blobs.delete(name)
    return True


def _stale(note: Note, now: datetime) -> str:
    """Why a lease no longer counts, or nothing."""
    try:
        left = (datetime.fromisoformat(note.expires) - now).total_seconds()
    except (ValueError, TypeError):
        return f"its end {note.expires!r} is no time"
    if left <= 0:
        return f"it expired at {note.expires}"
    if left > note.seconds + _SKEW:
        return f"its end {note.expires} is further off than it may be: the clock of {note.host} is ahead of this one"
    if note.host == socket.gethostname() and not _alive(note.pid):
        return f"process {note.pid} is gone"
    return ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _held(blobs: Blobs, note: Note) -> LedgerMoved:
    return LedgerMoved(
        f"{note.holder} (process {note.pid} on {note.host}) has been at work on {blobs.describe()} since {note.since}.",
        hint=f"Wait for it and run again. If that process is gone, its lease ends at {note.expires} by itself.",
    )
