"""The first level of a spec's diff, from end to end: what is recorded, what the rows are, how they differ.

Where nothing was to do before, and all is as it was then, no row is read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchform.errors import SourceError
from batchform.ledger.rekeyed import first_keys
from batchform.ledger.store import Ledger
from batchform.plan.changes import with_canary
from batchform.plan.diff import Diff, Recorded
from batchform.plan.recorded import delivered_through, diff_recorded, recorded
from batchform.plan.unchanged import keep, recall, state_of
from batchform.plan.work import Settings, Work
from batchform.rows.keyed import KeyedRows, prepare
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def compare(
    con: DuckDBPyConnection, work: Work, ledger: Ledger, settings: Settings
) -> tuple[Recorded, KeyedRows, Diff]:
    """The first level: what is recorded of a spec, its rows, and how they differ. Raises SourceError."""
    spec, stamp = work.spec, work.kept.stamp() if work.kept else None
    past = recorded(con, ledger, spec, destination=work.destination, said=settings.on_change)
    rows = prepare(con, spec, work.source, recorded_fp_columns=past.fp_columns)
    past = replace(
        past, change=with_canary(con, spec, past.change, past.relation, first_keys=first_keys(ledger, spec.name))
    )
    _refuse_empty(spec, rows, settings.allow)
    found = diff_recorded(con, ledger, spec, rows, past)
    if spec.spec.rollout:
        from batchform.plan.staging import rollout_of  # only where there is one

        past = replace(past, rollout=rollout_of(con, spec, rows, past, found, ledger.control(), settings))
    if work.kept and stamp and spec.name not in settings.on_change and stamp == work.kept.stamp():
        keep(work.kept, _state(work, ledger, settings, stamp, past.delivered_through), rows, found)
    return past, rows, found


def remembered(work: Work, ledger: Ledger, settings: Settings) -> tuple[KeyedRows, Diff] | None:
    """What the first level came to when nothing was to do and all was as it is now; None if it must be run."""
    stamp = work.kept.stamp() if work.kept else None
    if work.kept is None or stamp is None or work.spec.name in settings.on_change:
        return None
    through = delivered_through(ledger.control(), work.spec, work.destination)
    return recall(work.kept, _state(work, ledger, settings, stamp, through))


def _state(work: Work, ledger: Ledger, settings: Settings, stamp: str, through: int | None) -> str:
    made = f"{settings.batchform_version} {settings.purpose}"
    return state_of(work.spec, ledger, stamp=stamp, delivered_through=through, made=made)


def _refuse_empty(spec: ResolvedSpec, rows: KeyedRows, allow: Collection[str]) -> None:
    """An empty source is an accident more often than not, whatever limits are set."""
    source = spec.spec.source
    if "source_shrunk" in allow or f"{spec.name}.source_shrunk" in allow:
        return
    if rows.rows == 0 and not source.where and not source.query and spec.upstream is None:
        raise SourceError(
            f"the source of {spec.name} has no rows: {rows.relation.described}",
            place=spec.at("source.path"),
            hint="Nothing was planned or forgotten. Check the path, or leave the spec out with --select. If it is so: "
            "--allow source_shrunk --reason WHY",
        )
