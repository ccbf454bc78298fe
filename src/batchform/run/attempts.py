"""Attempts that left no result line: kept by request, so that a row that is edited and edited back wins no new ones.

What came back as a line is in the job's answers. A row of a job that expired, failed, was cancelled or left it out is
not, and its state forgets the request with the next edit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from batchform.ledger.records import UNPARSED
from batchform.plan.sent import attempts_name
from batchform.rows.sql import literal
from batchform.run.answers import Answers
from batchform.run.context import RunContext

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def keep_attempts(ctx: RunContext, con: DuckDBPyConnection, tag: str, rows: Path, answers: Answers | None) -> None:
    """Store which rows of a job have no result. rows: their new states; answers: what came back, None if nothing did.

    Repeatable; nothing is stored of a job whose rows all came back.
    """
    to = rows.with_name("attempts.parquet")
    without = f"SELECT key_hash, request_fp, tag, {literal(UNPARSED)} AS parse_digest, failure AS class FROM "
    without += f"read_parquet({literal(str(rows))}) WHERE status = 'failed' AND request_fp IS NOT NULL"
    if answers is not None:
        without += f" AND key_hash NOT IN (SELECT key_hash FROM read_parquet({literal(str(answers.path))}))"
    con.execute(f"COPY ({without}) TO {literal(str(to))} (FORMAT parquet, COMPRESSION zstd)")
    [(count,)] = con.execute(f"SELECT count(*) FROM read_parquet({literal(str(to))})").fetchall()
    name = attempts_name(tag)
    if ctx.ledger.has_blob(name):  # another runner's, or of a job that was given up on and came back
        if ctx.ledger.blob(name).read_bytes() != to.read_bytes():
            ctx.ledger.put_blob(name, to)
    elif count:
        ctx.ledger.put_blob(name, to)
