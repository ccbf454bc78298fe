"""The log under the ledger: immutable segments and one head that is replaced by compare-and-swap."""

from __future__ import annotations

import random
import secrets
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from batchform.canon import digest, file_digest
from batchform.errors import BatchformError, LedgerCorrupt, LedgerMoved
from batchform.ledger import segments as seg
from batchform.ledger.records import FORMAT_VERSION, AnyEvent, Head, Segment
from batchform.ports import Blobs, Clock

_ATTEMPTS: Final = 40
_RECENT: Final = 64  # tokens kept in a head

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

    def refresh(self) -> None:
        """Look at the newest head. Raises LedgerCorrupt; LedgerMoved if it is another ledger than before."""
        with self.lock:
            found = self.blobs.head()
            if found is None:
                self._surely_absent()
                return
            head = seg.decode_head(found[0], self.place)
            if self.head and (head.lineage != self.head.lineage or head.serial < self.serial):
                raise LedgerMoved(
                    f"{self.place} was replaced while in use: lineage {self.head.lineage} at serial {self.serial} "
                    f"became {head.lineage} at serial {head.serial}.",
                    hint="If nobody restored or recreated it on purpose, look into that first; then run again.",
                )
            self._accept(head, found[1])

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
                recent=(token, *self.head.recent)[:_RECENT],
            )
            if self._swapped(head):
                return head
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

    def _surely_absent(self) -> None:
        """A head comes before any segment: segments without one are a ledger that lost it, never an empty one."""
        left = self.blobs.list(seg.FOLDER)
        if self.head is None and not left:
            return
        raise LedgerCorrupt(
            f"{self.place}/head.json is missing, but {len(left)} segments of a ledger are there.", hint=seg.RESTORE
        )

    def _swapped(self, head: Head) -> bool:
        """Whether `head` is now in the ledger's history. An unanswered swap is looked up by its token."""
        try:
            self._accept(head, self.blobs.swap_head(seg.encode_head(head), self._version))
        except LedgerMoved:
            self.refresh()
            return head.writer in self.head.recent if self.head else False
        except (BatchformError, OSError):
            self.refresh()
            if self.head and head.writer in self.head.recent:
                return True
            raise
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
