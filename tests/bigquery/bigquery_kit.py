"""What the tests of BigQuery share."""

from __future__ import annotations

from typing import Any

import duckdb
from google.cloud import bigquery

from batchform.adapters.sources.bigquery import BigQueryRows
from batchform.ports import Relation


class Reading:
    """A source that is opened, and what it gave."""

    def __init__(self, con: duckdb.DuckDBPyConnection, source: BigQueryRows) -> None:
        self.con, self.source = con, source
        self.relation: Relation = source.open(con)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        return self.con.execute(f"SELECT * FROM {self.relation.sql}").fetchall()


def fill(client: bigquery.Client, name: str, *statements: str) -> None:
    """Run statements with `T` as the table's name."""
    for statement in statements:
        client.query(statement.replace("{t}", f"`{name}`")).result()
