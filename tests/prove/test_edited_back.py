"""A row that is edited and edited back has not won new attempts, also where an attempt left no result line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fault_world import World
from test_pains import actions, apply, change_spec, fault, titles

MINE = ("mine 1", "mine 2")
OTHER = ("other 1", "other 2")
ENDS: dict[str, dict[str, Any]] = {
    "job_failed": fault("batches.create", "ends", state="FAILED", times="all"),
    "missing": fault("files.download", "rows_missing", rows=[1, 2], times="all"),
}


@pytest.mark.parametrize("end", ENDS)
def test_attempts_that_left_nothing_are_counted(tmp_path: Path, end: str) -> None:
    with World(tmp_path) as world:
        world.reset(shards=1)
        change_spec(world, retry={"max_attempts": 2, "on": list(ENDS)})
        world.server.set_faults([ENDS[end]])
        for attempt, rows in enumerate((MINE, OTHER, MINE, OTHER), start=1):
            titles(world, *rows)
            apply(world, code=6)
            assert len(world.jobs()) == attempt
        titles(world, *MINE)
        assert actions(world) == {"held": 2}
        apply(world)
        assert len(world.jobs()) == 4
