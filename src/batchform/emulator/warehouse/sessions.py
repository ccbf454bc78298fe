"""Read sessions: a table pinned at a moment, some of its columns and rows, split into streams that can be resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec
from sqlglot import exp

from batchform.emulator.store import new_id
from batchform.emulator.warehouse import catalog, pages, rows, translate
from batchform.emulator.warehouse.catalog import TableRef, Version
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.fields import Field, Schema, quoted, sent_schema
from batchform.emulator.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

LIFE_SECONDS: Final = 6 * 3600.0
ROWS_PER_STREAM: Final = 50_000
MESSAGE_BYTES: Final = 1024**2
"""About how large one answer is; a row that is larger goes alone."""
_TABLE: Final = re.compile(r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)")
_STREAM: Final = re.compile(r"(projects/[^/]+/locations/[^/]+/sessions/([^/]+))/streams/(\d+)")


class Spec(msgspec.Struct, frozen=True):
    """What a session reads."""

    key: int
    version: int
    fields: list[str]
    where: str
    streams: int


class Session(msgspec.Struct, frozen=True):
    """A session that was just made. fields: its columns in order."""

    name: str
    streams: list[str]
    fields: Schema
    rows: int
    bytes: int
    expires: float


def create(
    warehouse: Warehouse, parent: str, table: str, names: list[str], where: str, at: float | None, most: int, least: int
) -> Session:
    """names: columns, all if there are none; where: GoogleSQL; at: seconds since 1970; most, least: streams.

    Raises Declined.
    """
    found = _TABLE.fullmatch(table)
    if not found:
        raise invalid(f"request failed: '{table}' does not name a table as projects/P/datasets/D/tables/T.")
    ref = TableRef(found[1], found[2], found[3])
    row = warehouse.find(ref)
    if "view" in row.meta:
        raise invalid(f"request failed: Only tables can be read, and {ref} is a view.")
    version = warehouse.version(row, at)
    fields = tuple(pages.select(version.schema, names)) if names else version.schema
    if where:
        _check(warehouse, version, where)
    streams = max(1, min(most or 100, max(least, -(-version.rows // ROWS_PER_STREAM)), version.rows or 1))
    session, now = new_id(24), warehouse.now()
    spec = Spec(row.key, version.number, [f.name for f in fields], where, streams)
    with warehouse.catalog.writing() as db:
        db.execute("DELETE FROM sessions WHERE created < ?", (now - LIFE_SECONDS,))
        db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (session, msgspec.json.encode(spec).decode(), now))
    location = warehouse.dataset(ref.project, ref.dataset).location.lower()
    name = f"{parent}/locations/{location}/sessions/{session}"
    size = sum(f.columns.get(c.name, 0) for f in version.files for c in fields)
    names_of = [f"{name}/streams/{i}" for i in range(streams)] if version.rows else []
    return Session(name, names_of, fields, version.rows, size, now + LIFE_SECONDS)


def read(warehouse: Warehouse, stream: str, offset: int) -> tuple[Schema, Iterator[pa.RecordBatch]]:
    """The columns, and the rows of a stream from `offset` on, in the types that are sent. Raises Declined."""
    found = _STREAM.fullmatch(stream)
    with warehouse.catalog.reading() as db:
        row = db.execute("SELECT * FROM sessions WHERE id = ?", (found[2] if found else "",)).fetchone()
        if row is None or found is None:
            raise Declined(404, f"Stream not found: {stream}")
        spec = msgspec.json.decode(row["spec"], type=Spec)
        version = catalog.numbered(db, spec.key, spec.version)
    if version is None or row["created"] + LIFE_SECONDS < warehouse.now():
        raise Declined(404, f"The session of stream {stream} has expired.")
    if int(found[3]) >= spec.streams:
        raise Declined(404, f"Stream not found: {stream}")
    fields = tuple(pages.select(version.schema, spec.fields))
    return fields, _sized(_sent(warehouse, version, fields, spec, int(found[3])), offset)


def _sent(warehouse: Warehouse, version: Version, fields: Schema, spec: Spec, stream: int) -> Iterator[pa.Table]:
    import pyarrow as pa

    start, stop = (version.rows * n // spec.streams for n in (stream, stream + 1))
    condition = translate.condition(spec.where) if spec.where else None
    wanted = fields
    if condition is not None:
        named = {c.parts[0].name.lower() for c in condition.find_all(exp.Column)}
        wanted = tuple(f for f in version.schema if f in fields or f.name.lower() in named)
    schema = sent_schema(fields)
    for table in rows.batches(warehouse, version, fields=wanted, start=start, stop=stop):
        kept = table if condition is None else _filtered(warehouse, table, wanted, condition)
        columns = [kept.column(f.name).cast(sent.type) for f, sent in zip(fields, schema, strict=True)]
        yield pa.Table.from_arrays(columns, schema=schema)


def _filtered(warehouse: Warehouse, table: pa.Table, fields: Schema, condition: exp.Expr) -> pa.Table:
    import pyarrow as pa

    prepared = translate.prepare(condition.copy(), warehouse.now(), _no_parameters).sql(dialect="duckdb")
    shown = ", ".join(f"CAST({quoted(f.name)} AS {f.duckdb()}) AS {quoted(f.name)}" for f in fields)
    with warehouse.engine.cursor() as cursor, warehouse.engine.declining():
        cursor.register("_rows", table.append_column("_number", pa.array(range(table.num_rows), pa.int64())))
        sql = f"SELECT _number FROM (SELECT _number, {shown} FROM _rows) WHERE {prepared} ORDER BY _number"
        return table.take(pa.array([n for (n,) in cursor.execute(sql).fetchall()], pa.int64()))


def _no_parameters(node: exp.Expr) -> exp.Expr:
    raise invalid(f"A row restriction has no parameters: {node.sql(dialect='bigquery')}.")


def _check(warehouse: Warehouse, version: Version, where: str) -> None:
    """Raises Declined for a restriction that cannot run."""
    from batchform.emulator.warehouse.fields import arrow_schema

    condition = translate.condition(where)
    if any(condition.find_all(exp.Query)):
        raise invalid(f"request failed: row filter '{where}' holds a query.")
    _filtered(warehouse, arrow_schema(version.schema).empty_table(), version.schema, condition)


def _sized(tables: Iterator[pa.Table], offset: int) -> Iterator[pa.RecordBatch]:
    """Batches of a size that fits a message, without the first `offset` rows."""
    for table in tables:
        if offset >= table.num_rows:
            offset -= table.num_rows
            continue
        rest = table.slice(offset)
        offset = 0
        step = max(1, rest.num_rows * MESSAGE_BYTES // max(rest.nbytes, 1))
        for start in range(0, rest.num_rows, step):
            yield from rest.slice(start, step).combine_chunks().to_batches()


__all__ = ["Field", "Session", "create", "read"]
