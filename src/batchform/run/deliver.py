"""Deliver: recorded answers → the spec's destination. Pays nothing; may be done again at any time.

The destination is written first and `DeliveredTo` is committed after it. Killed in between, the next delivery starts
from the same recorded one, bears the same name, and writes at least the same rows: content does not change by it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from batchform.canon import short
from batchform.errors import DestinationError, LedgerCorrupt
from batchform.ledger.records import ControlView, DeliveredTo, answers_name
from batchform.ledger.segments import timestamp
from batchform.ledger.store import Ledger
from batchform.ledger.stored import reading_answers, require_whole
from batchform.plan.recorded import check_destination
from batchform.ports import Clock, Delivered, Delivery, Destination
from batchform.rows.sql import identifier, literal
from batchform.run.columns import ANSWERS, Context, key_types, output_relation
from batchform.run.ordered import write_ordered
from batchform.spec.delivery import destination_digest, output_columns, reads_row, takes_changes
from batchform.spec.expressions import FIELDS, Key, KeyColumn, Metadata
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SourceRows = Callable[["DuckDBPyConnection"], str]
"""Makes the source readable in a connection: FROM-able, `key_hash UUID` and the source's columns, one row per key."""

SORTED_BY_DUCKDB = 20_000
"""Up to this many rows, DuckDB may sort whole answers in memory."""

_DELIVERABLE = "answer_fp IS NOT NULL AND status <> 'gone'"
ROWS = "bf_deliverable"
_FILES = "bf_answer_files"
_OUTPUT = "bf_output"


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
        f"SELECT count(*) FILTER ({_DELIVERABLE}), count(*) FILTER ({_DELIVERABLE} AND answer_serial > {through}), "
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
    """
    ledger.refresh()
    control = ledger.control()
    last = control.deliveries.get(spec.name)
    digest = destination_digest(spec)
    with closing(connect()) as con, TemporaryDirectory(prefix="deliver-", dir=scratch) as folder:
        rows = ledger.rows_relation(con, spec.name)
        exists = destination.exists(last.parts if last else ())
        need = needs_delivery(con, rows, last, digest=digest, exists=exists)
        if not need.any:
            return None
        check_destination(control, spec, destination)
        _make_answers(con, ledger, control, rows, spec, expected=need.rows)
        key = key_types(con, spec.key_columns, _recorded_types(control, spec), ROWS)
        context = Context(spec.name, key, _source(con, spec, source_rows), Path(folder))
        if last is not None and last.key_columns != key:
            need = replace(need, changed=need.rows, full=True)
        delivered = destination.deliver(con, _delivery(con, spec, context, control, need))
    event = DeliveredTo(
        at=timestamp(clock.now()),
        by=who,
        spec=spec.name,
        destination_digest=digest,
        through=control.serial,
        rows=delivered.rows,
        location=delivered.location,
        parts=delivered.parts,
        key_columns=key,
    )
    ledger.commit([event])
    return delivered


def answers_table(
    con: DuckDBPyConnection,
    ledger: Ledger,
    spec: ResolvedSpec,
    *,
    scratch: Path,
    source_rows: SourceRows | None = None,
) -> tuple[str, tuple[str, ...]]:
    """All answers as the destination would show them: (FROM-able relation that also has the key as `bf_order`, names of
    the output columns). Times are text."""
    control = ledger.control()
    rows = ledger.rows_relation(con, spec.name)
    [(expected,)] = con.execute(f"SELECT count(*) FROM {rows} WHERE {_DELIVERABLE}").fetchall()
    _make_answers(con, ledger, control, rows, spec, expected=expected)
    key = key_types(con, spec.key_columns, _recorded_types(control, spec), ROWS)
    context = Context(spec.name, key, _source(con, spec, source_rows), scratch)
    columns = output_columns(spec)
    con.execute(f"CREATE OR REPLACE TEMP VIEW {_OUTPUT} AS {output_relation(con, columns, context)}")
    kinds = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {_OUTPUT}").fetchall()}
    shown = [
        f"CAST(o.{identifier(c.name)} AS VARCHAR) AS {identifier(c.name)}"
        if "TIME" in kinds[c.name]
        else f"o.{identifier(c.name)}"
        for c in columns
    ]
    relation = f"(SELECT r.key AS bf_order, {', '.join(shown)} FROM {_OUTPUT} o JOIN {ROWS} r ON r.rowid = o.bf_rank)"
    return relation, tuple(c.name for c in columns)


def _delivery(
    con: DuckDBPyConnection, spec: ResolvedSpec, context: Context, control: ControlView, need: Undelivered
) -> Delivery:
    """Make the output relations, and say what is to be written of them."""
    last = control.deliveries.get(spec.name)
    through = 0 if need.full or last is None else last.through
    columns = output_columns(spec)
    con.execute(f"CREATE OR REPLACE TEMP VIEW {_OUTPUT} AS {output_relation(con, columns, context)}")
    # A part holds what is new; everything else is written whole. The other relation is there, but nobody reads it.
    part = takes_changes(spec.spec.destination) and not need.full
    spool = context.scratch / "ordered.parquet" if (need.changed if part else need.rows) > SORTED_BY_DUCKDB else None
    owner = f"{spec.name}-{short(control.lineage, 8)}"
    return Delivery(
        spec=spec.name,
        # Named by where it begins, not by where it ends: done again, it replaces its own unrecorded part.
        name=f"{owner}.{short(destination_digest(spec), 8)}.{through:08d}",
        relation=_in_order(con, "true", spool=None if part else spool, ranks=need.rows),
        changed=_in_order(con, f"bf_serial > {through}", spool=spool if part else None, ranks=need.rows),
        key_columns=tuple(c.name for c in columns if isinstance(c.expression, (Key, KeyColumn))),
        full=need.full,
        previous=last.parts if last else (),
        owner=owner,
    )


def _make_answers(
    con: DuckDBPyConnection, ledger: Ledger, control: ControlView, rows: str, spec: ResolvedSpec, *, expected: int
) -> None:
    """Make ROWS and the view ANSWERS. Raises LedgerCorrupt when a recorded answer is in no file: none may be left out.

    ROWS is narrow and a table, so that the join keeps it in memory and streams the texts past it. Its rowid ranks keys.
    """
    files = _make_files(con, ledger, control, rows)
    provenance = any(isinstance(c.expression, Metadata) for c in output_columns(spec))
    with reading_answers(ledger, list(files)):
        held = _join_answers(con, rows, list(files.values()), provenance=provenance)
    if held != expected:
        raise LedgerCorrupt(
            f"{expected:,} rows are recorded as answered, and the parsed answers in {ledger.place} hold "
            f"{held:,} of them.",
            hint="`batchform ledger verify` names what is missing; nothing was delivered.",
        )


def _join_answers(con: DuckDBPyConnection, rows: str, paths: list[str], *, provenance: bool) -> int:
    """How many answers there are."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {ROWS} AS "
        "SELECT r.key, r.key_hash, r.answer_key_hash, r.answer_serial, r.answered_at, r.cost_usd, f.number AS file"
        f"{', r.answer_fp' if provenance else ''} "
        f"FROM {rows} r JOIN {_FILES} f ON f.tag = r.answer_tag AND f.parse = r.parse_digest "
        "WHERE r.answer_fp IS NOT NULL AND r.status <> 'gone' ORDER BY r.key"
    )
    own = {"batch_job": "f.job", "answered_at": "r.answered_at", "cost_usd": "r.cost_usd"}
    more = ", f.plan AS bf_plan, lower(hex(r.answer_fp)) AS bf_request" if provenance else ""
    fields = ", ".join(f"{own.get(name, f'a.{name}')} AS {name}" for name in FIELDS)
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {ANSWERS} AS "
        f"SELECT r.key, r.key_hash, r.rowid AS bf_rank, r.answer_serial AS bf_serial, {fields}{more} "
        f"FROM {_answer_files(paths)} a JOIN {_FILES} f ON a.filename = f.path "
        f"JOIN {ROWS} r ON r.file = f.number AND r.answer_key_hash = a.key_hash"
    )
    [(held,)] = con.execute(f"SELECT count(*) FROM {ANSWERS}").fetchall()
    return int(held)


def _make_files(con: DuckDBPyConnection, ledger: Ledger, control: ControlView, rows: str) -> dict[str, str]:
    """The table of answer files that hold deliverable answers, numbered; returns their paths by name."""
    found = con.execute(
        f"SELECT DISTINCT answer_tag, parse_digest FROM {rows} WHERE {_DELIVERABLE} ORDER BY ALL"
    ).fetchall()
    names = [answers_name(tag, parse) for tag, parse in found]
    require_whole(ledger, names)
    files = []
    for number, (tag, parse) in enumerate(found):
        record = control.jobs.get(tag)
        path = str(ledger.blob(names[number]))
        plan = record.intent.plan_digest if record else None
        files.append((number, tag, parse, path, record.job if record else None, plan))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {_FILES} "
        "(number INTEGER, tag VARCHAR, parse VARCHAR, path VARCHAR, job VARCHAR, plan VARCHAR)"
    )
    if files:
        con.executemany(f"INSERT INTO {_FILES} VALUES (?, ?, ?, ?, ?, ?)", files)
    return {name: path for name, (_, _, _, path, *_) in zip(names, files, strict=True)}


def _answer_files(paths: list[str]) -> str:
    if not paths:
        kinds = {"filename": "VARCHAR", "key_hash": "UUID", **FIELDS, "response": "VARCHAR"}
        return "(SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, kind in kinds.items()) + " WHERE false)"
    return f"read_parquet([{', '.join(map(literal, paths))}], filename = true)"


def _recorded_types(control: ControlView, spec: ResolvedSpec) -> dict[str, str]:
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


def _in_order(con: DuckDBPyConnection, condition: str, *, spool: Path | None, ranks: int) -> str:
    """A view of the output columns of some rows, ordered by key; through the file `spool` if there is one."""
    described = con.execute(f"DESCRIBE {_OUTPUT}").fetchall()
    kinds = {identifier(column): kind for column, kind, *_ in described if column not in ("bf_rank", "bf_serial")}
    rows, values = f"{_OUTPUT} WHERE {condition} ORDER BY bf_rank", list(kinds)
    if spool is not None:
        # Types that Arrow lacks or writes otherwise pass the file as text.
        plain = [f"CAST({c} AS VARCHAR) AS {c}" if _as_text(kind) else c for c, kind in kinds.items()]
        select = f"SELECT bf_rank, {', '.join(plain)} FROM {_OUTPUT} WHERE {condition}"
        write_ordered(con, select, spool, ranks=ranks, folder=spool.with_suffix(""))
        rows, values = (
            f"read_parquet({literal(str(spool))})",
            [f"CAST({c} AS {kind}) AS {c}" for c, kind in kinds.items()],
        )
    view = f"{_OUTPUT}_{'all' if condition == 'true' else 'new'}"
    con.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {', '.join(values)} FROM {rows}")
    return view


def _as_text(kind: str) -> bool:
    others = ("JSON", "UUID", "HUGEINT", "UHUGEINT", "INTERVAL", "BIT", "TIME WITH TIME ZONE")
    return kind in others or kind.startswith("ENUM(")
