"""Joining recorded answers: a few files at a time, with the narrow side in memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from delivery_kit import World
from hypothesis import given
from hypothesis import strategies as st

from batchform.run import deliver, joined
from batchform.run.columns import ANSWERS
from batchform.run.joined import ROWS_AT_ONCE, Joined, join_answers, show_answers


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "project")


@given(st.lists(st.integers(1, 2 * ROWS_AT_ONCE), max_size=600))
def test_groups_hold_each_file_once_and_few_rows(sizes: list[int]) -> None:
    found = Joined("rows", tuple(map(str, range(len(sizes)))), tuple(sizes))
    groups = list(found.groups())
    assert [n for group in groups for n in group] == list(found.all)
    for group in groups:
        assert len(group) <= 256
        assert len(group) <= 1 or sum(sizes[n] for n in group) <= ROWS_AT_ONCE


def test_wide_answers_stream_past_the_rows(world: World) -> None:
    """What DuckDB hashes is in memory: the rows it must be, however many answers there are beside."""
    world.answer({str(n): (f"text {n}", None) for n in range(40)})
    world.answer({str(n): (f"newer {n}", None) for n in range(30, 60)})
    control = world.ledger.control()
    with closing(world.connect()) as con:
        rows = world.ledger.rows_relation(con, "triage")
        found = join_answers(con, world.ledger, control, rows, expected=60, folder=world.scratch)
        for files, count in ((found.all, 60), (range(1), 30), (range(1, 2), 30)):
            show_answers(con, found, files)
            assert con.execute(f"SELECT count(*), count(DISTINCT key) FROM {ANSWERS}").fetchall() == [(count, count)]
            [(_, plan)] = con.execute(f"EXPLAIN (FORMAT json) SELECT * FROM {ANSWERS}").fetchall()
            probed, hashed = plan.index("READ_PARQUET"), plan.index("bf_deliverable")
            assert probed < hashed, plan


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_many_groups_and_files_give_the_bytes_of_one(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = world.spec({"type": kind, "path": f"out.{kind}"}, schema=None)
    for first in range(0, 60, 12):
        world.answer({f"k{n}": (f"text {n}", None) for n in range(first, first + 12)})
    monkeypatch.setattr(deliver, "SORTED_BY_DUCKDB", 10)
    world.deliver(spec)
    path = world.root / f"out.{kind}"
    whole = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(joined, "ROWS_AT_ONCE", 25)
    delivered = world.deliver(spec)
    assert delivered is not None and delivered.rows == 60
    assert path.read_bytes() == whole
