"""SQLite and DuckDB files: read-only, typed by what is in them, and one sentence for each thing that can be wrong."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batchform.adapters.sources import make_source
from batchform.errors import SourceError
from batchform.spec.model import DatabaseSource


def _sqlite(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    return path


def _duckdb(path: Path, *statements: str) -> Path:
    with duckdb.connect(str(path)) as db:
        for statement in statements:
            db.execute(statement)
    return path


def test_sqlite_columns_are_what_their_values_are(desk: Any) -> None:
    _sqlite(
        desk.root / "a.db",
        'CREATE TABLE "my t" (i, r, t, b, ir, it, bt, n, "new\nline", "q""x" TEXT, big)',
        "INSERT INTO \"my t\" VALUES (1, 1.5, 'x', x'00ff', 1, 7, x'c3a9', NULL, 'a', 'b', 9223372036854775807)",
        "INSERT INTO \"my t\" VALUES (NULL, 2.0, '', NULL, 2.5, 'z', 'y', NULL, NULL, '007', -9223372036854775808)",
    )
    read = desk.read(type="sqlite", path="a.db", table="MY T")
    kinds = dict(read.relation.columns)
    assert list(kinds)[8:10] == ["new\nline", 'q"x']
    assert list(kinds.values())[:8] == [
        "BIGINT",
        "DOUBLE",
        "VARCHAR",
        "BLOB",
        "VARCHAR",
        "VARCHAR",
        "VARCHAR",
        "VARCHAR",
    ]
    assert read.rows == [
        (1, 1.5, "x", b"\0\xff", "1", "7", "é", None, "a", "b", 2**63 - 1),
        (None, 2.0, "", None, "2.5", "z", "y", None, None, "007", -(2**63)),
    ]
    assert read.places(1) == ["a.db, table MY T, row 2"]


def test_sqlite_streams_many_rows_in_their_own_order(desk: Any) -> None:
    _sqlite(
        desk.root / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, w TEXT)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 70000) "
        "INSERT INTO t SELECT i, 'k' || (70000 - i), "
        "CASE WHEN i % 9000 = 0 THEN printf('%.*c', 300000, 'x') END FROM n",
        "CREATE INDEX k ON t (k)",
    )
    read = desk.read(type="sqlite", path="a.db", table="t")
    assert [row[0] for row in read.rows] == list(range(1, 70_001))
    assert len(read.rows[8_999][2]) == 300_000
    read = desk.read(type="sqlite", path="a.db", table="t", where="k > 'k5' -- an index would reorder")
    ids = [row[0] for row in read.rows]
    assert ids == sorted(ids)
    assert 0 < len(ids) < 70_000
    read = desk.read(type="sqlite", path="a.db", query="SELECT count(*) AS n FROM t;")
    assert (read.rows, read.places()) == ([(70_000,)], ["a.db, source.query, row 1"])


def test_sqlite_views_and_tables_without_rowid(desk: Any) -> None:
    _sqlite(
        desk.root / "a.db",
        "CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO t VALUES ('b', 1), ('a', 2)",
        "CREATE VIEW w AS SELECT v, k FROM t ORDER BY v",
    )
    assert desk.read(type="sqlite", path="a.db", table="t").rows == [("a", 2), ("b", 1)]
    assert desk.read(type="sqlite", path="a.db", table="w").rows == [(1, "b"), (2, "a")]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"table": "tikets"}, "has no table 'tikets'"),
        ({"table": "tickets", "where": "nope = 1"}, "source.where: no such column: nope"),
        ({"table": "tickets", "where": "id = "}, "source.where"),
        ({"query": "SELECT nope FROM tickets"}, "source.query: no such column"),
        ({"query": "DELETE FROM tickets"}, "source.query may only read"),
        ({"query": "WITH x AS (SELECT 1) DELETE FROM tickets"}, "source.query may only read"),
        ({"query": "ATTACH 'other.db' AS o"}, "source.query may only read"),
        ({"query": "PRAGMA writable_schema = 1"}, "source.query may only read"),
        ({"query": "SELECT load_extension('x')"}, "source.query"),
        ({"query": "SELECT 1; SELECT 2"}, "exactly one SELECT"),
        ({"query": "-- nothing"}, "must be one SELECT"),
        ({"query": "SELECT id, id FROM tickets"}, "column 'id' twice"),
        ({"query": "SELECT id, body AS ID FROM tickets"}, "'id' and 'ID'"),
        ({"query": "SELECT CAST(x'ff' AS TEXT) AS t FROM tickets"}, "row 1: column 't' holds bytes that are not UTF-8"),
        ({}, "either source.table or source.query"),
        ({"table": "tickets", "query": "SELECT 1"}, "either source.table or source.query"),
        ({"query": "SELECT 1", "where": "1"}, "source.where goes with source.table"),
    ],
)
def test_sqlite_refusals(desk: Any, spec: dict[str, str], words: str) -> None:
    path = _sqlite(desk.root / "a.db", "CREATE TABLE tickets (id, body)", "INSERT INTO tickets VALUES (1, 'x')")
    before = path.read_bytes()
    with pytest.raises(SourceError) as caught:
        desk.read(type="sqlite", path="a.db", **spec)
    assert words in caught.value.message
    assert "There" not in caught.value.hint
    assert path.read_bytes() == before


def test_sqlite_near_names_locks_and_damage(desk: Any) -> None:
    path = _sqlite(desk.root / "a.db", "CREATE TABLE tickets (id)", "INSERT INTO tickets VALUES (1)")
    with pytest.raises(SourceError) as caught:
        desk.read(type="sqlite", path="a.db", table="Tiket")
    assert caught.value.hint == "It has tickets."
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceError, match="is locked by a process that writes to it"):
            desk.read(type="sqlite", path="a.db", table="tickets")
    data = path.read_bytes()
    desk.write("b.db", data[:100] + b"\xff" * (len(data) - 100))
    with pytest.raises(SourceError, match=r"b\.db is damaged"):
        desk.read(type="sqlite", path="b.db", table="tickets")
    desk.write("c.db", b"no database at all" * 50)
    with pytest.raises(SourceError, match=r"c\.db is not a SQLite database"):
        desk.read(type="sqlite", path="c.db", table="tickets")
    desk.write("d.db", b"")
    with pytest.raises(SourceError, match=r"d\.db is empty"):
        desk.read(type="sqlite", path="d.db", table="tickets")


def test_sqlite_in_wal_mode_beside_a_writer(desk: Any) -> None:
    with closing(sqlite3.connect(desk.root / "a.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (i)")
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        assert desk.read(type="sqlite", path="a.db", table="t").rows == [(1,)]


def test_duckdb_tables_views_schemas_and_queries(desk: Any) -> None:
    path = _duckdb(
        desk.root / "shop.duckdb",
        "CREATE TABLE t AS SELECT i, 'x' || i AS s, i::HUGEINT AS h FROM range(5) r(i)",
        "CREATE SCHEMA deep",
        'CREATE TABLE deep."od d" AS SELECT 7 AS z',
        "CREATE VIEW v AS SELECT * FROM shop.main.t WHERE i > 3",
    )
    read = desk.read(type="duckdb", path="shop.duckdb", table="T", where="i >= 3")
    assert (read.rows, dict(read.relation.columns)["h"]) == ([(3, "x3", 3), (4, "x4", 4)], "HUGEINT")
    assert read.places() == ["shop.duckdb, table T, row 4", "shop.duckdb, table T, row 5"]
    assert desk.read(type="duckdb", path="shop.duckdb", table="deep.od d").rows == [(7,)]
    assert desk.read(type="duckdb", path="shop.duckdb", table="v").rows == [(4, "x4", 4)]
    query = 'SELECT z + i AS n FROM t, shop.deep."od d" ORDER BY n DESC LIMIT 1'
    assert desk.read(type="duckdb", path="shop.duckdb", query=query).rows == [(11,)]
    with duckdb.connect(str(path)) as other:  # nothing is held
        other.execute("INSERT INTO t VALUES (9, 'y', 9)")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"table": "tikets"}, "has no table 'tikets'"),
        ({"table": "tickets", "where": "nope = 1"}, 'source.where: Referenced column "nope"'),
        ({"query": "SELECT nope FROM tickets"}, 'source.query: Referenced column "nope"'),
        ({"query": "DELETE FROM tickets"}, "source.query may only read"),
        ({"query": "WITH x AS (DELETE FROM tickets RETURNING *) SELECT * FROM x"}, "holds a DELETE"),
        ({"query": "CREATE TABLE x AS SELECT 1"}, "source.query may only read"),
        ({"query": "SELECT 1; SELECT 2"}, "2 statements"),
    ],
)
def test_duckdb_refusals(desk: Any, spec: dict[str, str], words: str) -> None:
    _duckdb(desk.root / "a.duckdb", "CREATE TABLE tickets AS SELECT 1 AS id")
    with pytest.raises(SourceError) as caught:
        desk.read(type="duckdb", path="a.duckdb", **spec)
    assert words in caught.value.message
    assert desk.con.execute("SELECT count(*) FROM duckdb_databases() WHERE NOT internal").fetchone() == (1,)


def test_duckdb_files_that_cannot_be_read(desk: Any) -> None:
    _sqlite(desk.root / "b.duckdb", "CREATE TABLE t (i)")
    with pytest.raises(SourceError, match=r"b\.duckdb is not a DuckDB database"):
        desk.read(type="duckdb", path="b.duckdb", table="t")
    desk.write("c.duckdb", b"")
    with pytest.raises(SourceError, match=r"c\.duckdb is empty"):
        desk.read(type="duckdb", path="c.duckdb", table="t")
    path = _duckdb(desk.root / "a.duckdb", "CREATE TABLE t AS SELECT 1 AS i")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); sys.stdin.read(); c.close()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        with pytest.raises(SourceError, match=r"a\.duckdb is held by another process"):
            desk.read(type="duckdb", path="a.duckdb", table="t")
        writer.communicate()
    assert desk.read(type="duckdb", path="a.duckdb", table="t").rows == [(1,)]


def test_a_database_named_like_one_of_duckdb_itself(desk: Any) -> None:
    for name in ("memory", "temp", "system", "source", "we ird"):
        _duckdb(desk.root / f"{name}.duckdb", "CREATE TABLE t AS SELECT 1 AS i")
        assert desk.read(type="duckdb", path=f"{name}.duckdb", table="t").rows == [(1,)]


def test_one_database_only(desk: Any) -> None:
    for name in ("a.db", "b.db"):
        _sqlite(desk.root / name, "CREATE TABLE t (i)")
    with pytest.raises(SourceError, match="names 2 files"):
        desk.read(type="sqlite", path="*.db", table="t")
    spec = DatabaseSource(type="sqlite", path="a.db", table="t")
    assert dict(make_source(spec, root=desk.root, allow=()).open(desk.con).columns) == {"i": "VARCHAR"}
