"""Deliver: recorded answers → the spec's destination. Pays nothing; may be done again at any time.

The destination is written first and `DeliveredTo` is committed after it. Killed in between, the next delivery starts
from the same recorded one, bears the same name, and writes at least the same rows: content does not change by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import DestinationError, LedgerMoved
from batchform.ledger.records import ControlView, DeliveredTo
from batchform.ledger.segments import timestamp
from batchform.ledger.store import Ledger
from batchform.plan.recorded import check_destination, delivery_name, still_there
from batchform.ports import Clock, Delivered, Delivery, Destination, HoldsImages
from batchform.rows.sql import identifier, literal
from batchform.run.columns import Context, key_types, output_relation
from batchform.run.image_files import write_images
from batchform.run.joined import DELIVERABLE, Joined, join_answers, show_answers
from batchform.run.ordered import BATCH_ROWS, cuts_of, write_ordered
from batchform.spec.delivery import (
    OutputColumn,
    destination_digest,
    details_read,
    output_columns,
    reads_row,
    takes_changes,
)
from batchform.spec.expressions import Key, KeyColumn, Metadata
from batchform.spec.image import images_folder
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

SourceRows = Callable[["DuckDBPyConnection"], str]
"""Makes the source readable in a connection: FROM-able, `key_hash UUID` and the source's columns, one row per key."""

SORTED_BY_DUCKDB = 20_000
"""Up to this many rows, DuckDB may sort whole answers in memory."""

_OUTPUT = "bf_output"
_SAMPLED = 8_192
_DELIVERIES = 5
_Ordered = tuple[str, str, str]
"""Items of a SELECT, what it is FROM (with `bf_serial`), and an ORDER BY if that is in no order."""


class Undelivered(Struct, frozen=True):
    """What a destination lacks. rows: that it shall hold; changed: answers that are new to it; removed: rows that
    were pruned since; full: whether it must be written anew: it is another one, is gone, or has rows to remove."""

    rows: int
    changed: int
    removed: int
    full: bool

    @property
    def any(self) -> bool:
        return bool(self.changed or self.removed) or self.full


def needs_delivery(
    con: DuckDBPyConnection, rows: str, last: DeliveredTo | None, *, digest: str, exists: bool
) -> Undelivered:
    """Compare row states (FROM-able, of one spec) with the last delivery. digest: of the destination as it is now."""
    same = last is not None and exists and last.destination_digest == digest
    through = last.through if same and last is not None else -1
    [(total, changed, removed)] = con.execute(
        f"SELECT count(*) FILTER ({DELIVERABLE}), count(*) FILTER ({DELIVERABLE} AND answer_serial > {through}), "
        f"count(*) FILTER (answer_fp IS NOT NULL AND status = 'gone' AND changed_serial > {through}) FROM {rows}"
    ).fetchall()
    if last is None:
        return Undelivered(total, total, 0, full=total > 0)
    return Undelivered(total, changed, removed if same else 0, full=not same or removed > 0)


def deliver_spec(
    ledger: Ledger,
    spec: ResolvedSpec,
    destination: Destination,
    *,
    connect: Callable[[], DuckDBPyConnection],
    clock: Clock,
    who: str,
    scratch: Path,
    source_rows: SourceRows | None = None,
) -> Delivered | None:
    """Bring a destination up to the ledger, and record it. None when it already is.

    connect: a fresh connection that may read the ledger and `scratch` and write the destination's folder; scratch: an
    existing folder for short-lived files. Raises DestinationError, with the destination as it was.

    When another runner recorded a delivery meanwhile, nobody knows whose content came last: it is written anew, whole.
    """
    anew = False
    if _waits_for_keys(ledger.control(), spec):
        return None
    for _ in range(_DELIVERIES):
        ledger.refresh()
        last = ledger.control().deliveries.get(spec.name)
        with closing(connect()) as con, TemporaryDirectory(prefix="deliver-", dir=scratch) as folder:
            written = _write(ledger, spec, destination, con, Path(folder), source_rows, anew=anew)
        if written is None:
            return None
        delivered, event = written
        if _recorded(ledger, replace(event, at=timestamp(clock.now()), by=who), last):
            return delivered
        anew = True
    raise LedgerMoved(
        f"{spec.spec.destination.place} was delivered by another runner, {_DELIVERIES} times while it was written.",
        hint="Run `batchform sync`: it delivers what is new.",
    )


def _waits_for_keys(control: ControlView, spec: ResolvedSpec) -> bool:
    """Whether rows still have the key that they are to move from: its columns would be filled with another's."""
    last, earlier = control.deliveries.get(spec.name), spec.moved_key
    if last is None or earlier is None or not last.destination_digest or earlier.columns == spec.key_columns:
        return False
    return tuple(name for name, _ in last.key_columns) == earlier.columns


def _recorded(ledger: Ledger, event: DeliveredTo, last: DeliveredTo | None) -> bool:
    """Record a delivery, unless another one was recorded since `last` was the last."""
    while True:
        ledger.refresh()
        now = ledger.control().deliveries.get(event.spec)
        if (now and replace(now, serial=0)) != (last and replace(last, serial=0)):  # compaction numbers events
            return False
        try:
            ledger.commit([event], expect=ledger.serial)
        except LedgerMoved:
            continue
        return True


def _write(
    ledger: Ledger,
    spec: ResolvedSpec,
    destination: Destination,
    con: DuckDBPyConnection,
    folder: Path,
    source_rows: SourceRows | None,
    *,
    anew: bool,
) -> tuple[Delivered, DeliveredTo] | None:
    """Write what a destination lacks, or all of it (`anew`). None when it lacks nothing."""
    control = ledger.control()
    last, digest = control.deliveries.get(spec.name), destination_digest(spec)
    rows = deliverable_states(con, ledger, spec)
    exists = still_there(control, spec, destination)
    need = needs_delivery(con, rows, last, digest=digest, exists=exists)
    if not need.any and not anew:
        return None
    check_destination(control, spec, destination)
    joined = join_answers(
        con,
        ledger,
        control,
        rows,
        expected=need.rows,
        folder=folder,
        provenance=_shows_provenance(spec),
        details=details_read(output_columns(spec)),
        in_parts=spec.splits,
    )
    key = key_types(con, spec.key_columns, recorded_types(control, spec), joined.rows)
    context = Context(spec.name, key, _source(con, spec, source_rows), folder, images_folder(spec.spec) or "")
    if anew or (last is not None and last.key_columns != key):
        need = replace(need, changed=need.rows, full=True)
    if isinstance(destination, HoldsImages):
        write_images(con, ledger, joined, destination.images)  # before the rows that point to them
    delivered = destination.deliver(con, _delivery(con, spec, context, control, need, joined))
    return delivered, DeliveredTo(
        at="",
        spec=spec.name,
        destination_digest=digest,
        through=control.serial,
        rows=delivered.rows,
        location=delivered.location,
        parts=delivered.parts,
        key_columns=key,
        stamps=delivered.stamps,
    )


def deliverable_states(con: DuckDBPyConnection, ledger: Ledger, spec: ResolvedSpec) -> str:
    """FROM-able row states, as they are delivered."""
    rows = ledger.rows_relation(con, spec.name)
    from batchform.rows.pages import not_left_sql, whole_sets

    return whole_sets(con, rows) if spec.splits else f"(SELECT * FROM {rows} WHERE {not_left_sql()})"


def answers_table(
    con: DuckDBPyConnection,
    ledger: Ledger,
    spec: ResolvedSpec,
    *,
    scratch: Path,
    source_rows: SourceRows | None = None,
) -> tuple[str, tuple[str, ...]]:
    """All answers as the destination would show them: (FROM-able relation that also has the key as `bf_order`, names of
    the output columns). Times are text, those inside of lists and structs too."""
    control = ledger.control()
    rows = deliverable_states(con, ledger, spec)
    [(expected,)] = con.execute(f"SELECT count(*) FROM {rows} WHERE {DELIVERABLE}").fetchall()
    joined = join_answers(
        con,
        ledger,
        control,
        rows,
        expected=expected,
        folder=scratch,
        provenance=_shows_provenance(spec),
        details=details_read(output_columns(spec)),
        in_parts=spec.splits,
    )
    show_answers(con, joined, joined.all)
    key = key_types(con, spec.key_columns, recorded_types(control, spec), joined.rows)
    context = Context(spec.name, key, _source(con, spec, source_rows), scratch, images_folder(spec.spec) or "")
    columns = output_columns(spec)
    kinds = _make_output(con, columns, context)
    plain = {identifier(name): _timeless(kind) for name, kind in _types(con, _OUTPUT)}
    shown = [f"CAST(o.{name} AS {plain[name]}) AS {name}" if "TIME" in kinds[name] else f"o.{name}" for name in kinds]
    relation = f"(SELECT o.bf_key AS bf_order, {', '.join(shown)} FROM {_OUTPUT} o)"
    return relation, tuple(c.name for c in columns)


def _types(con: DuckDBPyConnection, view: str) -> list[tuple[str, Any]]:
    read = con.sql(f"SELECT * FROM {view}")
    return list(zip(read.columns, read.types, strict=True))


def _timeless(kind: Any) -> str:
    """A type of DuckDB with text in place of times."""
    if kind.id in ("list", "array"):
        return f"{_timeless(kind.children[0][1])}[]"
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{identifier(name)} {_timeless(inner)}' for name, inner in kind.children)})"
    return "VARCHAR" if "TIME" in str(kind) else str(kind)


def _delivery(
    con: DuckDBPyConnection,
    spec: ResolvedSpec,
    context: Context,
    control: ControlView,
    need: Undelivered,
    joined: Joined,
) -> Delivery:
    """Make the output relations, and say what is to be written of them."""
    last = control.deliveries.get(spec.name)
    through = 0 if need.full or last is None else last.through
    columns = output_columns(spec)
    # A part holds what is new; everything else is written whole. The other relation is there, but nobody reads it.
    part = takes_changes(spec.spec.destination) and not need.full
    where = f"answer_serial > {through}" if part else "true"
    ordered = in_order(con, columns, context, joined, where=where, rows=need.changed if part else need.rows)
    name = delivery_name(control, spec, through)
    return Delivery(
        spec=spec.name,
        name=name,
        relation=_view(con, f"{_OUTPUT}_all", ordered, "true"),
        changed=_view(con, f"{_OUTPUT}_new", ordered, f"bf_serial > {through}"),
        key_columns=tuple(c.name for c in columns if isinstance(c.expression, (Key, KeyColumn))),
        full=need.full,
        previous=last.parts if last else (),
        owner=name.partition(".")[0],
        stamps=last.stamps if last else (),
    )


def _shows_provenance(spec: ResolvedSpec) -> bool:
    return any(isinstance(c.expression, Metadata) for c in output_columns(spec))


def recorded_types(control: ControlView, spec: ResolvedSpec) -> dict[str, str]:
    """DuckDB types of the key's columns when the spec's rows were last sent, or else delivered."""
    last = control.deliveries.get(spec.name)
    types = dict(last.key_columns) if last else {}
    for record in control.jobs.values():
        if record.intent.spec == spec.name:
            types.update(record.intent.key_columns)
    return types


def _source(con: DuckDBPyConnection, spec: ResolvedSpec, source_rows: SourceRows | None) -> str | None:
    if not reads_row(output_columns(spec)):
        return None
    if source_rows is None:
        raise DestinationError(
            "destination.columns reads `row`, and the source is not at hand.",
            hint="Run `batchform sync` where the source can be read, or leave `row` out of destination.columns.",
        )
    return source_rows(con)


def in_order(
    con: DuckDBPyConnection,
    columns: Sequence[OutputColumn],
    context: Context,
    joined: Joined,
    *,
    rows: int,
    where: str = "true",
) -> tuple[str, str, str]:
    """Output columns of answers in the order of their keys: items of a SELECT, what it is FROM (with `bf_key` where it
    is not in order yet, and `bf_serial`), and an ORDER BY if need be. rows: how many there are."""
    if rows > SORTED_BY_DUCKDB:
        return _spooled(con, columns, context, joined, where)
    show_answers(con, joined, joined.all, where=where)
    return ", ".join(_make_output(con, columns, context)), _OUTPUT, "ORDER BY bf_key"


def _spooled(
    con: DuckDBPyConnection, columns: Sequence[OutputColumn], context: Context, joined: Joined, where: str
) -> _Ordered:
    """The rows of all files, put in order of their key in a file; a group of files at a time."""
    # A source would be read once for each group.
    groups = [joined.all] if context.source else joined.groups()
    kinds: dict[str, str] = {}

    def parts() -> Iterator[pa.RecordBatchReader]:
        for group in groups:
            show_answers(con, joined, group, where=where)
            kinds.update(_make_output(con, columns, context))
            # Types that Arrow lacks or writes otherwise pass the file as text.
            plain = [f"CAST({c} AS VARCHAR) AS {c}" if _as_text(kind) else c for c, kind in kinds.items()]
            yield con.sql(f"SELECT bf_key, bf_serial, {', '.join(plain)} FROM {_OUTPUT}").to_arrow_reader(BATCH_ROWS)

    spool = context.scratch / "ordered.parquet"
    write_ordered(parts(), spool, cuts=_cuts(con, joined, where), folder=spool.with_suffix(""))
    values = ", ".join(f"CAST({c} AS {kind}) AS {c}" for c, kind in kinds.items())
    return values, f"read_parquet({literal(str(spool))})", ""


def _make_output(con: DuckDBPyConnection, columns: Sequence[OutputColumn], context: Context) -> dict[str, str]:
    """Make the view of output columns; returns their DuckDB types."""
    con.execute(f"CREATE OR REPLACE TEMP VIEW {_OUTPUT} AS {output_relation(con, columns, context)}")
    described = con.execute(f"DESCRIBE {_OUTPUT}").fetchall()
    return {identifier(column): kind for column, kind, *_ in described if column not in ("bf_key", "bf_serial")}


def _cuts(con: DuckDBPyConnection, joined: Joined, where: str) -> list[str]:
    """Keys that part the rows about evenly: some of a sample, which the hashes of keys make without any chance."""
    [(rows,)] = con.execute(f"SELECT count(*) FROM {joined.rows} r WHERE {where}").fetchall()
    last = UUID(int=min(_SAMPLED * (1 << 128) // max(rows, 1), (1 << 128) - 1))
    sample = con.execute(f"SELECT key FROM {joined.rows} r WHERE ({where}) AND key_hash <= '{last}'::UUID").fetchall()
    return cuts_of([key for (key,) in sample], rows=rows)


def _view(con: DuckDBPyConnection, name: str, ordered: _Ordered, condition: str) -> str:
    """A view of the output columns of some rows, ordered by key."""
    values, relation, order = ordered
    con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {values} FROM {relation} WHERE {condition} {order}")
    return name


def _as_text(kind: str) -> bool:
    others = ("JSON", "UUID", "HUGEINT", "UHUGEINT", "INTERVAL", "BIT", "TIME WITH TIME ZONE")
    return kind in others or kind.startswith("ENUM(")
