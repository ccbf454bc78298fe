"""Columns of every type that go from a table, through a source, into the table of a destination: the same values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bigquery_kit import Reading
from google.cloud import bigquery
from test_bigquery_source import typed

from batchform.adapters.bigquery_client import Access
from batchform.adapters.destinations.bigquery import BigQueryTable
from batchform.ports import Delivery
from batchform.spec.bigquery import BigQueryDestination

__all__ = ["typed"]


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
