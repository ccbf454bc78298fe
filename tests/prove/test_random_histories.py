"""Random histories of a project, in short: whatever happens in whatever order, the promises hold."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest
from crash_effects import read_trace
from history_faults import Accident
from history_machine import Histories
from history_process import KILLED
from history_truth import over_budget, paid_twice
from history_world import World
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from batchform.emulator.faults import catalogue


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCHFORM_DEBUG", "1")


@pytest.mark.timeout(600)  # on a machine that has much else to do
@pytest.mark.parametrize(("cloud", "histories"), [("gemini", 4), ("vertex", 2), ("tables", 2)])
def test_random_histories(cloud: str, histories: int) -> None:
    """The long form, and the shrinking of what it finds: history_run.py."""
    machine = type("Some", (Histories,), {"cloud": cloud, "totals": Counter()})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=6,
            derandomize=True,
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    assert machine.totals["commands"] > 5 * histories and machine.totals["charges checked"] > 5 * histories


def test_the_laws_notice_what_is_paid_twice() -> None:
    """A settle window shorter than the list's lag is the one thing that lets it happen."""
    with closing(World(settle="1m")) as world:
        world.accidents.lag = 600.0
        lost = next(s for s in catalogue("batches.create") if s.do == {"type": "drop", "when": "after"})
        world.accidents.schedule([Accident(lost.name, lost.fault())])
        assert world.run("apply", "--yes").code == 8
        world.clock.advance(120)
        assert world.run("apply", "--yes").code == 0
        world.clock.advance(3600)
        world.server.bill_summary()
        assert len(paid_twice(world.truth.attempts(), [], world.truth.archived())) == 3
        assert over_budget(world.truth.attempts(), day=0.00004, total=None)


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
