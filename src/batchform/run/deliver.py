"""Deliver: recorded answers → the spec's destination. Pays nothing; may be done again at any time.

The destination is written first and `DeliveredTo` is committed after it. Killed in between, the next delivery starts
from the same recorded one, bears the same name, and writes at least the same rows: content does not change by it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.canon import short
from batchform.errors import DestinationError, LedgerCorrupt
from batchform.ledger.records import ControlView, DeliveredTo, answers_name
from batchform.ledger.segments import timestamp
from batchform.ledger.store import Ledger
from batchform.ports import Clock, Delivered, Delivery, Destination
from batchform.rows.sql import identifier, literal
from batchform.run.columns import ANSWERS, Context, key_types, output_relation
from batchform.spec.delivery import OutputColumn, destination_digest, output_columns, reads_row
from batchform.spec.expressions import FIELDS, Key, KeyColumn
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SourceRows = Callable[["DuckDBPyConnection"], str]
"""Makes the source readable in a connection: FROM-able, `key_hash UUID` and the source's columns, one row per key."""

_DELIVERABLE = "answer_fp IS NOT NULL AND status <> 'gone'"
_FILES = "bf_answer_files"
_OUTPUT = "bf_output"


@dataclass(frozen=True, slots=True)
class Undelivered:
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
    found = con.execute(
        f"SELECT count(*) FILTER ({_DELIVERABLE}), count(*) FILTER ({_DELIVERABLE} AND answer_serial > {through}), "
        f"count(*) FILTER (answer_fp IS NOT NULL AND status = 'gone' AND changed_serial > {through}) FROM {rows}"
    ).fetchone()
    total, changed, removed = found or (0, 0, 0)
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
    with closing(connect()) as con:
        rows = ledger.rows_relation(con, spec.name)
        exists = destination.exists(last.parts if last else ())
        need = needs_delivery(con, rows, last, digest=digest, exists=exists)
        if not need.any:
            return None
        destination.check()
        _make_answers(con, ledger, control, rows, expected=need.rows)
        key = key_types(con, spec.key_columns, _recorded_types(control, spec), rows)
        full = need.full or (last is not None and last.key_columns != key)
        columns = output_columns(spec)
        context = Context(spec.name, key, _source(con, columns, source_rows), scratch)
        through = 0 if full or last is None else last.through
        relation, changed = _make_output(con, columns, context, through=through)
        owner = f"{spec.name}-{short(control.lineage, 8)}"
        delivered = destination.deliver(
            con,
            Delivery(
                spec=spec.name,
                # Named by where it begins, not by where it ends: done again, it replaces its own unrecorded part.
                name=f"{owner}.{short(digest, 8)}.{through:08d}",
                relation=relation,
                changed=changed,
                key_columns=tuple(c.name for c in columns if isinstance(c.expression, (Key, KeyColumn))),
                full=full,
                previous=last.parts if last else (),
                owner=owner,
            ),
        )
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
    expected = con.execute(f"SELECT count(*) FROM {rows} WHERE {_DELIVERABLE}").fetchall()[0][0]
    _make_answers(con, ledger, control, rows, expected=expected)
    key = key_types(con, spec.key_columns, _recorded_types(control, spec), rows)
    columns = output_columns(spec)
    context = Context(spec.name, key, _source(con, columns, source_rows), scratch)
    con.execute(f"CREATE OR REPLACE TEMP VIEW {_OUTPUT} AS {output_relation(con, columns, context)}")
    kinds = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {_OUTPUT}").fetchall()}
    shown = [
        f"CAST({identifier(c.name)} AS VARCHAR) AS {identifier(c.name)}" if "TIME" in kinds[c.name] else identifier(c.name)
        for c in columns
    ]
    return f"(SELECT bf_order, {', '.join(shown)} FROM {_OUTPUT})", tuple(c.name for c in columns)


def _make_answers(con: DuckDBPyConnection, ledger: Ledger, control: ControlView, rows: str, *, expected: int) -> None:
    """Make the view ANSWERS. Raises LedgerCorrupt when a recorded answer is in no file: no row may be left out."""
    found = con.execute(
        f"SELECT DISTINCT answer_tag, parse_digest FROM {rows} WHERE {_DELIVERABLE} ORDER BY ALL"
    ).fetchall()
    files = []
    for tag, parse in found:
        record = control.jobs.get(tag)
        files.append((tag, parse, str(ledger.blob(answers_name(tag, parse))), record.job if record else None))
    con.execute(f"CREATE OR REPLACE TEMP TABLE {_FILES} (tag VARCHAR, parse VARCHAR, path VARCHAR, job VARCHAR)")
    if files:
        con.executemany(f"INSERT INTO {_FILES} VALUES (?, ?, ?, ?)", files)
    own = {"response": "a.response", "batch_job": "f.job", "answered_at": "r.answered_at", "cost_usd": "r.cost_usd"}
    fields = ", ".join(f"{own.get(name, f'a.{name}')} AS {name}" for name in FIELDS)
    joined = (
        f"{rows} r JOIN {_FILES} f ON f.tag = r.answer_tag AND f.parse = r.parse_digest "
        f"JOIN {_answer_files([path for _, _, path, _ in files])} a "
        "ON a.filename = f.path AND a.key_hash = r.answer_key_hash "
        "WHERE r.answer_fp IS NOT NULL AND r.status <> 'gone'"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {ANSWERS} AS SELECT r.key, r.key_hash, r.answer_serial, {fields} FROM {joined}"
    )
    counted = con.execute(f"SELECT count(*) FROM {ANSWERS}").fetchone()
    if counted != (expected,):
        raise LedgerCorrupt(
            f"{expected:,} rows are recorded as answered, and the parsed answers in {ledger.place} hold "
            f"{counted[0] if counted else 0:,} of them.",
            hint="`batchform ledger verify` names what is missing; nothing was delivered.",
        )


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


def _source(con: DuckDBPyConnection, columns: tuple[OutputColumn, ...], source_rows: SourceRows | None) -> str | None:
    if not reads_row(columns):
        return None
    if source_rows is None:
        raise DestinationError(
            "destination.columns reads `row`, and the source is not at hand.",
            hint="Run `batchform sync` where the source can be read, or leave `row` out of destination.columns.",
        )
    return source_rows(con)


def _make_output(
    con: DuckDBPyConnection, columns: tuple[OutputColumn, ...], context: Context, *, through: int
) -> tuple[str, str]:
    """Names of two views with just the output columns, ordered by key: all rows, and those answered after `through`."""
    con.execute(f"CREATE OR REPLACE TEMP VIEW {_OUTPUT} AS {output_relation(con, columns, context)}")
    names = ", ".join(identifier(c.name) for c in columns)
    for view, condition in ((f"{_OUTPUT}_all", ""), (f"{_OUTPUT}_new", f"WHERE bf_serial > {through}")):
        con.execute(
            f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {names} FROM {_OUTPUT} {condition} ORDER BY bf_order"
        )
    return f"{_OUTPUT}_all", f"{_OUTPUT}_new"
