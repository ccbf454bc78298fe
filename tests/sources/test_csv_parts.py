"""Large CSV files with line breaks in their cells are read in pieces: the same rows in the same order."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchform.adapters.sources import csv_parts, delimited
from batchform.adapters.sources.connect import connect
from batchform.spec.model import FileSource

CELLS = st.text(alphabet='ab,"\n\r é', max_size=12)


def _written(rows: list[list[str]], end: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([["id", 'odd "name"'], *rows])
    return text.getvalue().encode()


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=40), st.sampled_from(["\n", "\r\n", "\r"])
)
def test_the_pieces_have_all_records_once_and_each_the_header(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], end: str
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    whole, names = folder / "whole.csv", (folder / f"{n}.csv" for n in itertools.count())
    whole.write_bytes(_written(rows, end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_parts, "PART_BYTES", 64)
        patch.setattr(csv_parts, "CHUNK", 48)
        parts = csv_parts.cut(whole, quote=b'"', end=end[-1:].encode(), new=lambda: next(names))
    found = []
    for part in parts:
        header, *records = list(csv.reader(io.StringIO(part.read_bytes().decode(), newline="")))
        assert header == ["id", 'odd "name"']
        found += records
    assert found == rows


def test_a_header_that_fills_a_chunk_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_parts, "CHUNK", 8)
    whole = tmp_path / "whole.csv"
    whole.write_bytes(_written([["a", "b"]], "\n"))
    assert csv_parts.cut(whole, quote=b'"', end=b"\n", new=lambda: tmp_path / "part.csv") == [whole]


def test_more_than_fits_into_memory_is_read(tmp_path: Path) -> None:
    """200 MB with line breaks in every row, in 128 MB: DuckDB alone would hold the file."""
    row = '"{:07}","' + "a line\nand another, " * 50 + '"\n'
    (tmp_path / "rows.csv").write_text('"id","text"\n' + "".join(row.format(n) for n in range(200_000)))
    con = connect(tmp_path / "temp", memory_limit="128MB", threads=2, allowed=[tmp_path])
    source = delimited.CsvSource(FileSource(type="csv", path="rows.csv"), root=tmp_path, allow=[])
    relation = source.open(con)
    found = con.execute(f"SELECT count(*), min(id), max(id), count(DISTINCT text) FROM {relation.sql}").fetchone()
    assert found == (200_000, "0000000", "0199999", 1)
    assert not list((tmp_path / "temp").glob("*.csv"))
    con.close()
