"""Datasets, tables and jobs as REST shows them."""

from __future__ import annotations

from typing import Any

from batchform.emulator.warehouse.catalog import DatasetRow, TableRow, Version
from batchform.emulator.warehouse.fields import schema_resource
from batchform.emulator.warehouse.jobs import Job
from batchform.emulator.warehouse.query import Outcome
from batchform.emulator.warehouse.work import kind_of


def millis(seconds: float) -> str:
    """As REST writes times."""
    return str(int(seconds * 1000))


def dataset(row: DatasetRow, base_url: str) -> dict[str, Any]:
    return {
        "kind": "bigquery#dataset",
        "etag": row.etag,
        "id": f"{row.project}:{row.id}",
        "selfLink": f"{base_url}/bigquery/v2/projects/{row.project}/datasets/{row.id}",
        "access": [{"role": "OWNER", "specialGroup": "projectOwners"}],
        **row.meta,
        "datasetReference": {"projectId": row.project, "datasetId": row.id},
        "location": row.location,
        "creationTime": millis(row.created),
        "lastModifiedTime": millis(row.modified),
        "type": "DEFAULT",
    }


def table(row: TableRow, version: Version, location: str, base_url: str) -> dict[str, Any]:
    ref, view = row.ref, "view" in row.meta
    shown: dict[str, Any] = {
        "kind": "bigquery#table",
        "etag": row.etag,
        "id": str(row.ref),
        "selfLink": f"{base_url}/bigquery/v2/projects/{ref.project}/datasets/{ref.dataset}/tables/{ref.table}",
        **row.meta,
        "tableReference": row.ref.resource(),
        "creationTime": millis(row.created),
        "lastModifiedTime": millis(row.modified),
        "type": "VIEW" if view else "TABLE",
        "location": location,
        "numRows": "0" if view else str(version.rows),
        "numBytes": "0" if view else str(version.bytes),
        "numLongTermBytes": "0",
    }
    if version.schema:
        shown["schema"] = schema_resource(version.schema)
    if row.expires is not None:
        shown["expirationTime"] = millis(row.expires)
    return shown


def listed_table(row: TableRow) -> dict[str, Any]:
    kept = ("labels", "timePartitioning", "rangePartitioning", "clustering", "friendlyName", "view")
    shown = {
        "kind": "bigquery#table",
        "id": str(row.ref),
        "tableReference": row.ref.resource(),
        "type": "VIEW" if "view" in row.meta else "TABLE",
        "creationTime": millis(row.created),
        **{k: row.meta[k] for k in kept if k in row.meta},
    }
    return {**shown, "expirationTime": millis(row.expires)} if row.expires is not None else shown


def reference(job: Job) -> dict[str, str]:
    return {"projectId": job.project, "jobId": job.id, "location": job.location}


def job(found: Job, base_url: str) -> dict[str, Any]:
    """A job in full."""
    status: dict[str, Any] = {"state": found.state}
    if found.errors:
        status |= {"errorResult": found.errors[0], "errors": found.errors}
    config = {**found.config, "jobType": kind_of(found.config)}
    if "query" in config and found.outcome.destination and "destinationTable" not in config["query"]:
        config["query"] = {**config["query"], "destinationTable": found.outcome.destination.resource()}
    return {
        "kind": "bigquery#job",
        "etag": f"{found.number}-{found.state}",
        "id": f"{found.project}:{found.location}.{found.id}",
        "selfLink": f"{base_url}/bigquery/v2/projects/{found.project}/jobs/{found.id}?location={found.location}",
        "user_email": "emulator@batchform.invalid",
        "jobReference": reference(found),
        "configuration": config,
        "status": status,
        "statistics": _statistics(found),
    }


def _statistics(found: Job) -> dict[str, Any]:
    shown = {"creationTime": millis(found.created), "startTime": millis(found.started)}
    if found.ended is None:
        return shown
    shown["endTime"] = millis(found.ended)
    return {**shown, **(statistics(found.outcome, kind_of(found.config)) if not found.errors else {})}


def statistics(outcome: Outcome, kind: str) -> dict[str, Any]:
    """What is known of a job that has ended well."""
    size = str(outcome.bytes_processed)
    shown: dict[str, Any] = {"totalBytesProcessed": size}
    if kind == "LOAD":
        shown["load"] = outcome.load
    elif kind == "EXTRACT":
        shown["extract"] = {"destinationUriFileCounts": (outcome.extract or {}).get("destinationUriFileCounts")}
    elif kind == "QUERY":
        billed = max(outcome.bytes_processed, 10 * 1024**2) if outcome.bytes_processed else 0
        shown["query"] = {
            "statementType": outcome.statement,
            "totalBytesProcessed": size,
            "totalBytesBilled": str(billed),
            "cacheHit": False,
            "totalSlotMs": "1",
            "totalPartitionsProcessed": "0",
            **_of_query(outcome),
        }
        if outcome.statement == "SCRIPT":
            shown["numChildJobs"] = str(outcome.statements)
    return shown


def _of_query(outcome: Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if outcome.schema is not None:
        shown["schema"] = schema_resource(outcome.schema)
    if outcome.referenced:
        shown["referencedTables"] = [ref.resource() for ref in outcome.referenced]
    if outcome.dml is not None:
        shown["numDmlAffectedRows"] = str(sum(outcome.dml.values()))
        shown["dmlStats"] = {k: str(v) for k, v in outcome.dml.items()}
    if outcome.ddl:
        shown["ddlOperationPerformed"] = outcome.ddl
        if outcome.target:
            shown["ddlTargetTable"] = outcome.target.resource()
    if outcome.extract is not None:
        shown["exportDataStatistics"] = {"fileCount": "1", "rowCount": str(outcome.extract["rows"])}
    return shown
