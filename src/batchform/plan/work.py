"""What a plan is made from besides the project's files and the ledger."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from batchform.plan.bounds import Spare
from batchform.plan.changes import Decision
from batchform.plan.counting import Counting
from batchform.plan.draft import Before
from batchform.plan.importing import Elsewhere, Importing
from batchform.plan.registry import Registry
from batchform.plan.unchanged import Kept
from batchform.ports import Destination, Source
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Work(Struct, frozen=True):
    """One spec with its adapters. connect: a fresh DuckDB connection that may read what this spec needs; kept: where it
    is noted that nothing was to do, None to read the rows always."""

    spec: ResolvedSpec
    source: Source
    destination: Destination
    connect: Callable[[], DuckDBPyConnection]
    kept: Kept | None = None


Imports = Callable[[ResolvedSpec, Path], Sequence[Importing]]
"""What a spec imports that the ledger does not have yet; its files are written below the folder."""


ElsewhereOf = Callable[[ResolvedSpec, Path], list[Elsewhere]]
"""What the ledgers of other environments hold of a spec; files are written below the folder."""


class Settings(Struct, frozen=True):
    """What a plan depends on besides files, rows and ledger.

    purpose: "apply"; "retry": only rows that failed or were given back are sent, as they were; "settle": nothing is;
    "wave": only rows of chains that have come since the plan of digest `wave_of` was reviewed; "promote": nothing is
    sent, and answers of another environment are taken.
    on_change: what becomes of answered rows that an edit would send again, by spec, as the command line says it;
    spare: how far what is approved lies around the plan; reason: why limits
    are released; counting: what lets the service count tokens, None to estimate them; waiting: specs whose rows are all
    held, and why; imports: reads results of other jobs; elsewhere: reads other environments' ledgers; taken: import →
    key hash of its archive → rows that take that answer, filled in while rows are rendered.
    """

    registry: Registry
    now: dt.datetime
    batchform_version: str
    allow: frozenset[str] = frozenset()
    purpose: str = "apply"
    selected: tuple[str, ...] = ()
    partial: bool = False
    before: Before | None = None
    wave_of: str = ""
    on_change: Mapping[str, Decision] = field(default_factory=dict)
    spare: Spare | None = None
    reason: str = ""
    counting: Counting | None = None
    waiting: Mapping[str, str] = field(default_factory=dict)
    imports: Imports | None = None
    elsewhere: ElsewhereOf | None = None
    taken: dict[str, dict[str, int]] = field(default_factory=dict)

    def records_left(self, spec: str) -> bool:
        """Whether it is recorded that keys left the source: not where they are about to be others."""
        return self.purpose in ("apply", "wave") and spec not in self.waiting


class Saving(Struct, frozen=True):
    """What is kept of a plan besides its figures: the shards and row states that apply needs; the source's digest."""

    shards: bool = False
    source: bool = False
