"""Faults that change what an answer says: entries, pages, results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchform.emulator import fault_subject
from batchform.emulator.calls import Call
from batchform.emulator.fault_answer import Answer
from batchform.emulator.fault_gate import Due, FaultGate
from batchform.emulator.fault_kinds import EntryKind


def change(gate: FaultGate, due: Sequence[Due], call: Call, answer: Answer) -> None:
    """Carry out the faults that change the answer. One that finds nothing to change did not happen."""
    ours = [(d, d.fault.do) for d in due if isinstance(d.fault.do, EntryKind)]
    if not ours:
        return
    shown = answer.json()
    for d, kind in ours:
        if shown is None or not sum(kind.change(entry) for entry in _entries(d, call, shown)):
            gate.give_back(d)
    if shown is not None:
        answer.write_json(shown)


def _entries(due: Due, call: Call, shown: dict[str, Any]) -> list[dict[str, Any]]:
    """What the answer is about, and the fault: of a list the entries that fit."""
    if call.name.endswith(".list"):
        every = shown.get("operations") or shown.get("files") or []
        match = due.fault.match
        return [entry for entry in every if match is None or match.fits(fault_subject.of_entry(entry))]
    return [shown["file"]] if "file" in shown else [shown]
