"""Merging segments: what the rows relation shows, whatever the number of ranges that keys are compared in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import database

from batchform.canon import digest
from batchform.ledger import merge
from batchform.ledger.relation import Part, create_rows_view
from batchform.ledger.row_writer import RowStateWriter
from batchform.rows.sql import literal

Commit = dict[int, bool]
"""Key number → whether the record has an answer."""


def key_hash(number: int) -> str:
    return digest(str(number).encode()).removeprefix("sha256:")[:32]


def segment(path: Path, commit: Commit, serial: int) -> Part:
    """One commit's segment; the first commit of a ledger may be a base, whose serials are filled in."""
    base = serial == 1
    with RowStateWriter(path, constants={"status": "answered", "model": "m"}) as writer:
        writer.append(
            {
                "key": [str(n) for n in commit],
                "key_hash": [key_hash(n) for n in commit],
                "answer_fp": [b"a" * 32 if answered else None for answered in commit.values()],
                "answer_key_hash": [key_hash(n) if answered else None for n, answered in commit.items()],
                "answer_serial": [1 if answered and (base or n % 3 == 0) else None for n, answered in commit.items()],
                "changed_serial": [serial if base else None] * len(commit),
                "attempt": [serial] * len(commit),
            }
        )
    return Part(path, serial, base=base)


@settings(max_examples=25, deadline=None)
@given(
    commits=st.lists(st.dictionaries(st.integers(0, 60), st.booleans(), min_size=1), min_size=1, max_size=5),
    at_once=st.sampled_from([1, 7, 500_000]),
)
def test_merged_is_what_the_relation_shows(
    commits: list[Commit], at_once: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    parts = [segment(folder / f"{i}.parquet", commit, i + 1) for i, commit in enumerate(commits)]
    merged = folder / "merged.parquet"
    with database() as con, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "RECORDS_AT_ONCE", at_once)
        rows = merge.merge_rows(con, parts, merged)
        shown = create_rows_view(con, "shown", parts)
        read = f"read_parquet({literal(str(merged))})"
        assert con.execute(f"SELECT * FROM {read} ORDER BY key").fetchall() == (
            con.execute(f"SELECT * FROM {shown} ORDER BY key").fetchall()
        )
        assert [rows] == [n for (n,) in con.execute(f"SELECT count(*) FROM {shown}").fetchall()]
        order = [k for (k,) in con.execute(f"SELECT key FROM {read}").fetchall()]
    last = {n: i for i, commit in enumerate(commits) for n in commit}
    assert order == [str(n) for i, commit in enumerate(commits) for n in commit if last[n] == i], "in order of commit"
