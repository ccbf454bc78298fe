"""From a BigQuery table to the shards of a saved plan: time, CPU and peak memory, by both ways of reading.

    python benchmarks/bigquery.py [--rows 100000 1000000] [--read storage rest]

BigQuery is the emulator's, in a process of its own, so that what it needs is not counted. Memory must not grow with the
table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import yaml
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

import make_rows
from measure import BATCHFORM, measure
from memory import FLAT, emulator
from project import CACHE, write_project

TABLE = "bench.rows.tickets"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], metavar="N")
    parser.add_argument("--read", nargs="+", default=["storage", "rest"], choices=["storage", "rest"])
    args = parser.parse_args()
    peaks = {read: [peak_of_plan(rows, read) for rows in sorted(args.rows)] for read in args.read}
    for read, found in peaks.items():
        ratio = found[-1] / found[0]
        verdict = "ok" if ratio <= FLAT else "MISSED"
        sys.stdout.write(f"{read}: peak memory, larger ÷ smaller table: {ratio:.2f} x  at most {FLAT} x  {verdict}\n")


def peak_of_plan(rows: int, read: str) -> float:
    """Peak resident MB of one first plan over `rows` rows of BigQuery, with its shards."""
    table, folder = CACHE / f"rows-{rows}", CACHE / f"bigquery-{rows}"
    make_rows.make(rows, table)
    shutil.rmtree(folder, ignore_errors=True)
    with emulator(folder / "emulator") as url:
        fill(url, table / "rows.parquet")
        project = folder / "project"
        write_project(project, table / "rows.parquet", emulator_url=url)
        for path in (project / "specs").glob("*.yaml"):
            spec = yaml.safe_load(path.read_text())
            spec["source"] = {"type": "bigquery", "table": TABLE, "read": read}
            path.write_text(yaml.safe_dump(spec))
        with urllib.request.urlopen(f"{url}/emulator/bigquery") as answer:
            storage = json.load(answer)["storage_read"]
        os.environ.update(
            BIGQUERY_EMULATOR_HOST=url, BIGQUERY_STORAGE_EMULATOR_HOST=storage, GOOGLE_CLOUD_PROJECT="bench"
        )
        cost = measure([BATCHFORM, "plan", "--out", "saved"], cwd=project)
        size = sum(p.stat().st_size for p in (project / "saved").rglob("*.jsonl"))
    shutil.rmtree(folder)
    sys.stdout.write(
        f"{read}: plan of {rows:,} rows with {size / 1e6:.0f} MB of shards: "
        f"peak {cost.peak_mb:.0f} MB, {cost.wall:.0f} s, {cost.cpu:.0f} CPU s\n"
    )
    sys.stdout.flush()
    return cost.peak_mb


def fill(url: str, parquet: Path) -> None:
    """Load the rows into BigQuery."""
    options = {"api_endpoint": url}
    with closing(
        bigquery.Client(project="bench", credentials=AnonymousCredentials(), client_options=options)
    ) as client:
        client.create_dataset("rows")
        config = bigquery.LoadJobConfig(source_format="PARQUET")
        with parquet.open("rb") as file:
            client.load_table_from_file(file, TABLE, job_config=config).result()


if __name__ == "__main__":
    main()
