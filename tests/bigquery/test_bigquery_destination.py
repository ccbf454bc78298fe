"""The bigquery destination against the emulator's BigQuery, through Google's unmodified client."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bigquery_kit import fill
from google.cloud import bigquery

from batchform.adapters.bigquery_client import Access
from batchform.adapters.destinations.bigquery import LABEL, BigQueryTable
from batchform.adapters.sources import connect
from batchform.emulator import EmulatorServer
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery
from batchform.spec.bigquery import BigQueryDestination
from batchform.spec.model import GoogleCloud

Row = tuple[Any, ...]
COLUMNS = "key VARCHAR, n BIGINT, doc JSON, note VARCHAR, score DOUBLE, ok BOOLEAN"
ROWS: list[Row] = [("a|b", 1, '{"x":[1,null]}', None, 0.5, True), ("c", 2, None, "", -1.0, False)]


def row(key: str, n: int = 0) -> Row:
    return (key, n, "{}", "note", 0.0, True)


class Place:
    """A table of BigQuery as a destination."""

    def __init__(self, tmp_path: Path, access: Access, client: bigquery.Client, dataset: str) -> None:
        self.root, self.access, self.client, self.table = tmp_path, access, client, f"{dataset}.answers"

    def destination(self, *, spec: str = "triage", **options: Any) -> BigQueryTable:
        to = BigQueryDestination(type="bigquery", **{"table": self.table, **options})
        return BigQueryTable(to, spec=spec, access=self.access)

    def deliver(
        self,
        rows: Sequence[Row],
        *,
        types: str = COLUMNS,
        columns: str = "*",
        changed: Sequence[Row] | None = None,
        name: str = "triage-00000000.aaaa.1",
        spec: str = "triage",
        full: bool = True,
        key: tuple[str, ...] = ("key",),
        **options: Any,
    ) -> Delivered:
        with closing(self.connect()) as con:
            for view, some in (("everything", rows), ("news", rows if changed is None else changed)):
                con.execute(f"CREATE TEMP TABLE t_{view} ({types})")
                if some:
                    con.executemany(f"INSERT INTO t_{view} VALUES ({', '.join('?' * len(some[0]))})", list(some))
                con.execute(f"CREATE TEMP VIEW {view} AS SELECT {columns} FROM t_{view}")
            delivery = Delivery(spec, name, "everything", "news", key, full, (), name.partition(".")[0])
            return self.destination(spec=spec, **options).deliver(con, delivery)

    def connect(self) -> duckdb.DuckDBPyConnection:
        return connect(self.root / "temp", memory_limit="256MB", threads=2, allowed=[self.root])

    def rows(self, select: str = "*") -> list[Row]:
        found = self.client.query(f"SELECT {select} FROM `{self.table}` ORDER BY 1").result()
        return [tuple(r.values()) for r in found]

    def keys(self) -> list[str]:
        return [key for (key,) in self.rows("key")]

    def jobs(self, kind: str) -> list[Any]:
        return [j for j in self.client.list_jobs() if j.labels.get("batchform") == kind and self._mine(j)]

    def _mine(self, job: Any) -> bool:
        dataset = self.table.split(".")[1]
        return job.destination.dataset_id == dataset if job.job_type == "load" else f".{dataset}." in job.query

    def leftovers(self) -> list[str]:
        return [t.table_id for t in self.client.list_tables(self.table.rpartition(".")[0]) if t.table_id != "answers"]


@pytest.fixture
def place(tmp_path: Path, access: Access, client: bigquery.Client, dataset: str) -> Place:
    return Place(tmp_path, access, client, dataset)


def test_nothing_is_made_before_a_delivery(place: Place) -> None:
    made = place.destination()
    assert not made.exists()
    made.check(["key"])
    assert place.leftovers() == [] and not made.exists()


def test_a_first_delivery_makes_the_table_and_reads_back(place: Place) -> None:
    delivered = place.deliver(ROWS)
    assert (delivered.rows, delivered.location) == (2, place.table)
    assert place.destination().exists()
    assert place.rows() == [
        ("a|b", 1, {"x": [1, None]}, None, 0.5, True),
        ("c", 2, None, "", -1.0, False),
    ]
    table = place.client.get_table(place.table)
    assert [(f.name, f.field_type) for f in table.schema] == [
        ("key", "STRING"), ("n", "INTEGER"), ("doc", "JSON"), ("note", "STRING"), ("score", "FLOAT"), ("ok", "BOOLEAN"),
    ]  # fmt: skip
    assert table.labels == {LABEL: "triage"}
    assert place.leftovers() == []


def test_new_and_changed_rows_are_merged_by_key(place: Place) -> None:
    place.deliver([row("a"), row("c")])
    place.deliver([row("a", 5), row("b"), row("c")], changed=[row("a", 5), row("b")], full=False, name="t-0.a.2")
    assert place.rows("key, n") == [("a", 5), ("b", 0), ("c", 0)]


def test_a_full_delivery_removes_what_is_gone_down_to_none(place: Place) -> None:
    place.deliver([row("a"), row("b")])
    place.deliver([row("b")], name="triage-0.a.2")
    assert place.keys() == ["b"]
    assert place.deliver([], name="triage-0.a.3").rows == 0
    assert place.keys() == [] and place.destination().exists()


def test_the_same_again_touches_nothing(place: Place) -> None:
    place.deliver(ROWS)
    before = place.client.get_table(place.table).etag
    assert place.deliver(ROWS, name="triage-00000000.aaaa.2").rows == 2
    assert place.client.get_table(place.table).etag == before
    assert len(place.jobs("load")) == len(place.jobs("merge")) == 1
    assert place.leftovers() == []


def test_what_was_delivered_before_is_delivered_again_over_something_else(place: Place) -> None:
    for rows in ([row("a")], [row("b")], [row("a")]):
        place.deliver(rows)
    assert place.keys() == ["a"]


def test_a_table_that_was_dropped_is_made_anew(place: Place) -> None:
    place.deliver(ROWS)
    place.client.delete_table(place.table)
    assert not place.destination().exists()
    place.deliver(ROWS)
    assert place.keys() == ["a|b", "c"]


def test_a_changed_mapping_adds_columns_and_leaves_the_others(place: Place) -> None:
    place.deliver([row("a")])
    place.deliver([row("a", 7)], columns="key, n AS amount", name="triage-0.b.1")
    assert place.rows("key, n, amount") == [("a", 0, 7)]


def test_a_column_of_another_type_is_refused_by_name(place: Place) -> None:
    place.deliver([row("a")])
    with pytest.raises(DestinationError, match=r"the column `n` is INT64, and the answers have STRING") as caught:
        place.deliver([row("a")], columns="key, CAST(n AS VARCHAR) || '!' AS n")
    assert "destination.columns" in caught.value.hint
    assert place.rows("key, n") == [("a", 0)]


def test_fields_are_added_to_structs_at_any_depth(place: Place) -> None:
    """At the end, where BigQuery puts them, whatever their order in the answers; rows that were there have none."""
    place.deliver([row("a", 1), row("old", 2)], columns="key, {'x': n, 'in': {'p': n}} AS s, [{'x': n}] AS many")
    table = place.client.get_table(place.table)
    table.schema = [
        bigquery.SchemaField(f.name, f.field_type, f.mode, description=f"what {f.name} is", fields=f.fields)
        for f in table.schema
    ]
    place.client.update_table(table, ["schema"])
    wider = (
        "key, {'new': doc, 'in': {'q': [n], 'p': n + 10}, 'x': n} AS s, "
        "CASE WHEN n > 0 THEN [{'k': 'v' || n, 'x': n}, {'k': NULL, 'x': 0}] ELSE [] END AS many"
    )
    place.deliver([row("a", 3), row("b", 0)], columns=wider, full=False, name="triage-0.b.1")
    assert place.rows("key, s, many") == [
        ("a", {"x": 3, "in": {"p": 13, "q": [3]}, "new": {}}, [{"x": 3, "k": "v3"}, {"x": 0, "k": None}]),
        ("b", {"x": 0, "in": {"p": 10, "q": [0]}, "new": {}}, []),
        ("old", {"x": 2, "in": {"p": 2, "q": []}, "new": None}, [{"x": 2, "k": None}]),
    ]
    schema = place.client.get_table(place.table).schema
    assert [f.name for f in schema[1].fields] == ["x", "in", "new"]
    assert [f.description for f in schema] == ["what key is", "what s is", "what many is"]
    before = place.client.get_table(place.table).schema
    less = "key, {'x': n} AS s, NULL::STRUCT(x BIGINT)[] AS many"
    place.deliver([row("a", 4)], columns=less, full=False, name="triage-0.c.1")
    assert place.rows("key, s, many")[0] == ("a", {"x": 4, "in": None, "new": None}, [])
    assert place.client.get_table(place.table).schema == before


def test_a_struct_that_is_null_stays_null(place: Place) -> None:
    place.deliver([row("a", 1)], columns="key, {'x': n} AS s")
    maybe = "key, CASE WHEN n > 1 THEN {'x': n, 'y': doc} END AS s"
    place.deliver([row("a", 1), row("b", 2)], columns=maybe, name="triage-0.b.1")
    assert place.rows("key, s") == [("a", None), ("b", {"x": 2, "y": {}})]


def test_values_inside_of_a_struct_fit_wider_fields(place: Place) -> None:
    made = "CREATE TABLE {t} (key STRING, s STRUCT<N NUMERIC, list ARRAY<FLOAT64>, doc STRING>, l ARRAY<NUMERIC>)"
    fill(place.client, place.table, made)
    place.deliver([row("a", 3)], columns="key, {'doc': doc, 'n': n, 'list': [n, 1]} AS s, [n, 2] AS l")
    [(key, s, numbers)] = place.rows()
    assert (key, int(s["N"]), s["list"], s["doc"], [int(x) for x in numbers]) == ("a", 3, [3.0, 1.0], "{}", [3, 2])


def test_a_field_of_another_type_is_refused_by_name(place: Place) -> None:
    place.deliver([row("a", 1)], columns="key, {'in': {'x': n}} AS s, [{'x': n}] AS many")
    other = "key, {'in': {'x': note, 'y': n}} AS s, {'x': n} AS many"
    with pytest.raises(
        DestinationError, match=r"the column `s\.in\.x` is INT64, and the answers have STRING; `many` is"
    ):
        place.deliver([row("a", 1)], columns=other, name="triage-0.b.1")
    assert [f.name for f in place.client.get_table(place.table).schema[1].fields[0].fields] == ["x"]


def test_values_that_fit_a_wider_column_are_taken(place: Place) -> None:
    fill(place.client, place.table, "CREATE TABLE {t} (key STRING, n NUMERIC, doc STRING)")
    place.deliver([row("a", 3)], columns="key, n, doc")
    assert [(k, int(n), d) for k, n, d in place.rows()] == [("a", 3, "{}")]


def test_types_survive(place: Place) -> None:
    select = """'k' AS key, 170141183460469231731687303715884105727::HUGEINT AS wide, 12.50::DECIMAL(10,2) AS price,
      'x'::BLOB AS bytes, DATE '2026-11-21' AS day, TIME '12:34:56.5' AS time, TIMESTAMP '2026-11-21 12:34:56.5' AS dt,
      TIMESTAMPTZ '2026-11-21 13:30:00.25+01' AS at, [1, 2] AS list, [{'a': 1, 'b': ['x']}] AS many, [[1], [2]] AS deep,
      'nan'::DOUBLE AS nan, 'infinity'::DOUBLE AS inf, NULL::INTEGER[] AS none,
      9007199254740993::BIGINT AS exact, '{"n": 0.12345678901234567890123}'::JSON AS doc"""
    with closing(place.connect()) as con:
        con.execute(f"CREATE TEMP VIEW v AS SELECT {select}")
        place.destination().deliver(
            con, Delivery("triage", "triage-0.t.1", "v", "v", ("key",), full=True, owner="triage-0")
        )
    [found] = place.client.query(f"SELECT * FROM `{place.table}`").result()
    got = dict(found.items())
    assert int(got["wide"]) == 2**127 - 1 and str(got["price"]) in ("12.5", "12.50") and got["bytes"] == b"x"
    assert [str(got[n]) for n in ("day", "time", "dt")] == [
        "2026-11-21",
        "12:34:56.500000",
        "2026-11-21 12:34:56.500000",
    ]
    assert got["at"].isoformat() == "2026-11-21T12:30:00.250000+00:00"
    assert got["list"] == [1, 2] and got["many"] == [{"a": 1, "b": ["x"]}] and got["none"] == []
    assert got["deep"] == [[1], [2]] and got["exact"] == 9007199254740993
    assert str(got["nan"]) == "nan" and got["inf"] == float("inf")
    assert got["doc"]["n"] == pytest.approx(0.1234567890123)


def test_text_survives_as_it_is(place: Place) -> None:
    nasty = [
        '"',
        "a,b",
        "line\nbreak\r\n",
        "''",
        "\\",
        " padded ",
        "ünï🎈",
        "\x01\x7f",
        "NULL",
        "a\tb",
        "\u2028",
        "{{ x }}",
    ]
    rows = [(text, i, json.dumps({"t": text}), text, 1.5, None) for i, text in enumerate(nasty)]
    place.deliver(rows)
    assert sorted(place.rows("key, note, doc")) == sorted((t, t, {"t": t}) for t in nasty)


def test_a_failing_query_leaves_the_old_content(place: Place) -> None:
    place.deliver([row("a")])
    failing = "CASE WHEN key = 'b' THEN error('boom') ELSE key END AS key"
    with pytest.raises(DestinationError, match="boom"):
        place.deliver([row("b")], columns=failing)
    assert place.keys() == ["a"] and place.leftovers() == []


def test_a_failing_first_delivery_leaves_nothing(place: Place) -> None:
    with pytest.raises(DestinationError, match="boom"):
        place.deliver([row("b")], columns="CASE WHEN key = 'b' THEN error('boom') ELSE key END AS key")
    assert not place.destination().exists() and place.leftovers() == []


def test_rows_without_a_key_are_refused(place: Place) -> None:
    with pytest.raises(DestinationError, match=r"1 answers have no value in a column of the key \(key\)"):
        place.deliver([(None, 1, None, None, None, None)])


def test_partitions_and_clusters_of_a_new_table(place: Place) -> None:
    columns = "key, n, TIMESTAMPTZ '2026-11-21 13:30:00+00' AS at"
    place.deliver([row("a")], columns=columns, partition_by="at", partition="month", cluster_by=["KEY", "n"])
    table = place.client.get_table(place.table)
    assert (table.time_partitioning.field, table.time_partitioning.type_) == ("at", "MONTH")
    assert table.clustering_fields == ["key", "n"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition_by": "nope"}, r"destination\.partition_by names nope, which is no column"),
        ({"partition_by": "note"}, r"destination\.partition_by names note, which is STRING"),
        ({"cluster_by": ["key", "nope"]}, r"destination\.cluster_by names nope"),
        ({"cluster_by": ["a", "b", "c", "d", "e"]}, r"names 5 columns, and BigQuery takes four"),
        ({"shared": True, "metadata": False, "prune": True}, r"destination\.prune in a shared table needs"),
        ({"location": "EU"}, r"destination\.location is EU, and the dataset .* lies in US"),
        ({"table": "acme.nowhere.t"}, r"there is no dataset acme\.nowhere"),
        ({"table": "t"}, r"destination\.table: 't' is not project\.dataset\.table"),
        ({"table": "acme.d.t_*"}, r"names no single table"),
    ],
)
def test_what_cannot_be_delivered_to_is_refused(place: Place, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DestinationError, match=said):
        place.deliver([row("a")], **options)
    assert place.leftovers() == [] and not place.destination().exists()


def test_names_inside_a_struct_are_refused_by_name(place: Place) -> None:
    with pytest.raises(DestinationError, match=r"the name 'a\.b' has '\.', which BigQuery takes in no name"):
        place.deliver([row("a")], columns="key, {'in': {'a.b': n}} AS s")
    assert not place.destination().exists() and place.jobs("load") == []


ODD = [
    "", " ", "'", '"', "`", "\\", "\\'; DROP TABLE x; --", "${key}", "@x", "\n", "\r\n", "\x00", "\u2028", "NULL",
    "null", "é", "e\u0301", "ß", "SS", "𝄞", "%", "_", "a" * 100_000, "1", "01", "1.0", "true", "{}", "\t", "a ", "a",
]  # fmt: skip


def test_keys_of_any_text_find_their_rows_again(place: Place) -> None:
    place.deliver([row(key, 1) for key in ODD])
    place.deliver([row(key, 2) for key in ODD[::2]], full=False)
    found = dict(place.rows("key, n"))
    assert found == {key: 2 if i % 2 == 0 else 1 for i, key in enumerate(ODD)}
    assert len(place.rows("key")) == len(ODD)


def test_keys_of_any_type_find_their_rows_again(place: Place) -> None:
    typed = (
        "key AS id, key::BLOB AS b, n::DECIMAL(18, 3) / 7 AS d, (n::HUGEINT * 100000000000000000000000000000) AS h, "
        "DATE '2026-01-01' + n::INTEGER AS day, TIMESTAMPTZ '2026-01-01 00:00:00.000001+00' + to_hours(n) AS at, "
        "(n / 3)::DOUBLE AS f, n % 2 = 0 AS even, TIME '23:59:59.999999' AS t, note"
    )
    key = ("id", "b", "d", "h", "day", "at", "f", "even", "t")
    rows = [row(f"k{n}", n) for n in range(1, 6)]
    place.deliver(rows, columns=typed, key=key)
    again = [(r[0], r[1], r[2], "changed", *r[4:]) for r in rows[:3]]
    place.deliver(rows, changed=again, columns=typed, key=key, full=False)
    notes = [note for (_, note) in place.rows("id, note")]
    assert notes == ["changed"] * 3 + ["note"] * 2, "rows were added where they should have been found"


@pytest.mark.parametrize("column", ["select", "with space", "Größe", "a-b", "it's", "1st", "a<b|c#d", "KEY2"])
def test_columns_of_odd_names(place: Place, column: str) -> None:
    name = column.replace('"', '""')
    place.deliver([row("a", 1)], columns=f'key, n AS "{name}"')
    place.deliver([row("a", 2), row("b", 3)], columns=f'key, n AS "{name}"', key=("key",), full=False)
    assert place.rows(f"key, `{column}`") == [("a", 2), ("b", 3)]
    place.deliver([row("a", 2), row("b", 4)], columns=f'key, n AS "{name}"', key=("key", column), full=False)
    assert sorted(place.rows(f"key, `{column}`")) == [("a", 2), ("b", 3), ("b", 4)]


def test_a_missing_dataset_comes_with_the_command_that_makes_it(place: Place) -> None:
    with pytest.raises(DestinationError) as caught:
        place.destination(table="acme.nowhere.t").check()
    assert "bq --location=REGION mk --dataset acme:nowhere" in caught.value.hint


# --- whose table is it ---------------------------------------------------------------------------------------------


def test_a_strangers_table_is_left_alone(place: Place) -> None:
    fill(place.client, place.table, "CREATE TABLE {t} (key STRING, mine STRING)", "INSERT INTO {t} VALUES ('a', 'x')")
    for act in (place.destination().check, lambda: place.deliver([row("a")])):
        with pytest.raises(DestinationError, match="batchform did not make it") as caught:
            act()
        assert "shared: true" in caught.value.hint
    assert place.rows() == [("a", "x")]


def test_an_empty_table_may_be_filled(place: Place) -> None:
    fill(place.client, place.table, "CREATE TABLE {t} (key STRING, mine STRING)")
    place.destination().check(["key"])
    place.deliver([row("a", 1)], columns="key, n")
    assert place.rows() == [("a", None, 1)]


def test_another_specs_table_is_refused(place: Place) -> None:
    place.deliver([row("a")])
    with pytest.raises(DestinationError, match="belongs to the spec triage"):
        place.deliver([row("b")], spec="other")
    assert place.keys() == ["a"]


def test_a_view_is_refused(place: Place) -> None:
    view = bigquery.Table(place.table)
    view.view_query = "SELECT 1 AS a"
    place.client.create_table(view)
    with pytest.raises(DestinationError, match="is a view, which cannot be written"):
        place.destination().check()


def test_a_shared_table_keeps_the_rows_and_columns_of_others(place: Place) -> None:
    fill(
        place.client,
        place.table,
        "CREATE TABLE {t} (key STRING, mine STRING)",
        "INSERT INTO {t} VALUES ('x', 'm'), ('b', 'm')",
    )
    own = "key, n, {'spec': 'triage', 'plan': 'p'} AS _batchform"
    place.deliver([row("a", 1), row("b", 2)], columns=own, shared=True)
    assert place.rows("key, mine, n") == [("a", None, 1), ("b", "m", 2), ("x", "m", None)]
    place.deliver([row("b", 3)], columns=own, shared=True, name="triage-0.a.2")  # a is pruned
    assert place.rows("key, mine, n") == [("b", "m", 3), ("x", "m", None)]
    other = own.replace("triage", "other")
    place.deliver([row("c", 9)], columns=other, shared=True, spec="other", name="other-0.a.1")
    assert place.keys() == ["b", "c", "x"]
    assert place.client.get_table(place.table).labels == {}


# --- what goes wrong on the way ------------------------------------------------------------------------------------


def _cut_off(monkeypatch: pytest.MonkeyPatch, client: type, method: str) -> list[int]:
    """Let a call of the client happen, and then be interrupted as by Ctrl-C, once."""
    calls: list[int] = []
    whole: Callable[..., Any] = getattr(client, method)

    def once(*args: Any, **kwargs: Any) -> Any:
        answer = whole(*args, **kwargs)
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(client, method, once)
    return calls


@pytest.mark.parametrize("method", ["create_table", "load_table_from_file", "query", "delete_table"])
def test_a_delivery_that_was_cut_off_is_finished_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    place.deliver([row("a")])
    _cut_off(monkeypatch, bigquery.Client, method)
    with pytest.raises(KeyboardInterrupt):
        place.deliver([row("a", 1), row("b")], name="triage-0.a.2")
    place.deliver([row("a", 1), row("b")], name="triage-0.a.2")
    assert place.rows("key, n") == [("a", 1), ("b", 0)]
    assert len(place.jobs("load")) == len(place.jobs("merge")) == 2  # one each per delivery: nothing was done twice
    assert place.leftovers() == []


def test_a_service_that_is_not_there_is_said_and_counts_as_delivered(place: Place) -> None:
    nowhere = Access(GoogleCloud(), {"BIGQUERY_EMULATOR_HOST": "127.0.0.1:9"}, retry_seconds=0.2)
    to = BigQueryDestination(type="bigquery", table=place.table)
    made = BigQueryTable(to, spec="triage", access=nowhere)
    assert made.exists()
    with pytest.raises(DestinationError, match=r"cannot be used: .*(reached|again and again)") as caught:
        made.check()
    assert "no answer is lost" in caught.value.hint


def test_many_rows_are_sent_in_pieces(place: Place, server: EmulatorServer) -> None:
    assert server.url
    with closing(place.connect()) as con:
        con.execute(
            "CREATE TEMP VIEW v AS SELECT printf('%06d', range) AS key, "
            "md5(range::VARCHAR) || sha256(range::VARCHAR) AS body FROM range(60000)"
        )
        delivery = Delivery("triage", "triage-0.m.1", "v", "v", ("key",), full=True, owner="triage-0")
        assert place.destination().deliver(con, delivery).rows == 60_000
    [(rows, keys)] = place.client.query(f"SELECT COUNT(*), COUNT(DISTINCT key) FROM `{place.table}`").result()
    assert (rows, keys) == (60_000, 60_000)
