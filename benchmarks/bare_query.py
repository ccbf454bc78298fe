"""The floor of a no-op plan: DuckDB alone hashes the same columns and joins them with recorded fingerprints.

python benchmarks/bare_query.py rows.parquet recorded.parquet [--record]

`--record` writes recorded.parquet (key_hash, row_fp) in place of joining with it. The key hash and the
length-prefixed encoding are those of batchform.rows.keyed: NULL and '' differ, and so do ('ab', 'c') and
('a', 'bc').
"""

from __future__ import annotations

import sys

import duckdb

from make_rows import COLUMNS

_KEY_HASH = "CAST(left(sha256(ticket_id), 32) AS UUID)"
_ENCODED = " || ".join(f"coalesce(strlen({c}) || ':' || {c}, '~')" for c in COLUMNS)
_ROW_FP = f"CAST(md5({_ENCODED}) AS UUID)"


def main() -> None:
    rows, recorded = sys.argv[1:3]
    now = f"SELECT {_KEY_HASH} AS key_hash, {_ROW_FP} AS row_fp FROM read_parquet('{rows}')"
    with duckdb.connect() as con:
        if sys.argv[3:] == ["--record"]:
            con.execute(f"COPY ({now}) TO '{recorded}' (FORMAT parquet)")
            return
        counts = con.execute(
            f"SELECT count(*) FILTER (l.key_hash IS NULL), count(*) FILTER (n.key_hash IS NULL), "
            f"count(*) FILTER (n.row_fp <> l.row_fp), count(*) FILTER (n.row_fp = l.row_fp) "
            f"FROM ({now}) n FULL JOIN read_parquet('{recorded}') l USING (key_hash)"
        ).fetchone()
    sys.stdout.write(f"new, gone, changed, same: {counts}\n")


if __name__ == "__main__":
    main()
