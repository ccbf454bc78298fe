"""The ledger: immutable segments and one head that is replaced by compare-and-swap. Readers never block.

A commit writes its segments first and swaps the head last: killed anywhere, it either happened or it did not. Whoever
decides on what the ledger says passes the serial it looked at as `expect`, and is told when that is no longer true.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from batchform.canon import digest, short
from batchform.errors import BatchformError, LedgerCorrupt, LedgerMoved
from batchform.ledger import segments as seg
from batchform.ledger.fold import fold
from batchform.ledger.group import MOST, Member, Pending, together
from batchform.ledger.log import Log
from batchform.ledger.moves import moved_head
from batchform.ledger.records import AnyEvent, ControlView, Head, Segment
from batchform.ledger.relation import Part, create_keys_view, create_rows_view
from batchform.ledger.segments import RowsFile
from batchform.ports import Blobs, Clock
from batchform.rows.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.ledger.lease import Lease
    from batchform.ledger.raw import StoresOf

__all__ = ["Ledger", "RowsFile"]

_MANY_SEGMENTS: Final = 16
_MANY_EVENT_SEGMENTS: Final = 64
_SMALL: Final = 50_000  # rows that are folded on every read without anyone noticing


class Ledger:
    """One ledger, as of its last `refresh` or commit. Threads of one process may share it."""

    def __init__(self, blobs: Blobs, *, clock: Clock, who: str) -> None:
        """Use `open`. who: user@host, recorded as the writer of commits."""
        self.blobs = blobs
        self.log = Log(blobs, clock=clock, who=who)
        self._events: dict[str, tuple[tuple[int, AnyEvent], ...]] = {}
        self._control: tuple[tuple[str, int, int], ControlView] | None = None
        self._waiting: deque[Member] = deque()
        self._pending: Pending | None = None
        self._supposed: dict[str, Path] = {}
        self.stores: StoresOf | None = None  # reads raw results that are not kept here; set by whoever opens backends

    @classmethod
    def open(cls, blobs: Blobs, *, clock: Clock, who: str) -> Ledger:
        """Read the head; writes nothing. An absent ledger is an empty one. Raises LedgerCorrupt."""
        ledger = cls(blobs, clock=clock, who=who)
        ledger.refresh()
        return ledger

    # --- reading -------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Head | None:
        """The head as of the last refresh or commit; None for an absent ledger."""
        return self.log.head

    @property
    def serial(self) -> int:
        """Commits so far; 0 for an empty ledger."""
        return self.log.serial

    @property
    def lineage(self) -> str:
        """Made once for each ledger; "" for an absent one."""
        return self.head.lineage if self.head else ""

    @property
    def place(self) -> str:
        """Where it is, as the user wrote it."""
        return self.blobs.describe()

    def refresh(self) -> None:
        """Look at the newest head. Raises LedgerCorrupt; LedgerMoved if it is another ledger than before."""
        self.log.refresh()

    def catch_up(self) -> None:
        """`refresh` for a run that will write: a commit that was killed right before its swap is taken up first, so
        that nothing is planned without it. Raises as `refresh` does."""
        self.log.catch_up()

    def control(self) -> ControlView:
        """The fold of all control events. Shared and cached by serial: do not change it."""
        with self.log.lock:
            pending = self._pending.events if self._pending else []
            wanted = (self.lineage, self.serial, len(pending))
            if self._control is None or self._control[0] != wanted:
                known, self._events = self._events, {}
                for segment in self.event_segments():
                    self._events[segment.name] = known.get(segment.name) or self.log.events_of(segment)
                recorded = (pair for pairs in self._events.values() for pair in pairs)
                numbered = chain(recorded, ((self.serial + 1, event) for event in pending))
                self._control = wanted, fold(numbered, lineage=self.lineage, serial=self.serial)
            return self._control[1]

    def event_segments(self) -> list[Segment]:
        """Live segments of control events, in order of commit."""
        return sorted((s for s in self.log.live if s.kind == "events"), key=lambda s: s.serial)

    def row_segments(self, spec: str) -> list[Segment]:
        """Live segments of a spec's rows, in order of commit."""
        return sorted((s for s in self.log.live if s.kind == "rows" and s.spec == spec), key=lambda s: s.serial)

    def specs(self) -> list[str]:
        """Specs that have recorded rows."""
        return sorted({s.spec for s in self.log.live if s.kind == "rows" and s.spec})

    def rows_relation(self, con: DuckDBPyConnection, spec: str) -> str:
        """FROM-able ROW_COLUMNS of a spec: the latest record of each key, serials filled in, in no order.

        Made in `con` for this serial; a later call, after a commit, makes another. Columns that a query does not name
        are not read.
        """
        with self.log.lock:
            parts, name = self.row_parts(spec), f"bf_ledger_{spec}_{self.serial}"
            name += f"_{len(parts)}" if self._pending else ""
        with self._reading(spec):
            return create_rows_view(con, name, parts)

    def rows_of(self, con: DuckDBPyConnection, spec: str, keys: str) -> str:
        """As `rows_relation`, of some keys only: for what concerns few rows of a large table.

        keys: FROM-able key_hash; it is read once, by this call.
        """
        with self.log.lock:
            parts = self.row_parts(spec)
            name = f"bf_ledger_{spec}_{self.serial}_{len(parts)}_{short(digest(keys.encode()))}"
        with self._reading(spec):
            return create_keys_view(con, name, parts, keys)

    @contextmanager
    def _reading(self, spec: str) -> Iterator[None]:
        """Tell what DuckDB says of a spec's files."""
        import duckdb

        try:
            yield
        except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
            raise self.damaged_rows(spec, error) from None

    def row_parts(self, spec: str) -> list[Part]:
        """The live segments of a spec's rows as local files, in order of commit."""
        with self.log.lock:
            pending = [f for f in self._pending.files if f.spec == spec] if self._pending else []
            return [
                *(Part(self.log.path_of(s), s.serial, base=s.base) for s in self.row_segments(spec)),
                *(Part(f.path, self.serial + 1) for f in pending),
            ]

    def damaged_rows(self, spec: str, error: Exception) -> LedgerCorrupt:
        """What to raise for what DuckDB or Arrow say of a row segment."""
        return LedgerCorrupt(
            f"The row segments of spec {spec} in {self.place} cannot be read: {str(error).splitlines()[0]}",
            hint=seg.RESTORE,
        )

    def tag_rows(self, con: DuckDBPyConnection, spec: str, tag: str) -> str:
        """FROM-able ROW_COLUMNS of the rows whose latest record has this tag."""
        with self.log.lock:
            parts = self.row_parts(spec)
        if not parts:
            return self.rows_relation(con, spec)
        own = f"tag = {literal(tag)}"
        rows = self.rows_of(con, spec, f"(SELECT key_hash FROM {seg.parquet([p.path for p in parts])} WHERE {own})")
        return f"(SELECT * FROM {rows} WHERE {own})"

    # --- writing -------------------------------------------------------------------------------------------------

    def commit(self, events: Sequence[AnyEvent], rows: Sequence[RowsFile] = (), *, expect: int | None = None) -> Head:
        """Record events and row states in one step, durably, or not at all. Returns the head that holds them.

        expect: the serial on which the caller's decision rests: if the ledger is elsewhere, LedgerMoved. None: for
        records that are true whatever else was committed; they go on top of the newest head. A key occurs at most
        once per spec in one commit (checked up to a million rows); later commits replace earlier ones. Files are
        copied, not moved. Raises also BatchformError when the place cannot be written.
        """
        files = [f for f in rows if f.rows]
        seg.check_rows(files)
        member = Member(events, files, expect)
        self._waiting.append(member)
        with self.log.lock:
            if not member.settled:
                self._commit_waiting()
        if member.error is not None:
            raise member.error
        assert member.head is not None
        return member.head

    @property
    def joins(self) -> int:
        """How many commits had better be one: 1 where they may come as fast as one likes."""
        return MOST if self.blobs.spacing else 1

    @contextmanager
    def joined(self, scratch: Path) -> Iterator[Pending]:
        """Decisions that are laid on top of each other and recorded in one step when the block ends, or not at all.

        Within the block, whoever reads this ledger sees what was added as if it were recorded, under the next serial;
        other threads wait. scratch: an existing folder for files of its own. Raises at the end as `commit` does:
        LedgerMoved when the ledger is no longer the one that the first decision rests on. After an exception in the
        block nothing is recorded.
        """
        with self.log.lock:
            base, self._pending = self.serial, Pending()
            pending = self._pending
            try:
                yield pending
            finally:
                self._pending = None
            if pending.events or pending.files:
                self.commit(pending.events, pending.joined_files(scratch), expect=base)

    @contextmanager
    def supposing(
        self, events: Sequence[AnyEvent], files: Sequence[RowsFile], blobs: Mapping[str, Path]
    ) -> Iterator[None]:
        """Within the block, whoever reads this ledger sees these as if they were recorded, under the next serial.

        For plans, which only read: nothing is recorded at the end, and nothing may be committed or refreshed within.
        files: their row states; blobs: local files of the blobs that the events name.
        """
        before = self.log.head
        try:
            self.log.head, self._control = before and moved_head(before, events, at=""), None
            self._pending, self._supposed = Pending(list(events), [f for f in files if f.rows]), dict(blobs)
            yield
        finally:
            self.log.head, self._control = before, None
            self._pending, self._supposed = None, {}

    # --- blobs beside the segments -------------------------------------------------------------------------------

    def put_blob(self, name: str, path: Path) -> None:
        """Durably store a job's raw results (archive/…) or parsed answers (answers/…), copied from a file.

        Parsed answers can be made again, so new ones replace old ones. An archive is never replaced: other bytes
        under its name raise BatchformError; whoever finds one (`has_blob`) must use it.
        """
        _beside(name)
        try:
            self.blobs.write_new(name, path)
        except FileExistsError:
            if name.startswith("archive/"):
                raise BatchformError(
                    f"{self.place}/{name} already holds other results of this job; they are kept.",
                    hint="Run `batchform sync`: it reads the results that are archived.",
                ) from None
            self.blobs.delete(name)
            self.blobs.write_new(name, path)

    def blob(self, name: str) -> Path:
        """A local file with a stored blob. Raises LedgerCorrupt if it is not there: ask `has_blob` where it may be."""
        _beside(name)
        if name in self._supposed:
            return self._supposed[name]
        try:
            return self.blobs.local(name)
        except FileNotFoundError:
            raise LedgerCorrupt(f"{self.place}/{name} is missing.", hint=seg.RESTORE) from None

    def has_blob(self, name: str) -> bool:
        _beside(name)
        if name in self._supposed:
            return True
        return self.blobs.has(name)

    def set_aside(self, name: str) -> None:
        """Move a damaged blob to `damaged/`, so that it can be written anew."""
        when = seg.timestamp(self.log.clock.now()).replace(":", "")
        self.blobs.write_new(f"damaged/{when}-{secrets.token_hex(3)}/{name}", self.blob(name))
        self.blobs.delete(name)

    # --- care ----------------------------------------------------------------------------------------------------

    def should_compact(self, spec: str) -> bool:
        """Whether reads of a spec pay for folding: many segments, or newer records that are many beside the oldest."""
        if len(self.event_segments()) > _MANY_EVENT_SEGMENTS:
            return True
        found = self.row_segments(spec)
        oldest = sum(s.rows for s in found if s.serial == found[0].serial)
        newer = sum(s.rows for s in found) - oldest
        return len(found) > _MANY_SEGMENTS or (newer > _SMALL and newer > oldest / 10)

    def lease(self, ttl: float) -> AbstractContextManager[Lease]:
        """Say for `ttl` seconds who is at work; LedgerMoved if another is. A courtesy. See ledger/lease.py."""
        from batchform.ledger.lease import lease

        return lease(self.blobs, self.log.clock, who=self.log.who, ttl=ttl)

    # --- inside --------------------------------------------------------------------------------------------------

    def _commit_waiting(self) -> None:
        """Commit what waits, this thread's own and that of others, each as if it came alone. Holds the lock."""
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        while waiting:
            chosen, waiting = together(waiting)
            try:
                head = self._commit(chosen)
            except LedgerMoved as error:
                chosen[0].error = error
                waiting = [*chosen[1:], *waiting]  # they rest on nothing; alone they may be laid on the newer ledger
            except BaseException as error:  # noqa: BLE001  (raised by `commit`, in each thread)
                for member in chosen:
                    member.error = error
            else:
                for member in chosen:
                    member.head = head

    def _commit(self, members: Sequence[Member]) -> Head:
        """Several commits as one. Only the first may rest on what the ledger says."""
        expect = members[0].expect
        self.log.catch_up()
        self.log.check_at(expect)
        if self.head is None:
            self.log.create()
            self.log.check_at(expect)
        events, files = [e for m in members for e in m.events], [f for m in members for f in m.files]
        if not events and not files:
            assert self.head is not None
            return self.head
        token = secrets.token_hex(6)
        drafts = self._write(token, events, files)
        at = seg.timestamp(self.log.clock.now())
        change = lambda head: _appended(moved_head(head, events, at=at), drafts)  # noqa: E731
        return self.log.publish(token, drafts, change, expect=expect)

    def _write(self, token: str, events: Sequence[AnyEvent], files: Sequence[RowsFile]) -> list[Segment]:
        """The segments of a commit, durable and not yet named by any head."""
        now = self.log.clock.now()
        drafts: list[Segment] = []
        try:
            for index, file in enumerate(files):
                name = seg.segment_name("rows", now, token, spec=file.spec, index=index)
                drafts.append(self.log.draft(name, file.path, kind="rows", spec=file.spec, rows=file.rows))
            if events:
                signed = [e if e.by else msgspec.structs.replace(e, by=self.log.who) for e in events]
                name = seg.segment_name("events", now, token)
                drafts.append(self.log.draft(name, seg.encode_events(signed), kind="events", rows=len(signed)))
        except BaseException:
            self.log.discard(drafts)
            raise
        return drafts


def _appended(head: Head, drafts: Sequence[Segment]) -> Head:
    """The head with the drafts as segments of the next serial."""
    new = [msgspec.structs.replace(d, serial=head.serial + 1) for d in drafts]
    return msgspec.structs.replace(head, segments=(*head.segments, *new))


def _beside(name: str) -> None:
    if not name.startswith(("archive/", "answers/")):
        raise ValueError(f"{name!r}: only archive/ and answers/ lie beside the segments")
