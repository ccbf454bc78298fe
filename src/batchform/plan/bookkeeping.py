"""What apply records for nothing: equal requests under new inputs, reused answers, keys that left or came back.

The rows concerned are streamed to a narrow Parquet file while candidates are rendered; DuckDB then joins them with the
recorded states into full row states that apply commits as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchform.canon import FINGERPRINT_VERSION
from batchform.ledger.records import ROW_COLUMNS
from batchform.ledger.row_writer import ROW_GROUP
from batchform.plan.diff import FORGET, LEFT, REMOVE, REPARSE, REREAD, RETURNED, Diff, Recorded
from batchform.rows.sql import identifier, literal
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FLUSH_ROWS = 8192


class FreeRows:
    """A Parquet file of candidates that cost nothing, written in batches; nothing is made until the first row.

    With no path it only counts.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.count = 0
        self._rows: list[tuple[Any, ...]] = []
        self._writer: Any = None

    def add(
        self,
        key: str,
        key_hex: str,
        row_fp_hex: str,
        request_fp: bytes,
        source: tuple[str, str, str] | None = None,
    ) -> None:
        """source: (tag, key hash in hex, parse digest) of the answer that is reused; None: its own stands."""
        self.count += 1
        if self.path is None:
            return
        tag, source_hex, parse = source or (None, None, None)
        self._rows.append((key, key_hex, row_fp_hex, request_fp, tag, source_hex, parse))
        if len(self._rows) >= _FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = ("key", "key_hash", "row_fp", "request_fp", "source_tag", "source_key_hash", "source_parse")
        types = [pa.string(), pa.string(), pa.string(), pa.binary(), pa.string(), pa.string(), pa.string()]
        columns = [pa.array(c, t) for c, t in zip(zip(*self._rows, strict=True), types, strict=True)]
        table = pa.table(columns, names=list(names))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._rows = []

    def close(self) -> None:
        """Complete the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def discard(self) -> None:
        """Remove the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def write_bookkeeping(
    con: DuckDBPyConnection,
    spec: ResolvedSpec,
    recorded: Recorded,
    found: Diff,
    free: FreeRows,
    *,
    realm: str,
    fp_columns: str,
    at: str,
    to: Path,
    removals: str,
) -> int:
    """Write the row states of everything that is free; returns how many. Makes no file when there are none.

    removals: "record" keys that left the source, or "leave" them to a plan that a person reviews.
    """
    left = found.count(FORGET, REMOVE, RETURNED) if removals == "record" else 0
    if not free.count and not left:
        return 0
    parts = []
    if free.count and free.path is not None:
        parts.append(_free_states(spec, recorded, free.path, realm=realm, fp_columns=fp_columns, at=at))
    if left:
        parts.append(_left_states(recorded, at=at))
    con.execute(
        f"COPY ({' UNION ALL '.join(parts)}) TO {literal(str(to))} "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
    )
    return free.count + left


def write_reread(con: DuckDBPyConnection, found: Diff, bookkeeping: Path | None, to: Path) -> bool:
    """Write the keys of answers that are read anew: (key_hash, firm). Makes no file, and says so, if there are none.

    Rows whose states the bookkeeping changes go along: the answers that they get may have been read otherwise, too.
    """
    if not found.count(REPARSE):
        return False
    keys = f"SELECT key_hash, firm FROM {REREAD}"
    if bookkeeping is not None:
        left = f"key_hash IN (SELECT key_hash FROM {LEFT})" if found.count(FORGET, REMOVE, RETURNED) else "false"
        keys += (
            f" UNION ALL SELECT key_hash, NOT {left} FROM read_parquet({literal(str(bookkeeping))}) "
            f"WHERE key_hash NOT IN (SELECT key_hash FROM {REREAD})"
        )
    con.execute(f"COPY ({keys}) TO {literal(str(to))} (FORMAT parquet, COMPRESSION zstd)")
    return True


def _project(values: dict[str, str]) -> str:
    return ", ".join(
        f"CAST({values.get(name, f'l.{identifier(name)}')} AS {kind}) AS {identifier(name)}"
        for name, kind in ROW_COLUMNS.items()
    )


def _free_states(spec: ResolvedSpec, recorded: Recorded, path: Path, *, realm: str, fp_columns: str, at: str) -> str:
    own = "f.source_tag IS NULL"
    values = {
        "key": "f.key",
        "key_hash": "f.key_hash",
        "row_fp": "f.row_fp",
        "fp_columns": literal(fp_columns),
        "request_fp": "f.request_fp",
        "fp_version": str(FINGERPRINT_VERSION),
        "prompt_digest": literal(spec.prompt_digest),
        "model": literal(spec.model),
        "config_digest": literal(spec.config_digest),
        "schema_digest": literal(spec.schema_digest),
        "realm": literal(realm),
        "status": "'answered'",
        "attempt": f"CASE WHEN {own} THEN l.attempt ELSE 0 END",
        "tag": f"CASE WHEN {own} THEN l.answer_tag ELSE f.source_tag END",
        "failure": "NULL",
        "failure_message": "NULL",
        "failure_parse": "NULL",
        "answer_fp": "f.request_fp",
        "answer_tag": "coalesce(f.source_tag, l.answer_tag)",
        "answer_key_hash": "coalesce(CAST(f.source_key_hash AS UUID), l.answer_key_hash)",
        "answer_serial": f"CASE WHEN {own} AND l.status <> 'gone' THEN l.answer_serial END",
        "parse_digest": "coalesce(f.source_parse, l.parse_digest)",
        "answered_at": f"CASE WHEN {own} THEN l.answered_at ELSE {literal(at)} END",
        "cost_usd": f"CASE WHEN {own} THEN l.cost_usd ELSE 0.0 END",
        "changed_serial": "NULL",
        "at": literal(at),
    }
    for usage in (
        "finish_reason",
        "model_version",
        "prompt_tokens",
        "output_tokens",
        "thought_tokens",
        "cached_tokens",
    ):
        values[usage] = f"CASE WHEN {own} THEN l.{usage} END"
    relation = (
        recorded.relation
        or "(SELECT " + ", ".join(f"NULL::{t} AS {identifier(n)}" for n, t in ROW_COLUMNS.items()) + " LIMIT 0)"
    )
    return (
        f"SELECT {_project(values)} FROM read_parquet({literal(str(path))}) f "
        f"LEFT JOIN {relation} l ON CAST(f.key_hash AS UUID) = l.key_hash"
    )


def _left_states(recorded: Recorded, *, at: str) -> str:
    values = {
        "status": f"CASE t.class WHEN '{FORGET}' THEN 'absent' WHEN '{REMOVE}' THEN 'gone' ELSE 'answered' END",
        "answer_serial": f"CASE WHEN t.class = '{RETURNED}' AND l.status = 'gone' THEN NULL ELSE l.answer_serial END",
        "changed_serial": "NULL",
        "at": literal(at),
    }
    return f"SELECT {_project(values)} FROM {LEFT} t JOIN {recorded.relation} l USING (key_hash)"
