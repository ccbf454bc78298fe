"""What a job of Vertex AI is to do, and what was found when it was made: kept with the job."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from msgspec import Struct, field

from batchform.emulator.vertex.columns import Column
from batchform.emulator.vertex.places import Column as TableColumn


class Plan(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """body: of the create call, normalised; starts_at: when it stops being PENDING.

    folder, table: where results go, one of them; request, looks: columns of a JSONL input; passed: columns beside
    `request`, as a table has them; request_kind: the type of `request` there.
    writes: whether there will be results, if only of rows that did not run; imported: whether the input could be read.
    """

    body: dict[str, Any]
    starts_at: float
    folder: str = ""
    table: str = ""
    request: Column | None = None
    looks: dict[str, str] = field(default_factory=dict)
    passed: list[TableColumn] = field(default_factory=list)
    request_kind: str = "JSON"
    table_input: bool = False
    imported: bool = True
    writes: bool = True

    @classmethod
    def of(cls, job: sqlite3.Row) -> Plan:
        return msgspec.json.decode(job["vertex"], type=cls)

    def stored(self) -> str:
        """As the state keeps it."""
        return msgspec.json.encode(self).decode()
