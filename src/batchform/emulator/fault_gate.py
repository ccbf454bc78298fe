"""The fault schedule at work: kept in the emulator's state, with how often each fault matched and happened.

Like the clock, it stays over a restart and holds for all who share the state.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from batchform.emulator import fault_subject
from batchform.emulator.calls import Call
from batchform.emulator.clock import rfc3339
from batchform.emulator.store import Store

if TYPE_CHECKING:  # the models of a schedule are only loaded when there is one
    from batchform.emulator.faults import Fault, Source


class Due(Struct, frozen=True):
    """A fault that happens to a call. number: its place in the schedule; seen: which of its matching calls this is."""

    number: int
    fault: Fault
    seen: int
    log_id: int


class Fired(Struct, frozen=True):
    """A fault that happened. fault: its place in the schedule, from 0; seen: which of its matching calls it was.

    about: name of the job or file that the call was about, if it had one; at: RFC 3339, by the emulator's clock.
    """

    fault: int
    call: str
    type: str
    seen: int
    about: str
    at: str


class FaultGate:
    """The schedule of one state folder, as one server sees it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._version = -1
        self._faults: tuple[Fault, ...] = ()

    def install(self, source: Source, *, keep_counts: bool = False) -> None:
        """Replace the schedule and start its counters and its log afresh. Raises InvalidProject.

        keep_counts: the schedule that is there already goes on where it was.
        """
        if source == () and keep_counts and self._text() == "[]":
            return
        from batchform.emulator import faults

        text = msgspec.json.encode(faults.as_json(faults.load(source))).decode()
        if keep_counts and self._text() == text:
            return
        with self._store.writing() as db:
            db.execute("UPDATE fault_schedule SET version = version + 1, faults = ?", (text,))
            db.execute("DELETE FROM fault_counts")
            db.execute("DELETE FROM fault_log")

    def _text(self) -> str:
        with self._store.reading() as db:
            return str(db.execute("SELECT faults FROM fault_schedule").fetchone()[0])

    def faults(self) -> tuple[Fault, ...]:
        """The schedule as it is now."""
        with self._store.reading() as db:
            (version,) = db.execute("SELECT version FROM fault_schedule").fetchone()
            if version == self._version:
                return self._faults
            version, text = db.execute("SELECT version, faults FROM fault_schedule").fetchone()
        found: tuple[Fault, ...] = ()
        if text != "[]":
            from batchform.emulator import faults

            found = tuple(faults.load(text_of(text)).faults)
        with self._lock:
            self._version, self._faults = version, found
        return found

    def take(self, call: Call) -> list[Due]:
        """Count this call, and say what happens to it. A fault that takes its place leaves no room for others."""
        faults = self.faults()
        matching = [(i, fault) for i, fault in enumerate(faults) if call.name in fault.calls()]
        if not matching:
            return []
        subject = fault_subject.of(call)
        matching = [(i, fault) for i, fault in matching if fits(fault, call.name, subject)]
        if not matching:
            return []
        with self._store.writing() as db:
            due = []
            for i, fault in matching:
                seen, fired = _count(db, i)
                if fault.is_due(seen, fired):
                    due.append((i, fault, seen))
            at = self._store.now()
            return [self._log(db, i, fault, seen, call, subject, at) for i, fault, seen in _compatible(due)]

    def give_back(self, due: Due) -> None:
        """A fault turned out to have nothing to do: it did not happen, and may happen next time."""
        with self._store.writing() as db:
            if db.execute("DELETE FROM fault_log WHERE id = ?", (due.log_id,)).rowcount:
                db.execute("UPDATE fault_counts SET fired = fired - 1 WHERE fault = ?", (due.number,))

    def report(self) -> list[dict[str, Any]]:
        """The schedule, each fault with `seen` (calls that matched) and `fired` (how often it happened)."""
        from batchform.emulator import faults

        with self._store.reading() as db:
            counts = {row["fault"]: row for row in db.execute("SELECT * FROM fault_counts").fetchall()}
        shown = faults.as_json(faults.Schedule(faults=list(self.faults())))
        for i, fault in enumerate(shown):
            fault["seen"], fault["fired"] = (counts[i]["seen"], counts[i]["fired"]) if i in counts else (0, 0)
        return shown

    def fired(self) -> list[Fired]:
        """What happened since the schedule was set, in order."""
        with self._store.reading() as db:
            rows = db.execute("SELECT * FROM fault_log ORDER BY id").fetchall()
        return [Fired(r["fault"], r["call"], r["type"], r["seen"], r["about"], rfc3339(r["at"])) for r in rows]

    def _log(
        self,
        db: sqlite3.Connection,
        number: int,
        fault: Fault,
        seen: int,
        call: Call,
        subject: Mapping[str, str | None],
        at: float,
    ) -> Due:
        db.execute("UPDATE fault_counts SET fired = fired + 1 WHERE fault = ?", (number,))
        about = subject.get("job") or subject.get("file") or ""
        row = db.execute(
            "INSERT INTO fault_log (fault, call, type, seen, about, at) VALUES (?, ?, ?, ?, ?, ?)",
            (number, call.name, fault.do.word, seen, about, at),
        )
        return Due(number, fault, seen, row.lastrowid or 0)


def text_of(faults: str) -> str:
    """A schedule's faults as the text of a schedule."""
    return f'{{"faults": {faults}}}'


def fits(fault: Fault, call: str, subject: Mapping[str, str | None]) -> bool:
    """Whether a call is one that the fault is about. Calls that list things are; it is their entries that must fit."""
    return fault.match is None or call.endswith(".list") or fault.match.fits(subject)


def _count(db: sqlite3.Connection, number: int) -> tuple[int, int]:
    """Note one more matching call of a fault: how many there were, and how often it happened."""
    seen, fired = db.execute(
        "INSERT INTO fault_counts VALUES (?, 1, 0) ON CONFLICT DO UPDATE SET seen = seen + 1 RETURNING seen, fired",
        (number,),
    ).fetchone()
    return seen, fired


def _compatible(due: Iterable[tuple[int, Fault, int]]) -> list[tuple[int, Fault, int]]:
    """Without the faults that others leave no room for: one that takes a call's place is alone, but for slowness."""
    every = list(due)
    instead = [d for d in every if d[1].do.instead][:1]
    if instead:
        return [d for d in every if d in instead or d[1].do.delays]
    last = [d for d in every if d[1].do.final][:1]
    return [d for d in every if d in last or not d[1].do.final]
