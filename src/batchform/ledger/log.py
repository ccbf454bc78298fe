"""The log under the ledger: immutable segments and one head that is replaced by compare-and-swap."""

from __future__ import annotations

import random
import secrets
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from batchform.canon import digest, file_digest
from batchform.errors import BatchformError, LedgerCorrupt, LedgerMoved
from batchform.ledger import heads
from batchform.ledger import segments as seg
from batchform.ledger.records import FORMAT_VERSION, AnyEvent, Head, Segment
from batchform.ports import Blobs, Clock

_ATTEMPTS: Final = 40

Change = Callable[[Head], Head]
"""The next head's content, from the newest one; serial, writer and times are filled in by the swap."""


class Log:
    """Segments and head in one place, as of the last `refresh` or `publish`. Hold `lock` for what must be one step."""

    def __init__(self, blobs: Blobs, *, clock: Clock, who: str) -> None:
        """who: user@host, recorded as the writer of heads."""
        self.blobs = blobs
        self.clock = clock
        self.who = who
        self.head: Head | None = None
        self.lock = threading.RLock()
        self._version: str | None = None

    @property
    def place(self) -> str:
        return self.blobs.describe()

    @property
    def serial(self) -> int:
        return self.head.serial if self.head else 0

    @property
    def live(self) -> tuple[Segment, ...]:
        """The segments that the head names."""
        return self.head.segments if self.head else ()

    def refresh(self, *, distrust: bool = False) -> None:
        """Look at the newest head. Raises LedgerCorrupt; LedgerMoved if it is another ledger than before.

        distrust: even a head that is the one we know is held against the copies: it may have been put back to that.
        """
        with self.lock:
            found = self.blobs.head() or self._appeared()
            if found is None:
                return
            head, version = self._newest(found, known=None if distrust else self._version)
            if self.head and (head.lineage != self.head.lineage or head.serial < self.serial):
                raise LedgerMoved(
                    f"{self.place} was replaced while in use: lineage {self.head.lineage} at serial {self.serial} "
                    f"became {head.lineage} at serial {head.serial}.",
                    hint="If nobody restored or recreated it on purpose, look into that first; then run again.",
                )
            self._accept(head, version)

    def catch_up(self) -> None:
        """`refresh` for a writer: a commit that was killed right before its swap is finished first.

        Its segments are durable, and it was decided on the very head that is there; whoever made it may live and find
        that it won. To leave it out could forget a commit that happened, if the head was put back by one.
        """
        with self.lock:
            self.refresh(distrust=True)
            if self.head is None or (other := heads.ready(self.blobs, self.head)) is None:
                return
            there = set(self.blobs.list(seg.FOLDER))
            if lost := next((s.name for s in other.segments if s.name not in there), ""):
                self.refresh()
                if self.serial >= other.serial:
                    return
                raise LedgerCorrupt(
                    f"{self.place}/{lost} is missing, but {heads.copy_name(other)}, a commit that was interrupted, "
                    "names it.",
                    hint=seg.RESTORE,
                )
            try:
                self._accept(other, self.blobs.swap_head(seg.encode_head(other), self._version))
            except LedgerMoved:
                self.refresh()

    def check_at(self, expect: int | None) -> None:
        """Raise LedgerMoved unless the ledger is at this serial; None fits always."""
        if expect is not None and expect != self.serial:
            raise self._moved(expect)

    def create(self) -> None:
        """The empty head of a new ledger; if another process is faster, its."""
        head = Head(
            format_version=FORMAT_VERSION,
            lineage=str(uuid.uuid4()),
            serial=0,
            writer=secrets.token_hex(6),
            written_at=seg.timestamp(self.clock.now()),
            by=self.who,
        )
        try:
            self._accept(head, self.blobs.swap_head(seg.encode_head(head), None))
        except LedgerMoved:
            self.refresh()

    def draft(self, name: str, content: bytes | Path, **fields: object) -> Segment:
        """Write one segment durably. It is live once a head names it."""
        self.blobs.write_new(name, content)
        if isinstance(content, bytes):
            size, sha = len(content), digest(content)
        else:
            size, sha = content.stat().st_size, file_digest(content)
        return msgspec.convert({"name": name, "serial": 0, "sha256": sha, "bytes": size, **fields}, Segment)

    def discard(self, drafts: Sequence[Segment]) -> None:
        """Remove segments that no head ever named."""
        for draft in drafts:
            self.blobs.delete(draft.name)

    def publish(self, token: str, drafts: Sequence[Segment], change: Change, *, expect: int | None = None) -> Head:
        """Swap the head for a changed one that names the written `drafts`; returns it.

        expect: as in Ledger.commit, already checked; None: on top of whatever head is newest, in several attempts.
        Raises LedgerMoved, and then the drafts are removed, since no head can name them. After any other error one
        may, so they are left for compaction to judge.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.clock.sleep(random.uniform(0.001, min(0.002 * 2**attempt, 1.0)))
                self.refresh()
                if lost := self._lost(drafts):
                    self.discard(drafts)
                    raise LedgerMoved(f"{lost} was cleaned away before it was committed.", hint="Run again.")
            assert self.head is not None
            head = msgspec.structs.replace(
                change(self.head),
                serial=self.serial + 1,
                writer=token,
                by=self.who,
                written_at=seg.timestamp(self.clock.now()),
                recent=(token, *self.head.recent)[: heads.RECENT],
            )
            if self._swapped(head):
                return head
            self.blobs.delete(heads.copy_name(head))
            if expect is not None:
                break
        self.discard(drafts)
        self.refresh()
        raise self._moved(expect)

    def events_of(self, segment: Segment) -> tuple[tuple[int, AnyEvent], ...]:
        """(serial, event) pairs of one segment, in order."""
        try:
            return seg.read_events(self.blobs, segment)
        except FileNotFoundError:
            raise self._gone(segment) from None

    def path_of(self, segment: Segment) -> Path:
        """The local file of a rows segment, with its size checked."""
        try:
            return seg.rows_path(self.blobs, segment)
        except FileNotFoundError:
            raise self._gone(segment) from None

    def _accept(self, head: Head, version: str) -> None:
        self.head, self._version = head, version

    def _newest(self, found: tuple[bytes, str], *, known: str | None) -> tuple[Head, str]:
        """The head and its version. Raises LedgerCorrupt if it is damaged, or was put back to an earlier one.

        known: a version that needs no comparing with the copies.
        """
        while True:
            try:
                head = seg.decode_head(found[0], self.place)
            except seg.FromNewer:
                raise
            except LedgerCorrupt as error:
                raise self._repairable(error.message) from None
            if found[1] == known:
                return head, found[1]
            ahead = heads.ahead_of(self.blobs, head)
            if ahead is None:
                return head, found[1]
            again = self.blobs.head()
            if again is None or again[1] == found[1]:
                raise heads.put_back(self.blobs, head, ahead)
            found = again  # another writer was at work in between

    def _appeared(self) -> tuple[bytes, str] | None:
        """Look once more where there was no head: None for a ledger that never was, LedgerCorrupt for one that lost it.

        A head comes before anything that it could name.
        """
        left = heads.left_without(self.blobs)
        if self.head is None and not left:
            return None
        if (found := self.blobs.head()) is not None:
            return found
        raise self._repairable(f"{self.place}/head.json is missing, but {len(left)} other files of a ledger are there.")

    def _repairable(self, message: str) -> LedgerCorrupt:
        """The error for a head that is lost: what is to be done depends on whether there is a copy."""
        return LedgerCorrupt(message, hint=heads.REPAIR if heads.copies(self.blobs) else seg.RESTORE)

    def _swapped(self, head: Head) -> bool:
        """Whether `head` is now in the ledger's history. An unanswered swap is looked up by its token."""
        try:
            heads.keep(self.blobs, head)
            self._accept(head, self.blobs.swap_head(seg.encode_head(head), self._version))
        except LedgerMoved:
            self.refresh()
            return head.writer in self.head.recent if self.head else False
        except (BatchformError, OSError):
            self.refresh()
            if self.head and head.writer in self.head.recent:
                return True
            with suppress(BatchformError, OSError):
                self.blobs.delete(heads.copy_name(head))
            raise
        with suppress(BatchformError, OSError):  # it is recorded; the next commit cleans up as well
            heads.prune(self.blobs, head)
        return True

    def _lost(self, drafts: Sequence[Segment]) -> str:
        """A draft that compaction took for abandoned. Without this check a slow writer could name a deleted segment."""
        there = set(self.blobs.list(seg.FOLDER))
        retired = {r.name for r in self.head.retired} if self.head else set()
        return next((d.name for d in drafts if d.name in retired or d.name not in there), "")

    def _moved(self, expect: int | None) -> LedgerMoved:
        last = f"{self.head.by or 'someone'} wrote last, at {self.head.written_at}" if self.head else "there is none"
        if expect is None:
            return LedgerMoved(
                f"{self.place} is too busy: {_ATTEMPTS} attempts to commit were overtaken; {last}.",
                hint="Nothing was recorded by this step. Run the command again.",
            )
        return LedgerMoved(
            f"{self.place} moved from serial {expect} to {self.serial} in the meantime: {last}.",
            hint="Nothing was recorded by this step. Run the command again; it starts from what is there now.",
        )

    def _gone(self, segment: Segment) -> BatchformError:
        """A segment is not there: compacted while we read, or lost."""
        before = self.head
        self.refresh()
        if segment not in self.live and self.head != before:
            return LedgerMoved(f"{self.place} was compacted while it was being read.", hint="Run the command again.")
        return LedgerCorrupt(f"{self.place}/{segment.name} is missing, but head.json names it.", hint=seg.RESTORE)
