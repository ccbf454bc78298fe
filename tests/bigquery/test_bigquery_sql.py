"""The SQL of a BigQuery source: what users write stays one condition or one SELECT, and what is unsteady is refused."""

from __future__ import annotations

import pytest
from google.cloud.bigquery import SchemaField
from hypothesis import given
from hypothesis import strategies as st

from batchform.adapters import bigquery_client as client
from batchform.adapters.sources import bigquery_sql as sql
from batchform.errors import SourceError

FIELDS = [SchemaField("id", "INT64"), SchemaField("odd `name", "STRING"), SchemaField("span", "INTERVAL")]


def test_a_table_is_read_as_of_a_moment_with_its_columns_and_condition() -> None:
    rest = sql.from_table("p.d.t", moment="2026-11-21T08:00:00.000Z", where="a = 1 -- only these")
    assert sql.select(FIELDS, rest) == (
        "SELECT `id`, `odd \\`name`, CAST(`span` AS STRING) AS `span` FROM `p.d.t` "
        "FOR SYSTEM_TIME AS OF TIMESTAMP '2026-11-21T08:00:00.000Z' WHERE (\na = 1 -- only these\n)"
    )


def test_a_query_is_pinned_where_it_says_so() -> None:
    query = "SELECT '@snapshot' AS a, b FROM t FOR SYSTEM_TIME AS OF @snapshot -- @snapshot\nJOIN u USING (b)"
    assert sql.names_snapshot(query)
    at = sql.at_time(query, "2026-11-21T08:00:00Z")
    assert at == query.replace("AS OF @snapshot", "AS OF TIMESTAMP '2026-11-21T08:00:00Z'")
    assert "AS OF CURRENT_TIMESTAMP() --" in sql.at_time(query, None)
    assert sql.at_time("SELECT 1", "2026-11-21T08:00:00Z") == "SELECT 1"


@pytest.mark.parametrize("query", ["SELECT 1; SELECT 2", "DELETE FROM t; SELECT 1", ";", "", " -- nothing", "/* ; */;"])
def test_several_statements_or_none_are_refused(query: str) -> None:
    with pytest.raises(SourceError, match=r"source\.query holds"):
        sql.one_statement(query)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1 ; \n", "SELECT 1 "),
        ("SELECT ';' AS a -- ;", "SELECT ';' AS a -- ;"),
        ("SELECT r'\\' AS a", "SELECT r'\\' AS a"),
    ],
)
def test_a_last_semicolon_is_dropped(query: str, kept: str) -> None:
    assert sql.one_statement(query) == kept


@pytest.mark.parametrize("where", ["", " ", "a = 1) OR (b = 2", "a = 1; DROP TABLE t", "(a = 1", "a)", "(a))("])
def test_what_is_not_one_condition_is_refused(where: str) -> None:
    with pytest.raises(SourceError, match=r"source\.where must be one SQL condition"):
        sql.one_condition(where)


@pytest.mark.parametrize("where", ["a = ')'", "a IN (1, 2) # )", "`a)` = 1", "a = '''it's ) '''", 'a = "\\")"'])
def test_brackets_in_text_are_no_brackets(where: str) -> None:
    assert sql.one_condition(where) == where


@pytest.mark.parametrize("called", ["rand()", "RAND ()", "Generate_UUID()", "SESSION_USER()"])
def test_what_is_other_in_every_run_is_refused(called: str) -> None:
    with pytest.raises(SourceError, match=r"source\.query may not call"):
        sql.check_steady(f"SELECT {called} AS a FROM t", "source.query")
    sql.check_steady(f"SELECT '{called}' AS a, `{called}` FROM t -- {called}", "source.query")


def test_samples_are_refused() -> None:
    with pytest.raises(SourceError, match="takes a sample"):
        sql.check_steady("SELECT * FROM t TABLESAMPLE SYSTEM (10 PERCENT)", "source.query")


@pytest.mark.parametrize(
    ("query", "moving"),
    [
        ("SELECT * FROM t WHERE d > CURRENT_DATE()", True),
        ("SELECT current_timestamp", True),
        ("SELECT * FROM EXTERNAL_QUERY('p.us.c', 'SELECT 1')", True),
        ("SELECT 'CURRENT_DATE' AS a, my_current_date FROM t", False),
    ],
)
def test_what_moves_by_itself_is_known(query: str, moving: bool) -> None:
    assert sql.is_moving(query) is moving


@given(st.text())
def test_code_keeps_its_positions(text: str) -> None:
    assert len(sql.code_of(text)) == len(text)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("p.d.t", "p.d.t"),
        ("d.t", "mine.d.t"),
        ("`p.d.t`", "p.d.t"),
        ("p:d.t", "p.d.t"),
        ("example.com:p.d.t", "example.com:p.d.t"),
        ("p-1.d.events_*", "p-1.d.events_*"),
    ],
)
def test_names_of_tables(written: str, name: str) -> None:
    assert client.table_name(written, project="mine") == name


@pytest.mark.parametrize("written", ["", "t", "..", "a..b", "p.d`.t", "p.d.`t; DROP"])
def test_names_that_are_none(written: str) -> None:
    with pytest.raises(ValueError, match=r"is not project\.dataset\.table"):
        client.table_name(written, project="mine")


@given(st.text())
def test_quoted_text_is_one_literal(text: str) -> None:
    assert not sql.code_of(client.quoted_text(text)).strip()


AT = "FOR SYSTEM_TIME AS OF @snapshot"


@pytest.mark.parametrize(
    ("query", "tables", "pinned"),
    [
        (f"SELECT * FROM d.a {AT}", {"a"}, True),
        (f"SELECT x.id FROM `p.d.a` AS x {AT} JOIN d.b y {AT} USING (id)", {"a", "b"}, True),
        (f"SELECT a.id FROM d.a {AT} WHERE a.id > 1", {"a"}, True),
        (f"SELECT * FROM `d`.`a` AS `a` {AT.lower().replace('@snapshot', '@SNAPSHOT')}", {"a"}, True),
        (f"SELECT * FROM d.a {AT}, d.b", {"a", "b"}, False),
        (f"SELECT * FROM d.a x {AT} JOIN d.a y {AT} USING (id) JOIN d.b USING (id)", {"a", "b"}, False),
        (f"SELECT * FROM d.a x {AT} JOIN d.a y USING (id)", {"a"}, False),
        (f"SELECT * FROM d.a -- {AT}", {"a"}, False),
        (f"SELECT '{AT}' FROM d.a", {"a"}, False),
        (f"SELECT * FROM d.seen {AT}", {"below"}, False),
        ("SELECT @snapshot FROM d.a", {"a"}, False),
    ],
)
def test_a_query_is_pinned_when_each_of_its_tables_is(query: str, tables: set[str], pinned: bool) -> None:
    assert sql.all_pinned(query, tables) is pinned


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SELECT * FROM `p.d.v`", ["p.d.v"]),
        ("SELECT * FROM p-1.d.v JOIN d.w ON TRUE", ["p-1.d.v", "d.w"]),
        (f"SELECT a.x, b.y FROM d.v AS a {AT}, `d`.`x` b, UNNEST(a.l)", ["d.v", "d.x"]),
        ("WITH c AS (SELECT 1) SELECT * FROM c", []),
        ("SELECT 'FROM d.v' -- FROM d.w", []),
        ("SELECT EXTRACT(DAY FROM t.at) FROM\n d.v", ["t.at", "d.v"]),
    ],
)
def test_what_a_query_reads_by_name(query: str, names: list[str]) -> None:
    assert sql.names_read(query) == names
