"""Row states written from Python: values, constants, errors, what DuckDB and the ledger make of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from batchform.canon import key_hash
from batchform.ledger.records import ROW_COLUMNS
from batchform.ledger.row_writer import ROW_GROUP, RowStateWriter
from batchform.ledger.segments import RowsFile, check_rows


def read(path: Path, *columns: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as con:
        return con.execute(f"SELECT {', '.join(columns)} FROM '{path}'").fetchall()


def test_all_types_come_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    when = datetime(2026, 3, 1, 12, 0, 1, 500000, tzinfo=UTC)
    with RowStateWriter(path, constants={"status": "answered", "at": when, "fp_version": 1, "realm": None}) as out:
        out.append(
            {
                "key": ["a", "ü\n"],
                "key_hash": [key_hash("a"), key_hash("ü\n")],
                "request_fp": [b"\0" * 32, None],
                "cost_usd": [0.25, None],
                "attempt": [1, None],
                "prompt_tokens": [2**40, None],
            }
        )
    assert out.rows == 2
    check_rows([RowsFile("s", path, 2)])
    columns = ("key", "key_hash = left(sha256(key), 32)::UUID", "request_fp", "cost_usd", "attempt", "prompt_tokens")
    assert read(path, *columns) == [("a", True, b"\0" * 32, 0.25, 1, 2**40), ("ü\n", True, None, None, None, None)]
    assert (
        read(path, "status", """"at" = '2026-03-01 12:00:01.5+00'::TIMESTAMPTZ""", "fp_version", "realm", "model")
        == [("answered", True, 1, None, None)] * 2
    )


def test_uuid_columns_take_bytes_text_uuids_and_arrow(tmp_path: Path) -> None:
    one = uuid.uuid4()
    forms: list[Any] = [
        [None, one.bytes],
        [None, one.hex],
        [None, str(one)],
        [None, one],
        pa.array([None, one.bytes], pa.binary(16)),
        pa.chunked_array([pa.array([None, one.bytes], pa.binary())]),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([None, one.bytes], pa.binary(16))),
        [None, None],
    ]
    for index, form in enumerate(forms):
        path = tmp_path / f"{index}.parquet"
        with RowStateWriter(path, constants={"answer_key_hash": one}) as out:
            out.append({"row_fp": form})
        expected = None if index == len(forms) - 1 else one
        assert read(path, "row_fp", "answer_key_hash") == [(None, one), (expected, one)]


def test_many_small_batches_become_large_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with RowStateWriter(path, constants={"status": "pending"}) as out:
        for start in range(0, ROW_GROUP + 5000, 1000):
            keys = [str(k) for k in range(start, start + 1000)]
            out.append({"key": keys, "key_hash": [key_hash(k) for k in keys]})
        out.append({"key": [], "key_hash": []})
    with duckdb.connect() as con:
        groups = con.execute(f"SELECT num_row_groups FROM parquet_file_metadata('{path}')").fetchone()
    assert groups is not None
    assert groups[0] <= 3
    check_rows([RowsFile("s", path, out.rows)])
    assert read(path, "min(key::INT)", "max(key::INT)") == [(0, out.rows - 1)]


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(RuntimeError), RowStateWriter(path) as out:
        out.append({"key": ["a"]})
        raise RuntimeError
    assert not path.exists()
    with pytest.raises(pa.ArrowInvalid), RowStateWriter(path) as out:
        out.append({"key_hash": [b"too short"]})
    assert not path.exists()


def test_wrong_columns_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not columns of a row state: kee, spec"):
        RowStateWriter(tmp_path / "a.parquet", constants={"kee": 1, "spec": "x"})
    with pytest.raises(ValueError, match="differ in length"), RowStateWriter(tmp_path / "b.parquet") as out:
        out.append({"key": ["a"], "attempt": [1, 2]})
    assert list(tmp_path.iterdir()) == []


def test_no_rows_is_a_valid_file(tmp_path: Path) -> None:
    with RowStateWriter(tmp_path / "a.parquet"):
        pass
    check_rows([RowsFile("s", tmp_path / "a.parquet", 0)])
    with duckdb.connect() as con:
        described = con.execute(f"DESCRIBE SELECT * FROM '{tmp_path}/a.parquet'").fetchall()
    assert [name for name, *_ in described] == list(ROW_COLUMNS)
