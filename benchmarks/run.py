"""What batchform costs beside the least that the same work can cost, measured in turns in one run.

    python benchmarks/run.py [--rows 1000000] [--repeat 3] [--any-state]

Quote the ratios: the seconds are those of this machine at this moment. The first run makes the rows and
applies them once on the emulator, which takes minutes; both are kept in benchmarks/.cache, the state by
version of the code.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import make_rows
from measure import BATCHFORM, Cost, environment, measure, median, median_ratio
from project import CACHE, ROOT, code_version, write_project

HERE = Path(__file__).resolve().parent
START_UP_REPEATS = 9
DEMO = ("batchform.yaml", "specs", "templates", "schemas", "data")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. value and target in `unit`; detail: what it was made from."""

    name: str
    value: float
    target: float
    unit: str
    detail: str

    @property
    def ok(self) -> bool:
        return self.value <= self.target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="times that each side runs (default 3)")
    parser.add_argument("--any-state", action="store_true", help="reuse an applied state made by other code")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    args = parser.parse_args()
    rows = CACHE / f"rows-{args.rows}"
    note(f"rows: {args.rows:,} in {rows.relative_to(ROOT)}")
    make_rows.make(args.rows, rows)
    figures = [
        *start_up(),
        *no_op_plan(rows, applied_project(rows, any_state=args.any_state), args.repeat),
        *first_plan(rows, args.repeat),
    ]
    report(figures)
    if args.strict and not all(figure.ok for figure in figures):
        sys.exit(1)


# --- what is measured ---


def start_up() -> list[Figure]:
    """--help, validate and a no-op plan of the demo project, and that none of them loads a Google library."""
    demo = CACHE / f"demo-{code_version()}"
    if not (demo / "results").exists():
        note("start-up: applying the demo once")
        shutil.rmtree(demo, ignore_errors=True)
        demo.mkdir(parents=True)
        for name in DEMO:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, demo / name)
        measure([BATCHFORM, "apply", "--yes"], cwd=demo)
    bare = median([measure([sys.executable, "-c", ""], cwd=demo).wall for _ in range(START_UP_REPEATS)])
    figures = []
    for name, command, target, forgets in (
        ("--help", ["--help"], 150, False),
        ("validate, demo", ["validate"], 600, False),
        ("validate, demo, rows read", ["validate"], math.inf, True),
        ("no-op plan, demo", ["plan"], 600, False),
        ("no-op plan, demo, rows read", ["plan"], math.inf, True),
    ):
        note(f"start-up: {name}")
        measure([BATCHFORM, *command], cwd=demo)
        costs = []
        for _ in range(START_UP_REPEATS):
            if forgets:
                forget(demo)
            costs.append(measure([BATCHFORM, *command], cwd=demo))
        detail = f"{median([c.cpu for c in costs]) * 1000:.0f} ms of CPU; bare Python {bare * 1000:.0f} ms"
        figures.append(Figure(name, median([c.wall for c in costs]) * 1000, target, "ms", detail))
        google = google_modules(command, demo)
        figures.append(Figure(f"{name}: Google modules", len(google), 0, "", ", ".join(google)))
    return figures


def google_modules(command: Sequence[str], cwd: Path) -> list[str]:
    """Names of the Google modules that a command imports."""
    traced = [sys.executable, "-X", "importtime", BATCHFORM, *command]
    done = subprocess.run(traced, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    names = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:"))
    return sorted({name for name in names if name == "google" or name.startswith("google.")})


def no_op_plan(rows: Path, project: Path, repeat: int) -> list[Figure]:
    """A plan that has nothing to do, beside the query that hashes and joins the same columns."""
    recorded = rows / "recorded.parquet"
    query = [sys.executable, str(HERE / "bare_query.py"), str(rows / "rows.parquet"), str(recorded)]
    if not recorded.exists():
        measure([*query, "--record"], cwd=rows)
    forget(project)
    command = [BATCHFORM, "plan"]
    floor, plan = in_turns("no-op plan", repeat, (query, rows), (command, project), between=partial(forget, project))
    ratio = median_ratio([c.wall for c in plan], [c.wall for c in floor])
    measure(command, cwd=project)
    again = median([measure(command, cwd=project).wall for _ in range(repeat)])
    return [
        Figure("no-op plan, remembered", again * 1000, 600, "ms", "no row is read: nothing was touched since the last"),
        Figure("no-op plan ÷ bare query, wall", ratio, 3, "x", sides(plan, floor, "wall")),
        Figure("no-op plan, peak memory", max(c.peak_mb for c in plan), 700, "MB", sides(plan, floor, "peak_mb")),
    ]


def first_plan(rows: Path, repeat: int) -> list[Figure]:
    """A first plan with its shards, from Parquet and from CSV, beside the naive loop over the CSV."""
    folder = CACHE / "first"
    shutil.rmtree(folder, ignore_errors=True)
    figures = []
    for kind in ("parquet", "csv"):
        project, bundle, naive_out = folder / kind, folder / f"{kind}-plan", folder / "naive.jsonl"
        write_project(project, rows / f"rows.{kind}")
        naive = [sys.executable, str(HERE / "naive.py"), str(project), str(rows / "rows.csv"), str(naive_out)]
        plan = [BATCHFORM, "plan", "--out", str(bundle)]
        theirs, ours = in_turns(
            f"first plan of {kind}",
            repeat,
            (naive, project),
            (plan, project),
            between=partial(shutil.rmtree, bundle),
        )
        ratio = median_ratio([c.cpu for c in ours], [c.cpu for c in theirs])
        name = f"first plan of {kind} + shards ÷ naive loop, CPU"
        figures.append(Figure(name, ratio, 1, "x", sides(ours, theirs, "cpu")))
        peak = max(c.peak_mb for c in ours)
        figures.append(Figure(f"first plan of {kind}, peak memory", peak, 700, "MB", sides(ours, theirs, "peak_mb")))
    shutil.rmtree(folder)
    return figures


# --- how ---


def forget(project: Path) -> None:
    """Have the next plan read all rows, also where nothing was touched since the last."""
    shutil.rmtree(project / ".batchform/cache/plans", ignore_errors=True)


def applied_project(rows: Path, *, any_state: bool) -> Path:
    """A project over the Parquet rows whose every row is answered and delivered."""
    name = f"applied-{rows.name}"
    project = CACHE / f"{name}-{code_version()}"
    others = sorted(CACHE.glob(f"{name}-*/results"), key=lambda p: p.stat().st_mtime)
    if any_state and others:
        project = others[-1].parent
    if not (project / "results").exists():
        for stale in CACHE.glob(f"{name}-*"):
            shutil.rmtree(stale)
        note(f"applying all rows once on the emulator, into {project.relative_to(ROOT)}")
        write_project(project, rows / "rows.parquet")
        cost = measure([BATCHFORM, "apply", "--yes"], cwd=project)
        note(f"applied in {cost.wall:.0f} s, {cost.cpu:.0f} CPU s, {cost.peak_mb:.0f} MB, emulator included")
    return project


def in_turns(
    what: str,
    repeat: int,
    first: tuple[Sequence[str], Path],
    second: tuple[Sequence[str], Path],
    between: Callable[[], None] = lambda: None,
) -> tuple[list[Cost], list[Cost]]:
    """Both sides, one after the other, `repeat` times; `between` clears what the second one leaves behind."""
    costs: tuple[list[Cost], list[Cost]] = ([], [])
    for turn in range(repeat):
        note(f"{what}: turn {turn + 1} of {repeat}")
        for side, (command, cwd) in zip(costs, (first, second), strict=True):
            side.append(measure(command, cwd=cwd))
        between()
    return costs


def sides(ours: Sequence[Cost], theirs: Sequence[Cost], what: str) -> str:
    unit = "MB" if what == "peak_mb" else "s"
    figures = [median([getattr(c, what) for c in side]) for side in (ours, theirs)]
    return f"{figures[0]:.4g} {unit} against {figures[1]:.4g} {unit}"


def report(figures: Sequence[Figure]) -> None:
    width = max(len(f.name) for f in figures)
    for f in figures:
        verdict, unit = "ok    " if f.ok else "MISSED", f.unit and f" {f.unit}"
        value, bound = f"{f.value:.4g}{unit}", "no target" if f.target == math.inf else f"at most {f.target:g}{unit}"
        sys.stdout.write(f"{f.name:<{width}}  {value:>9}  {bound:<15} {verdict}  {f.detail}\n")


def note(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


if __name__ == "__main__":
    main()
