"""Rows to measure with: support tickets of five text columns, about 500 bytes each, as Parquet and CSV.

    python benchmarks/make_rows.py --rows 1000000 --out benchmarks/.cache/rows-1000000

`form` makes the same rows as JSONL or SQLite, or as Parquet with 1% changed and 1% new. The same number of rows
gives the same files: words are drawn from a seeded generator. Text has quotes, commas, newlines and letters outside
ASCII, and some cells are empty: quoting and escaping are paid for as in real tables.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("ticket_id", "customer", "subject", "body", "notes")
_BATCH = 100_000
_ROWS = "rows.parquet"
_WORDS = [
    "account", "address", "after", "again", "agent", "always", "amount", "answer", "app", "because",
    "before", "billing", "broken", "button", "cancel", "card", "change", "charge", "checkout", "code",
    "connection", "contact", "customer", "data", "days", "deliver", "delivery", "device", "différent",
    "double", "download", "email", "error", "every", "export", "fails", "first", "found", "für",
    "günstig", "help", "hours", "import", "invoice", "issue", "item", "later", "letter", "link", "login",
    "message", "minutes", "month", "morning", "naïve", "never", "number", "offer", "online", "order",
    "package", "page", "parcel", "password", "pay", "payment", "phone", "please", "price", "printer",
    "problem", "question", "receipt", "received", "refund", "reset", "return", "right", "screen",
    "search", "second", "send", "server", "service", "shipping", "shop", "size", "slow", "started",
    "still", "stopped", "street", "support", "system", "ticket", "today", "tracking", "twice", "update",
    "upgrade", "user", "version", "waiting", "warehouse", "week", "window", "working", "wrong",
    "yesterday",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True, help="folder for rows.parquet and rows.csv")
    args = parser.parse_args()
    make(args.rows, args.out)


def make(rows: int, out: Path) -> None:
    """Write rows.parquet and rows.csv into `out`, unless both are there. Neither name exists half written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (out / "rows.csv").exists() and (out / _ROWS).exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    parts = out / "rows.csv.part", out / "rows.parquet.part"
    with parts[0].open("w", encoding="utf-8", newline="") as f, pq.ParquetWriter(parts[1], schema) as parquet:
        table = csv.writer(f, lineterminator="\n")
        table.writerow(COLUMNS)
        for batch in _batches(rows):
            table.writerows(batch)
            arrays = [pa.array(values, pa.string()) for values in zip(*batch, strict=True)]
            parquet.write_table(pa.Table.from_arrays(arrays, schema=schema))
    parts[0].rename(out / "rows.csv")
    parts[1].rename(out / _ROWS)


def form(out: Path, kind: str) -> Path:
    """The rows of `make` in another form, made once: "jsonl", "sqlite" (table tickets), or "moved": Parquet in which
    each hundredth row says something else, and as many rows more stand at the end."""
    path = out / (f"moved-{_ROWS}" if kind == "moved" else f"rows.{kind}")
    if kind in ("parquet", "csv") or path.exists():
        return path
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    if kind == "sqlite":
        _sqlite(out / _ROWS, part)
    else:
        _copy(out / _ROWS, part, kind)
    part.rename(path)
    return path


def split(rows: Path, out: Path, rows_each: int) -> list[Path]:
    """The same rows in many small CSV files."""
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    found = []
    with pq.ParquetFile(rows) as file:
        for number, batch in enumerate(file.iter_batches(rows_each)):
            path = out / f"part-{number:05d}.csv"
            with path.open("w", encoding="utf-8", newline="") as f:
                table = csv.writer(f, lineterminator="\n")
                table.writerow(COLUMNS)
                table.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
            found.append(path)
    return found


def _copy(rows: Path, to: Path, kind: str) -> None:
    import duckdb

    source, way = f"SELECT * FROM read_parquet('{rows}')", "json"
    if kind == "moved":
        of_hundred, way = "CAST(right(ticket_id, 2) AS INTEGER)", "parquet"
        changed = f"CASE WHEN {of_hundred} = 7 THEN subject || ' Again.' ELSE subject END"
        new = f"{source} WHERE {of_hundred} = 8"
        source = (
            f"SELECT * REPLACE ({changed} AS subject) FROM ({source}) "
            f"UNION ALL SELECT * REPLACE ('N' || ticket_id AS ticket_id) FROM ({new})"
        )
    with duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(to.parent / "spilled")}) as con:
        con.execute(f"COPY ({source}) TO '{to}' (FORMAT {way})")


def _sqlite(rows: Path, to: Path) -> None:
    import sqlite3
    from contextlib import closing

    import pyarrow.parquet as pq

    with closing(sqlite3.connect(to)) as database, pq.ParquetFile(rows) as file:
        database.execute("PRAGMA synchronous = off")
        database.execute(f"CREATE TABLE tickets ({', '.join(f'{c} TEXT' for c in COLUMNS)})")
        for batch in file.iter_batches(10_000):
            values = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            database.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?, ?)", values)
        database.commit()


def _batches(rows: int) -> Iterator[list[tuple[str, ...]]]:
    chance = random.Random(20261121)
    sentences = [_sentence(chance) for _ in range(5_000)]
    for start in range(0, rows, _BATCH):
        yield [_row(chance, sentences, number) for number in range(start, min(start + _BATCH, rows))]


def _row(chance: random.Random, sentences: list[str], number: int) -> tuple[str, ...]:
    body = " ".join(chance.choices(sentences, k=5))
    return (
        f"T-{number:08d}",
        f"customer {chance.randrange(200_000):06d}",
        chance.choice(sentences),
        f'Hello,\nmy order "{chance.randrange(10**9):09d}": {body}',
        "" if number % 7 == 0 else chance.choice(sentences),
    )


def _sentence(chance: random.Random) -> str:
    words = chance.choices(_WORDS, k=chance.randrange(6, 14))
    return words[0].capitalize() + " " + " ".join(words[1:-1]) + f", {words[-1]}."


if __name__ == "__main__":
    main()
