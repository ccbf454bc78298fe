"""Keys taken apart in SQL, and JSON paths: laws over all values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchform.rows.key_sql import columns_key
from batchform.rows.sql import identifier, literal
from batchform.run.columns import _response_sql, key_column_text, key_types
from batchform.run.ordered import cuts_of, write_ordered

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8) | st.text(
    "|\\a\n", max_size=6
)
VALUES = st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(VALUES, st.integers(1, 3))
def test_a_key_of_several_columns_is_taken_apart_again(rows: list[list[str]], count: int) -> None:
    """Against the SQL that makes keys: what is joined there is what is found here."""
    kept = [r[:count] for r in rows if any(r[:count])]
    names = ["x", "y", "z"][:count]
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t ({', '.join(f'{n} VARCHAR' for n in names)})")
        if kept:
            con.executemany(f"INSERT INTO t VALUES ({', '.join('?' * count)})", kept)
        parts = ", ".join(key_column_text(i, count) for i in range(count))
        key = columns_key([identifier(n) for n in names])
        found = con.execute(f"SELECT {parts} FROM (SELECT {key} AS key FROM t ORDER BY rowid)").fetchall()
    assert [list(r) for r in found] == kept


@pytest.mark.parametrize(
    ("kind", "values", "kept"),
    [
        ("BIGINT", ["1", "-20"], True),
        ("BIGINT", ["1", "007"], False),
        ("BIGINT", ["1", "x"], False),
        ("DATE", ["2026-01-31"], True),
        ("DATE", ["2026-1-31"], False),
        ("DECIMAL(9,2)", ["1.50"], True),
        ("DECIMAL(9,2)", ["1.5"], False),
        ("DOUBLE", ["0.1", "1e+300"], True),
        ("HUGEINT", ["170141183460469231731687303715884105727"], False),
        ("UHUGEINT", ["1"], False),
        ("BOOLEAN", ["true"], True),
        ("UUID", ["c4ca4238-a0b9-2382-0dcc-509a6f75849b"], True),
        ("TIMESTAMP", ["2026-01-31 10:00:00"], True),
        ("INTEGER[]", ["[1]"], False),
        ("STRUCT(a INTEGER)", ["{'a': 1}"], False),
        ("VARCHAR", ["x"], True),
    ],
)
def test_a_type_holds_only_if_every_key_reads_back(kind: str, values: list[str], kept: bool) -> None:
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t (key VARCHAR)")
        con.executemany("INSERT INTO t VALUES (?)", [[v] for v in values])
        assert key_types(con, ["id"], {"id": kind}, "t") == (("id", kind if kept else "VARCHAR"),)


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=5) | st.sampled_from(
    ["~", "/", "a/b", "~1", "0"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(st.characters(exclude_categories=("Cs", "Cc"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """Every place in a JSON value, and what is there."""
    found = [(at, value)] if at else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [p for step, sub in inner for p in paths(sub, (*at, step))]


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(NAMES, JSON, max_size=3))
def test_every_place_in_an_answer_can_be_reached(answer: dict[str, Any]) -> None:
    with duckdb.connect() as con:
        for steps, value in paths(answer):
            if value is None or isinstance(value, bool):
                kind, expected = "BOOLEAN", value
            elif isinstance(value, (dict, list)):
                kind, expected = "JSON", value
            else:
                kind, expected = ("VARCHAR" if isinstance(value, str) else "BIGINT"), value
            sql = _response_sql(steps, kind)
            [(found,)] = con.execute(
                f"SELECT {sql} FROM (SELECT {literal(json.dumps(answer))} AS response) a"
            ).fetchall()
            assert (json.loads(found) if kind == "JSON" else found) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    keys=st.one_of(
        st.sets(st.integers(0, 4999), max_size=300), st.sets(st.text(st.characters(codec="utf-8")), max_size=300)
    ),
    sampled=st.integers(1, 40),
    rows=st.sampled_from([0, 100_000, 10**9]),
    file_bytes=st.sampled_from([0, 2000, 1 << 20]),
)
def test_rows_dealt_by_key_come_out_in_order(
    tmp_path: Path, keys: set[int] | set[str], sampled: int, rows: int, file_bytes: int
) -> None:
    """Whatever sample the cuts come from, and however the rows come: here from two readers."""
    shuffled = sorted(keys, key=lambda k: hashlib.md5(str(k).encode()).digest())
    kind = pa.int64() if all(isinstance(k, int) for k in keys) else pa.string()
    table = pa.table({"key": pa.array(shuffled, kind), "text": [f"row {k}" for k in shuffled]})
    half = len(shuffled) // 2
    to = tmp_path / "o.parquet"
    write_ordered(
        [table.slice(0, half).to_reader(7), table.slice(half).to_reader(90)],
        to,
        cuts=cuts_of(shuffled[::sampled], rows=rows),
        folder=tmp_path / "deal",
        file_bytes=file_bytes,
    )
    with duckdb.connect() as con:
        assert con.execute(f"SELECT * FROM '{to}'").fetchall() == [(k, f"row {k}") for k in sorted(shuffled)]
    assert not (tmp_path / "deal").exists()
