"""What rows that are sent again keep until their new answer is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.ledger.records import ROW_COLUMNS
from batchform.plan.diff import CANDIDATES, Recorded
from batchform.plan.shard import DraftShard
from batchform.rows.sql import identifier, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ANSWER_FIELDS = (
    "answer_fp", "answer_tag", "answer_key_hash", "answer_serial", "parse_digest", "answered_at", "finish_reason",
    "model_version", "prompt_tokens", "output_tokens", "thought_tokens", "cached_tokens", "cost_usd",
)  # fmt: skip


def carry_answers(con: DuckDBPyConnection, past: Recorded, shards: Sequence[DraftShard], folder: Path) -> None:
    """Rows sent again keep their last answer in the ledger until the new one is there."""
    if past.relation is None or not shards:
        return
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE bf_prior AS SELECT key_hash, {', '.join(_ANSWER_FIELDS)} FROM {past.relation} "
        f"WHERE answer_fp IS NOT NULL AND key_hash IN (SELECT key_hash FROM {CANDIDATES})"
    )
    if not con.execute("SELECT count(*) FROM bf_prior").fetchall()[0][0]:
        return
    taken = ", ".join(f"p.{f} AS {f}" for f in _ANSWER_FIELDS)
    columns = ", ".join(identifier(c) for c in ROW_COLUMNS)
    for shard in shards:
        path = folder / shard.rows_path
        carried = path.with_suffix(".carried")
        con.execute(
            f"COPY (SELECT {columns} FROM (SELECT n.* REPLACE ({taken}) FROM read_parquet({literal(str(path))}, "
            "file_row_number = true) n LEFT JOIN bf_prior p USING (key_hash)) ORDER BY file_row_number) "
            f"TO {literal(str(carried))} (FORMAT parquet, COMPRESSION zstd)"
        )
        carried.replace(path)
