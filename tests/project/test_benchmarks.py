"""The benchmarks compare like with like: both sides ask the same of the same rows."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
ROWS = 300


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    run(BENCHMARKS / "make_rows.py", "--rows", str(ROWS), "--out", str(folder))
    return folder


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Output of a Python script, or of `python -c …`."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{BENCHMARKS}"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rows_are_the_same_every_time_and_of_the_stated_size(rows: Path, tmp_path: Path) -> None:
    run(BENCHMARKS / "make_rows.py", "--rows", str(ROWS), "--out", str(tmp_path))
    for name in ("rows.csv", "rows.parquet"):
        assert (tmp_path / name).read_bytes() == (rows / name).read_bytes()
    with (rows / "rows.csv").open(encoding="utf-8", newline="") as f:
        table = list(csv.reader(f))[1:]
    assert len(table) == ROWS
    assert 450 <= sum(len(cell.encode()) for row in table for cell in row) / ROWS <= 600


def test_naive_loop_and_batchform_send_the_same_prompts(rows: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    write = "import sys, pathlib, project; project.write_project(*map(pathlib.Path, sys.argv[1:]))"
    run("-c", write, str(project), str(rows / "rows.parquet"))
    run(BENCHMARKS / "baselines/naive.py", str(project), str(rows / "rows.csv"), str(tmp_path / "naive.jsonl"))
    run("-c", "from batchform.cli import main; main()", "plan", "--out", str(tmp_path / "plan"), cwd=project)
    naive = said((tmp_path / "naive.jsonl").read_text(encoding="utf-8"))
    ours = said((tmp_path / "plan/specs/triage/shard-0000.jsonl").read_text(encoding="utf-8"))
    assert len(naive) == ROWS
    assert naive == ours


def said(lines: str) -> list[tuple[str, str]]:
    """What each line of a batch asks: system text and prompt, in a stable order."""
    requests = [json.loads(line)["request"] for line in lines.splitlines()]
    return sorted(
        (r["systemInstruction"]["parts"][0]["text"].strip(), r["contents"][0]["parts"][0]["text"].strip())
        for r in requests
    )


def test_bare_query_finds_every_row_unchanged(rows: Path) -> None:
    recorded = rows / "recorded.parquet"
    run(BENCHMARKS / "baselines/bare_query.py", str(rows / "rows.parquet"), str(recorded), "--record")
    assert run(BENCHMARKS / "baselines/bare_query.py", str(rows / "rows.parquet"), str(recorded)) == (
        f"new, gone, changed, same: (0, 0, 0, {ROWS})\n"
    )


def test_performance_page_is_made_from_the_committed_results() -> None:
    made = run(
        "-c", "import json, report; print(report.page(report.PAGE.read_text(), json.load(report.RESULTS.open())))"
    )
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert made == page + "\n"
    assert (ROOT / "docs/performance.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_every_scenario_says_what_it_is_and_what_it_would_take() -> None:
    assert run("-c", "from scenarios import SCENARIOS as s; print(len({x.name for x in s}) == len(s))") == "True\n"
    listed = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "--full", "--list", "--again"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    assert "hours" in listed and "GB of disk" in listed
    for name in ("no-op-sqlite", "deliver-duckdb", "recovery", "many-specs", "in-flight", "help"):
        assert name in listed
