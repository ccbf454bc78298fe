"""Compaction: many segments into one, as a commit of its own. Killed anywhere, the ledger reads the same.

Replaced segments are named as `retired` in the same head that replaces them, and deleted only after that swap and after
`keep_history`, by this or a later compaction. A retired name stays in the head until its file is gone, so that no slow
writer can ever commit a segment that is about to be deleted.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct, field

from batchform.ledger import segments as seg
from batchform.ledger.merge import merge_rows
from batchform.ledger.records import Head, Retired, Segment

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.ledger.store import Ledger

ABANDONED_AFTER: Final = timedelta(days=1)
"""Age at which a segment that no head names is taken for one of a commit that was killed."""

KEEP_HISTORY: Final = timedelta(hours=1)
"""How long segments that were replaced are kept: readers may hold a head that names them."""


class CompactReport(Struct, frozen=True):
    """serial: of the ledger afterwards; rows: spec → rows of its one segment, for each spec that was folded; folded:
    segments that were replaced; removed: files deleted, from this and earlier compactions."""

    serial: int
    rows: dict[str, int] = field(default_factory=dict)
    folded: int = 0
    removed: int = 0


class _OvertakenError(Exception):
    """Another process folded the same segments first: there is nothing left to do."""


def compact(
    ledger: Ledger,
    con_factory: Callable[[], DuckDBPyConnection],
    *,
    spec: str | None = None,
    keep_history: timedelta = KEEP_HISTORY,
    scratch: Path | None = None,
) -> CompactReport:
    """Fold the row segments of a spec (None: of all) into one each, and all events into one; then delete what was
    replaced longer ago than keep_history, and longer than the compaction that replaced it was told to keep it.

    scratch: a folder that the connections may write; None: the system's.
    """
    with ledger.log.lock:
        ledger.log.catch_up()
        token = secrets.token_hex(6)
        rows = {name: ledger.row_segments(name) for name in ([spec] if spec else ledger.specs())}
        rows = {name: old for name, old in rows.items() if len(old) > 1}
        events = ledger.event_segments()
        folded = [*(s for old in rows.values() for s in old), *(events if len(events) > 1 else ())]
        drafts = _fold(ledger, con_factory, rows, events, token, scratch)
        names = [*(s.name for s in folded), *_abandoned(ledger, drafts)]
        if names and not _publish(ledger, token, folded, drafts, names, keep_history):
            return CompactReport(serial=ledger.serial)
        return CompactReport(
            serial=ledger.serial,
            rows={d.spec: d.rows for d in drafts if d.spec},
            folded=len(folded),
            removed=_sweep(ledger, keep_history),
        )


def _fold(
    ledger: Ledger,
    con_factory: Callable[[], DuckDBPyConnection],
    rows: Mapping[str, Sequence[Segment]],
    events: Sequence[Segment],
    token: str,
    scratch: Path | None,
) -> list[Segment]:
    """The new segments, written and not yet named by any head."""
    drafts: list[Segment] = []
    try:
        for index, (spec, old) in enumerate(rows.items()):
            name = seg.segment_name("rows", ledger.log.clock.now(), token, spec=spec, index=index)
            drafts.append(_fold_rows(ledger, con_factory, spec, old, name, scratch))
        if len(events) > 1:
            numbered = [pair for segment in events for pair in ledger.log.events_of(segment)]
            name = seg.segment_name("events", ledger.log.clock.now(), token)
            content = seg.number_events(numbered)
            drafts.append(
                ledger.log.draft(name, content, kind="events", rows=len(numbered), serial=events[-1].serial, base=True)
            )
    except BaseException:
        ledger.log.discard(drafts)
        raise
    return drafts


def _fold_rows(
    ledger: Ledger,
    con_factory: Callable[[], DuckDBPyConnection],
    spec: str,
    old: Sequence[Segment],
    name: str,
    scratch: Path | None,
) -> Segment:
    """One base segment with the latest record of each key and all serials filled in."""
    import duckdb
    import pyarrow as pa

    with tempfile.TemporaryDirectory(prefix="batchform-compact-", dir=scratch) as folder, con_factory() as con:
        path = Path(folder) / "base.parquet"
        try:
            count = merge_rows(con, ledger.row_parts(spec), path)
        except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException, pa.ArrowInvalid) as error:
            raise ledger.damaged_rows(spec, error) from None
        return ledger.log.draft(name, path, kind="rows", spec=spec, rows=count, serial=old[-1].serial, base=True)


def _publish(
    ledger: Ledger,
    token: str,
    folded: Sequence[Segment],
    drafts: Sequence[Segment],
    names: Sequence[str],
    keep_history: timedelta,
) -> bool:
    """Replace the folded segments and retire `names`. False if another process folded some of them first.

    Only then, or on a swap that surely failed, are the drafts removed: a head may name them.
    """
    there = set(ledger.blobs.list(seg.FOLDER))
    at = ledger.log.clock.now()
    now, until = seg.timestamp(at), seg.timestamp(at + keep_history)

    def change(head: Head) -> Head:
        if not {s.name for s in folded} <= {s.name for s in head.segments}:
            raise _OvertakenError
        waiting = [r for r in head.retired if r.name in there]
        live = {s.name for s in head.segments} | {r.name for r in waiting}
        retired = [
            Retired(name=n, at=now, until=until) for n in names if n in {s.name for s in folded} or n not in live
        ]
        kept = [s for s in head.segments if s not in folded]
        return msgspec.structs.replace(head, segments=(*drafts, *kept), retired=(*waiting, *retired))

    try:
        ledger.log.publish(token, drafts, change)
    except _OvertakenError:
        ledger.log.discard(drafts)
        return False
    return True


def _abandoned(ledger: Ledger, drafts: Sequence[Segment]) -> list[str]:
    """Segments that no head names, old enough to be those of a commit that was killed."""
    known = {d.name for d in drafts}
    if ledger.head:
        known |= {s.name for s in ledger.head.segments} | {r.name for r in ledger.head.retired}
    limit = ledger.log.clock.now() - ABANDONED_AFTER
    strangers = [n for n in ledger.blobs.list(seg.FOLDER) if n not in known]
    return [n for n in strangers if (at := seg.written_at(n)) and at < limit]


def _sweep(ledger: Ledger, keep_history: timedelta) -> int:
    """Delete retired segments whose time has come. Their names leave the head at the next compaction."""
    if not ledger.head:
        return 0
    limit = ledger.log.clock.now() - keep_history
    there = set(ledger.blobs.list(seg.FOLDER))
    now = seg.timestamp(ledger.log.clock.now())
    due = [
        r.name
        for r in ledger.head.retired
        if r.name in there and datetime.fromisoformat(r.at) <= limit and r.until <= now
    ]
    for name in due:
        ledger.blobs.delete(name)
    return len(due)
