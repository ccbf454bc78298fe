"""Jobs that read from BigQuery, write to it, or both."""

from __future__ import annotations

import json
from typing import Any

import pytest
from emulated_vertex_kit import LOCATION, Bench
from emulator_kit import MODEL, request_of

from batchform.emulator.store import Store
from batchform.emulator.warehouse.tables import TableRef, Tables

IN, OUT = "bq://acme.ds.rows", "bq://acme.ds.answers"
FIELDS = (("key", "STRING"), ("n", "INTEGER"), ("request", "JSON"))


@pytest.fixture
def tables(store: Store) -> Tables:
    made = Tables(store)
    made.create_dataset("acme", "ds", LOCATION)
    return made


def fill(tables: Tables, rows: list[dict[str, Any]], fields: Any = FIELDS, uri: str = IN) -> None:
    tables.create(TableRef.parse(uri), [{"name": name, "type": kind} for name, kind in fields])
    tables.append(TableRef.parse(uri), rows)


def rows_of(tables: Tables, uri: str = OUT) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in tables.rows(TableRef.parse(uri))}


def columns_of(tables: Tables, uri: str = OUT) -> list[tuple[str, str]]:
    return [(field.name, field.type) for field in tables.schema(TableRef.parse(uri))]


def test_a_table_goes_in_and_a_table_comes_out(bench: Bench, tables: Tables) -> None:
    texts = {"a": "hello", "b": "[[emulator:error 429]]"}
    fill(tables, [{"key": k, "n": i, "request": request_of(t)} for i, (k, t) in enumerate(texts.items())])
    job = bench.create(src=IN, dest=OUT)
    assert (job.src.bigquery_uri, job.dest.bigquery_uri) == (IN, OUT)
    done = bench.ended(job)
    assert (done.state, done.output_info.bigquery_output_table) == ("JOB_STATE_SUCCEEDED", "answers")
    results = [("response", "JSON"), ("status", "STRING"), ("processed_time", "TIMESTAMP")]
    assert columns_of(tables) == [("key", "STRING"), ("n", "INTEGER"), ("request", "JSON"), *results]
    rows = rows_of(tables)
    assert rows["a"]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "Emulated answer to: hello"
    assert (rows["a"]["n"], rows["a"]["status"], rows["a"]["request"]) == (0, "", request_of("hello"))
    assert rows["b"]["response"] is None
    assert rows["b"]["status"].startswith('Too Many Requests: {"error":{"code":429,')
    assert [charge.key for charge in bench.server.bill()] == ["a"]


def test_a_request_may_be_text_and_a_wrong_one_fails_its_row(bench: Bench, tables: Tables) -> None:
    requests = {
        "good": json.dumps(request_of("hi")),
        "bad": '{"contents": ',
        "none": None,
        "field": '{"temperature": 1}',
    }
    fields = (("key", "STRING"), ("request", "STRING"))
    fill(tables, [{"key": key, "request": text} for key, text in requests.items()], fields)
    assert bench.ended(bench.create(src=IN, dest=OUT)).state == "JOB_STATE_SUCCEEDED"
    rows = rows_of(tables)
    assert ("request", "STRING") in columns_of(tables)
    assert rows["good"]["status"] == "" and rows["good"]["request"] == requests["good"]
    for key in ("bad", "none", "field"):
        assert rows[key]["status"].startswith('Bad Request: {"error":{"code":400,') and rows[key]["response"] is None


def test_json_text_knows_none_of_the_importers_traps(bench: Bench, tables: Tables) -> None:
    config = {"responseMimeType": "application/json", "responseJsonSchema": {"$defs": {}, "the name": None}}
    request = {**request_of("hi"), "tools": [{"codeExecution": {}}]}
    fill(tables, [{"key": "000", "request": request}, {"key": "001", "request": request_of("hi", **config)}])
    assert bench.ended(bench.create(src=IN, dest=OUT)).state == "JOB_STATE_SUCCEEDED"
    assert set(rows_of(tables)) == {"000", "001"}, "and texts stay texts"
    assert rows_of(tables)["000"]["request"] == request


def test_a_dataset_as_destination_gets_a_table_whose_name_only_the_job_knows(bench: Bench, tables: Tables) -> None:
    fill(tables, [{"key": "k", "request": request_of("hi")}])
    jobs = [bench.create(src=IN, dest="bq://acme.ds") for _ in range(2)]
    names = {bench.ended(job).output_info.bigquery_output_table for job in jobs}
    assert len(names) == 2 and all(name.startswith("predictions_2026_11_21T12_00_00_") for name in names)
    for name in names:
        assert rows_of(tables, f"bq://acme.ds.{name}")["k"]["status"] == ""


def test_from_a_bucket_into_a_table_and_back(bench: Bench, tables: Tables) -> None:
    lines = [{"key": "a", "n": 1, "f": "1.5", "list": [1], "request": request_of("hello", temperature=0.5)}]
    assert bench.ended(bench.create(lines, dest=OUT)).state == "JOB_STATE_SUCCEEDED"
    assert columns_of(tables)[:4] == [("key", "STRING"), ("n", "INTEGER"), ("f", "FLOAT"), ("request", "JSON")]
    row = rows_of(tables)["a"]
    assert (row["n"], row["f"], row["request"]) == (1, 1.5, request_of("hello", temperature=0.5))
    fill(tables, [{"key": "b", "n": 2, "request": request_of("hi")}])
    (line,) = bench.results(bench.ended(bench.create(src=IN)))
    assert (line["key"], line["n"], line["status"], line["request"]) == ("b", 2, "", request_of("hi"))


def test_a_table_that_does_not_fit_fails_the_job(bench: Bench, tables: Tables) -> None:
    wrong = {
        "`request` of bq://acme.ds.t0 is INTEGER; it must be STRING or JSON": (("request", "INTEGER"),),
        "has no column `request`": (("key", "STRING"),),
        "`at` of bq://acme.ds.t2 is DATETIME": (("request", "JSON"), ("at", "DATETIME")),
        "`where` of bq://acme.ds.t3 is GEOGRAPHY": (("request", "JSON"), ("where", "GEOGRAPHY")),
    }
    for i, (complaint, fields) in enumerate(wrong.items()):
        uri = f"bq://acme.ds.t{i}"
        tables.create(TableRef.parse(uri), [{"name": name, "type": kind} for name, kind in fields])
        code, message = bench.failure(src=uri, dest=OUT)
        assert (code, complaint in message) == (3, True), message


def test_arrays_and_structs_cannot_be_handed_on(bench: Bench, tables: Tables) -> None:
    request = {"name": "request", "type": "JSON"}
    tables.create(TableRef.parse(IN), [request, {"name": "tags", "type": "STRING", "mode": "REPEATED"}])
    assert "`tags` of bq://acme.ds.rows is ARRAY" in bench.failure(src=IN, dest=OUT)[1]
    record = {"name": "who", "type": "RECORD", "fields": [{"name": "a", "type": "STRING"}]}
    tables.create(TableRef.parse("bq://acme.ds.more"), [request, record])
    assert "`who` of bq://acme.ds.more is RECORD" in bench.failure(src="bq://acme.ds.more", dest=OUT)[1]


def test_what_is_missing_or_elsewhere_fails_the_job(bench: Bench, tables: Tables) -> None:
    fill(tables, [{"key": "k", "request": request_of("hi")}])
    tables.create_dataset("acme", "far", "europe-west4")
    assert bench.failure(src="bq://acme.ds.none", dest=OUT)[1].endswith("Not found: Table acme:ds.none")
    assert bench.failure(src="bq://acme.none.rows", dest=OUT)[1].endswith("Not found: Dataset acme:none")
    code, message = bench.failure(src=IN, dest="bq://acme.far.out")
    assert (code, f"is in europe-west4; a job in {LOCATION}" in message) == (9, True)
    assert "Already Exists: Table acme:ds.rows" in bench.failure(src=IN, dest=IN)[1]
    fill(tables, [], uri="bq://acme.ds.empty")
    assert "has no requests" in bench.failure(src="bq://acme.ds.empty", dest=OUT)[1]


def test_googles_client_makes_up_a_table_when_none_is_named(bench: Bench, tables: Tables) -> None:
    fill(tables, [{"key": "k", "request": request_of("hi")}])
    job = bench.client.batches.create(model=MODEL, src=IN)
    assert job.dest.bigquery_uri.startswith(f"{IN}_dest_")
    done = bench.ended(job)
    assert rows_of(tables, f"bq://acme.ds.{done.output_info.bigquery_output_table}")["k"]["status"] == ""


def test_a_job_goes_on_from_the_table_of_another(bench: Bench, tables: Tables) -> None:
    fill(tables, [{"key": f"k{i}", "n": i, "request": request_of(f"say {i}")} for i in range(9)])
    do = {"type": "ends", "state": "CANCELLED", "share": 0.5}
    bench.server.set_faults([{"call": "vertex.batches.create", "do": do}])
    first = bench.ended(bench.create(src=IN, dest=OUT))
    assert first.state == "JOB_STATE_CANCELLED"
    before = {key: row for key, row in rows_of(tables).items() if row["response"]}
    assert len(before) == 5
    second = bench.ended(bench.create(src=OUT, dest="bq://acme.ds.resumed"))
    assert second.completion_stats.successful_count == 9
    rows = rows_of(tables, "bq://acme.ds.resumed")
    assert {key: row for key, row in rows.items() if key in before} == before
    assert all(row["response"] and row["status"] == "" for row in rows.values())
    assert (bench.server.bill_summary().requests, bench.server.bill_summary().distinct_requests) == (9, 9)


def test_a_table_is_written_once_though_the_export_is_done_again(bench: Bench, tables: Tables, store: Store) -> None:
    fill(tables, [{"key": f"k{i}", "request": request_of(f"say {i}")} for i in range(3)])
    job = bench.create(src=IN, dest=OUT)
    stem = job.name.rpartition("/")[2]
    saved = store.job_input(stem).read_bytes()
    bench.ended(job)
    output = store.job_output(stem)
    assert not output.exists()
    with store.writing() as db:  # as if the process had been killed after the export, before it was noted
        size = db.execute("SELECT out_bytes FROM jobs WHERE id = ?", (stem,)).fetchone()[0]
        db.execute("UPDATE jobs SET next_block = blocks - 1 WHERE id = ?", (stem,))
    store.job_input(stem).write_bytes(saved)
    output.write_bytes(b"{}\n" * (size // 3))
    assert bench.client.batches.get(name=job.name).state == "JOB_STATE_SUCCEEDED"
    assert tables.count(TableRef.parse(OUT)) == 3
