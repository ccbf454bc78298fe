"""The ledger against what lies outside of it: destinations as they are, jobs as the services list them. Only reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from batchform.errors import BatchformError
from batchform.ledger.findings import ERROR, INFO, SYNC, WARNING, Finding
from batchform.ledger.records import ledger_mark
from batchform.ledger.store import Ledger
from batchform.plan.recorded import still_there
from batchform.ports import Destination, RemoteJob, Source
from batchform.rows.sql import identifier
from batchform.run.context import Backends
from batchform.run.deliver import SourceRows, answers_table, deliverable_states, needs_delivery
from batchform.spec.bigquery import BigQueryDestination
from batchform.spec.delivery import destination_digest, output_columns
from batchform.spec.expressions import Key, KeyColumn
from batchform.spec.resolved import ResolvedProject, ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TAG: Final = re.compile(r"bf-.+-(?P<mark>[0-9a-f]+)-a\d+")
_ANEW: Final = f"Move it away and run `{SYNC}`: it is written anew from the archive, for nothing."
_LOOK: Final = (
    "Somebody else wrote there, or this ledger is an older backup: then restore the newest. Else move it away and run "
    f"`{SYNC}`: it is written anew from the archive, for nothing."
)
_OTHERS: Final = (
    "Another environment's ledger delivers there under the same name of the spec, or this ledger is an older backup. "
    "The next delivery of all answers removes what it does not know: give each environment a table of its own."
)
_SHARED: Final = "Others write there too. A change of destination.columns delivers all answers again, for nothing."
_UNKNOWN: Final = (
    "The ledger was put back to an older one. Restore the newest copy of its folder, and until then apply nothing: "
    "rows of this job would be paid for again."
)


def check_destination(
    ledger: Ledger,
    spec: ResolvedSpec,
    destination: Destination,
    delivered: Source,
    *,
    connect: Callable[[], DuckDBPyConnection],
    scratch: Path,
    source_rows: SourceRows | None = None,
) -> Iterator[Finding]:
    """Whether a destination holds the rows that were delivered to it, by key; several of one key count once.

    delivered: what lies at the destination; scratch: an existing folder for short-lived files.
    """
    last = ledger.control().deliveries.get(spec.name)
    shown = spec.spec.destination.place
    try:
        with closing(connect()) as con, TemporaryDirectory(prefix="audit-", dir=scratch) as folder:
            rows = deliverable_states(con, ledger, spec)
            exists = destination.exists(last.parts if last else ())
            need = needs_delivery(con, rows, last, digest=destination_digest(spec), exists=exists)
            if last is not None and not exists:
                text = f"{shown} is gone, or a part of it: {counted(need.rows, 'answer')} of {spec.name} belong there."
                yield Finding(ERROR, text, f"`{SYNC}` writes it anew from the archive, for nothing.", repair=SYNC)
            elif need.any:
                text = f"{counted(need.changed + need.removed, 'row')} of {spec.name} are not delivered to {shown} yet."
                yield Finding(INFO, text, f"`{SYNC}` delivers them.", repair=SYNC)
            elif need.rows or last is not None:
                expected, _ = answers_table(con, ledger, spec, scratch=Path(folder), source_rows=source_rows)
                found = delivered.open(con)
                yield from _compared(con, spec, shown, expected, found.sql, list(found.columns))
                if not still_there(ledger.control(), spec, destination):
                    text = f"{shown} was written by others since it was delivered."
                    yield Finding(INFO, text, f"`{SYNC}` writes it anew from the archive, for nothing.", repair=SYNC)
    except BatchformError as error:
        yield Finding(ERROR, f"The destination of {spec.name} cannot be compared: {error.message}", error.hint)


def _compared(
    con: DuckDBPyConnection, spec: ResolvedSpec, shown: str, expected: str, found: str, there: list[str]
) -> Iterator[Finding]:
    names = [c.name for c in output_columns(spec) if isinstance(c.expression, (Key, KeyColumn))]
    if absent := [name for name in names if name not in there]:
        yield Finding(ERROR, f"{shown} has no column {', '.join(absent)}: it is not what was delivered.", _ANEW)
        return
    if not names:
        [(wanted, held)] = con.execute(
            f"SELECT (SELECT count(*) FROM {expected}), (SELECT count(*) FROM {found})"
        ).fetchall()
        lacking, strange = max(wanted - held, 0), 0 if shown.endswith("/") else max(held - wanted, 0)
    else:
        keys = ", ".join(f"CAST({identifier(name)} AS VARCHAR) AS {identifier(name)}" for name in names)
        wanted, held = f"(SELECT {keys} FROM {expected})", f"(SELECT {keys} FROM {found})"
        [(lacking, strange)] = con.execute(
            f"SELECT (SELECT count(*) FROM (FROM {wanted} EXCEPT FROM {held})), "
            f"(SELECT count(*) FROM (FROM {held} EXCEPT FROM {wanted}))"
        ).fetchall()
    to = spec.spec.destination
    shared = isinstance(to, BigQueryDestination) and to.shared
    if lacking:
        text = f"{shown} lacks {counted(lacking, 'row')} that were delivered to it."
        yield Finding(ERROR, text, _SHARED if shared else _ANEW)
    if strange and not shared:
        yield Finding(ERROR, f"{shown} holds {counted(strange, 'row')} that the ledger does not know.", _LOOK)
    elif strange and isinstance(to, BigQueryDestination) and to.metadata:  # else nobody knows whose they are
        text = f"{shown} holds {counted(strange, 'row')} of {spec.name} that the ledger does not know."
        yield Finding(WARNING, text, _OTHERS)


def check_services(ledger: Ledger, project: ResolvedProject, backends: Backends) -> Iterator[Finding]:
    """Jobs that bear this ledger's mark in their tag, and that it does not know: it is not the newest one."""
    known, mark = ledger.control().jobs, ledger_mark(ledger.lineage)
    places = {(s.backend_name, "") for s in project.specs}
    places |= {(r.intent.backend, r.intent.place) for r in known.values() if r.open}
    for name, place in sorted(places) if mark else ():
        try:
            listed = [j for j in backends(name).at(place).list_jobs() if _bears(j, mark) and j.tag not in known]
            strangers = [j for j in listed if j.name not in ledger.control().disowned]
        except BatchformError as error:
            yield Finding(WARNING, f"Backend {name} could not be asked for its jobs: {error.message}", error.hint)
            continue
        for job in strangers:
            text = f"This ledger sent {job.tag}, job {job.name} at backend {name} ({job.state}), and does not know it."
            yield Finding(ERROR, text, _UNKNOWN)


def _bears(job: RemoteJob, mark: str) -> bool:
    match = _TAG.fullmatch(job.tag or "")
    return match is not None and match["mark"] == mark
