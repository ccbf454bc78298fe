"""What the ledger says about a spec, gathered for a plan. Reads only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from posixpath import normpath
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchform.canon import short
from batchform.errors import BatchformError, DestinationError, LedgerCorrupt, disk_full, no_room
from batchform.ledger.raw import results_missing
from batchform.ledger.records import ControlView, answers_name
from batchform.ledger.rekeyed import asked_rows, under_all_keys
from batchform.ledger.segments import RESTORE
from batchform.ledger.store import Ledger
from batchform.ledger.stored import is_whole, require_whole
from batchform.plan.changes import Decision, decide
from batchform.plan.diff import REPARSE, REREAD, Diff, Recorded, diff
from batchform.plan.importing import imported_tags
from batchform.plan.sent import attempts_name
from batchform.ports import Destination
from batchform.rows.keyed import KeyedRows
from batchform.rows.sql import literal
from batchform.spec.delivery import destination_digest, output_columns
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def recorded(
    con: DuckDBPyConnection,
    ledger: Ledger,
    spec: ResolvedSpec,
    *,
    destination: Destination,
    said: Mapping[str, Decision],
) -> Recorded:
    """The spec's row states, answers and deliveries as relations of `con`. said: what becomes of answered rows that an
    edit would send again, by spec, where the command line says it."""
    control = ledger.control()
    relation = _relation(con, ledger, spec.name)
    imported = imported_tags(control, spec.name)
    if relation is None:
        return Recorded(None, archived=_archived(ledger, control, spec) if imported else None, imported=imported)
    fp_columns = con.execute(
        f"SELECT DISTINCT fp_columns FROM {relation} WHERE fp_columns IS NOT NULL ORDER BY 1"
    ).fetchall()
    return Recorded(
        relation=relation,
        fp_columns=tuple(f[0] for f in fp_columns),
        archived=_archived(ledger, control, spec),
        unknown_tags=tuple(j.tag for j in control.jobs.values() if j.intent.spec == spec.name and j.status == "intent"),
        delivered_through=delivered_through(control, spec, destination),
        change=decide(spec, control, said),
        imported=imported,
        reruns=asked_rows(ledger, spec.name),
    )


def delivered_through(control: ControlView, spec: ResolvedSpec, destination: Destination) -> int | None:
    """The ledger's serial up to which the present destination holds all answers; None if it holds none of them."""
    delivery = control.deliveries.get(spec.name)
    if delivery is None or delivery.destination_digest != destination_digest(spec):
        return None
    return delivery.through if still_there(control, spec, destination) else None


def diff_recorded(con: DuckDBPyConnection, ledger: Ledger, spec: ResolvedSpec, rows: KeyedRows, past: Recorded) -> Diff:
    """The diff, in which nothing is to be read anew whose results are archived no longer."""
    found = diff(con, spec, rows, past)
    if not found.count(REPARSE):
        return found
    holders = con.execute(f"SELECT holder, count(*) FILTER (firm) FROM {REREAD} GROUP BY 1 ORDER BY 1").fetchall()
    gone = {
        str(tag): int(count)
        for tag, count in holders
        if not is_whole(ledger, answers_name(tag, spec.parse_digest)) and results_missing(ledger, tag)
    }
    if not gone:
        return found
    return replace(diff(con, spec, rows, replace(past, gone=tuple(gone))), unreadable=sum(gone.values()))


def check_destination(control: ControlView, spec: ResolvedSpec, destination: Destination) -> None:
    """Refuse what could not be delivered, and a file that is not ours. Raises DestinationError. Reads only.

    A file is ours when the last delivery went there. Where nothing is recorded, because a delivery was killed, the
    ledger is another environment's or was deleted, it is ours when it has the very columns that would be written.
    """
    last = control.deliveries.get(spec.name)
    ours = last is not None and normpath(last.location) == normpath(spec.spec.destination.place)
    try:
        destination.check(None if ours else [c.name for c in output_columns(spec)])
    except DestinationError as exc:
        exc.place = exc.place or spec.at(_field(exc))
        raise


def still_there(control: ControlView, spec: ResolvedSpec, destination: Destination) -> bool:
    """Whether a destination holds what was last delivered to it, as it was written.

    One that a slower delivery of older content has overwritten does not, even if that one was killed right after.
    """
    last = control.deliveries.get(spec.name)
    if last is None:
        return destination.exists()
    following = delivery_name(control, spec, last.through)
    return destination.exists(last.parts, stamps=last.stamps, following=following)


def delivery_name(control: ControlView, spec: ResolvedSpec, through: int) -> str:
    """The name of a delivery of what is newer than `through`: by where it begins, not by where it ends, so that done
    again, it replaces its own unrecorded part. Its part before the first dot says whose it is."""
    return f"{spec.name}-{short(control.lineage, 8)}.{short(destination_digest(spec), 8)}.{through:08d}"


def _field(error: DestinationError) -> str:
    """The field of the spec that an error of a destination is about: the one its sentence begins with, or its place."""
    named = re.match(r"destination\.[a-z_]+", error.message)
    return named[0] if named else "destination.path"


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
        require_whole(ledger, _answers(ledger, ledger.control(), spec))
        raise LedgerCorrupt(
            f"what {ledger.place} has recorded of {spec.name} cannot be read: {str(exc).splitlines()[0]}", hint=RESTORE
        ) from exc


def _relation(con: DuckDBPyConnection, ledger: Ledger, name: str) -> str | None:
    if ledger.head is None or not ledger.row_parts(name):
        return None
    return ledger.rows_relation(con, name)


def _archived(ledger: Ledger, control: ControlView, spec: ResolvedSpec) -> str | None:
    """Every result that was ever archived for the spec, by key and request, and every attempt that left none, so that
    no answer is paid for again and no failed request is sent more often than it may be. What is archived under keys
    that rows had before stands under those that they took, too."""
    names = [*_answers(ledger, control, spec), *_attempts(ledger, control, spec)]
    if not names:
        return None
    files = ", ".join(literal(str(ledger.blob(name))) for name in names)
    # Answers that an earlier version kept of rows that had moved on name no request.
    archived = (
        "SELECT key_hash, request_fp, tag, parse_digest, class "
        f"FROM read_parquet([{files}]) WHERE request_fp IS NOT NULL"
    )
    return f"({under_all_keys(ledger, spec.name, archived)})"


def _attempts(ledger: Ledger, control: ControlView, spec: ResolvedSpec) -> list[str]:
    """Of jobs that left rows without a result. Earlier versions kept none, and one that is damaged counts as none: what
    is forgotten then is how often a request was tried."""
    tags = [j.tag for j in control.jobs.values() if j.intent.spec == spec.name and j.collected]
    return [name for name in map(attempts_name, tags) if is_whole(ledger, name)]


def _answers(ledger: Ledger, control: ControlView, spec: ResolvedSpec) -> list[str]:
    """The answers of each job: as they were first read, or, where those are lost, as they are read now."""
    names = []
    for job in control.jobs.values():
        if job.intent.spec != spec.name or not job.collected or not job.collected.answers:
            continue
        again = answers_name(job.tag, spec.parse_digest)
        found = [n for n in (job.collected.answers, again) if ledger.has_blob(n)]
        names += [n for n in found if is_whole(ledger, n)][:1] or found[:1]
    return names


def attempts(control: ControlView, spec: str, shard_digest: str) -> int:
    """How many jobs were begun for this very shard. Once names have moved, those of all specs count: a job that went
    along with its rows keeps its tag, and whoever has the earlier name now must not use that again."""
    jobs = (j.intent for j in control.jobs.values() if j.intent.shard_digest == shard_digest)
    return sum(1 for intent in jobs if intent.spec == spec or control.moves)
