"""Columns of every type that go from a table, through a source, into the table of a destination: the same values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bigquery_kit import Reading
from google.cloud import bigquery
from test_bigquery_source import spans, typed

from batchform.adapters.bigquery_client import Access
from batchform.adapters.destinations.bigquery import BigQueryTable
from batchform.ports import Delivery
from batchform.spec.bigquery import BigQueryDestination

__all__ = ["spans", "typed"]


@pytest.mark.parametrize("way", ["rest", "storage"])
def test_values_go_through_without_loss(
    read: Callable[..., Reading],
    access: Access,
    client: bigquery.Client,
    dataset: str,
    typed: str,
    way: str,
) -> None:
    got = read(table=typed, read=way)
    got.con.execute(f"CREATE TEMP VIEW rows AS SELECT * FROM {got.relation.sql}")
    to = BigQueryTable(BigQueryDestination(type="bigquery", table=f"{dataset}.copy"), spec="copy", access=access)
    to.deliver(got.con, Delivery("copy", "copy-0.a.1", "rows", "rows", ("id",), full=True, owner="copy-0"))
    [before], [after] = (list(client.query(f"SELECT * FROM `{t}`").result()) for t in (typed, f"{dataset}.copy"))
    as_text = {"big": str(before["big"].normalize())}  # a column of text: DuckDB has no number of its size
    assert dict(after.items()) == {**dict(before.items()), **as_text}


def test_intervals_and_ranges_go_through_as_text(
    read: Callable[..., Reading], access: Access, client: bigquery.Client, dataset: str, spans: str
) -> None:
    got = read(table=spans)
    got.con.execute(f"CREATE TEMP VIEW rows AS SELECT * FROM {got.relation.sql}")
    to = BigQueryTable(BigQueryDestination(type="bigquery", table=f"{dataset}.copy"), spec="copy", access=access)
    to.deliver(got.con, Delivery("copy", "copy-0.a.1", "rows", "rows", ("id",), full=True, owner="copy-0"))
    kinds = {field.name: field.field_type for field in client.get_table(f"{dataset}.copy").schema}
    assert (kinds["wait"], kinds["span"]) == ("STRING", "STRING")
    copied = client.query(f"SELECT id, wait, span FROM {dataset}.copy ORDER BY id").result()
    written = client.query(f"SELECT id, CAST(wait AS STRING), CAST(span AS STRING) FROM `{spans}` ORDER BY id").result()
    assert [tuple(row) for row in copied] == [tuple(row) for row in written]
