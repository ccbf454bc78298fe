"""A few places of the crash matrix. All of them: `make prove`, which takes minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from crash_effects import Point
from crash_matrix import distinct
from crash_scenarios import SCENARIOS


@pytest.mark.timeout(600)  # it takes a dozen seconds of a machine that has nothing else to do
def test_a_killed_apply_comes_to_the_same_end() -> None:
    """In a process of its own, since the matrix is a fork server and must have no threads."""
    program = Path(__file__).with_name("crash_matrix.py")
    options = ["--only", "first apply, input as a file", "--every", "32", "--lanes", "1"]
    done = subprocess.run([sys.executable, str(program), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["scenarios"] == 1 and counts["failures"] == 0
    assert counts["points"] >= 600 and counts["states"] >= 80, "effects are no longer seen"
    assert counts["killed"] >= 3 and counts["twice"] >= 1


def test_the_matrix_has_all_kinds_of_commands() -> None:
    names = [s.name for s in SCENARIOS]
    assert len(set(names)) == len(names) >= 25
    assert {s.command[0] for s in SCENARIOS} == {"plan", "apply", "sync", "rerun", "ledger"}


def test_one_point_for_each_state() -> None:
    points = [Point(n, kind, "effect", state) for n, (kind, state) in enumerate(
        [("file", "a"), ("file", "a"), ("network", "b"), ("file", "b"), ("database", "b"), ("file", "a")]
    )]  # fmt: skip
    assert [p.place for p in distinct(points)] == [0, 2, 4, 5]
