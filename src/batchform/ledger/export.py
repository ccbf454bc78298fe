"""The ledger as plain files for people: the latest rows of all specs, and all jobs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from batchform.errors import DestinationError, UsageError
from batchform.ledger.records import ROW_COLUMNS, ControlView, JobRecord
from batchform.rows.sql import identifier, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.ledger.store import Ledger

FORMATS: Final = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "jsonl": "FORMAT json",
    "csv": "FORMAT csv, HEADER true",
}

_JOB_COLUMNS: Final = {
    "tag": "VARCHAR",
    "spec": "VARCHAR",
    "status": "VARCHAR",
    "state": "VARCHAR",
    "job": "VARCHAR",
    "how": "VARCHAR",
    "backend": "VARCHAR",
    "realm": "VARCHAR",
    "model": "VARCHAR",
    "rows": "BIGINT",
    "requests": "BIGINT",
    "bytes": "BIGINT",
    "intended_at": "TIMESTAMPTZ",
    "submitted_at": "TIMESTAMPTZ",
    "ended_at": "TIMESTAMPTZ",
    "collected_at": "TIMESTAMPTZ",
    "by": "VARCHAR",
    "error": "VARCHAR",
    "est_usd": "DOUBLE",
    "usd": "DOUBLE",
    "prompt_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "outcome": "VARCHAR",  # JSON: class → rows
    "archive": "VARCHAR",
}


class Exported(Struct, frozen=True):
    """How much was written, and where."""

    rows: int
    jobs: int
    files: tuple[Path, ...]


def export(ledger: Ledger, con: DuckDBPyConnection, to: Path, *, format: str = "parquet") -> Exported:  # noqa: A002
    """Write `rows.<format>` and `jobs.<format>` into the folder `to`, each replaced atomically.

    Fingerprints are hex text. Raises UsageError for an unknown format, DestinationError when `to` cannot be written.
    """
    import duckdb

    if format not in FORMATS:
        raise UsageError(f"The ledger has no export format {format!r}.", hint="Formats: " + ", ".join(FORMATS))
    view = ledger.control()
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".batchform-", dir=to) as scratch:
            rows = _copy(con, _rows(ledger, con), Path(scratch), to / f"rows.{format}")
            jobs = _copy(con, _jobs(view, Path(scratch)), Path(scratch), to / f"jobs.{format}")
    except (OSError, duckdb.IOException) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise DestinationError(
            f"The ledger cannot be exported to {to}: {reason}.", hint="Name a folder that can be written."
        ) from error
    return Exported(rows=rows, jobs=jobs, files=(to / f"rows.{format}", to / f"jobs.{format}"))


def _copy(con: DuckDBPyConnection, query: str, scratch: Path, target: Path) -> int:
    written = scratch / target.name
    options = FORMATS[target.suffix.removeprefix(".")]
    counted = con.execute(f"COPY ({query}) TO {literal(str(written))} ({options})").fetchone()
    written.replace(target)
    return int(counted[0]) if counted else 0


def _rows(ledger: Ledger, con: DuckDBPyConnection) -> str:
    columns = ", ".join(
        f"lower(hex({identifier(c)})) AS {identifier(c)}" if kind == "BLOB" else identifier(c)
        for c, kind in ROW_COLUMNS.items()
    )
    selects = [
        f"SELECT {literal(spec)} AS spec, {columns} FROM {ledger.rows_relation(con, spec)}" for spec in ledger.specs()
    ]
    if not selects:
        selects = [f"SELECT NULL::VARCHAR AS spec, {columns} FROM {ledger.rows_relation(con, '')}"]
    return " UNION ALL ".join(selects) + " ORDER BY spec, key"


def _jobs(view: ControlView, scratch: Path) -> str:
    lines = scratch / "jobs.ndjson"
    with lines.open("wb") as out:
        for job in view.jobs.values():
            out.write(msgspec.json.encode(dict(_job_values(job))) + b"\n")
    if not view.jobs:
        empty = ", ".join(f"NULL::{kind} AS {identifier(c)}" for c, kind in _JOB_COLUMNS.items())
        return f"SELECT {empty} WHERE false"
    types = "{" + ", ".join(f"{literal(c)}: {literal(kind)}" for c, kind in _JOB_COLUMNS.items()) + "}"
    return f"SELECT * FROM read_json({literal(str(lines))}, format = 'newline_delimited', columns = {types})"


def _job_values(job: JobRecord) -> Iterator[tuple[str, Any]]:
    intent, collected = job.intent, job.collected
    for name in ("tag", "spec", "backend", "realm", "model", "rows", "requests", "bytes", "by", "est_usd"):
        yield name, getattr(intent, name)
    for name in ("status", "state", "job", "how", "submitted_at", "ended_at", "error"):
        yield name, getattr(job, name)
    yield "intended_at", intent.at
    if collected:
        for name in ("usd", "prompt_tokens", "output_tokens", "archive"):
            yield name, getattr(collected, name)
        yield "collected_at", collected.at
        yield "outcome", json.dumps(collected.rows, sort_keys=True)
