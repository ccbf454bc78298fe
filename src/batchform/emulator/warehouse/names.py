"""Names of BigQuery's calls, for fault schedules, which are read without loading what answers them."""

from __future__ import annotations

from typing import Final

NAMES: Final = (
    *(f"bigquery.datasets.{verb}" for verb in ("insert", "get", "list", "patch", "update", "delete")),
    *(f"bigquery.tables.{verb}" for verb in ("insert", "get", "list", "patch", "update", "delete")),
    "bigquery.tables.testIamPermissions",
    *(f"bigquery.tabledata.{verb}" for verb in ("list", "insertAll")),
    *(f"bigquery.jobs.{verb}" for verb in ("insert", "get", "list", "cancel", "delete", "query", "getQueryResults")),
    *("bigquery.jobs.upload", "bigquery.jobs.upload.bytes"),
)
