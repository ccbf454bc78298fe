"""Make docs/performance.md and its chart from benchmarks/results.json.

    python benchmarks/report.py [--take]

`--take` first puts what run.py wrote into its journal into results.json, with a description of this machine: the latest
measurement of each scenario and size. Between the marks of docs/performance.md everything is replaced; the text around
them is written by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from project import ROOT
from run import journal, verdicts
from scenarios import SCENARIOS

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "performance.svg"
LIBRARIES = ("batchform", "duckdb", "pyarrow", "jinja2", "msgspec")
CHARTED = ("no-op-parquet", "no-op-csv", "first-plan-parquet", "template-edit", "apply", "collect")
_WORDS = {
    "wall_ratio": "wall ÷ baseline",
    "cpu_ratio": "CPU ÷ baseline",
    "peak_mb": "peak MB",
    "wall_ms": "ms",
    "rows_per_cpu_second": "rows per CPU second",
    "ledger_bytes_per_row": "bytes of ledger per row",
    "new_jobs": "new jobs",
    "cpu_share": "share of a core",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", action="store_true", help="first take over what was measured on this machine")
    if parser.parse_args().take:
        RESULTS.write_text(json.dumps(taken(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    draw(found["results"], CHART)
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} and {CHART.relative_to(ROOT)}, of {len(found['results'])} results\n")


def taken() -> dict[str, Any]:
    order = {s.name: n for n, s in enumerate(SCENARIOS)}
    entries = sorted(journal(any_code=True), key=lambda e: (order[e["scenario"]], e["size"]))
    if not entries:
        sys.exit("nothing was measured yet: run `make bench` first")
    return {"machine": machine(), "results": entries}


def machine() -> dict[str, Any]:
    """What a reader needs to compare, and nothing that names anybody's computer."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def page(text: str, found: dict[str, Any]) -> str:
    """The page with its marked parts made anew."""
    parts = {"machine": _machine, "scenarios": _scenarios, "growth": _growth, "targets": _targets}
    for name, lines in parts.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(text):
            sys.exit(f"docs/performance.md has no part `{name}`")
        made = "\n".join(lines(found))
        text = marked.sub(lambda m, made=made: f"{m[1]}{made}\n{m[2]}", text)  # type: ignore[misc]
    return text


def _machine(found: dict[str, Any]) -> Iterator[str]:
    m, entries = found["machine"], found["results"]
    loads = sorted(e["load_before"] for e in entries)
    days = sorted({e["at"] for e in entries})
    libraries = ", ".join(f"{name} {m[name]}" for name in LIBRARIES)
    computer = f"{m['cpus']} cores ({m['processor']}), {m['memory_gb']} GB, {m['system']}"
    yield f"{computer}, Python {m['python']}, {libraries};"
    yield f"measured {days[0]}{f' to {days[-1]}' if len(days) > 1 else ''}, of code {', '.join(_codes(entries))}."
    yield f"The load of the machine before each measurement was {loads[0]:g} to {loads[-1]:g},"
    yield f"{loads[len(loads) // 2]:g} in the middle: above {m['cpus']}, wall clocks say little, CPU ratios more."


def _codes(entries: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({e["code"] for e in entries})


def _scenarios(found: dict[str, Any]) -> Iterator[str]:
    yield "| scenario | rows | wall ÷ | CPU ÷ | wall s | CPU s | rows/s | peak MB | MB read | MB written | runs |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for scenario in SCENARIOS:
        entries = [e for e in found["results"] if e["scenario"] == scenario.name]
        for number, e in enumerate(entries):
            f, ours = e["figures"], e["ours"]
            title = f"**{scenario.title}**<br>beside: {scenario.baseline}" if not number else ""
            rows = "–" if scenario.sizes and scenario.name != "in-flight" else f"{e['size']:,}"
            speed = "–" if scenario.sizes else f"{_figure(f['rows_per_second'])}"
            yield (
                f"| {title} | {rows} | {f['wall_ratio']:.2f} | {f['cpu_ratio']:.2f} | {ours['wall']:.3g} | "
                f"{ours['cpu']:.3g} | {speed} | {ours['peak_mb']:.0f} | {ours['read_mb']:,.0f} | "
                f"{ours['written_mb']:,.0f} | {e['repeat']} |"
            )


def _targets(found: dict[str, Any]) -> Iterator[str]:
    yield "| scenario | rows | figure | target | reached |"
    yield "|---|--:|--:|--:|---|"
    for e in found["results"]:
        [title] = [s.title for s in SCENARIOS if s.name == e["scenario"]]
        for figure, bound, holds in verdicts(e):
            name, _, value = figure.partition(" ")
            yield f"| {title} | {e['size']:,} | {_WORDS[name]}: {value} | {bound} | {'yes' if holds else '**no**'} |"


def _growth(found: dict[str, Any]) -> Iterator[str]:
    yield "| scenario | from | to | time grows with rows to the power | peak memory × |"
    yield "|---|--:|--:|--:|--:|"
    for scenario in SCENARIOS:
        entries = [e for e in found["results"] if e["scenario"] == scenario.name and e["size"] >= 100_000]
        if len(entries) < 2:
            continue
        first, last = entries[0], entries[-1]
        power = math.log(last["ours"]["wall"] / first["ours"]["wall"]) / math.log(last["size"] / first["size"])
        memory = last["ours"]["peak_mb"] / first["ours"]["peak_mb"]
        yield f"| {scenario.title} | {first['size']:,} | {last['size']:,} | {power:.2f} | {memory:.2f} |"


def _figure(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}"


def draw(results: Sequence[dict[str, Any]], to: Path) -> None:
    """Seconds and peak memory over rows, both axes logarithmic, as SVG whose bytes depend on the results alone."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "batchform", "font.size": 10, "axes.spines.top": False})
    mpl.rcParams.update({"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25})
    from matplotlib import pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    titles = {s.name: s.title for s in SCENARIOS}
    for name in CHARTED:
        entries = [e for e in results if e["scenario"] == name]
        if not entries:
            continue
        sizes = [e["size"] for e in entries]
        [line] = time.plot(sizes, [e["ours"]["wall"] for e in entries], marker="o", label=titles[name])
        time.plot(sizes, [e["base"]["wall"] for e in entries], linestyle=":", color=line.get_color(), alpha=0.6)
        memory.plot(sizes, [e["ours"]["peak_mb"] for e in entries], marker="o", color=line.get_color())
    time.set(xscale="log", yscale="log", xlabel="rows", ylabel="seconds (dotted: the baseline)")
    memory.set(xscale="log", xlabel="rows", ylabel="peak memory of the process tree, MB")
    memory.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(to, format="svg", metadata={"Date": None, "Creator": "benchmarks/report.py"})
    plt.close(figure)


if __name__ == "__main__":
    main()
