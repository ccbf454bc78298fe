"""Readings → answers: one per key, with the request that was answered. All joins are by key, none by position."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from batchform.ledger.records import ANSWER_COLUMNS, ANSWER_DETAILS, UNPARSED
from batchform.plan.price import Rates, usage_cost_sql
from batchform.rows.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.run.parse import Parsed


_ROW_GROUP: Final = 8192
"""Rows of a row group. Answers are wide: DuckDB's default of 122,880 would make every reader hold 128 MB at once."""


UNREAD: Final = "unread"
OUTCOME: Final = (
    f"CASE WHEN failure_parse = {literal(UNPARSED)} THEN {literal(UNREAD)} ELSE coalesce(failure, 'answered') END"
)
"""SQL: what became of a row: "answered", "unread" if nobody could judge its answer, or the class of its failure."""


class Answers(Struct, frozen=True):
    """An answers Parquet and what was odd about the lines it was made from.

    run_again: a Parquet of readings that are no answers of this job, but were charged all the same.
    """

    path: Path
    parse_digest: str
    anomalies: Mapping[str, int]
    run_again: Path | None = None

    def usage(self, con: DuckDBPyConnection, rates: Rates | None) -> tuple[int, int, float]:
        """Prompt tokens, output tokens with thoughts, US dollars: of all answers, failed ones too, since they bill."""
        counts = "prompt_tokens, output_tokens, thought_tokens, cached_tokens"
        charged = f"SELECT {counts} FROM {_parquet(self.path)}"
        if self.run_again is not None:
            charged += f" UNION ALL SELECT {counts} FROM {_parquet(self.run_again)}"
        found = con.execute(
            "SELECT coalesce(sum(prompt_tokens), 0), "
            "coalesce(sum(coalesce(output_tokens, 0) + coalesce(thought_tokens, 0)), 0), "
            f"coalesce(sum({usage_cost_sql(rates, 'a')}), 0) FROM ({charged}) a"
        ).fetchone()
        return (int(found[0]), int(found[1]), float(found[2])) if found else (0, 0, 0.0)


def write_answers(
    con: DuckDBPyConnection,
    readings: Path,
    to: Path,
    *,
    tag: str,
    parse_digest: str,
    requests: str,
    known: str,
    moved: str,
    parsed: Parsed,
) -> Answers:
    """Write the answers of a job: of several lines for a key the first that answered, else the first.

    requests: FROM-able (key_hash, request_fp) of what the job carried; known: FROM-able key_hash of the spec's rows,
    at least of those that are read here; moved: FROM-able key_hash of those that were sent again in another job.
    """
    lines = _parquet(readings)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE bf_picked AS SELECT key_hash, "
        "coalesce(min(line) FILTER (class = 'answered'), min(line)) AS line, count(*) AS lines, "
        "min(said) <> max(said) AS conflicting "
        "FROM (SELECT key_hash, line, class, hash(class, coalesce(text, ''), coalesce(finish_reason, '')) AS said "
        f"FROM {lines}) GROUP BY key_hash"
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE bf_requests AS SELECT key_hash, request_fp FROM {requests}")
    own = {
        "tag": literal(tag),
        "request_fp": "r.request_fp",
        "parse_digest": literal(parse_digest),
    }
    columns = ", ".join(
        f"CAST({own.get(name, f'a.{name}')} AS {kind}) AS {name}"
        for name, kind in (ANSWER_COLUMNS | ANSWER_DETAILS).items()
    )
    con.execute(
        f"COPY (SELECT {columns} FROM {lines} a JOIN bf_picked p ON a.line = p.line "
        "LEFT JOIN bf_requests r ON a.key_hash = r.key_hash) "
        f"TO {literal(str(to))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP})"
    )
    anomalies = _anomalies(con, known, moved, parsed)
    con.execute("DROP TABLE bf_picked; DROP TABLE bf_requests")
    return Answers(to, parse_digest, anomalies)


def _anomalies(con: DuckDBPyConnection, known: str, moved: str, parsed: Parsed) -> dict[str, int]:
    repeated, conflicting = con.execute(
        "SELECT coalesce(sum(lines - 1), 0), count(*) FILTER (conflicting) FROM bf_picked"
    ).fetchall()[0]
    strangers, again = con.execute(
        "SELECT count(*) FILTER (r.key_hash IS NULL AND k.key_hash IS NULL), count(*) FILTER (m.key_hash IS NOT NULL) "
        "FROM bf_picked p LEFT JOIN bf_requests r ON p.key_hash = r.key_hash "
        f"LEFT JOIN (SELECT key_hash FROM {known}) k ON p.key_hash = k.key_hash "
        f"LEFT JOIN (SELECT key_hash FROM {moved}) m ON p.key_hash = m.key_hash"
    ).fetchall()[0]
    return {
        "duplicate": int(repeated),
        "conflicting": int(conflicting),
        "unknown_key": int(strangers) + parsed.strays,
        "moved": int(again),
        "unreadable": parsed.unreadable,
    }


def unjudged(answers: str) -> str:
    """FROM-able: answers of a spec that is not in the project, none of which may take the place of one that was judged.

    They wait like answers that did not fit: a plan with the spec reads them from the archive, for nothing.
    """
    message = "The spec was not in the project when this answer came; it is archived, and `batchform apply` reads it."
    return (
        "(SELECT * REPLACE (CASE WHEN class = 'answered' THEN 'invalid_output' ELSE class END AS class, "
        f"CASE WHEN class = 'answered' THEN {literal(message)} ELSE message END AS message) FROM {answers})"
    )


def write_no_answers(con: DuckDBPyConnection, to: Path) -> None:
    """An answers Parquet without rows."""
    columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in (ANSWER_COLUMNS | ANSWER_DETAILS).items())
    con.execute(f"COPY (SELECT {columns} LIMIT 0) TO {literal(str(to))} (FORMAT parquet)")


def _parquet(path: Path) -> str:
    return f"read_parquet({literal(str(path))})"
