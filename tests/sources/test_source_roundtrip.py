"""Rows written in any format read back as they were."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from batchform.adapters.sources import connect, make_source
from batchform.adapters.sources.paths import SourceFile
from batchform.adapters.sources.records import Dialect, data_records
from batchform.errors import SourceError
from batchform.spec.model import Source
from examples_kit import examples

_SPEC: TypeAdapter[Any] = TypeAdapter(Source)
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_HOSTILE = st.sampled_from(
    ['"', '""', ",", "\n", "\r\n", "\r", " ", "", "'", "007", "NULL", "\ufeff", '1,2\n3,"4', "é", "\u2028"]
)
_CELLS = st.one_of(_TEXT, _HOSTILE, st.lists(_HOSTILE, max_size=4).map("".join))
_NAMES = st.lists(
    st.one_of(_CELLS.filter(bool), st.sampled_from(["id", "Name", "where", "source"])).filter(
        lambda name: not name.startswith(("\ufeff", " "))
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda name: name.lower(),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, ...]]]:
    names = draw(_NAMES)
    return names, draw(st.lists(st.tuples(*[_CELLS] * len(names)), min_size=1, max_size=6))


def _csv(path: Path, names: list[str], rows: list[tuple[str, ...]], end: str) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *rows])
    path.write_bytes(out.getvalue().encode())


def _write(form: str, path: Path, names: list[str], rows: list[tuple[str, ...]]) -> None:
    if form in ("csv", "crlf"):
        _csv(path, names, rows, "\r\n" if form == "crlf" else "\n")
    elif form == "json":
        path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows], ensure_ascii=False))
    elif form == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    elif form == "parquet":
        columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(names))]
        pq.write_table(pa.table(columns, names=names), path)
    else:
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"CREATE TABLE t ({quoted})")
            db.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(names))})", rows)
            db.commit()


@pytest.mark.parametrize("form", ["csv", "crlf", "json", "jsonl", "parquet", "sqlite"])
@settings(max_examples=25, deadline=None)
@given(table=tables())
def test_rows_read_back_equal(form: str, table: tuple[list[str], list[tuple[str, ...]]]) -> None:
    names, rows = table
    kind = "csv" if form == "crlf" else form
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "p"
        root.mkdir()
        _write(form, root / "a.data", names, rows)
        spec = _SPEC.validate_python({"type": kind, "path": "a.data", **({"table": "t"} if kind == "sqlite" else {})})
        with connect(Path(folder) / "t", memory_limit="256MB", threads=2, allowed=[root]) as con:
            source = make_source(spec, root=root, allow=[])
            relation = source.open(con)
            read = con.execute(f"SELECT * FROM {relation.sql}").fetchall()
            places = source.locate(con, range(len(rows)))
    order = sorted(names) if kind in ("json", "jsonl") else names
    assert list(relation.columns) == order
    assert read == [tuple(row[names.index(name)] for name in order) for row in rows]
    assert len(set(places)) == len(rows)
    assert set(relation.columns.values()) == {"VARCHAR"}


@settings(max_examples=examples(120), deadline=None)
@given(
    first=st.sampled_from(["a", "a,b", 'a,"b c",d', '"a\nb",c', '"x""",y']),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    body=st.lists(
        st.sampled_from(["x", "1", ",", ",", '"', '"', '""', " ", "\n", "\n", "\r\n", "\r", "é"]), max_size=25
    ),
)
def test_any_text_is_read_by_the_written_rules_or_refused(first: str, end: str, body: list[str]) -> None:
    """DuckDB and the record reader that names lines must agree on everything that looks like CSV."""
    content = (first + end + "".join(body)).encode()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "p"
        root.mkdir()
        (root / "a.csv").write_bytes(content)
        with connect(Path(folder) / "t", memory_limit="256MB", threads=2, allowed=[root]) as con:
            source = make_source(_SPEC.validate_python({"type": "csv", "path": "a.csv"}), root=root, allow=[])
            expected: list[tuple[str, ...]] = []
            refused = None
            try:
                records = data_records(iter([content]), Dialect(), SourceFile(root / "a.csv", "a.csv"))
                expected = [tuple(cell.decode() for cell in record.cells) for record in records]
            except SourceError as error:
                refused = error
            try:
                relation = source.open(con)
            except SourceError as error:
                assert refused is not None, error.render()
                return
            read = [
                tuple(cell or "" for cell in row) for row in con.execute(f"SELECT * FROM {relation.sql}").fetchall()
            ]
            assert refused is None, f"read as {read}, but {refused.render()}"
            if re.search('" +"', content.decode()):  # pieces of one cell: DuckDB may drop doubled quotes between them
                read, expected = ([tuple(c.replace('"', "") for c in row) for row in rows] for rows in (read, expected))
            assert read == expected
