"""SQL: results, parameters, DML, transactions, DDL, time travel, estimates."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from emulator_kit import StillClock
from google.api_core import exceptions
from google.cloud import bigquery
from warehouse_kit import field, rows_of

from batchform.emulator import EmulatorServer


def made(client: bigquery.Client, dataset: str, columns: str, *values: str) -> str:
    """A table with rows; its name as SQL has it."""
    client.query(f"CREATE TABLE {dataset}.t ({columns})").result()
    if values:
        client.query(f"INSERT INTO {dataset}.t VALUES {', '.join(values)}").result()
    return f"{dataset}.t"


def test_both_ways_of_asking(client: bigquery.Client, numbers: str) -> None:
    sql = f"SELECT COUNT(*) AS c, SUM(n), 'x', MAX(word) FROM `{numbers}`"
    for rows in (client.query(sql).result(), client.query_and_wait(sql)):
        assert [dict(row) for row in rows] == [{"c": 10, "f0_": 45, "f1_": "x", "f2_": "w9"}]
        assert [f.field_type for f in rows.schema] == ["INTEGER", "INTEGER", "STRING", "STRING"]


def test_results_come_in_pages(client: bigquery.Client) -> None:
    sql = "SELECT x FROM UNNEST(GENERATE_ARRAY(1, 1000)) AS x ORDER BY x"
    for rows in (client.query(sql).result(page_size=100), client.query_and_wait(sql, page_size=100)):
        pages = [[row.x for row in page] for page in rows.pages]
        assert len(pages) == 10
        assert [x for page in pages for x in page] == list(range(1, 1001))
    assert list(client.query("SELECT 1 AS x FROM UNNEST([1]) WHERE false").result()) == []


def test_parameters(client: bigquery.Client) -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    config = bigquery.QueryJobConfig(
        query_parameters=[
            bigquery.ScalarQueryParameter("s", "STRING", "it's"),
            bigquery.ScalarQueryParameter("i", "INT64", 7),
            bigquery.ScalarQueryParameter("n", "NUMERIC", Decimal("1.123456789")),
            bigquery.ScalarQueryParameter("b", "BYTES", b"\x00\xff'"),
            bigquery.ScalarQueryParameter("t", "TIMESTAMP", moment),
            bigquery.ScalarQueryParameter("none", "DATE", None),
            bigquery.ArrayQueryParameter("a", "STRING", ["x", "y"]),
            bigquery.StructQueryParameter("r", bigquery.ScalarQueryParameter("k", "INT64", 3)),
        ]
    )
    sql = (
        "SELECT @s AS s, @i + 1 AS i, @n AS n, @b AS b, @t AS t,"
        " @none AS none, @a AS a, @r.k AS k, 'y' IN UNNEST(@a) AS h"
    )
    assert [dict(r) for r in client.query_and_wait(sql, job_config=config)] == [
        {
            "s": "it's",
            "i": 8,
            "n": Decimal("1.123456789"),
            "b": b"\x00\xff'",
            "t": moment,
            "none": None,
            "a": ["x", "y"],
            "k": 3,
            "h": True,
        }
    ]
    config = bigquery.QueryJobConfig(query_parameters=[bigquery.ScalarQueryParameter(None, "INT64", i) for i in (1, 2)])
    assert rows_of(client, "SELECT ? AS a, ? AS b", job_config=config) == [(1, 2)]
    config = bigquery.QueryJobConfig(query_parameters=[bigquery.ArrayQueryParameter("a", "STRING", ["POINT(1 2)"])])
    sql = "SELECT e, o, ST_GEOGFROMTEXT(@a[OFFSET(0)]) AS g FROM UNNEST(@a) AS e WITH OFFSET AS o ORDER BY o"
    assert rows_of(client, sql, job_config=config) == [("POINT(1 2)", 0, "POINT(1 2)")]
    with pytest.raises(exceptions.BadRequest, match="Query parameter 'gone' not found"):
        rows_of(client, "SELECT @gone")


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("SAFE_CAST('x' AS INT64), SAFE_CAST('7' AS INT64)", (None, 7)),
        (
            "ARRAY_AGG(STRUCT(x AS k, x * 2 AS v) ORDER BY x) FROM UNNEST([2, 1]) AS x",
            ([{"k": 1, "v": 2}, {"k": 2, "v": 4}],),
        ),
        ("ARRAY_AGG(x ORDER BY o DESC) FROM UNNEST(['a', 'b']) AS x WITH OFFSET AS o WHERE o >= 0", (["b", "a"],)),
        ("o FROM UNNEST(['a']) WITH OFFSET AS o", (0,)),
        ("DATE_ADD(DATE '2026-01-31', INTERVAL 1 DAY)", (dt.date(2026, 2, 1),)),
        ("TIMESTAMP_MILLIS(1000)", (dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC),)),
        ("PARSE_TIMESTAMP('%Y-%m-%d', '2026-01-02')", (dt.datetime(2026, 1, 2, tzinfo=dt.UTC),)),
        ("TO_JSON_STRING(STRUCT(1 AS a, 'x' AS b))", ('{"a":1,"b":"x"}',)),
        ("TO_HEX(SHA256('abc'))", ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",)),
        ("FORMAT_TIMESTAMP('%Y-%m-%d', TIMESTAMP '2026-01-02 03:04:05+00')", ("2026-01-02",)),
        ('JSON_VALUE(JSON \'{"a": {"b": "x"}}\', \'$.a.b\'), COUNTIF(true)', ("x", 1)),
        ("NUMERIC '99999999999999999999999999999.999999999'", (Decimal("99999999999999999999999999999.999999999"),)),
        ("0.1 + 0.2, 3 / 2, CAST(1.5 AS NUMERIC), b'\\x00'", (0.1 + 0.2, 1.5, Decimal("1.5"), b"\x00")),
        (
            "DATE '2026-01-31', DATETIME '2026-01-31 01:02:03', TIME '01:02:03'",
            (dt.date(2026, 1, 31), dt.datetime(2026, 1, 31, 1, 2, 3), dt.time(1, 2, 3)),
        ),
        ("TIMESTAMP_SUB(TIMESTAMP '2026-01-02', INTERVAL 1 DAY)", (dt.datetime(2026, 1, 1, tzinfo=dt.UTC),)),
        ("ST_GEOGPOINT(1, 2)", ("POINT(1 2)",)),
        ("ARRAY<STRING>[], NULL", ([], None)),
    ],
)
def test_expressions(client: bigquery.Client, sql: str, row: tuple[Any, ...]) -> None:
    assert rows_of(client, f"SELECT {sql}") == [row]


def test_names_of_struct_fields(client: bigquery.Client) -> None:
    sql = "SELECT ARRAY_AGG(STRUCT(x, y, 2 AS z)) FROM (SELECT 1 AS x, 'a' AS y)"
    assert rows_of(client, sql) == [([{"x": 1, "y": "a", "z": 2}],)]


def test_stars_and_windows(client: bigquery.Client, numbers: str) -> None:
    sql = (
        f"SELECT * EXCEPT (word), MOD(n, 2) AS odd FROM `{numbers}` QUALIFY"
        " ROW_NUMBER() OVER (PARTITION BY MOD(n, 2) ORDER BY n DESC) = 1 ORDER BY n"
    )
    assert rows_of(client, sql) == [(8, 0), (9, 1)]
    nested = (
        f"WITH a AS (SELECT n FROM `{numbers}` WHERE n < 2) SELECT x.n"
        f" FROM a AS x JOIN `{numbers}` AS y ON x.n = y.n ORDER BY 1 DESC"
    )
    assert rows_of(client, nested) == [(1,), (0,)]


def test_wrong_sql(client: bigquery.Client, dataset: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Syntax error") as caught:
        rows_of(client, "SELEC 1")
    assert caught.value.errors[0]["reason"] == "invalidQuery"
    with pytest.raises(exceptions.BadRequest, match="nothing"):
        rows_of(client, "SELECT nothing FROM (SELECT 1 AS x)")
    with pytest.raises(exceptions.NotFound, match=f"Not found: Table acme:{dataset}.nothing"):
        rows_of(client, f"SELECT * FROM {dataset}.nothing")
    with pytest.raises(exceptions.NotFound, match="Not found: Dataset acme:nowhere"):
        client.query_and_wait("SELECT * FROM nowhere.t")
    with pytest.raises(exceptions.MethodNotImplemented, match="does not support the statement DECLARE x INT64"):
        rows_of(client, "DECLARE x INT64 DEFAULT 1; SELECT x")
    with pytest.raises(exceptions.BadRequest, match="Duplicate column names"):
        rows_of(client, "SELECT 1 AS a, 2 AS a")


def test_the_disk_of_this_machine_cannot_be_read(client: bigquery.Client) -> None:
    for sql in ("SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM READ_TEXT('/etc/passwd')"):
        with pytest.raises(exceptions.MethodNotImplemented, match="in FROM"):
            rows_of(client, sql)
    with pytest.raises(exceptions.BadRequest, match="read_text"):
        rows_of(client, "SELECT read_text('/etc/passwd')")


def test_dml_counts(client: bigquery.Client, dataset: str) -> None:
    table = made(client, dataset, "id INT64 NOT NULL, v STRING", "(1, 'a')", "(2, 'b')", "(3, 'c')")
    for sql, count in (
        (f"INSERT {table} (id, v) VALUES (4, 'd'), (5, 'e')", 2),
        (f"INSERT INTO {table} SELECT id + 10, v FROM {table} WHERE id < 3", 2),
        (f"UPDATE {table} SET v = 'z' WHERE id > 3", 4),
        (f"UPDATE {table} AS t SET v = s.w FROM (SELECT 1 AS id, 'new' AS w) AS s WHERE t.id = s.id", 1),
        (f"DELETE FROM {table} WHERE id = 2", 1),
        (f"DELETE {table} WHERE id = 99", 0),
    ):
        job = client.query(sql)
        job.result()
        assert job.num_dml_affected_rows == count, sql
    assert rows_of(client, f"SELECT * FROM {table} ORDER BY id") == [
        (1, "new"), (3, "c"), (4, "z"), (5, "z"), (11, "z"), (12, "z"),
    ]  # fmt: skip
    with pytest.raises(exceptions.BadRequest, match="Required field id cannot be null"):
        client.query(f"INSERT INTO {table} (v) VALUES ('x')").result()


def test_merge(client: bigquery.Client, dataset: str) -> None:
    table = made(client, dataset, "id INT64, v STRING", "(1, 'a')", "(2, 'b')", "(3, 'c')")
    merge = f"""
        MERGE {table} T USING (SELECT 2 AS id, 'B' AS v UNION ALL SELECT 4, 'D') S ON T.id = S.id
        WHEN MATCHED THEN UPDATE SET v = S.v WHEN NOT MATCHED THEN INSERT ROW
        WHEN NOT MATCHED BY SOURCE AND T.id = 3 THEN DELETE"""
    job = client.query(merge)
    job.result()
    stats = job.dml_stats
    assert (job.num_dml_affected_rows, stats.inserted_row_count, stats.updated_row_count, stats.deleted_row_count) == (
        3, 1, 1, 1,
    )  # fmt: skip
    assert rows_of(client, f"SELECT * FROM {table} ORDER BY id") == [(1, "a"), (2, "B"), (4, "D")]
    twice = (
        f"MERGE {table} T USING (SELECT 1 AS id UNION ALL SELECT"
        " 1) S ON T.id = S.id WHEN MATCHED THEN UPDATE SET v = 'x'"
    )
    with pytest.raises(exceptions.BadRequest, match="must match at most one source row for each target row"):
        client.query(twice).result()
    claim = (
        f"MERGE {table} T USING (SELECT 9 AS id) S ON T.id = S.id"
        " WHEN NOT MATCHED THEN INSERT (id, v) VALUES (S.id, 'mine')"
    )
    assert [client.query_and_wait(claim).num_dml_affected_rows for _ in range(3)] == [1, 0, 0]


def test_structs_are_assigned_by_place_and_not_converted(client: bigquery.Client, dataset: str) -> None:
    table = made(client, dataset, "id INT64, s STRUCT<a INT64, b STRING>, l ARRAY<FLOAT64>", "(1, (1, 'x'), [1.5])")
    merge = (
        f"MERGE {table} T USING (SELECT 1 AS id, {{}} AS v, [1] AS l) S ON T.id = S.id WHEN MATCHED THEN UPDATE SET "
    )
    for value, to in (
        ("STRUCT('x' AS b, 1 AS a)", "s = S.v"),
        ("STRUCT(1 AS a)", "s = S.v"),
        ("STRUCT(1 AS a, 'x' AS b, 2 AS c)", "s = S.v"),
        ("STRUCT(1.5 AS a, 'x' AS b)", "s = S.v"),
        ("0", "l = S.l"),
    ):
        with pytest.raises(exceptions.BadRequest, match=r"cannot be assigned to [sl], which has type (STRUCT|ARRAY)<"):
            client.query(merge.format(value) + to).result()
    with pytest.raises(exceptions.GoogleAPICallError, match="a struct of other names"):  # BigQuery takes it
        client.query(merge.format("STRUCT(2 AS other, 'y' AS b)") + "s = S.v").result()
    client.query(merge.format("STRUCT(2 AS A, 'y' AS b)") + "s = S.v, l = ARRAY(SELECT 2.5)").result()
    assert rows_of(client, f"SELECT s, l FROM {table}") == [({"a": 2, "b": "y"}, [2.5])]
    with pytest.raises(exceptions.BadRequest, match="Correlated subqueries"):
        client.query(merge.format("0") + "l = ARRAY(SELECT CAST(x AS FLOAT64) FROM UNNEST(S.l) AS x)").result()


def test_transactions(client: bigquery.Client, dataset: str) -> None:
    table = made(client, dataset, "id INT64", "(1)")
    client.query(
        f"BEGIN TRANSACTION; INSERT INTO {table} VALUES (2); DELETE FROM {table} WHERE id = 1; ROLLBACK TRANSACTION"
    ).result()
    assert rows_of(client, f"SELECT id FROM {table}") == [(1,)]
    script = f"INSERT INTO {table} VALUES (2); DELETE FROM {table} WHERE id = (SELECT MIN(id) FROM {table})"
    assert rows_of(client, f"BEGIN TRANSACTION; {script}; COMMIT TRANSACTION; SELECT id FROM {table}") == [(2,)]
    assert rows_of(client, f"SELECT id FROM {table}") == [(2,)]
    failing = f"BEGIN TRANSACTION; INSERT INTO {table} VALUES (3); SELECT 1 FROM {dataset}.nothing; COMMIT TRANSACTION"
    with pytest.raises(exceptions.NotFound):
        client.query(failing).result()
    assert rows_of(client, f"SELECT id FROM {table}") == [(2,)]


def test_ddl(client: bigquery.Client, dataset: str) -> None:
    sql = f"""
        CREATE TABLE {dataset}.made (
            id INT64 NOT NULL OPTIONS (description = 'the id'), s STRUCT<a ARRAY<STRING>, n NUMERIC>, ts TIMESTAMP
        ) PARTITION BY TIMESTAMP_TRUNC(ts, MONTH) CLUSTER BY id OPTIONS (description = 'made', labels = [('a', 'b')])"""
    job = client.query(sql)
    job.result()
    assert (job.ddl_operation_performed, job.statement_type) == ("CREATE", "CREATE_TABLE")
    table = client.get_table(f"{dataset}.made")
    assert table.schema == [
        bigquery.SchemaField("id", "INTEGER", "REQUIRED", description="the id"),
        field("s", "RECORD", "NULLABLE", field("a", "STRING", "REPEATED"), field("n", "NUMERIC")),
        field("ts", "TIMESTAMP"),
    ]
    assert (table.time_partitioning.type_, table.time_partitioning.field) == ("MONTH", "ts")
    assert (table.clustering_fields, table.description, table.labels) == (["id"], "made", {"a": "b"})
    client.query(f"CREATE TABLE IF NOT EXISTS {dataset}.made (x INT64)").result()
    with pytest.raises(exceptions.Conflict):
        client.query(f"CREATE TABLE {dataset}.made (x INT64)").result()
    client.query(f"ALTER TABLE {dataset}.made ADD COLUMN more JSON").result()
    client.query(f"INSERT INTO {dataset}.made (id, more) VALUES (1, JSON '{{\"a\":1}}')").result()
    assert rows_of(client, f"SELECT id, s, more FROM {dataset}.made") == [(1, None, {"a": 1})]
    client.query(f"TRUNCATE TABLE {dataset}.made").result()
    assert client.get_table(f"{dataset}.made").num_rows == 0
    client.query(f"CREATE OR REPLACE TABLE {dataset}.made AS SELECT 'x' AS only").result()
    assert rows_of(client, f"SELECT * FROM {dataset}.made") == [("x",)]
    client.query(f"DROP TABLE {dataset}.made").result()
    client.query(f"DROP TABLE IF EXISTS {dataset}.made").result()
    with pytest.raises(exceptions.NotFound):
        client.get_table(f"{dataset}.made")


@pytest.mark.usefixtures("numbers")
def test_information_schema(client: bigquery.Client, dataset: str) -> None:
    sql = (
        f"SELECT column_name, data_type FROM {dataset}.INFORMATION_SCHEMA.COLUMNS"
        " WHERE table_name = 'numbers' ORDER BY ordinal_position"
    )
    assert rows_of(client, sql) == [("n", "INT64"), ("word", "STRING")]
    assert rows_of(client, f"SELECT table_name, table_type FROM `acme.{dataset}.INFORMATION_SCHEMA.TABLES`") == [
        ("numbers", "BASE TABLE")
    ]


def test_tables_as_they_were(client: bigquery.Client, numbers: str, server: EmulatorServer) -> None:
    (start,) = rows_of(client, "SELECT CURRENT_TIMESTAMP()")[0]
    server.advance(10)
    client.query(f"UPDATE `{numbers}` SET word = 'later' WHERE true").result()
    server.advance(10)
    client.query(f"DELETE FROM `{numbers}` WHERE n > 0").result()
    config = bigquery.QueryJobConfig(query_parameters=[bigquery.ScalarQueryParameter("at", "TIMESTAMP", start)])
    pinned = f"SELECT COUNT(*), MIN(word) FROM `{numbers}` FOR SYSTEM_TIME AS OF"
    assert rows_of(client, f"{pinned} @at", job_config=config) == [(10, "w0")]
    assert rows_of(client, f"{pinned} TIMESTAMP '{(start + dt.timedelta(seconds=15)).isoformat()}'") == [(10, "later")]
    assert rows_of(client, f"{pinned} TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 SECOND)") == [(10, "later")]
    joined = (
        f"SELECT COUNT(*) FROM `{numbers}` AS new JOIN `{numbers}` AS old FOR SYSTEM_TIME AS OF @at ON new.n = old.n"
    )
    assert rows_of(client, joined, job_config=config) == [(1,)]
    with pytest.raises(exceptions.BadRequest, match="in the future"):
        rows_of(client, f"{pinned} TIMESTAMP '2999-01-01'")
    with pytest.raises(exceptions.BadRequest, match="more than 7 days"):
        rows_of(client, f"{pinned} TIMESTAMP '2001-01-01'")


def test_a_table_as_of_now_has_what_was_just_committed(tmp_path: Any, connect: Callable[..., bigquery.Client]) -> None:
    with EmulatorServer(tmp_path / "state", clock=StillClock()) as server:
        client = connect(server.url)
        client.create_dataset("d")
        table = made(client, "d", "n INT64")
        for i in range(1, 4):
            server.advance(1 / 3)
            client.query(f"INSERT INTO {table} VALUES ({i})").result()
            assert rows_of(client, f"SELECT COUNT(*) FROM {table} FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()") == [(i,)]


def test_bytes_of_a_dry_run(client: bigquery.Client, dataset: str) -> None:
    client.query(
        f"CREATE TABLE {dataset}.t AS SELECT x AS id, 'abc' AS s, [1, 2] AS a,"
        " STRUCT(1.5 AS f, true AS b) AS r FROM UNNEST(GENERATE_ARRAY(1, 1000)) AS x"
    ).result()
    dry = bigquery.QueryJobConfig(dry_run=True)

    def size(sql: str) -> int:
        return int(client.query(sql, job_config=dry).total_bytes_processed)

    assert size(f"SELECT id FROM {dataset}.t") == 8_000
    assert size(f"SELECT COUNT(*) FROM {dataset}.t WHERE s = 'abc' AND id > 1") == 13_000
    assert size(f"SELECT * FROM {dataset}.t") == 8_000 + 5_000 + 16_000 + 9_000
    assert size(f"SELECT * EXCEPT (id) FROM {dataset}.t") == 30_000
    assert (
        size(f"WITH c AS (SELECT id, s FROM {dataset}.t) SELECT x.s FROM c AS x JOIN {dataset}.t AS y USING (id)")
        == 13_000
    )
    assert size(f"MERGE {dataset}.t T USING (SELECT 1 AS id) S ON T.id = S.id WHEN MATCHED THEN DELETE") == 38_000
    assert size("SELECT 1") == 0
    assert client.get_table(f"{dataset}.t").num_bytes == 38_000
    job = client.query(f"DELETE FROM {dataset}.t WHERE true", job_config=dry)
    assert (job.state, client.get_table(f"{dataset}.t").num_rows) == ("DONE", 1000)
    job = client.query(f"SELECT id, s FROM {dataset}.t", job_config=dry)
    assert [f.field_type for f in job.schema] == ["INTEGER", "STRING"]
    with pytest.raises(exceptions.BadRequest):
        client.query("SELECT zz", job_config=dry)


def test_bytes_that_may_be_billed(client: bigquery.Client, numbers: str) -> None:
    config = bigquery.QueryJobConfig(maximum_bytes_billed=10 * 1024**2 - 1)
    for ask in (client.query, client.query_and_wait):
        with pytest.raises(
            exceptions.GoogleAPICallError, match=r"bytes billed: 10485759\. 10485760 or higher required"
        ):
            list(getattr(ask(f"SELECT n FROM `{numbers}`", job_config=config), "result", list)())
    config = bigquery.QueryJobConfig(maximum_bytes_billed=10 * 1024**2)
    job = client.query(f"SELECT n FROM `{numbers}`", job_config=config)
    job.result()
    assert (job.total_bytes_processed, job.total_bytes_billed) == (80, 10 * 1024**2)


def test_destination_tables(client: bigquery.Client, dataset: str) -> None:
    target = f"acme.{dataset}.target"

    def run(sql: str, write: str) -> list[tuple[Any, ...]]:
        config = bigquery.QueryJobConfig(destination=target, write_disposition=write)
        client.query(sql, job_config=config).result()
        return sorted(tuple(row.values()) for row in client.list_rows(target))

    assert run("SELECT 1 AS a", "WRITE_EMPTY") == [(1,)]
    with pytest.raises(exceptions.Conflict):
        run("SELECT 2 AS a", "WRITE_EMPTY")
    assert run("SELECT 2 AS a", "WRITE_APPEND") == [(1,), (2,)]
    with pytest.raises(exceptions.BadRequest, match="Cannot add fields"):
        run("SELECT 2 AS b", "WRITE_APPEND")
    assert run("SELECT 'x' AS b", "WRITE_TRUNCATE") == [("x",)]


def test_datasets_in_other_places(client: bigquery.Client, dataset: str) -> None:
    there = bigquery.Dataset(f"acme.{dataset}_eu")
    there.location = "EU"
    client.create_dataset(there)
    client.query(f"CREATE TABLE {dataset}_eu.t AS SELECT 1 AS x").result()
    client.query(f"CREATE TABLE {dataset}.t AS SELECT 1 AS x").result()
    job = client.query(f"SELECT * FROM {dataset}_eu.t")
    assert (job.location, [row.x for row in job.result()]) == ("EU", [1])
    with pytest.raises(exceptions.NotFound, match=f"Dataset acme:{dataset}_eu was not found in location US"):
        client.query(f"SELECT * FROM {dataset}_eu.t", location="US").result()
    with pytest.raises(exceptions.NotFound, match="was not found in location"):
        client.query(f"SELECT * FROM {dataset}.t JOIN {dataset}_eu.t USING (x)").result()
    with pytest.raises(exceptions.NotFound):
        client.get_job(job.job_id, location="US")
    with pytest.raises(exceptions.BadRequest, match="different locations"):
        client.copy_table(f"acme.{dataset}_eu.t", f"acme.{dataset}.copied").result()


def race(count: int, work: Callable[[int], None]) -> None:
    """The same work in several threads at once; the first error is raised."""
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            work(i)
        except BaseException as e:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_race_of_claims_has_one_winner(client: bigquery.Client, dataset: str) -> None:
    table = made(client, dataset, "id INT64, who INT64")
    counts: list[int] = []

    def claim(i: int) -> None:
        sql = f"MERGE {table} T USING (SELECT 1 AS id, {i} AS who) S ON T.id = S.id WHEN NOT MATCHED THEN INSERT ROW"
        counts.append(int(client.query_and_wait(sql).num_dml_affected_rows or 0))

    race(8, claim)
    assert sorted(counts) == [0] * 7 + [1]
    assert len(rows_of(client, f"SELECT * FROM {table}")) == 1


def test_race_of_counters_loses_nothing(client: bigquery.Client, dataset: str) -> None:
    table = made(client, dataset, "n INT64", "(0)")

    def count(_: int) -> None:
        for _step in range(5):
            client.query_and_wait(f"UPDATE {table} SET n = n + 1 WHERE true")

    race(8, count)
    assert rows_of(client, f"SELECT n FROM {table}") == [(40,)]


def test_race_between_two_servers_on_one_state(tmp_path: Any, connect: Callable[..., bigquery.Client]) -> None:
    with EmulatorServer(tmp_path / "state") as one, EmulatorServer(tmp_path / "state") as two:
        clients = [connect(one.url), connect(two.url)]
        clients[0].create_dataset("d")
        table = made(clients[0], "d", "n INT64", "(0)")

        def count(i: int) -> None:
            for _ in range(5):
                clients[i % 2].query_and_wait(f"UPDATE {table} SET n = n + 1 WHERE true")

        race(4, count)
        assert rows_of(clients[1], f"SELECT n FROM {table}") == [(20,)]


def test_nulls_are_the_smallest(client: bigquery.Client) -> None:
    values = "FROM UNNEST([1, NULL, 3]) AS x"
    assert [row[0] for row in rows_of(client, f"SELECT x {values} ORDER BY x")] == [None, 1, 3]
    assert [row[0] for row in rows_of(client, f"SELECT x {values} ORDER BY x DESC")] == [3, 1, None]
    assert [row[0] for row in rows_of(client, f"SELECT x {values} ORDER BY x DESC NULLS FIRST")] == [None, 3, 1]
    ranked = f"SELECT ROW_NUMBER() OVER (ORDER BY x DESC) {values} WHERE x IS NULL OR x > 0 ORDER BY x"
    assert [row[0] for row in rows_of(client, ranked)] == [3, 2, 1]
