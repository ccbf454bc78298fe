"""The bigquery source against the emulator's BigQuery, through Google's unmodified clients."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from bigquery_kit import Reading, fill
from google.cloud import bigquery
from msgspec import structs

from batchform.adapters.bigquery_client import Access
from batchform.adapters.sources.bigquery import BigQueryRows
from batchform.errors import SourceError
from batchform.spec.bigquery import BigQuerySource
from batchform.spec.model import GoogleCloud

Read = Callable[..., Reading]
TICKETS = (
    "CREATE TABLE {t} (id INT64, status STRING, body STRING)",
    "INSERT INTO {t} VALUES (3, 'open', 'c'), (1, 'open', 'a'), (2, 'done', 'b')",
)


@pytest.fixture
def tickets(client: bigquery.Client, dataset: str) -> str:
    name = f"{dataset}.tickets"
    fill(client, name, *TICKETS)
    return name


def _jobs(client: bigquery.Client) -> list[bigquery.QueryJob]:
    """The queries that read rows, dry runs left out."""
    return [j for j in client.list_jobs() if j.labels.get("batchform") == "source"]


def test_a_table_is_read_by_key_with_the_columns_that_are_needed(read: Read, tickets: str, client: Any) -> None:
    got = read(table=tickets, order=("id",), needed=frozenset({"id", "body"}))
    assert got.rows == [(1, "a"), (2, "b"), (3, "c")]
    assert got.relation.columns == {"id": "BIGINT", "body": "VARCHAR"}
    assert got.relation.described.startswith(f"bigquery {tickets}, as of 20") and "processed" in got.relation.described
    assert got.source.locate(got.con, [1]) == [f"bigquery {tickets}, row 2 by key"]
    [job] = [j for j in _jobs(client) if tickets in j.query]
    assert "`id`, `body`" in job.query and "status" not in job.query and "FOR SYSTEM_TIME AS OF" in job.query


def test_a_condition_is_run_by_bigquery(read: Read, tickets: str, client: Any) -> None:
    assert read(table=tickets, order=("id",), where="status = 'open'").rows == [(1, "open", "a"), (3, "open", "c")]
    assert any("WHERE (\nstatus = 'open'\n)" in j.query for j in _jobs(client) if tickets in j.query)


def test_a_query_replaces_the_rows(read: Read, tickets: str) -> None:
    got = read(query=f"SELECT status, COUNT(*) AS n FROM `{tickets}` GROUP BY status; -- all", order=("status",))
    assert got.rows == [("done", 1), ("open", 2)]
    assert got.relation.described.startswith("bigquery query, read at ")


def test_what_has_not_changed_is_not_read_again(read: Read, tickets: str, client: Any) -> None:
    first = read(table=tickets, order=("id",))
    again = read(table=tickets, order=("id",))
    assert again.rows == first.rows and "unchanged" in again.relation.described
    assert len([j for j in _jobs(client) if tickets in j.query]) == 1
    fill(client, tickets, "INSERT INTO {t} VALUES (4, 'open', 'd')")
    assert len(read(table=tickets, order=("id",)).rows) == 4
    assert len(read(table=tickets, order=("id",), where="id > 3").rows) == 1
    read(table=tickets, order=("id",), cache=False)
    assert len([j for j in _jobs(client) if tickets in j.query]) == 4


def test_a_query_over_tables_that_have_not_changed_is_not_run_again(read: Read, tickets: str, client: Any) -> None:
    query = f"SELECT id FROM `{tickets}`"
    read(query=query)
    assert "unchanged" in read(query=query).relation.described
    fill(client, tickets, "DELETE FROM {t} WHERE id = 1")
    assert len(read(query=query).rows) == 2


def test_what_moves_by_itself_is_read_each_time_and_said(read: Read, tickets: str, client: Any) -> None:
    query = f"SELECT id FROM `{tickets}` WHERE CURRENT_DATE() > DATE '2020-01-01'"
    read(query=query)
    [note] = read(query=query).relation.notes
    assert "neither be pinned" in note
    assert len([j for j in _jobs(client) if tickets in j.query]) == 2


def test_a_table_read_as_of_a_time(read: Read, tickets: str, client: Any) -> None:
    before = client.get_table(tickets).modified + dt.timedelta(milliseconds=1)
    fill(client, tickets, "DELETE FROM {t} WHERE true")
    then = before.isoformat()
    assert len(read(table=tickets, as_of=then).rows) == 3
    query = f"SELECT id FROM `{tickets}` FOR SYSTEM_TIME AS OF @snapshot"
    assert len(read(query=query, as_of=then).rows) == 3
    assert read(query=query).rows == []


def test_identities_say_what_makes_a_saved_plan_stale(read: Read, tickets: str, client: Any) -> None:
    table, query = read(table=tickets), read(query=f"SELECT * FROM `{tickets}`")
    pinned = read(query=f"SELECT * FROM `{tickets}` FOR SYSTEM_TIME AS OF @snapshot")
    for each in (table, query, pinned):
        assert each.source.identity() == each.relation.identity
    fill(client, tickets, "INSERT INTO {t} VALUES (9, 'open', 'x')")
    # The rows of a table are those of its moment, whatever becomes of it; a query's are not.
    assert table.source.identity() == table.relation.identity
    assert pinned.source.identity() == pinned.relation.identity
    assert query.source.identity() != query.relation.identity


def test_a_view_has_the_version_of_its_tables(read: Read, tickets: str, dataset: str, client: Any) -> None:
    view = bigquery.Table(f"{dataset}.open_tickets")
    view.view_query = f"SELECT id, body FROM `{tickets}` WHERE status = 'open'"
    client.create_table(view)
    got = read(table=f"{dataset}.open_tickets", order=("id",))
    assert got.rows == [(1, "a"), (3, "c")] and ", read at " in got.relation.described
    assert got.source.identity() == got.relation.identity
    fill(client, tickets, "UPDATE {t} SET body = 'changed' WHERE id = 3")
    assert got.source.identity() != got.relation.identity
    with pytest.raises(SourceError, match=r"source\.as_of: .* is a view"):
        read(table=f"{dataset}.open_tickets", as_of="2026-11-21T08:00:00Z")


def view(client: bigquery.Client, name: str, query: str) -> str:
    made = bigquery.Table(name)
    made.view_query = query
    client.create_table(made)
    return name


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("by", ["table", "query"])
def test_a_view_that_moves_by_itself_is_read_each_time(
    read: Read, tickets: str, dataset: str, client: Any, by: str, nested: bool
) -> None:
    """Its rows are others tomorrow, though its tables stay as they are."""
    query = f"SELECT id, DATE(CURRENT_TIMESTAMP()) AS today FROM `{tickets}`"
    name = view(client, f"{dataset}.moving", query)
    if nested:
        name = view(client, f"{dataset}.outer", f"SELECT * FROM {dataset}.moving AS m")
    asked = {"table": name} if by == "table" else {"query": f"SELECT * FROM ( SELECT * FROM `{name}` )"}
    for _ in range(2):
        got = read(order=("id",), **asked)
        assert "unchanged" not in got.relation.described and len(got.rows) == 3
        assert "can neither be pinned to a time" in got.relation.notes[0]


def test_a_view_that_is_other_in_every_run_is_refused(read: Read, tickets: str, dataset: str, client: Any) -> None:
    name = view(client, f"{dataset}.some", f"SELECT id, RAND() AS r FROM `{tickets}`")
    with pytest.raises(SourceError, match=rf"RAND\(\) .*view {name}|view {name}.* RAND\(\)"):
        read(table=name)


def test_a_view_whose_tables_may_not_be_seen_is_read_each_time(
    read: Read, tickets: str, dataset: str, client: Any, server: Any
) -> None:
    """An authorized view: its rows may be read, the tables below it not."""
    name = view(client, f"{dataset}.open_tickets", f"SELECT id FROM `{tickets}` WHERE status = 'open'")
    refused = {"type": "error", "status": 403, "message": "Permission bigquery.tables.get denied"}
    below = {"call": "bigquery.tables.get", "times": "all", "match": {"file": f"bq://{tickets}"}, "do": refused}
    server.set_faults([below])
    try:
        got = read(table=name, order=("id",))
        assert got.rows == [(1,), (3,)] and "can neither be pinned" in got.relation.notes[0]
    finally:
        server.set_faults(())


def test_missing_columns_are_left_to_who_needs_them(read: Read, tickets: str, client: Any) -> None:
    got = read(table=tickets, needed=frozenset({"id", "nope"}))
    assert list(got.relation.columns) == ["id", "status", "body"] and got.rows == []
    assert not [j for j in _jobs(client) if tickets in j.query]  # nothing was read for it


def test_too_many_bytes_are_refused_before_anything_is_read(read: Read, tickets: str, client: Any) -> None:
    with pytest.raises(SourceError, match=r"allows 1 B, and BigQuery would process \d+ B") as caught:
        read(table=tickets, max_bytes_billed=1)
    assert "Nothing was read or billed" in caught.value.hint
    assert not [j for j in _jobs(client) if tickets in j.query]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"table": "acme.nowhere.t"}, r"source\.table: Not found: .*nowhere"),
        ({"table": "t"}, r"source\.table: 't' is not project\.dataset\.table"),
        ({"query": "SELEC 1"}, r"source\.query: "),
        ({"query": "SELECT 1; SELECT 2"}, r"source\.query holds several statements"),
        ({"query": "SELECT RAND() AS a"}, r"source\.query may not call RAND"),
        ({"query": "SELECT 1 AS a, 2 AS A"}, r"columns? "),
        ({"query": "SELECT 1 AS a", "as_of": "2026-11-21T08:00:00Z"}, r"source\.as_of needs @snapshot"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(read: Read, spec: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        read(**spec)
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize("by", ["table", "query"])
def test_a_time_that_bigquery_keeps_no_longer_is_said_before_it_is_asked(
    read: Read, tickets: str, client: Any, by: str
) -> None:
    long_ago = (dt.datetime.now(dt.UTC) - dt.timedelta(days=8, hours=1)).isoformat()
    query = f"SELECT * FROM `{tickets}` FOR SYSTEM_TIME AS OF @snapshot"
    with pytest.raises(SourceError, match=r"source\.as_of is 8 days ago, and BigQuery keeps .* for 7") as caught:
        read(as_of=long_ago, **({"table": tickets} if by == "table" else {"query": query}))
    assert "Choose a later time" in caught.value.hint and not [j for j in _jobs(client) if tickets in j.query]


@pytest.mark.parametrize(
    "where",
    [
        "body != \"a ' b\" AND status = 'open' -- or not; DROP TABLE x",
        "status = r'open' /* ) */",
        "`status` IN ('open', \"'''\")",
        "status = '''open''' # that's it",
        "REGEXP_CONTAINS(status, r'^op(en)$')",
        "status = 'op\\u0065n'",
    ],
)
def test_conditions_of_odd_quoting_choose_the_same_rows(read: Read, tickets: str, where: str) -> None:
    assert read(table=tickets, order=("id",), where=where).rows == [(1, "open", "a"), (3, "open", "c")]


@pytest.mark.parametrize("name", ["ÜberID", "with space", "a-b", "select"])
def test_columns_of_odd_names(read: Read, dataset: str, client: Any, name: str) -> None:
    fill(client, f"{dataset}.odd", f"CREATE TABLE {{t}} (id INT64, `{name}` STRING)", "INSERT INTO {t} VALUES (1, 'x')")
    got = read(table=f"{dataset}.odd", order=(name,), needed=frozenset({name}), where=f"`{name}` = 'x'")
    assert got.rows == [("x",)] and list(got.relation.columns) == [name]


def test_a_query_that_writes_is_refused(read: Read, tickets: str, client: Any) -> None:
    with pytest.raises(SourceError, match=r"source\.query may only read: it must be one SELECT, not DELETE"):
        read(query=f"DELETE FROM `{tickets}` WHERE true")
    assert client.get_table(tickets).num_rows == 3


def test_another_region_is_refused_before_anything_is_read(read: Read, tickets: str) -> None:
    with pytest.raises(SourceError, match=r"source\.location is EU, and the table .* lies in US") as caught:
        read(table=tickets, location="EU")
    assert "location: US" in caught.value.hint


def test_a_service_that_is_not_there_is_said(con: Any) -> None:
    access = Access(GoogleCloud(), {"BIGQUERY_EMULATOR_HOST": "127.0.0.1:9"}, retry_seconds=0.2)
    with pytest.raises(SourceError, match=r"source\.table: .*(reached|again and again)"):
        BigQueryRows(BigQuerySource(type="bigquery", table="a.b.c"), access=access).open(con)


# --- values --------------------------------------------------------------------------------------------------------

FIELDS = [
    ("id", "INT64", 1), ("s", "STRING", "text"), ("y", "BYTES", "AP8="), ("f", "FLOAT64", 1.5), ("b", "BOOL", True),
    ("n", "NUMERIC", "12.5"), ("big", "BIGNUMERIC", "-0.50"), ("d", "DATE", "2026-11-21"),
    ("t", "TIME", "12:34:56.123456"), ("dt", "DATETIME", "2026-11-21T12:34:56.123456"),
    ("ts", "TIMESTAMP", "2026-11-21T12:34:56.123456Z"), ("j", "JSON", {"a": [1, None]}),
    ("g", "GEOGRAPHY", "POINT(1 2)"),
]  # fmt: skip


@pytest.fixture
def typed(client: bigquery.Client, dataset: str) -> str:
    """A table with a column of every type, and a row."""
    schema = [bigquery.SchemaField(name, kind) for name, kind, _ in FIELDS]
    inner = (bigquery.SchemaField("a", "INT64"), bigquery.SchemaField("c", "STRING", mode="REPEATED"))
    schema += [
        bigquery.SchemaField("list", "INT64", mode="REPEATED"),
        bigquery.SchemaField("st", "RECORD", fields=inner),
        bigquery.SchemaField("many", "RECORD", mode="REPEATED", fields=inner),
    ]
    struct = {"a": 1, "c": ["x"]}
    row = {name: value for name, _, value in FIELDS} | {"list": [1, 2], "st": struct, "many": [struct, {"a": None}]}
    name = f"{dataset}.typed"
    client.load_table_from_json([row], name, job_config=bigquery.LoadJobConfig(schema=schema)).result()
    return name


@pytest.mark.parametrize("way", ["rest", "storage"])
def test_values_arrive_without_loss(read: Read, typed: str, way: str) -> None:
    got = read(table=typed, read=way)
    assert got.relation.columns == {
        "id": "BIGINT", "s": "VARCHAR", "y": "BLOB", "f": "DOUBLE", "b": "BOOLEAN", "n": "DECIMAL(38,9)",
        "big": "VARCHAR", "d": "DATE", "t": "TIME", "dt": "TIMESTAMP", "ts": "TIMESTAMP WITH TIME ZONE", "j": "JSON",
        "g": "VARCHAR", "list": "BIGINT[]", "st": "STRUCT(a BIGINT, c VARCHAR[])",
        "many": "STRUCT(a BIGINT, c VARCHAR[])[]",
    }  # fmt: skip
    described = got.con.execute(f"DESCRIBE SELECT * FROM {got.relation.sql}").fetchall()
    assert {name: kind for name, kind, *_ in described} == got.relation.columns
    [row] = got.con.execute(f"SELECT * REPLACE (CAST(ts AS VARCHAR) AS ts) FROM {got.relation.sql}").fetchall()
    assert row == (
        1, "text", b"\x00\xff", 1.5, True, Decimal("12.5"), "-0.5", dt.date(2026, 11, 21), dt.time(12, 34, 56, 123456),
        dt.datetime(2026, 11, 21, 12, 34, 56, 123456), "2026-11-21 12:34:56.123456+00", '{"a":[1,null]}', "POINT(1 2)",
        [1, 2], {"a": 1, "c": ["x"]}, [{"a": 1, "c": ["x"]}, {"a": None, "c": []}],
    )  # fmt: skip


@pytest.fixture
def spans(client: bigquery.Client, dataset: str) -> str:
    """A table with intervals and ranges."""
    between = bigquery.SchemaField("span", "RANGE", range_element_type="DATE")
    schema = [bigquery.SchemaField("id", "INT64"), bigquery.SchemaField("wait", "INTERVAL"), between]
    rows = [
        {"id": 1, "wait": "1-2 3 4:5:6.789", "span": "[2026-01-01, UNBOUNDED)"},
        {"id": 2, "wait": "0-0 -1 0:0:0", "span": "[2026-01-01, 2026-02-01)"},
        {"id": 3, "wait": None, "span": None},
    ]
    config = bigquery.LoadJobConfig(schema=schema)
    client.load_table_from_json(rows, f"{dataset}.spans", job_config=config).result()
    return f"{dataset}.spans"


@pytest.mark.parametrize("way", ["rest", "storage"])
@pytest.mark.parametrize("by", ["table", "query"])
def test_intervals_and_ranges_are_the_text_that_bigquery_writes(read: Read, spans: str, way: str, by: str) -> None:
    got = read(read=way, **({"table": spans} if by == "table" else {"query": f"SELECT * FROM `{spans}` ORDER BY id"}))
    assert got.relation.columns == {"id": "BIGINT", "wait": "VARCHAR", "span": "VARCHAR"}
    assert sorted(got.rows) == [
        (1, "1-2 3 4:5:6.789", "[2026-01-01, UNBOUNDED)"),
        (2, "0-0 -1 0:0:0", "[2026-01-01, 2026-02-01)"),
        (3, None, None),
    ]


def test_nulls_and_empty_lists(read: Read) -> None:
    query = "SELECT CAST(NULL AS STRING) AS s, CAST(NULL AS NUMERIC) AS n, CAST([] AS ARRAY<INT64>) AS l"
    assert read(query=query).rows == [(None, None, [])]


def test_no_rows(read: Read, tickets: str) -> None:
    assert read(table=tickets, where="id > 100").rows == []


@pytest.mark.parametrize("way", ["rest", "auto"])
def test_many_rows_come_in_pages_and_in_order(read: Read, way: str) -> None:
    query = "SELECT MOD(n * 7919, 45001) AS id, REPEAT('x', 20) AS body FROM UNNEST(GENERATE_ARRAY(0, 45000)) AS n"
    got = read(query=query, order=("id",), read=way)
    assert [row[0] for row in got.rows] == list(range(45001))


def test_the_storage_read_api_must_be_there_when_it_is_asked_for(con: Any, access: Access) -> None:
    without = structs.replace(access, env={"BIGQUERY_EMULATOR_HOST": access.env["BIGQUERY_EMULATOR_HOST"]})
    spec = BigQuerySource(type="bigquery", query="SELECT 1 AS a", read="storage")
    with pytest.raises(SourceError, match=r"source\.read is storage") as caught:
        BigQueryRows(spec, access=without).open(con)
    assert "pip install 'batchform[bigquery]'" in caught.value.hint
