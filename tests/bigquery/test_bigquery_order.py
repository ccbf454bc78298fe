"""Rows that were read are put in order of their key, however many they are."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchform.adapters.sources.bigquery_read import in_order, write_raw

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("n", pa.int64()),
        ("price", pa.decimal128(38, 9)),
        ("moment", pa.timestamp("us", tz="UTC")),
        ("list", pa.list_(pa.struct([("a", pa.int64())]))),
    ]
)
_MOMENT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
_ROW = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "Ä", "", None]),
        "n": st.integers(-2, 2) | st.none(),
        "price": st.sampled_from([Decimal("1.5"), Decimal("-2"), None]),
        "moment": st.sampled_from([_MOMENT, None]),
        "list": st.sampled_from([[], [{"a": 1}, {"a": None}], None]),
    }
)


def _ordered(con: duckdb.DuckDBPyConnection, folder: Path, rows: list[Any], order: list[str], most: int) -> list[Any]:
    batches = iter(pa.Table.from_pylist(rows, SCHEMA).to_batches(len(rows) // 3 + 1))
    raw, count = write_raw(con, SCHEMA, batches)
    to = folder / "ordered.parquet"
    in_order(con, raw, count, order=order, columns=SCHEMA.names, to=to, most_sorted=most)
    raw.unlink()
    columns = [pq.read_table(to).column(name).to_pylist() for name in SCHEMA.names]
    assert not list(folder.glob("*.dealt"))
    return list(zip(*columns, strict=True))


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(_ROW, min_size=1, max_size=60), order=st.sampled_from([[], ["n"], ["name", "moment"], ["price", "n"]])
)
def test_many_rows_are_in_the_order_of_few(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, rows: list[Any], order: list[str]
) -> None:
    few = _ordered(con, tmp_path, rows, order, most=1_000)
    assert _ordered(con, tmp_path, rows, order, most=0) == few
    assert _ordered(con, tmp_path, rows[::-1], order, most=0) == few
    positions = [SCHEMA.names.index(name) for name in order]
    for one, next_ in itertools.pairwise(few):
        keys = [[(r[p] is None, r[p]) for p in positions] for r in (one, next_)]
        assert _not_after(keys[0], keys[1])


def _not_after(one: list[Any], other: list[Any]) -> bool:
    for (empty, value), (empty_too, value_too) in zip(one, other, strict=True):
        if (empty, empty_too) == (False, False) and value != value_too:
            return bool(value < value_too)
        if empty != empty_too:
            return bool(empty_too)
    return True


@pytest.mark.parametrize("order", [["n"], []])
def test_rows_of_several_row_groups_keep_their_values(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, order: list[str]
) -> None:
    rows = [
        {"name": f"row {i}", "n": i * 7919 % 31_013, "price": None, "moment": _MOMENT, "list": []}
        for i in range(31_013)
    ]
    found = _ordered(con, tmp_path, rows, order, most=0)
    if order:
        assert [r[1] for r in found] == list(range(31_013))
    assert sorted((r[1], r[0]) for r in found) == sorted((r["n"], r["name"]) for r in rows)
