"""Measure batchform beside the least that the same work can cost: in turns, in one run. What counts is the ratio.

    python benchmarks/run.py [--sizes 10000 100000] [--only no-op first-plan] [--repeat 5]

What is measured is written down at once, in benchmarks/.cache/journal.jsonl: a run that was stopped goes on where it
was. `--list` says what there is and about how long it takes, `--again` measures once more. The scenarios are in
scenarios.py; benchmarks/report.py makes docs/performance.md from the journal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from measure import Cost, measure, median, median_cost, median_ratio
from project import CACHE, code_version
from scenarios import HUGE, LARGE, MEDIUM, SCENARIOS, SMALL, Pair, Scenario, Side

JOURNAL = CACHE / "journal.jsonl"
QUICK = (SMALL, MEDIUM)
FULL = (SMALL, MEDIUM, LARGE, HUGE)
_START_SECONDS = 4.0  # of both sides of any scenario together, whatever its size
_PREPARED = 2.0  # times what is measured once: about what it takes to make the state that is started from


def main() -> None:
    args = _arguments()
    chosen = list(_chosen(args))
    done = {} if args.again else {(e["scenario"], e["size"]): e for e in journal(any_code=args.any_code)}
    due = [(s, n) for s, n in chosen if (s.name, n) not in done]
    total = sum(_seconds(s, n, args.repeat) for s, n in due)
    note(f"{len(due)} of {len(chosen)} measurements are due: about {_duration(total)}, and {_disk(due)} of disk")
    if args.list:
        for scenario, size in due:
            note(f"{scenario.name:<26} {size:>10,} rows  about {_duration(_seconds(scenario, size, args.repeat))}")
        return
    for scenario, size in due:
        entry = measured(scenario, size, _repeats(size, args.repeat))
        done[scenario.name, size] = entry
        with JOURNAL.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    shown = [done[s.name, n] for s, n in chosen]
    for line in table(shown):
        sys.stdout.write(f"{line}\n")
    if args.strict and any(not ok for e in shown for _, _, ok in verdicts(e)):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(QUICK), metavar="ROWS")
    parser.add_argument("--full", action="store_true", help="all sizes, to ten million rows")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="scenarios whose name begins so")
    parser.add_argument("--repeat", type=int, help="times that each side runs (default 5; 3 with ten million rows)")
    parser.add_argument("--again", action="store_true", help="measure also what this code was measured with before")
    parser.add_argument("--any-code", action="store_true", help="count what other code was measured with as done")
    parser.add_argument("--list", action="store_true", help="say what would be measured, and about how long it takes")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    args = parser.parse_args()
    if args.full:
        args.sizes = list(FULL)
    return args


def _chosen(args: argparse.Namespace) -> Iterator[tuple[Scenario, int]]:
    """By size: the small ones come first, and states of one size are used together."""
    wanted = [s for s in SCENARIOS if s.name.startswith(tuple(args.only))]
    if not wanted:
        sys.exit(f"no scenario is called so; there are: {', '.join(s.name for s in SCENARIOS)}")
    for size in sorted(args.sizes):
        for scenario in wanted:
            if scenario.sizes:
                if size == min(args.sizes):
                    yield from ((scenario, own) for own in scenario.sizes)
            elif size <= scenario.most:
                yield scenario, size


def measured(scenario: Scenario, size: int, repeat: int) -> dict[str, Any]:
    """Both sides, A B A B, as an entry of the journal."""
    work = CACHE / "work" / f"{scenario.name}-{size}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    note(f"{scenario.name}, {size:,} rows: preparing")
    load, started = os.getloadavg()[0], time.time()
    try:
        pair = scenario.make(size, work)
        ours, base = _in_turns(pair, repeat, f"{scenario.name}, {size:,} rows")
        facts = pair.facts()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "scenario": scenario.name,
        "size": size,
        "repeat": repeat,
        "code": code_version(),
        "at": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "load_before": round(load, 2),
        "seconds": round(time.time() - started, 1),
        "ours": _rounded(median_cost(ours)),
        "base": _rounded(median_cost(base)),
        "figures": _rounded({**figures(size, ours, base), **facts}),
        "runs": [[_rounded(asdict(c)) for c in pair] for pair in zip(ours, base, strict=True)],
    }


def figures(size: int, ours: Sequence[Cost], base: Sequence[Cost]) -> dict[str, float]:
    """What targets speak of."""
    wall, cpu = median([c.wall for c in ours]), median([c.cpu for c in ours])
    return {
        "wall_ratio": median_ratio([c.wall for c in ours], [c.wall for c in base]),
        "cpu_ratio": median_ratio([c.cpu for c in ours], [max(c.cpu, 1e-3) for c in base]),
        "rows_per_second": size / wall,
        "rows_per_cpu_second": size / cpu,
        "peak_mb": max(c.peak_mb for c in ours),
        "wall_ms": wall * 1000,
        "cpu_share": (cpu - median([c.cpu for c in base])) / wall,
    }


def verdicts(entry: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(figure, what it is held against, whether it holds) of an entry."""
    [scenario] = [s for s in SCENARIOS if s.name == entry["scenario"]]
    found = []
    for target in scenario.targets:
        if not target.least <= entry["size"] <= target.most:
            continue
        value = entry["figures"][target.figure]
        holds = value >= target.bound if target.at_least else value <= target.bound
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:,g}"
        found.append((f"{target.figure} {value:,.4g}", bound, holds))
    return found


def journal(*, any_code: bool = False) -> list[dict[str, Any]]:
    """What was measured of this code, or of any, the latest of each scenario and size."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    names = {s.name for s in SCENARIOS}
    if JOURNAL.exists():
        for line in JOURNAL.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if (any_code or entry["code"] == code_version()) and entry["scenario"] in names:
                found[entry["scenario"], entry["size"]] = entry
    return list(found.values())


def table(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        f"{'scenario':<26} {'rows':>10} {'wall ÷':>7} {'CPU ÷':>7} {'wall s':>8} {'CPU s':>8} {'rows/s':>10} "
        f"{'peak MB':>8} {'read':>7} {'written':>7} MB"
    )
    for e in entries:
        ours, found = e["ours"], e["figures"]
        yield (
            f"{e['scenario']:<26} {e['size']:>10,} {found['wall_ratio']:>7.2f} {found['cpu_ratio']:>7.2f} "
            f"{ours['wall']:>8.2f} {ours['cpu']:>8.2f} {found['rows_per_second']:>10,.0f} {ours['peak_mb']:>8.0f} "
            f"{ours['read_mb']:>7.0f} {ours['written_mb']:>7.0f}"
        )
        for figure, bound, ok in verdicts(e):
            yield f"{'':<26} {'ok    ' if ok else 'MISSED'} {figure}, {bound}"


def _in_turns(pair: Pair, repeat: int, what: str) -> tuple[list[Cost], list[Cost]]:
    ours: list[Cost] = []
    base: list[Cost] = []
    for turn in range(repeat):
        note(f"{what}: turn {turn + 1} of {repeat}")
        base.append(_run(pair.base))
        ours.append(_run(pair.ours))
    return ours, base


def _run(side: Side) -> Cost:
    side.before()
    with side.around():
        return measure(side.command)


def _repeats(size: int, asked: int | None) -> int:
    return asked or (3 if size >= HUGE else 5)


def _seconds(scenario: Scenario, size: int, asked: int | None) -> float:
    once = scenario.million * size / LARGE + _START_SECONDS
    return once * (_repeats(size, asked) + _PREPARED)


def _disk(due: Sequence[tuple[Scenario, int]]) -> str:
    """Rows in all forms, and states, of each size; and the largest thing that is written while measuring."""
    need = sum(6.0 * size / LARGE for size in {n for _, n in due}) + 1.5 * max((n for _, n in due), default=0) / LARGE
    return f"about {max(need, 1):.0f} GB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5_400 else f"{max(seconds, 60) / 60:.0f} minutes"


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.5g}") for name, value in figures.items()}


def note(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
