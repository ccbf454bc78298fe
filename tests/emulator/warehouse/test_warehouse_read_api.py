"""The Storage Read API with Google's client over gRPC."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import grpc
import httpx2
import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from test_warehouse_rest import EVERY_TYPE, FULL

from batchform.emulator import EmulatorServer
from batchform.emulator.warehouse import wire

pytestmark = pytest.mark.filterwarnings("ignore:Retrieving Arrow record batches directly")


@pytest.fixture
def reader(server: EmulatorServer) -> Iterator[BigQueryReadClient]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.bigquery_storage(), options=options) as channel:
        yield BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


def session_of(reader: BigQueryReadClient, table: str, streams: int = 1, **options: Any) -> types.ReadSession:
    project, dataset, name = table.split(".")
    at = options.pop("at", None)
    wanted = types.ReadSession(
        table=f"projects/{project}/datasets/{dataset}/tables/{name}",
        data_format=types.DataFormat.ARROW,
        read_options=types.ReadSession.TableReadOptions(**options),
    )
    if at is not None:
        wanted.table_modifiers.snapshot_time = at
    return reader.create_read_session(parent="projects/acme", read_session=wanted, max_stream_count=streams)


def read(reader: BigQueryReadClient, session: types.ReadSession) -> pa.Table:
    tables = [reader.read_rows(stream.name).to_arrow(session) for stream in session.streams]
    return pa.concat_tables(tables)


def test_columns_and_rows_are_chosen(reader: BigQueryReadClient, numbers: str) -> None:
    session = session_of(reader, numbers, selected_fields=["word"], row_restriction="n > 6 AND word != 'w8'")
    assert read(reader, session).to_pydict() == {"word": ["w7", "w9"]}
    assert session.estimated_row_count == 10
    assert session.estimated_total_bytes_scanned == 40


def test_every_row_is_in_one_stream(reader: BigQueryReadClient, numbers: str) -> None:
    project, dataset, name = numbers.split(".")
    wanted = types.ReadSession(
        table=f"projects/{project}/datasets/{dataset}/tables/{name}", data_format=types.DataFormat.ARROW
    )
    session = reader.create_read_session(
        types.CreateReadSessionRequest(
            parent="projects/acme", read_session=wanted, max_stream_count=8, preferred_min_stream_count=3
        )
    )
    assert len(session.streams) == 3
    assert read(reader, session).column("n").to_pylist() == list(range(10))
    assert reader.read_rows(session.streams[2].name, offset=2).to_arrow(session).column("n").to_pylist() == [8, 9]


@pytest.mark.filterwarnings("ignore:Unknown type 'GEOGRAPHY'")
def test_all_types_come_without_loss(reader: BigQueryReadClient, client: bigquery.Client, dataset: str) -> None:
    table = client.create_table(bigquery.Table(f"acme.{dataset}.t", schema=EVERY_TYPE))
    assert client.insert_rows(table, [FULL, {"s": ""}]) == []
    found = read(reader, session_of(reader, f"acme.{dataset}.t"))
    blank = {f.name: [] if f.mode == "REPEATED" else None for f in EVERY_TYPE} | {"s": ""}
    assert found.to_pylist() == [{**FULL, "j": '{"a":[1,2.5,null],"b":"x"}'}, blank]
    kinds = {f.name: str(f.type) for f in found.schema}
    assert kinds["bn"] == "decimal256(76, 38)"
    assert kinds["n"] == "decimal128(38, 9)"
    assert kinds["ts"] == "timestamp[us, tz=UTC]"


def test_a_table_as_it_was(reader: BigQueryReadClient, client: bigquery.Client, numbers: str) -> None:
    (now,) = next(iter(client.query_and_wait("SELECT CURRENT_TIMESTAMP()"))).values()
    client.query(f"DELETE FROM `{numbers}` WHERE n < 9").result()
    assert read(reader, session_of(reader, numbers)).num_rows == 1
    assert read(reader, session_of(reader, numbers, at=now)).column("n").to_pylist() == list(range(10))
    with pytest.raises(exceptions.NotFound, match="did not exist"):
        session_of(reader, numbers, at=now - dt.timedelta(hours=1))


def test_the_clients_fetch_results_over_it(reader: BigQueryReadClient, client: bigquery.Client, numbers: str) -> None:
    rows = client.query(f"SELECT n, word FROM `{numbers}` WHERE n < 2").result()
    assert rows.to_arrow(bqstorage_client=reader).to_pydict() == {"n": [0, 1], "word": ["w0", "w1"]}
    assert client.list_rows(numbers).to_arrow(bqstorage_client=reader).num_rows == 10


def test_large_rows_come_in_many_messages(reader: BigQueryReadClient, client: bigquery.Client, dataset: str) -> None:
    client.query(
        f"CREATE TABLE {dataset}.t AS SELECT n, REPEAT('x', 500000) AS text FROM UNNEST([1,2,3,4,5,6]) n"
    ).result()
    session = session_of(reader, f"acme.{dataset}.t")
    pages = list(reader.read_rows(session.streams[0].name).rows(session).pages)
    assert [page.num_items for page in pages] == [2, 2, 2]


def test_an_empty_table_has_no_stream(reader: BigQueryReadClient, client: bigquery.Client, dataset: str) -> None:
    client.query(f"CREATE TABLE {dataset}.t (a INT64)").result()
    assert list(session_of(reader, f"acme.{dataset}.t").streams) == []


def test_refusals(reader: BigQueryReadClient, numbers: str, client: bigquery.Client, dataset: str) -> None:
    with pytest.raises(exceptions.NotFound, match="Not found: Table"):
        session_of(reader, f"acme.{dataset}.nothing")
    with pytest.raises(exceptions.InvalidArgument, match="selected fields do not exist"):
        session_of(reader, numbers, selected_fields=["zz"])
    with pytest.raises(exceptions.InvalidArgument, match="zz"):
        session_of(reader, numbers, row_restriction="zz = 1")
    client.query(f"CREATE VIEW {dataset}.v AS SELECT 1 AS x").result()
    with pytest.raises(exceptions.InvalidArgument, match="is a view"):
        session_of(reader, f"acme.{dataset}.v")
    with pytest.raises(exceptions.NotFound, match="Stream not found"):
        list(reader.read_rows("projects/acme/locations/us/sessions/x/streams/0"))


def test_the_port_is_said_over_http(server: EmulatorServer) -> None:
    answer = httpx2.get(f"{server.url}/emulator/bigquery")
    assert answer.json() == {"storage_read": server.bigquery_storage()}


def test_messages_are_read_as_googles_classes_write_them() -> None:
    request = types.CreateReadSessionRequest(
        parent="projects/é",
        read_session=types.ReadSession(table="t", data_format=2, read_options={"selected_fields": ["a", "b"]}),
        max_stream_count=300,
    )
    fields = wire.decode(types.CreateReadSessionRequest.serialize(request))
    assert (wire.text_of(fields, 1), wire.number(fields, 3)) == ("projects/é", 300)
    assert wire.texts_of(wire.message(wire.message(fields, 2), 8), 1) == ["a", "b"]
    written = wire.encode([(2, wire.encode([(1, b"\x00" * 300), (2, 7)])), (6, -1)])
    row = types.ReadRowsResponse.deserialize(wire.encode([(4, wire.encode([(1, b"abc"), (2, 7)])), (6, 2**40)]))
    assert (row.arrow_record_batch.serialized_record_batch, row.row_count) == (b"abc", 2**40)
    assert wire.number(wire.decode(written), 6) == -1


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0b", b"\x80" * 20])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.decode(data)
