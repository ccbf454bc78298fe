"""Rows from PostgreSQL: every type, in a fixed order, of one moment, whatever happens meanwhile."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psutil
import pytest
from shop_kit import Shop

from batchform.errors import SourceError

UTC = dt.UTC
# type in PostgreSQL, a value in its SQL, type in DuckDB, the value as Arrow has it
TYPES: list[tuple[str, str, str, Any]] = [
    ("boolean", "true", "BOOLEAN", True),
    ("smallint", "-32768", "SMALLINT", -32768),
    ("integer", "2147483647", "INTEGER", 2147483647),
    ("bigint", "-9223372036854775808", "BIGINT", -(2**63)),
    ("real", "0.1", "FLOAT", 0.10000000149011612),
    ("double precision", "'-Infinity'", "DOUBLE", float("-inf")),
    ("numeric(10,3)", "-1234567.890", "DECIMAL(10,3)", Decimal("-1234567.890")),
    ("numeric(38,0)", "9" * 38, "DECIMAL(38,0)", Decimal("9" * 38)),
    ("numeric(39,0)", "9" * 39, "VARCHAR", "9" * 39),
    ("numeric", "1.500", "VARCHAR", "1.500"),
    ("numeric", "'NaN'", "VARCHAR", "NaN"),
    ("numeric(3,-2)", "12300", "VARCHAR", "12300"),
    ("text", "E'a\\n\"é🎈'", "VARCHAR", 'a\n"é🎈'),
    ("varchar(3)", "'abc'", "VARCHAR", "abc"),
    ("char(3)", "'a'", "VARCHAR", "a  "),
    ("mood", "'sad'", "VARCHAR", "sad"),
    ("bytea", "'\\x00ff'", "BLOB", b"\x00\xff"),
    ("date", "'0001-01-01'", "DATE", dt.date(1, 1, 1)),
    ("time", "'23:59:59.999999'", "TIME", dt.time(23, 59, 59, 999999)),
    ("timetz", "'10:00+02'", "VARCHAR", "10:00:00+02"),
    ("timestamp", "'2026-11-21 13:30:00.000001'", "TIMESTAMP", dt.datetime(2026, 11, 21, 13, 30, 0, 1)),
    (
        "timestamptz",
        "'2026-11-21 13:30:00.25+01'",
        "TIMESTAMP WITH TIME ZONE",
        dt.datetime(2026, 11, 21, 12, 30, 0, 250_000, UTC),
    ),
    ("interval", "'1 year 2 days 03:00'", "VARCHAR", "1 year 2 days 03:00:00"),
    (
        "uuid",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "UUID",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ),
    ("json", '\'{"a": 1.0, "a" : 12345678901234567890.5}\'', "JSON", '{"a": 1.0, "a" : 12345678901234567890.5}'),
    ("jsonb", '\'{"b":1.50,"a":null}\'', "JSON", '{"a": null, "b": 1.50}'),
    ("jsonb", "'null'", "JSON", "null"),
    ("integer[]", "'{1,NULL,3}'", "INTEGER[]", [1, None, 3]),
    ("text[]", "'{\"a,b\",NULL,\"\"}'", "VARCHAR[]", ["a,b", None, ""]),
    ("numeric(5,2)[]", "'{1.5}'", "DECIMAL(5,2)[]", [Decimal("1.50")]),
    ("numeric[]", "'{1.50}'", "VARCHAR[]", ["1.50"]),
    ("timestamptz[]", "'{2026-01-01 00:00Z}'", "TIMESTAMP WITH TIME ZONE[]", [dt.datetime(2026, 1, 1, tzinfo=UTC)]),
    ("uuid[]", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", "UUID[]", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("jsonb[]", "array['{\"a\":1}'::jsonb]", "JSON[]", ['{"a": 1}']),
    ("bytea[]", "array['\\x00'::bytea]", "BLOB[]", [b"\x00"]),
    ("mood[]", "'{sad,NULL}'", "VARCHAR[]", ["sad", None]),
    ("inet", "'10.0.0.0/8'", "VARCHAR", "10.0.0.0/8"),
    ("int4range", "'[1,5)'", "VARCHAR", "[1,5)"),
    ("point", "'(1,2)'", "VARCHAR", "(1,2)"),
    ("pair", "ROW(1,'x')", "VARCHAR", "(1,x)"),
    ("positive", "7", "INTEGER", 7),
]  # fmt: skip


def test_every_type_keeps_its_value(shop: Shop) -> None:
    columns = [f"c{i} {kind}" for i, (kind, *_) in enumerate(TYPES)]
    shop.run(
        "CREATE TYPE mood AS ENUM ('happy', 'sad')",
        "CREATE TYPE pair AS (n integer, t text)",
        "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
        f"CREATE TABLE t (id integer PRIMARY KEY, {', '.join(columns)})",
        f"INSERT INTO t VALUES (2, {', '.join(value for _, value, *_ in TYPES)})",
        "INSERT INTO t VALUES (1)",
    )
    for spec in ({"table": "t"}, {"query": "SELECT * FROM t ORDER BY id"}, {"query": "SELECT * FROM t"}):
        relation = shop.source(**spec).open(shop.con)
        assert list(relation.columns.values())[1:] == [kind for _, _, kind, _ in TYPES]
        empty, full = shop.con.sql(f"SELECT * FROM {relation.sql} ORDER BY id").to_arrow_table().to_pylist()
        assert list(empty.values()) == [1, *[None] * len(TYPES)]
        assert list(full.values())[1:] == [value for *_, value in TYPES]


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("numeric(5,2)", "'NaN'", r"shop, table t, row 1: column 'c' holds what decimal128\(5, 2\) cannot hold"),
        ("integer[]", "'{{1,2},{3,4}}'", "shop, table t, row 1: column 'c' holds what a flat list<.*> cannot hold"),
        ("date", "'infinity'", "source.table: date too large"),
        ("timestamptz", "'20000-01-01'", "source.table: timestamp too large"),
        ("date", "'0044-03-15 BC'", "source.table: date too small"),
    ],
)
def test_what_has_no_counterpart_is_an_error_with_a_way_out(shop: Shop, kind: str, value: str, words: str) -> None:
    shop.run(f"CREATE TABLE t (id integer PRIMARY KEY, c {kind})", f"INSERT INTO t VALUES (1, {value})")
    with pytest.raises(SourceError, match=words) as caught:
        shop.read(table="t")
    assert "text" in caught.value.hint
    assert len(shop.read(query="SELECT id, CAST(c AS text) AS c FROM t")) == 1


def test_names_of_any_kind(shop: Shop) -> None:
    odd = ['a "b"', "100%", "%s", "select", "Ünï", "a.b", ":x", "x%%y"]
    columns = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" text' for name in odd)
    shop.run('CREATE SCHEMA "Odd schema"', f'CREATE TABLE "Odd schema"."My 50% table" (id int PRIMARY KEY, {columns})')
    shop.run("INSERT INTO \"Odd schema\".\"My 50% table\" SELECT 1, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'")
    (row,) = shop.read(table="Odd schema.My 50% table", where="\"100%\" LIKE '%b%' AND ':x' <> '%s' -- 5%")
    assert row == {"id": 1, **dict(zip(odd, "abcdefgh", strict=True))}
    shop.run('DROP SCHEMA "Odd schema" CASCADE')


def test_rows_have_a_fixed_order(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE keyed (b text, a integer, j json, PRIMARY KEY (a, b))",
        "INSERT INTO keyed SELECT chr(65 + (i * 7) % 26), i % 3, '{}' FROM generate_series(1, 60) i",
        "CREATE TABLE heap AS SELECT * FROM keyed ORDER BY random()",
        "CREATE VIEW seen AS SELECT * FROM heap",
    )
    keyed = [(row["a"], row["b"]) for row in shop.read(table="keyed")]
    assert keyed == sorted(keyed)
    before = shop.read(table="heap")
    shop.run("CREATE TABLE again AS SELECT * FROM heap ORDER BY random()", "DROP TABLE heap CASCADE")
    shop.run("ALTER TABLE again RENAME TO heap", "CREATE VIEW seen AS SELECT * FROM heap")
    assert shop.read(table="heap") == before == shop.read(table="seen")
    assert sorted(map(str, before)) == sorted(map(str, shop.read(query="SELECT * FROM heap")))
    assert shop.read(query="SELECT * FROM heap") == shop.read(query="SELECT * FROM (SELECT * FROM heap) x;")
    assert [r["a"] for r in shop.read(query="SELECT a, j FROM keyed ORDER BY a DESC -- last")] == [2] * 20 + [
        1
    ] * 20 + [0] * 20


def test_only_needed_columns_are_read(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE t (id integer PRIMARY KEY, body text, hidden text)", "INSERT INTO t VALUES (1, 'a', 'b')",
        "CREATE ROLE clerk LOGIN PASSWORD 'clerk'", "GRANT SELECT (id, body) ON t TO clerk",
        "GRANT USAGE ON SCHEMA public TO clerk",
    )  # fmt: skip
    url = shop.url.replace("app:s3cr3t%2Fp%40ss", "clerk:clerk")
    try:
        assert shop.read(table="t", url=url, needed={"id", "body"}) == [{"id": 1, "body": "a"}]
        with pytest.raises(SourceError, match=r"source\.table: permission denied for table t"):
            shop.read(table="t", url=url)
        assert list(shop.read(table="t", needed={"id", "nope"})[0]) == ["id", "body", "hidden"]  # to name what there is
    finally:
        shop.run("DROP OWNED BY clerk", "DROP ROLE clerk")


@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (DELETE FROM t RETURNING id) SELECT * FROM gone",
        "SELECT * INTO other FROM t",
        "SELECT set_config('transaction_read_only', 'off', true), lo_create(0)",
        "SELECT 1) x; COMMIT; DELETE FROM t; SELECT * FROM (SELECT 1",
        "SELECT pg_notify('a', 'b'), lo_create(0)",
        "TABLE t; DROP TABLE t",
        "SELECT * FROM t FOR UPDATE",
    ],
)
def test_nothing_can_be_written(shop: Shop, query: str) -> None:
    shop.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with pytest.raises(SourceError, match=r"source\.query"):
        shop.read(query=query)
    assert shop.run("SELECT count(*), (SELECT count(*) FROM pg_largeobject_metadata) FROM t") == [(1, 0)]


@pytest.mark.parametrize("call", ["random()", "gen_random_uuid()", "clock_timestamp ()", "nextval('s')"])
def test_unsteady_functions_are_refused(shop: Shop, call: str) -> None:
    shop.run("CREATE TABLE t (id integer PRIMARY KEY, random text)", "INSERT INTO t VALUES (1, 'random()')")
    with pytest.raises(SourceError, match=r"may not call \w+\(\)"):
        shop.read(query=f"SELECT id, {call} FROM t")
    with pytest.raises(SourceError, match=r"may not call \w+\(\)"):
        shop.read(table="t", where=f"{call} IS NULL")
    assert len(shop.read(table="t", where="random = 'random()' /* random() */")) == 1


def test_a_missing_table_is_named_with_the_nearest(shop: Shop) -> None:
    shop.run("CREATE TABLE tickets (id integer)", "CREATE VIEW Tags AS SELECT 1 AS id")
    with pytest.raises(SourceError, match="shop has no table 'ticket'") as caught:
        shop.read(table="ticket")
    assert "tickets" in caught.value.hint
    assert shop.read(table="TICKETS") == [] and len(shop.read(table="tags")) == 1


BLOCKED = "id <> 15000 OR pg_advisory_lock_shared(7) IS NOT NULL"
"""A condition that lets a reader come to row 15,000, and no further while the lock is held."""


def meanwhile(shop: Shop, act: Callable[[], object]) -> list[dict[str, Any]]:
    """What a reader reads while something else happens in the middle of its rows. Raises what it raised."""
    shop.run("CREATE TABLE t (id integer PRIMARY KEY, body text)")
    shop.run("INSERT INTO t SELECT i, repeat('a', 500) FROM generate_series(1, 20000) i")
    with shop.server.connect(shop.name) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("SELECT pg_advisory_lock(7)")
        reading = pool.submit(shop.read, table="t", where=BLOCKED)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while holder.execute(waiting).fetchone() == (0,):
            assert not reading.done(), reading.result()
        act()
        holder.execute("SELECT pg_advisory_unlock(7)")
        rows = reading.result(60)
    holder.close()
    return rows


def test_a_writer_meanwhile_is_neither_seen_nor_waited_for(shop: Shop) -> None:
    changes = "UPDATE t SET body = 'changed'", "INSERT INTO t VALUES (0, 'new')", "DELETE FROM t WHERE id > 10000"
    rows = meanwhile(shop, lambda: shop.run(*changes))
    assert len(rows) == 20_000 and {row["body"] for row in rows} == {"a" * 500}
    assert len(shop.read(table="t")) == 10_001


def test_many_rows_are_read_in_bounded_memory(shop: Shop) -> None:
    """200,000 rows of half a KB: 100 MB pass, and the process may grow by a part of that."""
    shop.run(
        "CREATE UNLOGGED TABLE t AS SELECT i AS id, repeat(md5(i::text), 16) AS body FROM generate_series(1, 200000) i",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
    )
    shop.read(table="t", where="id < 20000")  # what is loaded once, and the first batches
    process, peak, stop = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    relation = shop.source(table="t").open(shop.con)
    stop.set()
    watcher.join()
    assert shop.con.execute(f"SELECT count(*), sum(length(body)) FROM {relation.sql}").fetchone() == (
        200_000,
        102_400_000,
    )
    assert peak[0] - before < 60 << 20, f"{(peak[0] - before) >> 20} MiB"


def test_equal_rows_have_one_identity(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE t (id integer PRIMARY KEY, body text, other text)",
        "INSERT INTO t VALUES (1, 'a', 'b'), (2, 'c', 'd')",
    )
    read = lambda: shop.source(table="t", needed={"id", "body"}).open(shop.con).identity  # noqa: E731
    before = read()
    shop.run("UPDATE t SET other = 'x'")
    assert read() == before
    shop.run("UPDATE t SET body = 'x' WHERE id = 2")
    assert read() != before


def test_what_the_database_says_is_told(shop: Shop) -> None:
    shop.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    for spec, words in (
        ({"table": "t", "where": "nope = 1"}, 'source.where: column "nope" does not exist.'),
        ({"query": "SELECT 1 / (id - 1) AS x FROM t"}, "source.query: division by zero."),
        ({"query": "SELECT id, id FROM t"}, "twice"),
        ({"query": "SELECT 'it''s; (fine' AS x, $$a;)$$ AS y FROM t WHERE id = 2"}, None),
    ):
        if words is None:
            assert shop.read(**spec) == []
            continue
        with pytest.raises(SourceError) as caught:
            shop.read(**spec)
        assert words in caught.value.message and "\n" not in caught.value.message


def test_a_connection_that_ends_is_told(shop: Shop) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with pytest.raises(SourceError, match=r"source\.where: .*terminat"):
        meanwhile(shop, lambda: shop.run(end))
    assert len(shop.read(table="t")) == 20_000
