"""Parquet: read in place, and files that do not fit together are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchform.errors import SourceError


def _write(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def test_read_in_place_with_its_types(desk: Any) -> None:
    _write(desk.root / "b.parquet", id=[3], t=["z"], n=pa.array([{"k": [1]}]))
    _write(desk.root / "a.parquet", t=["x", None], id=[1, 2], n=pa.array([{"k": [1]}, None]))
    read = desk.read(type="parquet", path="*.parquet")
    assert dict(read.relation.columns) == {"t": "VARCHAR", "id": "BIGINT", "n": "STRUCT(k BIGINT[])"}
    assert [row[:2] for row in read.rows] == [("x", 1), (None, 2), ("z", 3)]
    assert read.places(2, 0) == ["b.parquet: row 1", "a.parquet: row 1"]
    assert "a.parquet" in read.relation.sql  # no copy
    assert read.relation.paths == (desk.root / "a.parquet", desk.root / "b.parquet")


def test_selected_rows_keep_their_numbers(desk: Any) -> None:
    _write(desk.root / "a.parquet", i=list(range(300_000)))
    _write(desk.root / "b.parquet", i=list(range(300_000, 300_010)))
    read = desk.read(type="parquet", path="*.parquet", where="i % 100000 = 5")
    assert [row[0] for row in read.rows] == [5, 100_005, 200_005, 300_005]
    assert read.places() == ["a.parquet: row 6", "a.parquet: row 100006", "a.parquet: row 200006", "b.parquet: row 6"]


def test_a_condition_is_judged_once(desk: Any) -> None:
    _write(desk.root / "a.parquet", i=list(range(1_000)))
    read = desk.read(type="parquet", path="a.parquet", where="i < epoch_us(now()) % 1000")
    again = desk.con.execute(f"SELECT * FROM {read.relation.sql}").fetchall()
    assert again == read.rows


def test_files_that_do_not_fit(desk: Any) -> None:
    _write(desk.root / "a.parquet", i=[1], t=["x"])
    _write(desk.root / "b.parquet", i=pa.array([1], pa.int32()), t=["x"])
    assert len(desk.read(type="parquet", path="*.parquet").rows) == 2  # widths of integers may differ
    _write(desk.root / "c.parquet", i=[1.5], t=["x"])
    with pytest.raises(SourceError, match=r"Column 'i' is BIGINT in a\.parquet and DOUBLE in c\.parquet"):
        desk.read(type="parquet", path="*.parquet")
    _write(desk.root / "c.parquet", i=[1])
    with pytest.raises(SourceError, match=r"c\.parquet lacks 't', compared with a\.parquet"):
        desk.read(type="parquet", path="*.parquet")


def test_columns_of_one_name(desk: Any) -> None:
    table = pa.table([pa.array([1]), pa.array([{"x": 1, "y": {"z": 1}}]), pa.array([2])], names=["a", "s", "A"])
    pq.write_table(table, desk.root / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet has columns 'a' and 'A'"):
        desk.read(type="parquet", path="a.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"id,x\n1,2\n" * 9])
def test_what_is_no_parquet(desk: Any, content: bytes) -> None:
    _write(desk.root / "a.parquet", i=[1])
    desk.write("b.parquet", content)
    with pytest.raises(SourceError, match=r"b\.parquet"):
        desk.read(type="parquet", path="*.parquet")


def test_half_a_file(desk: Any) -> None:
    _write(desk.root / "a.parquet", i=list(range(10_000)))
    data = (desk.root / "a.parquet").read_bytes()
    desk.write("a.parquet", data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"a\.parquet"):
        desk.read(type="parquet", path="a.parquet")


def test_no_rows_is_no_error(desk: Any) -> None:
    _write(desk.root / "a.parquet", i=pa.array([], pa.int64()))
    read = desk.read(type="parquet", path="a.parquet")
    assert (read.rows, dict(read.relation.columns)) == ([], {"i": "BIGINT"})


def test_types_that_a_snapshot_keeps(desk: Any) -> None:
    _write(desk.root / "a.parquet", i=[1])
    select = (
        "SELECT sum(i) AS huge, INTERVAL 90 MINUTE AS span, '{\"k\": 1}'::JSON AS j, 1.50::DECIMAL(10, 2) AS d, "
        "DATE '2024-02-03' AS day, TIMESTAMP '2024-02-03 04:05:06.789' AS t, {'a': 1} AS s, MAP {'k': 2} AS m, "
        "'x'::BLOB AS b, md5('x')::UUID AS u, 200::UTINYINT AS small, TIME '10:11' AS clock FROM source"
    )
    read = desk.read(type="parquet", path="a.parquet", query=select)
    expected = dict(
        desk.con.execute(
            f"SELECT column_name, column_type FROM (DESCRIBE WITH source AS (SELECT 1::BIGINT AS i) {select})"
        ).fetchall()
    )
    assert dict(read.relation.columns) == expected
