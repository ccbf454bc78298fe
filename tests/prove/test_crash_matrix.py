"""A few places of the crash matrix. All of them: `make prove`, which takes minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from crash_cloud import ALL_IN_A_BUCKET, JOINED, STAYING, STORAGE, TABLES
from crash_effects import Point
from crash_matrix import distinct
from crash_scenarios import SCENARIOS


def run(*scenarios: str, every: int) -> dict[str, int]:
    """The counts of scenarios, killed at each n-th state. In a process of its own, since the matrix is a fork server
    and must have no threads."""
    program = Path(__file__).with_name("crash_matrix.py")
    options = [f"--only={name}" for name in scenarios] + [f"--every={every}", "--lanes=1"]
    done = subprocess.run([sys.executable, str(program), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert counts["scenarios"] == len(scenarios) and counts["failures"] == 0
    return counts


@pytest.mark.timeout(600)  # it takes a dozen seconds of a machine that has nothing else to do
def test_a_killed_apply_comes_to_the_same_end() -> None:
    counts = run("first apply, input as a file", every=22)
    assert counts["points"] >= 600 and counts["states"] >= 80, "effects are no longer seen"
    assert counts["killed"] >= 3 and counts["twice"] >= 1


@pytest.mark.timeout(600)
def test_so_does_one_on_vertex() -> None:
    """With inputs in BigQuery; and with inputs, results and the ledger in Cloud Storage, of a job that goes on."""
    cut = "going on with a job that was cut short"
    counts = run("Vertex by tables: apply --detach", f"{ALL_IN_A_BUCKET.name}: {cut}", every=60)
    assert counts["states"] >= 100 and counts["killed"] == 3, "effects are no longer seen"


@pytest.mark.timeout(600)
def test_so_do_the_waves_of_a_chain() -> None:
    counts = run("two waves: apply", every=90)
    assert counts["states"] >= 150 and counts["killed"] == 3, "effects are no longer seen"


@pytest.mark.timeout(600)
def test_so_do_a_trial_and_commits_of_several_jobs() -> None:
    counts = run("try, killed, and again", "joined commits: sync --wait after it", every=30)
    assert counts["states"] >= 50 and counts["killed"] == 2, "effects are no longer seen"


def test_the_matrix_has_all_kinds_of_commands() -> None:
    names = [s.name for s in SCENARIOS]
    assert len(set(names)) == len(names) >= 25
    assert {s.command[0] for s in SCENARIOS} == {"plan", "apply", "sync", "rerun", "ledger", "try"}
    clouds = Counter(s.cloud.name for s in SCENARIOS)
    assert clouds.pop(JOINED.name) == 3 and clouds.pop(STAYING.name) == 6
    assert min(clouds.values()) >= 10 and len(clouds) == 4, clouds
    resumed = [s for s in SCENARIOS if "cut short" in s.name]
    assert Counter(s.cloud.name for s in resumed) == dict.fromkeys(
        (c.name for c in (STORAGE, STAYING, TABLES, ALL_IN_A_BUCKET)), 3
    )


def test_one_point_for_each_state() -> None:
    points = [Point(n, kind, "effect", state) for n, (kind, state) in enumerate(
        [("file", "a"), ("file", "a"), ("network", "b"), ("file", "b"), ("database", "b"), ("file", "a")]
    )]  # fmt: skip
    assert [p.place for p in distinct(points)] == [0, 2, 4, 5]
