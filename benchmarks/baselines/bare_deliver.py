"""The floor of a delivery: what was delivered as Parquet, written in another form by the plainest means.

python benchmarks/baselines/bare_deliver.py DELIVERED.parquet OUT.(parquet|csv|jsonl|sqlite|duckdb)

Files and DuckDB by one COPY or CREATE TABLE of DuckDB, SQLite by executemany in one transaction.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

_FORMATS = {"parquet": "parquet", "csv": "csv, HEADER", "jsonl": "json"}


def main() -> None:
    source, to = map(Path, sys.argv[1:])
    to.unlink(missing_ok=True)
    kind = to.suffix[1:]
    if kind == "sqlite":
        _sqlite(source, to)
        return
    with duckdb.connect(to if kind == "duckdb" else ":memory:") as con:
        if kind == "duckdb":
            con.execute(f"CREATE TABLE answers AS SELECT * FROM read_parquet('{source}')")
        else:
            con.execute(f"COPY (SELECT * FROM read_parquet('{source}')) TO '{to}' (FORMAT {_FORMATS[kind]})")


def _sqlite(source: Path, to: Path) -> None:
    with closing(sqlite3.connect(to)) as database, pq.ParquetFile(source) as file:
        names = file.schema_arrow.names
        database.execute(f"CREATE TABLE answers ({', '.join(names)})")
        for batch in file.iter_batches(10_000):
            values = zip(*([_plain(v) for v in column.to_pylist()] for column in batch.columns), strict=True)
            database.executemany(f"INSERT INTO answers VALUES ({', '.join('?' for _ in names)})", values)
        database.commit()


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | float | str | bytes) else str(value)


if __name__ == "__main__":
    main()
