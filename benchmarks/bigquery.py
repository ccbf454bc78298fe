"""From a BigQuery table to the shards of a saved plan: time, CPU and peak memory, by both ways of reading.

    python benchmarks/bigquery.py [--rows 100000 1000000] [--read storage rest]

Beside them, the same plan of the same rows in a local Parquet file. BigQuery is the emulator's, in a process of its
own: what it needs is shown apart. Memory of batchform must not grow with the table.
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

import psutil
import yaml
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

import make_rows
from measure import BATCHFORM, Cost, measure
from memory import FLAT
from project import CACHE, write_project
from states import emulator

TABLE = "bench.rows.tickets"
BASELINE = "parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], metavar="N")
    parser.add_argument("--read", nargs="+", default=["storage", "rest"], choices=["storage", "rest"])
    args = parser.parse_args()
    sizes = sorted(args.rows)
    found = {rows: costs(rows, [BASELINE, *args.read]) for rows in sizes}
    missed = False
    for read in args.read:
        small, large, local = found[sizes[0]][read], found[sizes[-1]][read], found[sizes[-1]][BASELINE]
        ratio = large.peak_mb / small.peak_mb
        missed |= ratio > FLAT
        verdict = "MISSED" if ratio > FLAT else "ok"
        say(
            f"{read}: peak memory, {sizes[-1]:,} ÷ {sizes[0]:,} rows: {ratio:.2f} x  at most {FLAT} x  {verdict}; "
            f"beside Parquet, CPU {large.cpu / local.cpu:.2f} x, peak memory {large.peak_mb / local.peak_mb:.2f} x"
        )
    sys.exit(1 if missed else 0)


def costs(rows: int, ways: list[str]) -> dict[str, Cost]:
    """What a first plan over so many rows costs, with its shards, by each way of reading them."""
    table, folder = CACHE / f"rows-{rows}", CACHE / f"bigquery-{rows}"
    make_rows.make(rows, table)
    shutil.rmtree(folder, ignore_errors=True)
    found = {}
    with emulator(folder / "emulator") as url:
        fill(url, table / "rows.parquet")
        with urllib.request.urlopen(f"{url}/emulator/bigquery") as answer:
            storage = json.load(answer)["storage_read"]
        os.environ.update(
            BIGQUERY_EMULATOR_HOST=url, BIGQUERY_STORAGE_EMULATOR_HOST=storage, GOOGLE_CLOUD_PROJECT="bench"
        )
        for way in ways:
            found[way] = cost = plan(folder / way, way, table / "rows.parquet", url)
            say(
                f"{way}: plan of {rows:,} rows with their shards: peak {cost.peak_mb:.0f} MB, {cost.wall:.0f} s, "
                f"{rows / cost.wall:,.0f} rows/s, {cost.cpu:.0f} CPU s"
            )
        say(f"the emulator, with {rows:,} rows: peak {emulator_peak_mb():.0f} MB")
    shutil.rmtree(folder)
    return found


def plan(project: Path, way: str, rows: Path, url: str) -> Cost:
    write_project(project, rows, emulator_url=url)
    if way != BASELINE:
        for path in (project / "specs").glob("*.yaml"):
            spec = yaml.safe_load(path.read_text())
            spec["source"] = {"type": "bigquery", "table": TABLE, "read": way}
            path.write_text(yaml.safe_dump(spec))
    cost = measure([BATCHFORM, "plan", "--out", "saved"], cwd=project)
    shutil.rmtree(project)
    return cost


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


def emulator_peak_mb() -> float:
    """Peak resident MB of the emulator's process, as the kernel counts it; what it has now where it does not."""
    [server] = psutil.Process().children()
    try:
        status = Path(f"/proc/{server.pid}/status").read_text()
    except OSError:
        return float(server.memory_info().rss) / 1e6
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
