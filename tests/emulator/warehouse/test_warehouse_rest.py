"""Datasets, tables, rows and streaming inserts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from warehouse_kit import field, rows_of

from batchform.emulator import EmulatorServer

EVERY_TYPE = [
    field("s", "STRING", "REQUIRED"),
    field("b", "BYTES"),
    field("i", "INT64"),
    field("f", "FLOAT64"),
    field("n", "NUMERIC"),
    field("bn", "BIGNUMERIC"),
    field("bo", "BOOL"),
    field("ts", "TIMESTAMP"),
    field("d", "DATE"),
    field("t", "TIME"),
    field("dtm", "DATETIME"),
    field("g", "GEOGRAPHY"),
    field("j", "JSON"),
    field("tags", "STRING", "REPEATED"),
    field("lines", "RECORD", "REPEATED", field("sku", "STRING"), field("price", "NUMERIC"), field("at", "TIMESTAMP")),
]
FULL: dict[str, Any] = {
    "s": "hé\n",
    "b": b"\x00\xff",
    "i": -(2**63),
    "f": 1.5e300,
    "n": Decimal("-12345678901234567890123456789.123456789"),
    "bn": Decimal("99999999999999999999999999999999999999.12345678901234567890123456789012345678"),
    "bo": True,
    "ts": dt.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
    "d": dt.date(9999, 12, 31),
    "t": dt.time(23, 59, 59, 999999),
    "dtm": dt.datetime(2026, 2, 3, 4, 5, 6, 7),
    "g": "POINT(-122.35 47.62)",
    "j": {"a": [1, 2.5, None], "b": "x"},
    "tags": ["a", ""],
    "lines": [{"sku": "x", "price": Decimal("1.5"), "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}],
}


def test_dataset_life(client: bigquery.Client, dataset: str) -> None:
    with pytest.raises(exceptions.Conflict):
        client.create_dataset(dataset)
    found = client.get_dataset(dataset)
    found.labels, found.description = {"team": "a"}, "tickets"
    found = client.update_dataset(found, ["labels", "description"])
    assert (found.labels, found.description, found.location) == ({"team": "a"}, "tickets", "US")
    assert dataset in [d.dataset_id for d in client.list_datasets()]
    client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=[field("a", "INT64")]))
    with pytest.raises(exceptions.BadRequest, match="still in use"):
        client.delete_dataset(dataset)
    client.delete_dataset(dataset, delete_contents=True)
    with pytest.raises(exceptions.NotFound):
        client.get_dataset(dataset)
    client.delete_dataset(dataset, not_found_ok=True)


def test_results_of_queries_are_in_no_list_of_datasets(client: bigquery.Client) -> None:
    rows_of(client, "SELECT 1")
    assert all(not d.dataset_id.startswith("_") for d in client.list_datasets())


def test_table_life(client: bigquery.Client, dataset: str) -> None:
    table = bigquery.Table(f"acme.{dataset}.t", schema=EVERY_TYPE)
    table.time_partitioning = bigquery.TimePartitioning(field="ts", type_="DAY")
    table.clustering_fields = ["s", "i"]
    table.labels = {"a": "b"}
    made = client.create_table(table)
    assert (made.time_partitioning.field, made.clustering_fields, made.labels) == ("ts", ["s", "i"], {"a": "b"})
    assert made.schema == EVERY_TYPE_SHOWN
    with pytest.raises(exceptions.Conflict):
        client.create_table(table)
    assert client.create_table(table, exists_ok=True).num_rows == 0
    assert [t.table_id for t in client.list_tables(dataset)] == ["t"]
    asked = ["bigquery.tables.getData"]
    assert client.test_iam_permissions(made, asked) == {"permissions": asked}  # `doctor` asks
    client.delete_table(table)
    with pytest.raises(exceptions.NotFound):
        client.test_iam_permissions(made, asked)
    with pytest.raises(exceptions.NotFound, match=f"Not found: Table acme:{dataset}.t"):
        client.get_table(table)
    client.delete_table(table, not_found_ok=True)


EVERY_TYPE_SHOWN = [
    field(
        f.name,
        {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}.get(f.field_type, f.field_type),
        f.mode,
        *f.fields,
    )
    for f in EVERY_TYPE
]


@pytest.mark.filterwarnings("ignore:Unknown type 'GEOGRAPHY'")
def test_all_types_go_through_without_loss(client: bigquery.Client, dataset: str) -> None:
    table = client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=EVERY_TYPE))
    assert client.insert_rows(table, [FULL, {"s": ""}]) == []
    blank = {f.name: [] if f.mode == "REPEATED" else None for f in EVERY_TYPE} | {"s": ""}
    assert [dict(row) for row in client.list_rows(table)] == [FULL, blank]
    sql = f"SELECT * FROM {dataset}.t ORDER BY s DESC"
    assert [dict(row) for row in client.query_and_wait(sql)] == [FULL, blank]
    again = client.query(f"CREATE TABLE {dataset}.copied AS {sql}")
    again.result()
    copied = client.get_table(f"{dataset}.copied")
    assert [f.field_type for f in copied.schema] == [f.field_type for f in EVERY_TYPE_SHOWN]
    assert [dict(row) for row in client.list_rows(copied)] == [FULL, blank]


def test_pages_of_rows(client: bigquery.Client, numbers: str) -> None:
    pages = [[row.n for row in page] for page in client.list_rows(numbers, page_size=3).pages]
    assert pages == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    some = client.list_rows(numbers, selected_fields=[field("word", "STRING")], start_index=4, max_results=2)
    assert [dict(row) for row in some] == [{"word": "w4"}, {"word": "w5"}]


def test_pages_belong_together_when_the_table_changes(client: bigquery.Client, numbers: str) -> None:
    pages = client.list_rows(numbers, page_size=5).pages
    first = [row.n for row in next(pages)]
    client.query(f"DELETE FROM {numbers.removeprefix('acme.')} WHERE true").result()
    assert first + [row.n for page in pages for row in page] == list(range(10))


def test_bad_rows_of_insert_all(client: bigquery.Client, dataset: str) -> None:
    table = client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=[field("a", "INT64", "REQUIRED")]))
    errors = client.insert_rows_json(table, [{"a": 1}, {"a": "x"}, {"b": 1}])
    assert [(e["index"], e["errors"][0]["reason"]) for e in errors] == [(0, "stopped"), (1, "invalid"), (2, "invalid")]
    assert client.get_table(table).num_rows == 0
    errors = client.insert_rows_json(table, [{"a": 1}, {"a": "x"}], skip_invalid_rows=True)
    assert [e["index"] for e in errors] == [1]
    assert client.insert_rows_json(table, [{"a": 2, "zz": 1}], ignore_unknown_values=True) == []
    assert [row.a for row in client.list_rows(table)] == [1, 2]


def test_an_insert_id_inserts_once(client: bigquery.Client, dataset: str) -> None:
    table = client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=[field("a", "INT64")]))
    for _ in range(3):
        assert client.insert_rows_json(table, [{"a": 1}, {"a": 2}], row_ids=["x", "y"]) == []
        assert client.insert_rows_json(table, [{"a": 3}], row_ids=[None]) == []
    assert sorted(row.a for row in client.list_rows(table)) == [1, 2, 3, 3, 3]


def test_columns_are_added_and_stale_etags_refused(client: bigquery.Client, numbers: str) -> None:
    table, stale = client.get_table(numbers), client.get_table(numbers)
    table.schema = [*table.schema, field("more", "JSON")]
    table.labels = {"x": "y"}
    table = client.update_table(table, ["schema", "labels"])
    assert [f.name for f in table.schema] == ["n", "word", "more"]
    stale.description = "late"
    with pytest.raises(exceptions.PreconditionFailed):
        client.update_table(stale, ["description"])
    table.schema = table.schema[:1]
    with pytest.raises(exceptions.BadRequest, match="missing in new schema"):
        client.update_table(table, ["schema"])
    assert client.insert_rows_json(numbers, [{"n": 10, "more": {"a": 1}}]) == []
    assert rows_of(client, f"SELECT more, word FROM `{numbers}` WHERE n IN (1, 10) ORDER BY n") == [
        (None, "w1"),
        ({"a": 1}, None),
    ]


def test_fields_of_records_are_added_at_the_end(client: bigquery.Client, dataset: str) -> None:
    """Wherever they are given; rows written before have none, by SQL, by REST and in a file of the new shape."""

    def shaped(*fields: bigquery.SchemaField, mode: str = "NULLABLE") -> list[bigquery.SchemaField]:
        return [field("r", "RECORD", mode, *fields), field("n", "INTEGER")]

    table = client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=shaped(field("a", "INTEGER"))))
    assert client.insert_rows_json(table, [{"n": 1, "r": {"a": 1}}]) == []
    table = client.get_table(table)
    inner = field("in", "RECORD", "REPEATED", field("b", "STRING", "REQUIRED"))
    table.schema = [field("z", "STRING"), *reversed(shaped(inner, field("a", "INTEGER")))]
    table = client.update_table(table, ["schema"])
    assert [f.name for f in table.schema] == ["r", "n", "z"] and [f.name for f in table.schema[0].fields] == ["a", "in"]
    assert client.insert_rows_json(table, [{"n": 2, "r": {"a": 2, "in": [{"b": "x"}]}}]) == []
    both = [({"a": 1, "in": []}, 1, None), ({"a": 2, "in": [{"b": "x"}]}, 2, None)]
    assert rows_of(client, f"SELECT * FROM {dataset}.t ORDER BY n") == both
    assert [tuple(row.values()) for row in client.list_rows(table)] == both
    for refused, said in (
        (shaped(field("a", "INTEGER")), "Field r.in is missing in new schema"),
        (shaped(field("a", "STRING"), inner), "Field r.a has changed type from INTEGER to STRING"),
        (shaped(field("a", "INTEGER", "REPEATED"), inner), "Field r.a has changed mode from NULLABLE to REPEATED"),
        (shaped(field("a", "INTEGER"), inner, mode="REPEATED"), "Field r has changed mode"),
        (shaped(field("a", "INTEGER"), inner, field("c", "STRING", "REQUIRED")), r"Cannot add required .*r\.c"),
    ):
        table = client.get_table(table)
        table.schema = [*refused, field("z", "STRING")]
        with pytest.raises(exceptions.BadRequest, match=said):
            client.update_table(table, ["schema"])
    with pytest.raises(exceptions.GoogleAPICallError):
        client.query(f"ALTER TABLE {dataset}.t ADD COLUMN r.c STRING").result()  # the API alone adds fields


def test_a_table_expires(client: bigquery.Client, dataset: str, server: EmulatorServer) -> None:
    table = bigquery.Table(f"acme.{dataset}.t", schema=[field("a", "INT64")])
    now = client.get_dataset(dataset).created
    assert now is not None
    table.expires = now + dt.timedelta(hours=1)
    client.create_table(table)
    server.advance(3601)
    with pytest.raises(exceptions.NotFound):
        client.get_table(table)
    client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=[field("b", "INT64")]))


def test_a_view_reads_what_is_there(client: bigquery.Client, dataset: str, numbers: str) -> None:
    view = bigquery.Table(f"acme.{dataset}.v")
    view.view_query = f"SELECT n * 2 AS twice, word FROM `{numbers}` WHERE n > 7"
    made = client.create_table(view)
    assert (made.table_type, [f.field_type for f in made.schema]) == ("VIEW", ["INTEGER", "STRING"])
    assert rows_of(client, f"SELECT twice FROM {dataset}.v ORDER BY 1") == [(16,), (18,)]
    with pytest.raises(exceptions.BadRequest, match="VIEW"):
        list(client.list_rows(made))


def test_intervals_and_ranges_are_kept_as_bigquery_writes_them(client: bigquery.Client, dataset: str) -> None:
    span = bigquery.SchemaField("span", "RANGE", range_element_type="DATE")
    rows = [
        {"wait": "1-2 3 4:5:6.789", "span": "[2026-01-01, 2026-02-01)"},
        {"wait": "0-0 -1 0:0:0", "span": {"start": None, "end": "2026-02-01"}},
        {"wait": None, "span": None},
    ]
    config = bigquery.LoadJobConfig(schema=[field("wait", "INTERVAL"), span])
    client.load_table_from_json(rows, f"{dataset}.i", job_config=config).result()
    assert [f.field_type for f in client.get_table(f"{dataset}.i").schema] == ["INTERVAL", "RANGE"]
    [first, second, _] = client.query(f"SELECT * FROM {dataset}.i ORDER BY wait IS NULL, wait DESC").result()
    assert (first["wait"].years, first["wait"].months, first["wait"].days, second["wait"].days) == (1, 2, 3, -1)
    assert (
        first["span"] == {"start": dt.date(2026, 1, 1), "end": dt.date(2026, 2, 1)} and second["span"]["start"] is None
    )
    as_text = f"SELECT CAST(wait AS STRING) AS w, CAST(span AS STRING) AS s FROM {dataset}.i ORDER BY w DESC LIMIT 1"
    assert rows_of(client, as_text) == [("1-2 3 4:5:6.789", "[2026-01-01, 2026-02-01)")]
    for wrong in ({"wait": "3 days", "span": None}, {"wait": None, "span": "2026-01-01"}):
        with pytest.raises(exceptions.BadRequest):
            client.load_table_from_json([wrong], f"{dataset}.i", job_config=config).result()
    with pytest.raises(exceptions.BadRequest, match="rangeElementType"):
        client.create_table(bigquery.Table(f"acme.{dataset}.r", schema=[field("a", "RANGE")]))


def test_what_is_not_served_is_said(client: bigquery.Client, dataset: str) -> None:
    external = bigquery.Table(f"acme.{dataset}.e", schema=[field("a", "INT64")])
    external.external_data_configuration = bigquery.ExternalConfig("PARQUET")
    with pytest.raises(exceptions.MethodNotImplemented, match="does not support tables with externalDataConfiguration"):
        client.create_table(external)
    with pytest.raises(exceptions.MethodNotImplemented, match="does not serve GET /bigquery/v2/projects/acme/datasets"):
        client.list_models(dataset).__next__()


def test_state_is_there_after_a_restart(tmp_path: Any, connect: Callable[..., bigquery.Client]) -> None:
    with EmulatorServer(tmp_path / "state") as server:
        client = connect(server.url)
        client.create_dataset("d")
        client.create_table(bigquery.Table("acme.d.t", schema=[field("a", "INT64")]))
        job = client.query("INSERT INTO d.t (a) VALUES (1), (2)")
        job.result()
    with EmulatorServer(tmp_path / "state") as server:
        client = connect(server.url)
        assert sorted(rows_of(client, "SELECT a FROM d.t")) == [(1,), (2,)]
        assert client.get_job(job.job_id).num_dml_affected_rows == 2
