"""Brings what a job wrote to where it was asked for: files in a bucket, or a table. It may be done again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final

import msgspec

from batchform.emulator.fate import Fate
from batchform.emulator.store import Store
from batchform.emulator.vertex import places
from batchform.emulator.vertex.inputs import PRECONDITION
from batchform.emulator.vertex.plan import Plan
from batchform.emulator.vertex.stores import Stores

FILE_LINES: Final = 1_000
"""Of one file; who has more results finds several."""

_decode = msgspec.json.Decoder().decode


def export(store: Store, job: sqlite3.Row) -> None:
    """Write a job's results; the job fails when they have nowhere to go. Raises FileNotFoundError when it is done."""
    if Plan.of(job).writes:
        with Stores(store).alone_for(job["id"]):
            _export(store, job)


def _export(store: Store, job: sqlite3.Row) -> None:
    plan, fate = Plan.of(job), Fate.of(job)
    stores, lines = Stores(store), _lines(store, job)
    if fate.results:
        from batchform.emulator.vertex.spoilt import spoilt  # only who scripts faults waits for their models

        lines = spoilt(fate.results, lines, in_files=bool(plan.folder))
    try:
        if plan.folder:
            _to_folder(stores, plan.folder, lines, more=_count(store, job) > FILE_LINES)
        else:
            _to_table(stores, plan, lines)
    except places.Gone as e:
        failed = msgspec.structs.replace(fate, state="FAILED", code=PRECONDITION, message=f"Failed to export data. {e}")
        with store.writing() as db:
            db.execute("UPDATE jobs SET fate = ? WHERE id = ?", (failed.stored(), job["id"]))


def _lines(store: Store, job: sqlite3.Row) -> Iterator[bytes]:
    """The lines that blocks have written, with their line ends."""
    left = job["out_bytes"]
    with store.job_output(job["id"]).open("rb") as f:
        while left > 0:
            line = f.readline()
            left -= len(line)
            yield line


def _count(store: Store, job: sqlite3.Row) -> int:
    return sum(1 for _ in _lines(store, job))


def _to_folder(stores: Stores, uri: str, lines: Iterable[bytes], *, more: bool) -> None:
    """One file, or several; an empty one when there are no results."""
    folder = places.folder(uri)
    assert folder is not None  # it was made of one
    rest, number = iter(lines), -1
    for number, first in enumerate(rest) if more else ():
        file = places.Folder(folder.bucket, f"{folder.name}/predictions_{number:05}.jsonl")
        stores.write_object(file, chain((first,), islice(rest, FILE_LINES - 1)))
    if number < 0:
        stores.write_object(places.Folder(folder.bucket, f"{folder.name}/predictions.jsonl"), rest)


def _to_table(stores: Stores, plan: Plan, lines: Iterable[bytes]) -> None:
    table = places.table(plan.table)
    assert table is not None
    columns = [
        *plan.passed,
        places.Column("request", plan.request_kind),
        places.Column("response", "JSON"),
        places.Column("status", "STRING"),
        places.Column("processed_time", "TIMESTAMP"),
    ]
    rows = (_cells(_decode(line), columns) for line in lines)
    stores.write_table(table, columns, rows)


def _cells(row: dict[str, Any], columns: list[places.Column]) -> dict[str, Any]:
    """A result as a row of a table. JSON is written as text, as a table's columns hold it."""
    cells = {column.name: row.get(column.name) for column in columns}
    for name in ("request", "response"):
        if cells[name] is not None and not isinstance(cells[name], str):
            cells[name] = msgspec.json.encode(cells[name]).decode()
    if cells["response"] == "{}":
        cells["response"] = None
    return cells
