"""Peak memory of `batchform apply`, from plan to delivery, at two sizes of a table: it must not grow with the table.

    python benchmarks/memory.py [--rows 100000 1000000]

The emulator runs in a process of its own, so that what it keeps is not counted. A million rows take minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys

import make_rows
from measure import BATCHFORM, measure
from project import CACHE, write_project
from states import emulator

FLAT = 1.3  # the larger table may need this many times the memory of the smaller one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=[100_000, 1_000_000], metavar="N")
    args = parser.parse_args()
    peaks = [peak_of_apply(rows) for rows in sorted(args.rows)]
    ratio = peaks[1] / peaks[0]
    verdict = "ok" if ratio <= FLAT else "MISSED"
    sys.stdout.write(f"peak memory, larger ÷ smaller table: {ratio:.2f} x  at most {FLAT} x  {verdict}\n")


def peak_of_apply(rows: int) -> float:
    """Peak resident MB of one apply over `rows` rows of Parquet."""
    table, folder = CACHE / f"rows-{rows}", CACHE / f"memory-{rows}"
    make_rows.make(rows, table)
    shutil.rmtree(folder, ignore_errors=True)
    with emulator(folder / "emulator") as url:
        write_project(folder / "project", table / "rows.parquet", emulator_url=url)
        cost = measure([BATCHFORM, "apply", "--yes"], cwd=folder / "project")
    shutil.rmtree(folder)
    sys.stdout.write(f"apply of {rows:,} rows: peak {cost.peak_mb:.0f} MB, {cost.wall:.0f} s, {cost.cpu:.0f} CPU s\n")
    sys.stdout.flush()
    return cost.peak_mb


if __name__ == "__main__":
    main()
