"""What a call is about: tag, job, file, model and state, for faults that are meant for some of them only."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from batchform.emulator import files, jobs
from batchform.emulator.calls import Call
from batchform.emulator.refusal import Refusal

Subject = Mapping[str, str | None]
"""tag, job (`batches/…`), file (`files/…`), model, state (`SUCCEEDED`), as far as there are such."""


def of(call: Call) -> Subject:
    """What a call is about, empty for calls that list things."""
    if call.name.startswith("vertex."):
        from batchform.emulator.vertex import subject  # here and below: only its own calls wait for it

        return subject.of(call)
    if call.name == "batches.create":
        return {"model": call.args["model"], **_of_body(call)}
    if call.name.startswith("models."):
        return {"model": call.args.get("model")}
    if call.name == "files.upload.start":
        return _of_body(call)
    if call.name.startswith("bigquery."):
        return _of_bigquery(call)
    if call.name.startswith("storage."):
        return _of_object(call)
    try:
        if call.name == "files.upload.bytes":
            upload = files.open_upload(call.store, call.request.query_params["upload_id"])
            return {"tag": upload["display_name"], "file": upload["name"] and f"files/{upload['name']}"}
        if call.name.startswith("batches.") and "id" in call.args:
            return _of_job(jobs.find(call.store, call.account, call.args["id"]), call)
        if call.name.startswith("files.") and "id" in call.args:
            return _of_file(call)
    except Refusal:
        kind = call.name.partition(".")[0]
        return {"job" if kind == "batches" else "file": f"{kind}/{call.args['id']}"} if "id" in call.args else {}
    return {}


def of_entry(entry: Mapping[str, Any]) -> Subject:
    """What one entry of a list is about: an operation or a file, as the API shows it."""
    if "inputConfig" in entry or "batchPredictionJobs/" in entry.get("name", ""):
        from batchform.emulator.vertex import subject

        return subject.of_entry(entry)
    meta = entry.get("metadata")
    if not isinstance(meta, dict):
        return {"tag": entry.get("displayName"), "file": entry.get("name"), "state": entry.get("state")}
    return {
        "tag": meta.get("displayName"),
        "job": entry.get("name"),
        "file": meta.get("inputConfig", {}).get("fileName"),
        "model": str(meta.get("model", "")).removeprefix("models/"),
        "state": str(meta.get("state", "")).removeprefix("BATCH_STATE_"),
    }


def _of_bigquery(call: Call) -> Subject:
    """A job by its id, a table by its `bq://` name; of a load or query also the table that it writes."""
    args, body = call.args, {}
    with suppress(msgspec.DecodeError):
        body = msgspec.json.decode(call.body or b"{}", type=dict[str, Any])
    config = body.get("configuration") or {}
    written = (config.get("load") or config.get("query") or {}).get("destinationTable") or {}
    job = args.get("job") or (body.get("jobReference") or {}).get("jobId")
    dataset, table = args.get("dataset") or written.get("datasetId"), args.get("table") or written.get("tableId")
    project = written.get("projectId") or args.get("project")
    return {"job": job, "file": f"bq://{project}.{dataset}.{table}" if table else None}


def _of_object(call: Call) -> Subject:
    """An object, or a bucket, by its `gs://` name. Where only the body says which object it is, the bucket."""
    bucket, name = call.args.get("bucket"), call.args.get("to_object") or call.args.get("object")
    upload = call.request.query_params.get("upload_id")
    if upload is not None:
        from batchform.emulator.storage import uploads

        with suppress(Refusal):
            name = uploads.find(call.store, upload).name
    name = name or call.request.query_params.get("name")
    if name is None and call.name == "storage.uploads.start":
        with suppress(msgspec.DecodeError, AttributeError):
            name = msgspec.json.decode(call.body).get("name")
    return {"file": f"gs://{bucket}/{name or ''}"} if bucket else {}


def _of_body(call: Call) -> Subject:
    try:
        body = msgspec.json.decode(call.body)
        inner = body.get("batch") or body.get("file") or {}
        source = inner.get("inputConfig") or inner.get("input_config") or {}
        file = source.get("fileName") or source.get("file_name") or inner.get("name")
        return {"tag": inner.get("displayName") or inner.get("display_name"), "file": file}
    except (msgspec.DecodeError, AttributeError):
        return {}  # not what the API takes: it will be refused


def _of_job(job: sqlite3.Row, call: Call) -> Subject:
    return {
        "tag": job["display_name"],
        "job": f"batches/{job['id']}",
        "file": job["input_name"],
        "model": job["model"],
        "state": jobs.state(job, call.store.now()),
    }


def _of_file(call: Call) -> Subject:
    """A file, and of a results file its job."""
    name = f"files/{call.args['id']}"
    with call.store.reading() as db:
        job = db.execute("SELECT * FROM jobs WHERE result_id = ?", (call.args["id"],)).fetchone()
    if job is not None:
        return {**_of_job(job, call), "file": name}
    return {"tag": files.find(call.store, call.account, call.args["id"])["display_name"], "file": name}
