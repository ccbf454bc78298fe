"""What the tests of the emulator's BigQuery share."""

from __future__ import annotations

from typing import Any

from google.cloud import bigquery


def field(name: str, kind: str, mode: str = "NULLABLE", *fields: bigquery.SchemaField) -> bigquery.SchemaField:
    return bigquery.SchemaField(name, kind, mode, fields=fields)


def rows_of(client: bigquery.Client, sql: str, **options: Any) -> list[tuple[Any, ...]]:
    """The result of a query as tuples."""
    return [tuple(row.values()) for row in client.query(sql, **options).result()]
