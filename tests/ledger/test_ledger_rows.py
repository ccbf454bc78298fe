"""Rows across commits: the last record of a key wins, under any mix of commits and compactions."""

from __future__ import annotations

import itertools
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import database, open_ledger, rows_file, values

from batchform.errors import BatchformError, LedgerCorrupt
from batchform.ledger.compact import compact
from batchform.ledger.export import export
from batchform.ledger.records import ROW_COLUMNS
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.segments import RowsFile
from batchform.ledger.verify import verify

KEYS = st.sampled_from([f"k{i}" for i in range(8)])
RECORD = st.tuples(st.sampled_from(["pending", "in_flight", "answered"]), st.sampled_from(["t1", "t2"]), st.booleans())
COMMIT = st.dictionaries(KEYS, RECORD, min_size=1)
SHOWN = ("key", "status", "tag", "changed_serial", "answer_serial")


def test_an_empty_ledger_has_typed_columns(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    with database() as con:
        described = con.execute(f"DESCRIBE SELECT * FROM {ledger.rows_relation(con, 'triage')}").fetchall()
    assert {
        name: kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for name, kind, *_ in described
    } == ROW_COLUMNS
    assert values(ledger, "triage", "key") == []
    assert list(tmp_path.iterdir()) == []


@given(history=st.lists(st.one_of(COMMIT, st.just("compact")), max_size=9), pieces=st.integers(1, 2))
@settings(max_examples=15, deadline=None)
def test_the_last_record_wins(history: list[Any], pieces: int) -> None:
    """Law: the relation equals a dict that every commit updates, whatever was compacted in between."""
    with tempfile.TemporaryDirectory() as folder:
        ledger, model = open_ledger(Path(folder) / "ledger"), {}
        for step, commit in enumerate(history):
            if commit == "compact":
                compact(ledger, database, keep_history=timedelta(0))
                continue
            files = []
            for piece in range(pieces):
                items = list(commit.items())[piece::pieces]
                columns: dict[str, list[Any]] = {
                    "status": [status for _, (status, _, _) in items],
                    "tag": [tag for _, (_, tag, _) in items],
                    "answer_fp": [b"a" if answered else None for _, (_, _, answered) in items],
                }
                path = Path(folder) / f"{step}-{piece}.parquet"
                files.append(rows_file(path, [k for k, _ in items], columns=columns))
            serial = ledger.commit([], files).serial
            for key, (status, tag, answered) in commit.items():
                model[key] = (status, tag, serial, serial if answered else None)
        expected = [(key, *model[key]) for key in sorted(model)]
        assert values(ledger, "triage", *SHOWN) == expected
        assert values(open_ledger(Path(folder) / "ledger"), "triage", *SHOWN) == expected
        with database() as con:
            tagged = ledger.tag_rows(con, "triage", "t1")
            found = con.execute(f"SELECT {', '.join(SHOWN)} FROM {tagged} ORDER BY key").fetchall()
            some = "(SELECT * FROM (VALUES ('k1'), ('k2'), ('k5'), ('strange')) AS v(key)) s"
            hashed = f"(SELECT CAST(left(sha256(key), 32) AS UUID) AS key_hash FROM {some})"
            few = ledger.rows_of(con, "triage", hashed)
            found_few = con.execute(f"SELECT {', '.join(SHOWN)} FROM {few} ORDER BY key").fetchall()
            assert not [f for f in verify(ledger, con) if f.severity == "error" and "wait for job" not in f.message]
        assert found == [row for row in expected if row[2] == "t1"]
        assert found_few == [row for row in expected if row[0] in ("k1", "k2", "k5")]


def test_a_record_may_carry_an_older_answer(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([], [rows_file(tmp_path / "1.parquet", ["a"], status="answered", answer_fp=b"1")])
    ledger.commit([], [rows_file(tmp_path / "2.parquet", ["a"], status="pending", answer_fp=b"1", answer_serial=1)])
    assert values(ledger, "triage", "status", "changed_serial", "answer_serial") == [("pending", 2, 1)]
    compact(ledger, database)
    assert values(ledger, "triage", "status", "changed_serial", "answer_serial") == [("pending", 2, 1)]


def test_specs_do_not_meet(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    files = [rows_file(tmp_path / f"{spec}.parquet", ["a"], spec=spec, model=spec) for spec in ("one", "two")]
    ledger.commit([], files)
    assert ledger.specs() == ["one", "two"]
    assert values(ledger, "one", "model") == [("one",)]
    with database() as con:
        one, two = (ledger.rows_relation(con, spec) for spec in ("one", "two"))
        assert con.execute(f"SELECT count(*) FROM {one} JOIN {two} USING (key_hash)").fetchone() == (1,)


def test_relations_of_two_serials_live_side_by_side(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.commit([], [rows_file(tmp_path / "1.parquet", ["a"])])
    with database() as con:
        before = ledger.rows_relation(con, "triage")
        ledger.commit([], [rows_file(tmp_path / "2.parquet", ["b"])])
        after = ledger.rows_relation(con, "triage")
        counts = [con.execute(f"SELECT count(*) FROM {rows}").fetchone() for rows in (before, after)]
    assert counts == [(1,), (2,)]


@pytest.mark.parametrize("commits", [1, 2, 4])
def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path, commits: int) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    for i in range(commits):
        ledger.commit([], [rows_file(tmp_path / f"{i}.parquet", ["a", f"b{i}"], failure_message="f" * 100)])
    with database() as con:
        rows = ledger.rows_relation(con, "triage")
        plan = str(con.execute(f"EXPLAIN (FORMAT json) SELECT key_hash, status FROM {rows}").fetchall())
    assert "failure_message" not in plan
    assert "status" in plan


def test_one_segment_is_a_plain_scan(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    for i in range(3):
        ledger.commit([], [rows_file(tmp_path / f"{i}.parquet", ["a", f"b{i}"])])
    compact(ledger, database)
    with database() as con:
        plan = str(con.execute(f"EXPLAIN SELECT key_hash FROM {ledger.rows_relation(con, 'triage')}").fetchall())
    assert "JOIN" not in plan
    assert "UNION" not in plan


@pytest.mark.parametrize("folder", ["a[1]", "q?", "s*", "b{x,y}", "it's", "ünï  cödé", '"q"'])
def test_any_folder_name_will_do(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a1").mkdir()
    root = tmp_path / folder
    root.mkdir()
    ledger = open_ledger(root / "ledger")
    for i in range(3):
        ledger.commit([], [rows_file(root / f"{i}.parquet", ["a", f"b{i}"])])
    compact(ledger, database)
    assert [key for (key,) in values(ledger, "triage", "key")] == ["a", "b0", "b1", "b2"]
    with database() as con:
        assert export(ledger, con, root / "out", format="jsonl").rows == 4


def wrong_files(folder: Path) -> dict[str, tuple[RowsFile, ...]]:
    good = [rows_file(folder / f"good{i}.parquet", ["a", "b"]) for i in range(2)]
    with database() as con:
        for name, query in {
            "narrow": f"SELECT key, key_hash FROM '{good[0].path}'",
            "text": f"SELECT * REPLACE (key_hash::VARCHAR AS key_hash) FROM '{good[0].path}'",
            "serial": f"SELECT * REPLACE (7::BIGINT AS changed_serial) FROM '{good[0].path}'",
        }.items():
            con.execute(f"COPY ({query}) TO '{folder}/{name}.parquet' (FORMAT parquet)")
    with RowStateWriter(folder / "nulls.parquet", constants={"status": "pending"}) as out:
        out.append({"key": ["a", "b"], "key_hash": [b"k" * 16, None]})
    (folder / "garbage.parquet").write_bytes(b"PAR1 nothing PAR1")
    return {
        "request_fp is absent, must be BLOB": (RowsFile("s", folder / "narrow.parquet", 2),),
        "key_hash is VARCHAR, must be UUID": (RowsFile("s", folder / "text.parquet", 2),),
        "2 rows set changed_serial": (RowsFile("s", folder / "serial.parquet", 2),),
        "2 rows, 3 were announced": (RowsFile("triage", good[0].path, 3),),
        "1 rows without a key": (RowsFile("s", folder / "nulls.parquet", 2),),
        "2 rows without a key.*known status": (rows_file(folder / "status.parquet", ["a", "b"], status="done"),),
        "twice": (good[0], good[1]),
        "garbage.parquet of spec s": (RowsFile("s", folder / "garbage.parquet", 2),),
    }


def test_files_that_are_not_row_states_are_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    cases = wrong_files(tmp_path)
    for complaint, files in cases.items():
        with pytest.raises(BatchformError, match=f"Internal error.*{complaint}"):
            ledger.commit([], files)
    assert not (tmp_path / "ledger").exists()
    assert len(cases) == 8


def test_rows_written_by_duckdb_are_taken(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    given_columns = {"key": "'k' || i", "key_hash": "left(sha256('k' || i), 32)::UUID", "status": "'pending'"}
    columns = ", ".join(f'{given_columns.get(c, "NULL")}::{kind} AS "{c}"' for c, kind in ROW_COLUMNS.items())
    with database() as con:
        con.execute(f"COPY (SELECT {columns} FROM range(10) t(i)) TO '{tmp_path}/rows.parquet' (FORMAT parquet)")
    ledger.commit([], [RowsFile("triage", tmp_path / "rows.parquet", 10)])
    assert len(values(ledger, "triage", "key")) == 10


def test_a_segment_that_is_no_parquet_is_named_as_corrupt(tmp_path: Path) -> None:
    """Large segments are not digested on every read, so DuckDB may be the first to notice."""
    ledger = open_ledger(tmp_path / "ledger")
    keys = [f"{i:064}" for i in range(90_000)]
    ledger.commit(
        [], [rows_file(tmp_path / "rows.parquet", keys, columns={"request_fp": [k.encode()[::-1] for k in keys]})]
    )
    path = ledger.log.path_of(ledger.row_segments("triage")[0])
    size = path.stat().st_size
    with duckdb.connect() as con:
        con.execute(f"SET memory_limit = '512MB'; SELECT count(*) FROM {ledger.rows_relation(con, 'triage')}")
    path.write_bytes(bytes(size))
    with duckdb.connect() as con, pytest.raises(LedgerCorrupt):
        ledger.rows_relation(con, "triage")
    with duckdb.connect() as con:
        (finding,) = verify(ledger, con)
    assert path.name in finding.message
    assert "altered" in finding.message


def test_names_of_segments_do_not_repeat(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    for i in range(5):
        ledger.commit([], [rows_file(tmp_path / f"{i}.parquet", ["a"])])
    names = [s.name for s in ledger.row_segments("triage")]
    assert all(a != b for a, b in itertools.combinations(names, 2))
