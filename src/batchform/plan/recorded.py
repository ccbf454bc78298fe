"""What the ledger says about a spec, gathered for a plan. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchform.errors import BatchformError, LedgerCorrupt, disk_full, no_room
from batchform.ledger.records import ControlView, answers_name
from batchform.ledger.segments import RESTORE
from batchform.ledger.store import Ledger
from batchform.plan.diff import Recorded
from batchform.ports import Destination
from batchform.rows.sql import literal
from batchform.spec.delivery import destination_digest
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def recorded(con: DuckDBPyConnection, ledger: Ledger, spec: ResolvedSpec, *, destination: Destination) -> Recorded:
    """The spec's row states, answers and deliveries as relations of `con`."""
    control = ledger.control()
    relation = _relation(con, ledger, spec.name)
    if relation is None:
        return Recorded(relation=None)
    fp_columns = con.execute(
        f"SELECT DISTINCT fp_columns FROM {relation} WHERE fp_columns IS NOT NULL ORDER BY 1"
    ).fetchall()
    delivery = control.deliveries.get(spec.name)
    current = (
        delivery is not None
        and delivery.destination_digest == destination_digest(spec)
        and destination.exists(delivery.parts)
    )
    return Recorded(
        relation=relation,
        fp_columns=tuple(f[0] for f in fp_columns),
        answered=_answered(ledger, control, spec.name),
        unknown_tags=tuple(j.tag for j in control.jobs.values() if j.intent.spec == spec.name and j.status == "intent"),
        parsed_otherwise=_parsed_otherwise(ledger, control, spec),
        delivered_through=delivery.through if current and delivery is not None else None,
        reruns=tuple(control.reruns.get(spec.name, ())),
    )


@contextmanager
def reading(ledger: Ledger, spec: ResolvedSpec) -> Iterator[None]:
    """Tell what DuckDB says of the ledger's files: LedgerCorrupt, or a BatchformError when disk or memory is short."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as exc:
        raise BatchformError(
            f"the plan of {spec.name} needs more memory than DuckDB may use: {str(exc).splitlines()[0]}",
            hint="Plan fewer rows at once with source.where.",
        ) from exc
    except duckdb.Error as exc:
        if no_room(exc):
            raise disk_full(exc) from exc
        raise LedgerCorrupt(
            f"what {ledger.place} has recorded of {spec.name} cannot be read: {str(exc).splitlines()[0]}", hint=RESTORE
        ) from exc


def _relation(con: DuckDBPyConnection, ledger: Ledger, name: str) -> str | None:
    if ledger.head is None or not any(s.kind == "rows" and s.spec == name for s in ledger.head.segments):
        return None
    return ledger.rows_relation(con, name)


def _parsed_otherwise(ledger: Ledger, control: ControlView, spec: ResolvedSpec) -> tuple[str, ...]:
    """Tags of collected jobs whose archived results were never parsed as the spec says now."""
    tags = [j.tag for j in control.jobs.values() if j.intent.spec == spec.name and j.collected and j.collected.answers]
    return tuple(t for t in tags if not ledger.has_blob(answers_name(t, spec.parse_digest)))


def _answered(ledger: Ledger, control: ControlView, name: str) -> str | None:
    """Every answer that was ever archived for the spec, by key and request, so that none is paid for again."""
    names = [
        j.collected.answers
        for j in control.jobs.values()
        if j.intent.spec == name and j.collected and j.collected.answers
    ]
    paths = [str(ledger.blob(n)) for n in names if ledger.has_blob(n)]
    if not paths:
        return None
    files = ", ".join(literal(p) for p in paths)
    return f"(SELECT key_hash, request_fp, tag, parse_digest FROM read_parquet([{files}]) WHERE class = 'answered')"


def attempts(control: ControlView, spec: str, shard_digest: str) -> int:
    """How many jobs were begun for this very shard."""
    return sum(1 for j in control.jobs.values() if j.intent.spec == spec and j.intent.shard_digest == shard_digest)
