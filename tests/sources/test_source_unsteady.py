"""SQL that gives other rows or values in every run is refused: unchanged rows would be paid for again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import duckdb
import pytest

from batchform.adapters.sources.sql import _PLAIN_WORDS, check_condition, reads_nothing_else
from batchform.errors import SourceError

UNSTEADY = [
    "random() < 0.5",
    'main."RANDOM"() < 0.5',
    "length(uuid()::text) > id",
    "gen_random_uuid() IS NULL",
    "uuidv4() IS NULL",
    "uuidv7() IS NULL",
    "nextval('s') = 1",
    "setseed(0.5) IS NULL",
    "txid_current() > 5",
    "list_transform([id], lambda x: x * random())[1] > 1",
    "id IN (SELECT id FROM source ORDER BY random() LIMIT 1)",
    "id IN (SELECT id FROM source USING SAMPLE 1 ROWS)",
    "id IN (SELECT id FROM source TABLESAMPLE 10%)",
    "pg_sleep(0) IS NULL",
]
STEADY = [
    "id > 0 AND now() > TIMESTAMPTZ '2020-01-01'",
    "current_date - INTERVAL 7 DAY > DATE '2020-01-01'",
    "today() > DATE '2020-01-01' AND current_timestamp IS NOT NULL",
    "ago(INTERVAL 1 DAY) IS NOT NULL",
    "hash(id) IS NOT NULL AND id IN (SELECT id::INT FROM source USING SAMPLE 10 ROWS (reservoir, 1))",
    "CASE WHEN id < 0 THEN error('negative') ELSE true END",
    "id IN (SELECT max(id::INT) FROM source WHERE (id <> '0') OR (true)) -- the last",
    "(id = 3) OR (id = 2)",
]


@pytest.fixture
def rows(desk: Any) -> Any:
    desk.write("a.csv", "id,t\n1,a\n2,b\n3,c\n")
    return desk


@pytest.mark.parametrize("condition", UNSTEADY)
def test_an_unsteady_condition_is_refused_everywhere(rows: Any, condition: str) -> None:
    numbers = f"SELECT * FROM (SELECT id::INT AS id FROM source) AS source WHERE {condition}"
    for spec in ({"where": condition}, {"query": numbers}):
        with pytest.raises(SourceError, match=r"source\.(where|query) (may not call|takes a sample)"):
            rows.read(type="csv", path="a.csv", **spec)
    with pytest.raises(SourceError, match=r"^--where (may not call|takes a sample)"):
        check_condition(condition)


@pytest.mark.parametrize("condition", STEADY)
def test_conditions_on_the_day_and_seeded_samples_are_allowed(rows: Any, condition: str) -> None:
    check_condition(condition)
    query = f"SELECT * FROM (SELECT id::INT AS id FROM source) AS source WHERE {condition}"
    assert rows.read(type="csv", path="a.csv", query=query).rows


@pytest.mark.parametrize(
    "condition",
    [
        "1=1) OR (1=1",
        "true ORDER BY id",
        "true LIMIT 1",
        "true; SELECT 1",
        "true UNION SELECT 1",
        "",
        "-- none",
        "id =",
    ],
)
def test_only_one_whole_condition_is_a_condition(rows: Any, condition: str) -> None:
    with pytest.raises(SourceError, match=r"^--where "):
        check_condition(condition)
    with pytest.raises(SourceError, match=r"^source\.where "):
        rows.read(type="csv", path="a.csv", where=condition)


def test_every_function_that_duckdb_calls_volatile_was_looked_at() -> None:
    with duckdb.connect() as con:
        names = con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'"
        ).fetchall()
    harmless = {"error"}
    for (name,) in names:
        if name not in harmless:
            with pytest.raises(SourceError, match=rf"may not call {name}\(\)"):
                check_condition(f"{name}() IS NULL")


def test_views_and_macros_of_a_database_are_looked_into(desk: Any) -> None:
    with duckdb.connect(str(desk.root / "a.duckdb")) as db:
        db.execute("CREATE TABLE t AS SELECT range AS id FROM range(3)")
        db.execute('CREATE VIEW plain AS SELECT id AS "random()" FROM t')
        db.execute("CREATE VIEW drawn(a) AS WITH x AS (SELECT random() AS r) SELECT r FROM x")
        db.execute('CREATE VIEW "over AS it" AS SELECT * FROM drawn')
        db.execute("CREATE MACRO jitter(x) AS x + random()")
        db.execute("CREATE MACRO jitters() AS TABLE SELECT uuid() AS u FROM t")
        db.execute("CREATE MACRO length(x) AS x + random()")
    assert len(desk.read(type="duckdb", path="a.duckdb", table="plain").rows) == 3
    for spec in (
        {"table": "drawn"},
        {"table": "over AS it"},
        {"table": "t", "where": "id IN (SELECT a.drawn.a FROM a.drawn)"},
        {"query": 'SELECT * FROM "over AS it"'},
        {"query": "SELECT jitter(id) AS j FROM t"},
        {"table": "t", "where": "length(id) > 1"},
        {"query": "FROM jitters()"},
    ):
        with pytest.raises(SourceError, match="may not call"):
            desk.read(type="duckdb", path="a.duckdb", **spec)


def test_sqlite_draws_no_lots_either(desk: Any) -> None:
    with closing(sqlite3.connect(desk.root / "a.db")) as db, db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, day TEXT)")
        db.execute("INSERT INTO t VALUES (1, '2020-01-01'), (2, '2999-01-01')")
        db.execute("CREATE VIEW drawn AS SELECT * FROM t ORDER BY random()")
    for spec, field in (
        ({"table": "t", "where": "RANDOM() > 0"}, "source.where"),
        ({"query": "SELECT id, hex(randomblob(4)) AS h FROM t"}, "source.query"),
        ({"query": "SELECT * FROM t ORDER BY random()"}, "source.query"),
        ({"table": "drawn"}, "source.table"),
    ):
        with pytest.raises(SourceError, match=rf"{field} may not call random(blob)?\(\)"):
            desk.read(type="sqlite", path="a.db", **spec)
    assert desk.read(type="sqlite", path="a.db", table="t", where="day < date('now')").rows == [(1, "2020-01-01")]


@pytest.mark.parametrize(
    ("condition", "alone"),
    [
        ("", True),
        ("status = 'open' AND (id LIKE 'T-%' OR length(body) > 400)", True),
        ("section IN ('a', 'b') AND NOT (\"a b\" = 'x')", True),
        ("lower (trim(\"body\")) = 'x'", True),
        ("day <= current_date", False),
        ('day <= "CURRENT_DATE"', False),
        ("day < NOW()", False),
        ("age(day) > INTERVAL 1 DAY", False),
        ('"age"(day) > INTERVAL 1 DAY', False),
        ("age/* */(day) > INTERVAL 1 DAY", False),
        ("age --\n(day) > INTERVAL 1 DAY", False),
        ("day < ago(INTERVAL 1 DAY)", False),
        ("t < localtimestamp", False),
        ("id IN (TABLE 'ids.csv')", False),
        ("id IN (FROM 'ids.csv')", False),
        ("id IN (DESCRIBE 'ids.csv')", False),
        ("current_setting('threads') = '1'", False),
    ],
)
def test_conditions_that_depend_on_the_row_alone_are_told_by_their_words(condition: str, alone: bool) -> None:
    assert reads_nothing_else(condition) is alone


def test_what_is_taken_to_depend_on_its_arguments_alone_does_so_for_duckdb_too() -> None:
    with duckdb.connect() as con:
        functions = dict(
            con.execute(
                "SELECT function_name, min(stability = 'CONSISTENT') FROM duckdb_functions() GROUP BY 1"
            ).fetchall()
        )
    assert [name for name in _PLAIN_WORDS if functions.get(name) is False] == []
