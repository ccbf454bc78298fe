"""Recorded answers joined with the parsed ones, some files at a time: memory is that of jobs, not of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import LedgerCorrupt
from batchform.ledger.records import ControlView, answers_name
from batchform.ledger.row_writer import ROW_GROUP
from batchform.ledger.store import Ledger
from batchform.ledger.stored import reading_answers, require_whole
from batchform.rows.pages import FIRST, LAST
from batchform.rows.sql import literal
from batchform.run.columns import ANSWERS
from batchform.spec.expressions import FIELDS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DELIVERABLE: Final = "answer_fp IS NOT NULL AND status <> 'gone'"
ROWS_AT_ONCE: Final = 100_000
"""Up to so many rows are joined together, or those of one file if it has more."""

_FILES_AT_ONCE: Final = 256
_PARTS: Final = "bf_answer_parts"
_FILES: Final = "bf_answer_files"
_ROWS: Final = "bf_deliverable"


class Joined(Struct, frozen=True):
    """What `join_answers` found. rows: FROM-able key, key_hash, answer_key_hash, answer_serial, answered_at, cost_usd
    and the number of the file that holds the answer; paths: of those files; sizes: rows of each; provenance: whether
    ANSWERS also has the plan (`bf_plan`) and the request (`bf_request`) of each answer; details: those of DETAILS that
    it has; gathered: whether the parts of a row are one answer, of which `rows` has a row each."""

    rows: str
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    provenance: bool = False
    details: tuple[str, ...] = ()
    gathered: bool = False

    def groups(self) -> Iterator[range]:
        """Numbers of files that are joined together: all of them where the parts of a row may be in several."""
        if self.gathered:
            yield self.all
            return
        first = rows = 0
        for number, size in enumerate(self.sizes):
            if number > first and (rows + size > ROWS_AT_ONCE or number - first >= _FILES_AT_ONCE):
                yield range(first, number)
                first, rows = number, 0
            rows += size
        yield range(first, len(self.sizes))

    @property
    def all(self) -> range:
        """The numbers of all files."""
        return range(len(self.paths))


def join_answers(
    con: DuckDBPyConnection,
    ledger: Ledger,
    control: ControlView,
    rows: str,
    *,
    expected: int,
    folder: Path,
    provenance: bool = False,
    details: tuple[str, ...] = (),
    in_parts: bool = False,
) -> Joined:
    """Find the answers of all deliverable rows. rows: FROM-able row states of a spec; folder: for a file that the
    result reads; in_parts: `rows` are those of `whole_sets`, and the answers to the parts of a row are gathered.

    Raises LedgerCorrupt when a recorded answer is in no file: none may be left out.
    """
    names, found = _make_files(con, ledger, control, rows)
    narrow = folder / "deliverable.parquet"
    con.execute(
        "COPY (SELECT r.key, r.key_hash, r.answer_key_hash, r.answer_serial, r.answered_at, r.cost_usd, "
        f"f.number AS file{', r.answer_fp' if provenance else ''}{f', r.{FIRST}, r.{LAST}' if in_parts else ''} "
        f"FROM {rows} r JOIN {_FILES} f ON f.tag = r.answer_tag AND f.parse = r.parse_digest "
        "WHERE r.answer_fp IS NOT NULL AND r.status <> 'gone') "
        f"TO {literal(str(narrow))} (FORMAT parquet, ROW_GROUP_SIZE {ROW_GROUP})"
    )
    joined = Joined(f"read_parquet({literal(str(narrow))})", *found, provenance, details)
    held = 0
    with reading_answers(ledger, names):
        for group in joined.groups():
            show_answers(con, joined, group)
            held += con.execute(f"SELECT count(*) FROM {ANSWERS}").fetchall()[0][0]
    if held != expected:
        raise LedgerCorrupt(
            f"{expected:,} rows are recorded as answered, and the parsed answers in {ledger.place} hold "
            f"{held:,} of them.",
            hint="`batchform ledger verify` names what is missing; nothing was delivered.",
        )
    return replace(joined, gathered=in_parts)


def show_answers(con: DuckDBPyConnection, joined: Joined, files: range, *, where: str = "true") -> None:
    """Make the view ANSWERS of the rows whose answers are in these files. where: SQL condition on `joined.rows`."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {_ROWS} AS SELECT r.*, f.job, f.plan FROM {joined.rows} r JOIN {_FILES} f "
        f"ON f.number = r.file WHERE r.file BETWEEN {files.start} AND {files.stop - 1} AND ({where})"
    )
    own = {"batch_job": "r.job", "answered_at": "r.answered_at", "cost_usd": "r.cost_usd"}
    fields = ", ".join(f"{own.get(name, f'a.{name}')} AS {name}" for name in (*FIELDS, *joined.details))
    more = ", r.plan AS bf_plan, lower(hex(r.answer_fp)) AS bf_request" if joined.provenance else ""
    more += f", r.{FIRST}, r.{LAST}" if joined.gathered else ""
    # The condition is always true. DuckDB takes it for one that few rows pass, and so hashes these narrow rows and
    # streams the wide answers past them, not the other way round.
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {_PARTS if joined.gathered else ANSWERS} AS "
        f"SELECT r.key, r.key_hash, r.answer_serial AS bf_serial, {fields}{more} "
        f"FROM {_answer_files(joined.paths[files.start : files.stop], joined.details)} a "
        f"JOIN {_ROWS} r ON r.file = CAST(a.file_index AS BIGINT) + {files.start} AND r.answer_key_hash = a.key_hash "
        "WHERE hash(r.file) >= 0"
    )
    if joined.gathered:
        from batchform.run.gather import gathered

        whole = gathered(_PARTS, joined.details, provenance=joined.provenance)
        con.execute(f"CREATE OR REPLACE TEMP TABLE {ANSWERS}_whole AS {whole}")
        con.execute(f"CREATE OR REPLACE TEMP VIEW {ANSWERS} AS SELECT * FROM {ANSWERS}_whole")


def _make_files(
    con: DuckDBPyConnection, ledger: Ledger, control: ControlView, rows: str
) -> tuple[list[str], tuple[tuple[str, ...], tuple[int, ...]]]:
    """The table of answer files that hold deliverable answers, numbered; returns their names, paths and sizes."""
    found = con.execute(
        f"SELECT answer_tag, parse_digest, count(*) FROM {rows} WHERE {DELIVERABLE} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    names = [answers_name(tag, parse) for tag, parse, _ in found]
    require_whole(ledger, names)
    files = []
    for number, (tag, parse, _) in enumerate(found):
        record = control.jobs.get(tag)
        job, plan = (record.job, record.intent.plan_digest) if record else (None, None)
        files.append((number, tag, parse, job, plan))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {_FILES} (number BIGINT, tag VARCHAR, parse VARCHAR, job VARCHAR, plan VARCHAR)"
    )
    if files:
        con.executemany(f"INSERT INTO {_FILES} VALUES (?, ?, ?, ?, ?)", files)
    return names, (tuple(str(ledger.blob(n)) for n in names), tuple(int(size) for *_, size in found))


def _answer_files(paths: Sequence[str], details: Sequence[str]) -> str:
    """FROM-able: the answers of files. details: those of DETAILS that are needed, NULL where a file lacks them."""
    if not paths:
        kinds = {"file_index": "BIGINT", "key_hash": "UUID", **FIELDS, "response": "VARCHAR"}
        kinds |= dict.fromkeys(details, "VARCHAR")
        return "(SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, kind in kinds.items()) + " WHERE false)"
    listed = ", ".join(map(literal, paths))
    if not details:
        return f"read_parquet([{listed}])"
    lacking = ", ".join(f"NULL::VARCHAR AS {name}" for name in details)
    return (
        f"(SELECT *, file_index FROM read_parquet([{listed}], union_by_name = true) "
        f"UNION ALL BY NAME (SELECT {lacking} WHERE false))"
    )
