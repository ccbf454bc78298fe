"""Answers in PostgreSQL: typed, by key, all or nothing, and never over what is not ours."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from shop_kit import Shop

from batchform.errors import DestinationError
from postgres_kit import PASSWORD

TYPED = """SELECT 'k' AS key, true AS b, -1::TINYINT AS i1, 2::BIGINT AS i8, (2::HUGEINT ** 126)::HUGEINT AS i16,
    18446744073709551615::UBIGINT AS u8, 0.1::DOUBLE AS f, 1.50::DECIMAL(9,2) AS d, 'text' AS t,
    '{"a": [1, null]}'::JSON AS j, [1, 2] AS l, {'x': 1} AS s, DATE '2026-11-21' AS day, TIME '01:02:03' AS clock,
    TIMESTAMP '2026-11-21 01:02:03' AS at,
    TIMESTAMPTZ '2026-11-21 01:02:03+01' AS atz, UUID 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' AS u, '\\x00'::BLOB AS raw,
    INTERVAL 1 DAY AS span"""


def test_columns_are_typed_and_values_exact(shop: Shop) -> None:
    shop.deliver(TYPED)
    listed = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0"
    kinds = dict(shop.run(f"{listed} AND attrelid = 'answers'::regclass"))
    assert kinds == {
        "key": "text", "b": "boolean", "i1": "smallint", "i8": "bigint", "i16": "numeric(39,0)", "u8": "numeric(20,0)",
        "f": "double precision", "d": "numeric(9,2)", "t": "text", "j": "jsonb", "l": "jsonb", "s": "jsonb",
        "day": "date", "clock": "time without time zone", "at": "timestamp without time zone",
        "atz": "timestamp with time zone", "u": "uuid", "raw": "bytea", "span": "text",
    }  # fmt: skip
    moment = dt.datetime(2026, 11, 21, 1, 2, 3)
    assert shop.run("SELECT * FROM answers") == [
        ("k", True, -1, 2, 2**126, 2**64 - 1, 0.1, Decimal("1.50"), "text", {"a": [1, None]}, [1, 2], {"x": 1},
         dt.date(2026, 11, 21), dt.time(1, 2, 3), moment, moment.replace(hour=0, tzinfo=dt.UTC),
         UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), b"\0", "1 day"),
    ]  # fmt: skip
    shop.deliver(
        "SELECT 'null' AS key, * REPLACE (NULL::BOOLEAN AS b) FROM (SELECT * EXCLUDE key FROM (" + TYPED + "))"
    )
    assert shop.run("SELECT b, j FROM answers") == [(None, {"a": [1, None]})]


def test_new_answers_are_laid_over_the_old(shop: Shop) -> None:
    shop.deliver("SELECT 'k' || i AS key, i AS n FROM range(5) r(i)")
    everything = "SELECT 'k' || i AS key, CASE WHEN i = 2 THEN 20 ELSE i END AS n FROM range(6) r(i)"
    before = dict(shop.run("SELECT key, ctid::text FROM answers"))
    for _ in range(2):  # the second one finds everything done
        done = shop.deliver(everything, changed=f"SELECT * FROM ({everything}) WHERE n IN (5, 20)", full=False)
        assert (done.rows, done.location) == (6, "table answers of shop")
        rows = shop.run("SELECT key, n, ctid::text FROM answers ORDER BY key")
        assert [row[:2] for row in rows] == [("k0", 0), ("k1", 1), ("k2", 20), ("k3", 3), ("k4", 4), ("k5", 5)]
    assert [key for key, _, at in rows if before.get(key) == at] == [
        "k0",
        "k1",
        "k3",
        "k4",
    ]  # the others are not written


def test_a_table_with_other_rows_than_the_ledger_knows_is_replaced(shop: Shop) -> None:
    shop.deliver("SELECT 'k' || i AS key, i AS n FROM range(5) r(i)")
    shop.run("DELETE FROM answers WHERE n IN (1, 3)")
    shop.deliver("SELECT 'k' || i AS key, i AS n FROM range(6) r(i)", changed="SELECT 'k5' AS key, 5 AS n", full=False)
    assert len(shop.run("SELECT * FROM answers")) == 6


def test_columns_are_added_and_types_never_changed(shop: Shop) -> None:
    shop.deliver("SELECT 'a' AS key, 1::BIGINT AS n")
    shop.run("ALTER TABLE answers ADD COLUMN mine point", "CREATE INDEX by_n ON answers (n)")
    shop.deliver("SELECT 'a' AS key, 'x' AS \"100% of %s\"")
    assert shop.run('SELECT key, n, mine::text, "100% of %s" FROM answers') == [("a", None, None, "x")]
    with pytest.raises(DestinationError, match="has the column n as BIGINT, and answers now need TEXT") as caught:
        shop.deliver("SELECT 'a' AS key, 'one' AS n")
    assert "drop the table" in caught.value.hint
    with pytest.raises(DestinationError, match="has the column key as TEXT, and answers now need BIGINT"):
        shop.deliver("SELECT 7::BIGINT AS key")
    assert shop.run("SELECT key, n FROM answers") == [("a", None)]
    assert shop.run("SELECT indexname FROM pg_indexes WHERE tablename = 'answers' ORDER BY 1") == [
        ("answers_pkey",),
        ("by_n",),
    ]


def test_names_that_the_database_would_cut_are_refused_by_name(shop: Shop) -> None:
    """PostgreSQL keeps 63 bytes of a name, and says nothing: the second delivery would find no such column."""
    shop.deliver(f"SELECT 'a' AS key, 1 AS \"{'n' * 63}\"")
    shop.deliver(f"SELECT 'a' AS key, 2 AS \"{'n' * 63}\"")
    for name in ("n" * 64, "ß" * 32):
        with pytest.raises(DestinationError, match=r"has 64 bytes, and the database keeps 63") as caught:
            shop.deliver(f"SELECT 'a' AS key, 1 AS \"{name}\"")
        assert "destination.columns" in caught.value.hint
    with pytest.raises(DestinationError, match=r"has 64 bytes, and the database keeps 63"):
        shop.destination(table="t" * 64).check()
    with pytest.raises(DestinationError, match=r"has 64 bytes, and the database keeps 63"):
        shop.destination().check(["key", "n" * 64])
    assert shop.run(f"SELECT {'n' * 63} FROM answers") == [(2,)]


def test_text_that_postgres_cannot_hold_does_not_stop_the_rest(shop: Shop) -> None:
    rows = "SELECT 'a' AS key, 'x' || chr(0) || 'y' AS t, '{\"a\":\"\\u0000 \\\\u0000\"}'::JSON AS j"
    shop.deliver(f"{rows} UNION ALL SELECT 'b', 'fine', '1'::JSON")
    assert shop.run("SELECT * FROM answers ORDER BY key") == [
        ("a", "x\ufffdy", {"a": "\ufffd \\u0000"}), ("b", "fine", 1),
    ]  # fmt: skip


def test_a_killed_delivery_leaves_the_old_rows(shop: Shop) -> None:
    """Killed in the middle of the transaction: it has deleted all rows, and waits for a lock that a reader of the
    bookkeeping holds."""
    shop.deliver("SELECT 'k' || i AS key, i AS n FROM range(500) r(i)")
    with shop.server.connect(shop.name) as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE _batchform_tables IN SHARE MODE")
        child = subprocess.Popen([sys.executable, __file__, str(shop.root), shop.url], env=os.environ | {
            "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])})  # fmt: skip
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '_batchform_tables'::regclass"
        while holder.execute(waiting).fetchone() == (0,):
            assert child.poll() is None
        assert shop.run("SELECT count(*), sum(n) FROM answers") == [(500, 124750)]  # readers go on
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        holder.execute("ROLLBACK")
    holder.close()
    assert shop.run("SELECT count(*), sum(n) FROM answers") == [(500, 124750)]
    shop.deliver("SELECT 'new' AS key, 1::BIGINT AS n")  # and nothing is left that would keep the next one waiting
    assert shop.run("SELECT key FROM answers") == [("new",)]


def test_rights_and_schemas_are_checked_before_anything_is_sent(shop: Shop) -> None:
    shop.run("CREATE ROLE clerk LOGIN PASSWORD 'clerk'", "GRANT USAGE ON SCHEMA public TO clerk")
    url = shop.url.replace("app:s3cr3t%2Fp%40ss", "clerk:clerk")
    try:
        with pytest.raises(DestinationError, match="the user has no CREATE on schema public"):
            shop.destination(url=url).check()
        shop.deliver("SELECT 'a' AS key")
        shop.run("GRANT SELECT, INSERT ON answers, _batchform_tables TO clerk")
        with pytest.raises(
            DestinationError, match="no UPDATE on answers, DELETE on answers, DELETE on _batchform_tables"
        ):
            shop.destination(url=url).check()
    finally:
        shop.run("DROP OWNED BY clerk", "DROP ROLE clerk")
    with pytest.raises(DestinationError, match="there is no schema nowhere"):
        shop.destination(table="nowhere.answers").check()


def test_a_table_in_use_is_waited_for_in_vain(shop: Shop) -> None:
    from pydantic import SecretStr

    from batchform.adapters.destinations.sqlalchemy_table import SqlTable
    from batchform.ports import Delivery
    from batchform.spec.model_sql import Database, SqlDestination

    shop.deliver("SELECT 'a' AS key")
    impatient = SqlTable(
        SqlDestination(type="sql", database="shop", table="answers"), spec="triage", root=shop.root,
        databases={"shop": Database(url=SecretStr(shop.url))}, lock_seconds=0.1,
    )  # fmt: skip
    rows = "(SELECT 'b' AS key)"
    with shop.server.connect(shop.name) as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE answers IN EXCLUSIVE MODE")
        with pytest.raises(DestinationError, match="canceling statement due to lock timeout") as caught:
            impatient.deliver(shop.con, Delivery("triage", "triage-0.d.2", rows, rows, ("key",), full=True))
        holder.execute("ROLLBACK")
    holder.close()
    assert "run the same command again" in caught.value.hint
    assert shop.run("SELECT key FROM answers") == [("a",)]


def test_a_server_that_is_gone_counts_as_holding_the_table(shop: Shop) -> None:
    shop.deliver("SELECT 'a' AS key")
    gone = shop.destination(url=shop.url.replace("host=/", "host=/nowhere/"))
    assert gone.exists()
    with pytest.raises(DestinationError, match="Database shop cannot be reached") as caught:
        gone.check()
    assert PASSWORD not in caught.value.render()
    shop.run("DROP TABLE answers")
    assert not shop.destination().exists()


def test_other_dialects_write_by_key() -> None:
    """What is sent to databases that the tests have not got: MySQL's own upsert, and delete with insert elsewhere."""
    from sqlalchemy import BigInteger, Column, MetaData, Table, Text
    from sqlalchemy.dialects import mssql, mysql

    from batchform.adapters.destinations.sqlalchemy_table import upserts

    table = Table("answers", MetaData(), Column("key", Text, key="c0"), Column("n", BigInteger, key="c1"))
    made = [str(s.compile(dialect=mysql.dialect())) for s in upserts("mysql", table, ["key"])]
    assert [" ".join(s.split()) for s in made] == [
        "INSERT INTO answers (`key`, n) VALUES (%s, %s) ON DUPLICATE KEY UPDATE n = VALUES(n)"
    ]
    made = [str(s.compile(dialect=mssql.dialect())) for s in upserts("mssql", table, ["key"])]
    assert [s.split()[0] for s in made] == ["DELETE", "INSERT"] and "WHERE answers.[key] = :c0" in made[0]


if __name__ == "__main__":
    from batchform.adapters.sources import connect

    place = Path(sys.argv[1])
    with connect(place / "child", memory_limit="256MB", threads=1, allowed=[place]) as con:
        made = Shop.__new__(Shop)
        made.root, made.con, made.url = place, con, sys.argv[2]
        made.deliver("SELECT 'x' || i AS key, i AS n FROM range(1000) r(i)")
