"""Random histories of a project, in short: whatever happens in whatever order, the promises hold."""

from __future__ import annotations

from contextlib import closing

import pytest
from crash_effects import read_trace
from history_machine import Histories
from history_process import KILLED
from history_world import World
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCHFORM_DEBUG", "1")


def test_random_histories() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Histories,
        settings=settings(
            max_examples=5,
            stateful_step_count=8,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    assert Histories.totals["commands"] > 30 and Histories.totals["charges checked"] > 30


def test_a_commit_killed_before_its_swap_does_not_stop_the_next_apply() -> None:
    """It is taken up before that apply plans, not only when it commits and finds its plan overtaken."""
    with closing(World()) as world:
        _apply_twice(world, kill_at=10**6)
        trace = read_trace(world.home / "trace")
        create = next(p.place for p in trace if p.effect.endswith(":batchGenerateContent"))
        swap = max(p.place for p in trace if p.effect.startswith("replace ") and not p.after and p.place < create)
    with closing(World()) as world:
        assert _apply_twice(world, kill_at=swap) == KILLED
        assert world.run("apply", "--yes").code == 8  # the intent is there; whether a job came of it is not known
        world.clock.advance(3600)
        assert world.run("apply", "--yes").code == 0 and len(world.truth.jobs()) == 2


def _apply_twice(world: World, *, kill_at: int) -> int:
    """Apply, then another prompt, killed; the exit code."""
    world.run("apply", "--yes")
    world.table.prompt = "B"
    world.write()
    return world.kill(kill_at, "apply", "--yes", "--detach").code
