"""SQL that users write can read what the project may read, and do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batchform.adapters.sources import connect
from batchform.errors import SourceError

QUERIES = [
    ("SELECT * FROM read_text('{outside}/secret.txt')", "Cannot access file"),
    ("SELECT * FROM read_text('{root}/../outside/secret.txt')", "Cannot access file"),
    ("SELECT * FROM read_blob('{root}/link/secret.txt')", "Cannot access file"),
    ("SELECT * FROM glob('{outside}/*')", "Cannot access file"),
    ("SELECT * FROM '{outside}/secret.csv'", "Cannot access file"),
    ("SELECT * FROM read_csv('https://example.com/x.csv')", "Cannot access|Permission|disabled|extension|httpfs"),
    ("COPY (SELECT 1) TO '{root}/out.csv'", "may only read"),
    ("COPY source TO '{root}/out.csv'", "may only read"),
    ("EXPORT DATABASE '{root}/out'", "may only read"),
    ("ATTACH '{root}/out.duckdb'", "may only read"),
    ("INSTALL httpfs", "may only read"),
    ("LOAD json", "may only read"),
    ("SET memory_limit = '1TB'", "may only read"),
    ("PRAGMA disable_optimizer", "may only read"),
    ("CREATE TABLE t AS SELECT 1", "may only read"),
    ("DROP TABLE victim", "may only read"),
    ("DELETE FROM victim", "may only read"),
    ("EXPLAIN SELECT 1", "may only read"),
    ("CALL pragma_version()", "may only read"),
    ("SELECT 1; DELETE FROM victim", "2 statements|may only read"),
    ("SELECT 1; SELECT 2", "2 statements"),
    ("", "no statement"),
    ("-- only a comment", "no statement"),
    ("SELECT 1 /* open", "not valid SQL"),
    ("SELEC 1", "not valid SQL"),
    ("SELECT 1) TO '{root}/out.csv'; --", "not valid SQL"),
    ("WITH d AS (DELETE FROM victim RETURNING *) SELECT * FROM d", "holds a DELETE"),
    ("WITH d AS (INSERT INTO victim VALUES (1) RETURNING *) SELECT * FROM d", "holds an INSERT"),
    ("WITH d AS (UPDATE victim SET i = 2 RETURNING *) SELECT * FROM d", "holds an UPDATE"),
    ("SELECT * FROM source WHERE EXISTS (WITH d AS (DELETE FROM victim RETURNING *) FROM d)", "holds a DELETE"),
    ("SELECT * FROM query('WITH d AS (DELETE FROM victim RETURNING *) SELECT * FROM d')", "may not call query"),
    ("SELECT * FROM QUERY_TABLE('victim')", "may not call"),
    ("SELECT nope FROM source", 'Referenced column "nope" not found'),
    ("SELECT a, a FROM source", "column 'a' twice"),
    ("SELECT a, b AS A FROM source", "'a' and 'A'"),
    ("SELECT * FROM nowhere", "nowhere"),
]


@pytest.mark.parametrize(("query", "words"), QUERIES)
def test_queries_that_are_refused(tmp_path: Path, make_desk: Callable[..., Any], query: str, words: str) -> None:
    desk = make_desk()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (outside / "secret.csv").write_text("a\nsecret\n")
    (desk.root / "link").symlink_to(outside)
    desk.write("a.csv", "a,b\n1,2\n")
    desk.con.execute("CREATE TABLE victim AS SELECT 1 AS i")
    before = sorted(path.name for path in desk.root.iterdir())
    with pytest.raises(SourceError, match=words) as caught:
        desk.read(type="csv", path="a.csv", query=query.format(root=desk.root, outside=outside))
    assert caught.value.message.startswith("source.query") or "twice" in words or "'a'" in words
    assert "\n" not in caught.value.message
    assert sorted(path.name for path in desk.root.iterdir()) == before
    assert desk.con.execute("SELECT i FROM victim").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "where",
    [
        "a = 1) UNION (SELECT 1, 2",
        "1) LIMIT (0",
        "1) ORDER BY (a",
        "1) GROUP BY ALL HAVING (1",
        "1) QUALIFY (1",
        "1); DELETE FROM source WHERE (1",
        "1) -- \n) --",
        "",
        "-- nothing",
        "a =",
        "EXISTS (WITH d AS (DELETE FROM victim RETURNING *) FROM d)",
        "a IN (SELECT i FROM query('SELECT 1'))",
        "a IN (SELECT content FROM read_text('/etc/hostname'))",
    ],
)
def test_conditions_that_are_refused(desk: Any, where: str) -> None:
    desk.write("a.csv", "a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"^source\.where"):
        desk.read(type="csv", path="a.csv", where=where)


def test_a_condition_may_end_in_a_comment_or_hold_a_subquery(desk: Any) -> None:
    desk.write("a.csv", "a,b\n1,2\n3,4\n")
    assert desk.read(type="csv", path="a.csv", where="a = '1' -- )").rows == [("1", "2")]
    assert desk.read(type="csv", path="a.csv", where="a IN (SELECT '3') AND b LIKE '%'").rows == [("3", "4")]
    joined = f"SELECT s.a FROM source s JOIN read_csv('{desk.root}/a.csv') o ON s.a = o.b - 1"
    assert desk.read(type="csv", path="a.csv", query=joined).rows == [("1",), ("3",)]


def test_the_connection_cannot_be_freed_and_still_spills(tmp_path: Path) -> None:
    temp = tmp_path / "new" / "temp"
    (tmp_path / "in").mkdir()
    with connect(temp, memory_limit="100MB", threads=64, allowed=[tmp_path / "in"]) as con:
        for statement in (
            "SET enable_external_access = true",
            f"SET allowed_directories = ['{tmp_path}']",
            "SET lock_configuration = false",
            "SET memory_limit = '1TB'",
            f"COPY (SELECT 1 AS a) TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/out.duckdb'",
        ):
            with pytest.raises(duckdb.Error):
                con.execute(statement)
        con.execute(f"COPY (SELECT 1 AS a) TO '{tmp_path}/in/out.csv'")
        con.execute(f"ATTACH '{tmp_path}/in/out.duckdb'")
        settings = con.execute(
            "SELECT current_setting('TimeZone'), current_setting('threads'), "
            "current_setting('preserve_insertion_order')"
        ).fetchone()
        assert settings == ("UTC", 1, True)
        con.execute("CREATE TABLE big AS SELECT i, repeat(md5(i::VARCHAR), 8) AS t FROM range(800000) r(i)")
        assert con.execute("SELECT count(*) FROM big").fetchone() == (800_000,)
    assert not (tmp_path / "out.csv").exists()
