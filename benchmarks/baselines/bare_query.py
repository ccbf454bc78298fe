"""The floor of a plan: DuckDB alone reads and hashes the same columns and joins them with recorded fingerprints.

python benchmarks/baselines/bare_query.py ROWS recorded.parquet [--record]

ROWS: a .parquet, .csv, .jsonl or .sqlite file; the last is read by Python's own sqlite3, as no extension is loaded.
`--record` writes recorded.parquet (key_hash, row_fp) in place of joining with it. The key hash and the
length-prefixed encoding are those of batchform.rows.keyed: NULL and '' differ, and so do ('ab', 'c') and
('a', 'bc').
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing

import duckdb
import pyarrow as pa

COLUMNS = ("ticket_id", "customer", "subject", "body", "notes")
_KEY_HASH = "CAST(left(sha256(ticket_id), 32) AS UUID)"
_ENCODED = " || ".join(f"coalesce(strlen({c}) || ':' || {c}, '~')" for c in COLUMNS)
_ROW_FP = f"CAST(md5({_ENCODED}) AS UUID)"
_TYPES = "{" + ", ".join(f"'{c}': 'VARCHAR'" for c in COLUMNS) + "}"
_READERS = {
    "parquet": "read_parquet('@')",
    "csv": "read_csv('@', header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"')",
    "jsonl": f"read_json('@', format = 'newline_delimited', columns = {_TYPES})",
}
_BATCH = 2_048


def main() -> None:
    rows, recorded = sys.argv[1:3]
    kind = rows.rpartition(".")[2]
    with duckdb.connect() as con:
        if kind == "sqlite":
            con.execute("CREATE TEMP TABLE bf_now (key_hash UUID, row_fp UUID)")
            with closing(sqlite3.connect(rows, check_same_thread=False)) as database:
                reader = pa.RecordBatchReader.from_batches(_schema(), _batches(database))
                con.register("bf_sqlite", reader)
                con.execute(f"INSERT INTO bf_now SELECT {_KEY_HASH}, {_ROW_FP} FROM bf_sqlite")
            now = "SELECT * FROM bf_now"
        else:
            now = f"SELECT {_KEY_HASH} AS key_hash, {_ROW_FP} AS row_fp FROM {_READERS[kind].replace('@', rows)}"
        if sys.argv[3:] == ["--record"]:
            con.execute(f"COPY ({now}) TO '{recorded}' (FORMAT parquet)")
            return
        counts = con.execute(
            f"SELECT count(*) FILTER (l.key_hash IS NULL), count(*) FILTER (n.key_hash IS NULL), "
            f"count(*) FILTER (n.row_fp <> l.row_fp), count(*) FILTER (n.row_fp = l.row_fp) "
            f"FROM ({now}) n FULL JOIN read_parquet('{recorded}') l USING (key_hash)"
        ).fetchone()
    sys.stdout.write(f"new, gone, changed, same: {counts}\n")


def _schema() -> pa.Schema:
    return pa.schema([(c, pa.string()) for c in COLUMNS])


def _batches(database: sqlite3.Connection) -> Iterator[pa.RecordBatch]:
    cursor = database.execute(f"SELECT {', '.join(COLUMNS)} FROM tickets")
    while rows := cursor.fetchmany(_BATCH):
        arrays = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=_schema())


if __name__ == "__main__":
    main()
