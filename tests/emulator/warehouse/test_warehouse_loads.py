"""Load, copy and extract jobs: files and buckets, formats, dispositions, schemas, bad rows."""

from __future__ import annotations

import gzip
import io
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage
from warehouse_kit import field, rows_of

JSON = bigquery.SourceFormat.NEWLINE_DELIMITED_JSON
NUMBERED = [field("n", "INTEGER"), field("word", "STRING")]


@pytest.fixture
def bucket(storage_url: str, dataset: str) -> Any:
    client = storage.Client(
        project="acme", credentials=AnonymousCredentials(), client_options={"api_endpoint": storage_url}
    )
    yield client.create_bucket(f"bucket-{dataset}")
    client.close()


def lines(*rows: Any) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def load(client: bigquery.Client, data: io.BytesIO, table: str, size: bool = False, **config: Any) -> bigquery.LoadJob:
    options: dict[str, Any] = {"source_format": JSON, **config}
    job_config = bigquery.LoadJobConfig(**options)
    length = len(data.getvalue()) if size else None
    job = client.load_table_from_file(data, table, size=length, job_config=job_config)
    job.result()
    return job


@pytest.mark.parametrize("multipart", [True, False])
def test_json_lines_by_both_kinds_of_upload(client: bigquery.Client, dataset: str, multipart: bool) -> None:
    table = f"acme.{dataset}.t"
    data = lines({"n": 1, "word": "--x\r\n\r\n"}, {"n": "2"})
    job = load(client, data, table, multipart, schema=NUMBERED)
    assert (job.output_rows, job.input_files, job.output_bytes) == (2, 1, 16 + 9)
    assert [tuple(r.values()) for r in client.list_rows(table)] == [(1, "--x\r\n\r\n"), (2, None)]


def test_an_upload_of_many_chunks(client: bigquery.Client, dataset: str) -> None:
    row = json.dumps({"n": 1, "word": "x" * 990}).encode() + b"\n"
    data = io.BytesIO(row * 12_000)
    job = load(client, data, f"acme.{dataset}.t", schema=NUMBERED)
    assert job.output_rows == 12_000


def test_schemas_are_detected(client: bigquery.Client, dataset: str) -> None:
    row = {"i": 1, "f": 1.5, "b": True, "s": "x", "d": "2026-01-02", "t": "2026-01-02T03:04:05Z", "r": [{"k": 1}]}
    load(client, lines(row, {"i": 2, "f": 3}), f"acme.{dataset}.t", autodetect=True)
    found = {f.name: (f.field_type, f.mode) for f in client.get_table(f"{dataset}.t").schema}
    assert found == {
        "i": ("INTEGER", "NULLABLE"),
        "f": ("FLOAT", "NULLABLE"),
        "b": ("BOOLEAN", "NULLABLE"),
        "s": ("STRING", "NULLABLE"),
        "d": ("DATE", "NULLABLE"),
        "t": ("TIMESTAMP", "NULLABLE"),
        "r": ("RECORD", "REPEATED"),
    }
    with pytest.raises(exceptions.BadRequest, match="No schema specified"):
        load(client, lines(row), f"acme.{dataset}.other")


def test_csv(client: bigquery.Client, dataset: str) -> None:
    data = b'n,word\n1,"a ""b"", c\nd"\n2,\n'
    table = f"acme.{dataset}.t"
    load(
        client,
        io.BytesIO(data),
        table,
        source_format="CSV",
        schema=NUMBERED,
        skip_leading_rows=1,
        allow_quoted_newlines=True,
    )
    assert rows_of(client, f"SELECT n, word FROM `{table}` ORDER BY n") == [(1, 'a "b", c\nd'), (2, None)]
    load(client, io.BytesIO(gzip.compress(data)), f"acme.{dataset}.u", source_format="CSV", autodetect=True)
    assert [f.name for f in client.get_table(f"{dataset}.u").schema] == ["n", "word"]
    with pytest.raises(exceptions.BadRequest, match="too many errors"):
        load(client, io.BytesIO(b"1,2,3\n"), table, source_format="CSV")


def test_parquet(client: bigquery.Client, dataset: str) -> None:
    rows = pa.table(
        {
            "n": pa.array([1, None], pa.int32()),
            "exact": pa.array([Decimal("1.5"), None], pa.decimal128(10, 2)),
            "wide": pa.array([Decimal("1.1234567890123"), None], pa.decimal256(60, 20)),
            "at": pa.array([1_700_000_000_000_000_123, None], pa.timestamp("ns", tz="UTC")),
            "tags": pa.array([["a"], None], pa.list_(pa.string())),
            "r": pa.array([{"k": "x"}, None], pa.struct([("k", pa.large_string())])),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(rows, buffer)
    buffer.seek(0)
    load(client, buffer, f"acme.{dataset}.t", source_format="PARQUET")
    kinds = [(f.field_type, f.mode) for f in client.get_table(f"{dataset}.t").schema]
    assert kinds == [
        ("INTEGER", "NULLABLE"), ("NUMERIC", "NULLABLE"), ("BIGNUMERIC", "NULLABLE"), ("TIMESTAMP", "NULLABLE"),
        ("STRING", "REPEATED"), ("RECORD", "NULLABLE"),
    ]  # fmt: skip
    first, second = (dict(r) for r in client.list_rows(f"acme.{dataset}.t"))
    assert (first["exact"], first["wide"], first["tags"]) == (Decimal("1.5"), Decimal("1.1234567890123"), ["a"])
    assert (first["at"].microsecond, first["r"]) == (0, {"k": "x"})
    assert second == {"n": None, "exact": None, "wide": None, "at": None, "tags": [], "r": None}
    with pytest.raises(exceptions.BadRequest, match="not a Parquet file"):
        load(client, io.BytesIO(b"x"), f"acme.{dataset}.t", source_format="PARQUET")


def test_rows_that_do_not_fit(client: bigquery.Client, dataset: str) -> None:
    table = f"acme.{dataset}.t"
    data = (b'{"n": 1}\n', b"nonsense\n", b'{"n": "x"}\n', b'{"zz": 1}\n')
    with pytest.raises(exceptions.BadRequest, match=r"too many errors, giving up\. Rows: 2; errors: 1") as caught:
        load(client, io.BytesIO(b"".join(data)), table, schema=NUMBERED)
    assert "Row 2: JSON parsing error" in str(caught.value)
    with pytest.raises(exceptions.NotFound):
        client.get_table(table)
    assert load(client, io.BytesIO(b"".join(data)), table, schema=NUMBERED, max_bad_records=3).output_rows == 1
    assert load(client, io.BytesIO(data[3]), table, ignore_unknown_values=True).output_rows == 1


def test_what_happens_to_rows_that_are_there(client: bigquery.Client, dataset: str) -> None:
    table = f"acme.{dataset}.t"

    def words(write: str, word: str, **config: Any) -> list[str]:
        load(client, lines({"n": 1, "word": word}), table, schema=NUMBERED, write_disposition=write, **config)
        return [row.word for row in client.list_rows(table)]

    with pytest.raises(exceptions.NotFound):
        words("WRITE_APPEND", "x", create_disposition="CREATE_NEVER")
    assert words("WRITE_EMPTY", "a") == ["a"]
    with pytest.raises(exceptions.Conflict):
        words("WRITE_EMPTY", "b")
    assert words("WRITE_APPEND", "c") == ["a", "c"]
    assert words("WRITE_TRUNCATE", "d") == ["d"]


def test_columns_are_added_when_that_is_allowed(client: bigquery.Client, dataset: str) -> None:
    table, wider = f"acme.{dataset}.t", [*NUMBERED, field("more", "JSON")]
    load(client, lines({"n": 1}), table, schema=NUMBERED)
    with pytest.raises(exceptions.BadRequest, match=r"Cannot add fields \(field: more\)"):
        load(client, lines({"n": 2, "more": {"a": 1}}), table, schema=wider)
    load(client, lines({"n": 2, "more": {"a": 1}}), table, schema=wider, schema_update_options=["ALLOW_FIELD_ADDITION"])
    assert rows_of(client, f"SELECT n, more FROM `{table}` ORDER BY n") == [(1, None), (2, {"a": 1})]
    with pytest.raises(exceptions.BadRequest, match="has changed type from INTEGER to STRING"):
        load(client, lines({"n": "x"}), table, schema=[field("n", "STRING")])


def test_fields_of_records_are_added_when_that_is_allowed(client: bigquery.Client, dataset: str) -> None:
    table, old = f"acme.{dataset}.t", field("r", "RECORD", "NULLABLE", field("a", "INTEGER"))
    wider = [field("r", "RECORD", "NULLABLE", field("b", "STRING"), field("a", "INTEGER"))]
    load(client, lines({"r": {"a": 1}}), table, schema=[old])
    with pytest.raises(exceptions.BadRequest, match=r"Cannot add fields \(in field: r\)"):
        load(client, lines({"r": {"b": "x"}}), table, schema=wider)
    load(client, lines({"r": {"b": "x"}}), table, schema=wider, schema_update_options=["ALLOW_FIELD_ADDITION"])
    found = [row.r for row in client.list_rows(table)]
    assert found == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_a_load_says_how_its_table_is_laid_out(client: bigquery.Client, dataset: str) -> None:
    partition = bigquery.TimePartitioning(field="day", type_="MONTH")
    schema = [field("day", "DATE"), field("n", "INTEGER")]
    load(
        client,
        lines({"day": "2026-01-02", "n": 1}),
        f"acme.{dataset}.t",
        schema=schema,
        time_partitioning=partition,
        clustering_fields=["n"],
    )
    table = client.get_table(f"{dataset}.t")
    assert (table.time_partitioning.field, table.time_partitioning.type_, table.clustering_fields) == (
        "day",
        "MONTH",
        ["n"],
    )


def test_loads_from_a_bucket(client: bigquery.Client, dataset: str, bucket: Any) -> None:
    for i in range(3):
        bucket.blob(f"in/{i}.jsonl").upload_from_string(json.dumps({"n": i, "word": "x"}) + "\n")
    bucket.blob("in/other.txt").upload_from_string("nonsense")
    config = bigquery.LoadJobConfig(source_format=JSON, schema=NUMBERED)
    job = client.load_table_from_uri(f"gs://{bucket.name}/in/*.jsonl", f"acme.{dataset}.t", job_config=config)
    job.result()
    assert (job.output_rows, job.input_files) == (3, 3)
    with pytest.raises(exceptions.NotFound, match=f"Not found: U.* gs://{bucket.name}/none"):
        client.load_table_from_uri(f"gs://{bucket.name}/none", f"acme.{dataset}.t", job_config=config).result()


def test_exports_to_a_bucket(client: bigquery.Client, bucket: Any, numbers: str) -> None:
    def exported(name: str, options: str) -> bytes:
        sql = (
            f"EXPORT DATA OPTIONS (uri = 'gs://{bucket.name}/{name}', {options})"
            f" AS SELECT n, word FROM `{numbers}` WHERE n < 2 ORDER BY n"
        )
        client.query(sql).result()
        return bytes(bucket.blob(name.replace("*", "000000000000")).download_as_bytes(raw_download=True))

    assert pq.read_table(io.BytesIO(exported("p-*.parquet", "format = 'PARQUET'"))).to_pydict() == {
        "n": [0, 1],
        "word": ["w0", "w1"],
    }
    packed = exported("j-*.json.gz", "format = 'JSON', compression = 'GZIP'")
    assert gzip.decompress(packed) == b'{"n":"0","word":"w0"}\n{"n":"1","word":"w1"}\n'
    assert exported("c-*.csv", "format = 'CSV', header = true, overwrite = true") == b"n,word\n0,w0\n1,w1\n"
    with pytest.raises(exceptions.BadRequest, match="overwrite=true"):
        exported("c-*.csv", "format = 'CSV'")
    config = bigquery.ExtractJobConfig(destination_format=JSON)
    client.extract_table(numbers, f"gs://{bucket.name}/e.jsonl", job_config=config).result()
    assert len(bucket.blob("e.jsonl").download_as_bytes().splitlines()) == 10
    with pytest.raises(exceptions.NotFound):
        client.extract_table(numbers, "gs://no-such-bucket-here/e.jsonl", job_config=config).result()


def test_copies(client: bigquery.Client, dataset: str, numbers: str) -> None:
    target = f"acme.{dataset}.copied"
    client.copy_table(numbers, target).result()
    with pytest.raises(exceptions.Conflict):
        client.copy_table(numbers, target).result()
    config = bigquery.CopyJobConfig(write_disposition="WRITE_APPEND")
    client.copy_table([numbers, numbers], target, job_config=config).result()
    client.query(f"DELETE FROM `{numbers}` WHERE true").result()
    assert client.get_table(target).num_rows == 30


def test_dataframes_of_rows_without_the_storage_api(client: bigquery.Client, numbers: str) -> None:
    found = client.list_rows(numbers, selected_fields=[field("n", "INTEGER")])
    assert found.to_arrow(create_bqstorage_client=False).column("n").to_pylist() == list(range(10))


def test_a_million_bytes_in_one_row(client: bigquery.Client, dataset: str) -> None:
    text = "é" * 500_000
    load(client, lines({"n": 1, "word": text}), f"acme.{dataset}.t", schema=NUMBERED)
    assert [row.word for row in client.list_rows(f"acme.{dataset}.t")] == [text]
