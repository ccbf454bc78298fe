"""Faults that change what the service is asked, what a job is fated to, and what an answer says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from batchform.emulator import fault_subject, jobs
from batchform.emulator.calls import Call
from batchform.emulator.fate import Fate
from batchform.emulator.fault_answer import Answer
from batchform.emulator.fault_gate import Due, FaultGate
from batchform.emulator.fault_kinds import VERTEX, EntryKind
from batchform.emulator.fault_kinds_jobs import FateKind, KeepsResults, Page, PageKind, SmallPages
from batchform.emulator.fault_kinds_rows import FileKind, ResultKind

_LISTED: Final = {
    "batches.list": "operations",
    "files.list": "files",
    "vertex.batches.list": "batchPredictionJobs",
}
"""Where the entries of a list stand."""


def prepared(gate: FaultGate, due: Sequence[Due], call: Call) -> Call:
    """The call with its fate, as the service will hear it."""
    for d in due:
        kind = d.fault.do
        if isinstance(kind, SmallPages):
            call = kind.prepared(call)
        elif isinstance(kind, FateKind):
            call = replace(call, fate=kind.fated(call.fate))
        elif isinstance(kind, ResultKind) and call.name.startswith(VERTEX):
            do = kind.model_dump(mode="json", exclude_unset=True)
            call = replace(call, fate=replace(call.fate, results=(*call.fate.results, do)))
        elif isinstance(kind, KeepsResults):
            fate = Fate(state="CANCELLED", share=kind.share)
            if call.name.startswith(VERTEX):
                call = replace(call, fate=fate)
            elif not jobs.cut_short(call.store, call.account, call.args["id"], fate):
                gate.give_back(d)
    return call


def change(gate: FaultGate, due: Sequence[Due], call: Call, answer: Answer) -> None:
    """Carry out the faults that change the answer. One that finds nothing to change did not happen."""
    for d in due:
        if answer.status >= 400 and _is_fate(d, call):
            gate.give_back(d)
    ours = [d for d in due if isinstance(d.fault.do, (PageKind, EntryKind, ResultKind)) and not _is_fate(d, call)]
    if not ours:
        return
    if call.name == "files.download":
        idle = [d for d in ours if not _change_file(d, answer)]
    else:
        shown = answer.json()
        idle = ours if shown is None else [d for d in ours if not _change_json(d, call, shown)]
        if shown is not None:
            answer.write_json(shown)
    for d in idle:
        gate.give_back(d)


def _is_fate(due: Due, call: Call) -> bool:
    """Whether a fault decided what becomes of the job that a call makes or stops."""
    if call.name.startswith(VERTEX) and isinstance(due.fault.do, (ResultKind, KeepsResults)):
        return True
    return isinstance(due.fault.do, FateKind) and call.name.endswith("batches.create")


def _change_file(due: Due, answer: Answer) -> bool:
    """A results file, line by line or as a whole."""
    kind, before = due.fault.do, answer.body
    if answer.status != 200:
        return False
    if isinstance(kind, FileKind):
        answer.write(kind.body(before))
    elif isinstance(kind, ResultKind):
        lines = before.split(b"\n")[:-1]
        answer.write(b"".join(line + b"\n" for line in kind.lines(lines)))
    return answer.body != before


def _change_json(due: Due, call: Call, shown: dict[str, Any]) -> bool:
    kind = due.fault.do
    if isinstance(kind, ResultKind):
        return _change_inline(kind, shown)
    if isinstance(kind, PageKind):
        return _change_page(due, kind, call, shown)
    if not isinstance(kind, EntryKind):
        return False
    fitting = [entry for entry in _entries(call, shown) if _fits(due, call, entry)]
    return sum(kind.change(entry) for entry in fitting) > 0


def _change_page(due: Due, kind: PageKind, call: Call, shown: dict[str, Any]) -> bool:
    query = call.request.query_params
    asked = query.get("pageToken") or query.get("page_token") or ""
    name = _LISTED[call.name]
    page = Page(
        shown.pop(name, []), shown.pop("nextPageToken", ""), asked, due.seen, lambda entry: _fits(due, call, entry)
    )
    changed = kind.change_page(page)
    shown |= {key: value for key, value in ((name, page.entries), ("nextPageToken", page.following)) if value}
    return changed


def _change_inline(kind: ResultKind, shown: dict[str, Any]) -> bool:
    """Inline results, in both places where an operation holds them."""
    changed = False
    for holder in (shown.get("metadata", {}).get("output"), shown.get("response")):
        if isinstance(holder, dict) and "inlinedResponses" in holder:
            before = holder["inlinedResponses"]["inlinedResponses"]
            after = [msgspec.json.decode(line) for line in kind.lines([msgspec.json.encode(row) for row in before])]
            holder["inlinedResponses"]["inlinedResponses"] = after
            changed = changed or after != before
    return changed


def _entries(call: Call, shown: dict[str, Any]) -> list[dict[str, Any]]:
    """The jobs or files that an answer shows."""
    if call.name.endswith(".list"):
        found: list[dict[str, Any]] = shown.get(_LISTED.get(call.name, ""), [])
        return found
    return [shown["file"]] if "file" in shown else [shown]


def _fits(due: Due, call: Call, entry: dict[str, Any]) -> bool:
    """Whether the fault is about this entry. What a single look shows was matched before."""
    match = due.fault.match
    return match is None or not call.name.endswith(".list") or match.fits(fault_subject.of_entry(entry))
