"""Rows to measure with: support tickets of five text columns, about 500 bytes each, as Parquet and CSV.

    python benchmarks/make_rows.py --rows 1000000 --out benchmarks/.cache/rows-1000000

The same number of rows gives the same files: words are drawn from a seeded generator. Text has quotes,
commas, newlines and letters outside ASCII, and some cells are empty: quoting and escaping are paid for as in
real tables.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("ticket_id", "customer", "subject", "body", "notes")
_BATCH = 100_000
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

    if (out / "rows.csv").exists() and (out / "rows.parquet").exists():
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
    parts[1].rename(out / "rows.parquet")


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
