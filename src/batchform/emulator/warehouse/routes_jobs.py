"""Jobs, queries and uploads over REST."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from batchform.emulator.calls import Call, Route, json_response
from batchform.emulator.warehouse import jobs, pages, resources, uploads, work
from batchform.emulator.warehouse.declined import Declined, invalid, of_error
from batchform.emulator.warehouse.fields import schema_resource
from batchform.emulator.warehouse.jobs import Job
from batchform.emulator.warehouse.routes_tables import body_of
from batchform.emulator.warehouse.warehouse import of

INSERT_WAIT: Final = 2.0
"""Seconds that jobs.insert waits, so that small jobs are done at once."""
QUERY_WAIT_MS: Final = "10000"
_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


def insert(call: Call) -> Response:
    return _inserted(call, body_of(call), "")


def _inserted(call: Call, body: dict[str, Any], upload: str) -> Response:
    """Begin with a job of a configuration."""
    warehouse, project = of(call.store), call.args["project"]
    config, reference = body.get("configuration"), body.get("jobReference") or {}
    if not isinstance(config, dict):
        raise invalid("Required parameter is missing: configuration")
    work.kind_of(config)
    if config.get("dryRun"):
        return json_response(_dry(call, config, reference))
    found = jobs.of(warehouse)
    job = found.waited(found.insert(project, config, reference, upload=upload), INSERT_WAIT)
    return json_response(resources.job(job, call.base_url))


def _dry(call: Call, config: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    warehouse, project = of(call.store), call.args["project"]
    location = str(reference.get("location") or work.home(warehouse, project, config) or "")
    outcome = work.dry_run(warehouse, project, location, config)
    kind = work.kind_of(config)
    return {
        "kind": "bigquery#job",
        "configuration": {**config, "jobType": kind},
        "jobReference": {"projectId": project, "location": location or "US"},
        "status": {"state": "DONE"},
        "statistics": {"creationTime": resources.millis(warehouse.now()), **resources.statistics(outcome, kind)},
    }


def get(call: Call) -> Response:
    return json_response(resources.job(_job(call), call.base_url))


def _job(call: Call) -> Job:
    location = call.request.query_params.get("location") or ""
    return jobs.of(of(call.store)).get(call.args["project"], call.args["job"], location)


def list_(call: Call) -> Response:
    query, wanted = call.request.query_params, pages.Wanted.of_call(call)
    states = [s.upper() for s in query.getlist("stateFilter")]
    before = pages.number(wanted.token, "pageToken") if wanted.token else 2**62
    size = min(wanted.limit or 100, 1000)
    since = pages.number(query.get("minCreationTime") or "0", "minCreationTime") / 1000
    until = pages.number(query.get("maxCreationTime") or str(10**15), "maxCreationTime") / 1000
    found = jobs.of(of(call.store)).newest(call.args["project"], states, before, size + 1, since, until)
    shown: dict[str, Any] = {"kind": "bigquery#jobList"}
    if found:
        shown["jobs"] = [_listed(resources.job(j, call.base_url)) for j in found[:size]]
    if len(found) > size:
        shown["nextPageToken"] = str(found[size - 1].number)
    return json_response(shown)


def _listed(job: dict[str, Any]) -> dict[str, Any]:
    shown = {**job, "state": job["status"]["state"]}
    return {**shown, "errorResult": job["status"]["errorResult"]} if "errorResult" in job["status"] else shown


def cancel(call: Call) -> Response:
    job = jobs.of(of(call.store)).cancel(_job(call))
    return json_response({"kind": "bigquery#jobCancelResponse", "job": resources.job(job, call.base_url)})


def delete(call: Call) -> Response:
    job = _job(call)
    if not job.done:
        raise invalid(f"Job {job.id} is still running.")
    jobs.of(of(call.store)).delete(job)
    return Response(status_code=204)


# --- queries ---


def query(call: Call) -> Response:
    """jobs.query: a job, and the first page of its result. With the same requestId it is the same job."""
    body, warehouse, project = body_of(call), of(call.store), call.args["project"]
    config = _config_of(body)
    wanted = _wanted(body)
    if body.get("dryRun"):
        shown = _dry(call, config, body)
        found = shown["statistics"]
        dry = {
            "kind": "bigquery#queryResponse",
            "jobComplete": True,
            "totalBytesProcessed": found["totalBytesProcessed"],
        }
        schema = found.get("query", {}).get("schema")
        return json_response({**dry, "jobReference": shown["jobReference"], **({"schema": schema} if schema else {})})
    work.query_of(config, project)
    known = jobs.of(warehouse)
    reference = {"location": body.get("location")}
    job = known.insert(project, config, reference, request_id=body.get("requestId") or None)
    seconds = float(body.get("timeoutMs") or QUERY_WAIT_MS) / 1000
    return json_response(_results(call, known.waited(job, seconds), wanted, "bigquery#queryResponse"))


def _wanted(body: dict[str, Any]) -> pages.Wanted:
    formats = body.get("formatOptions") or {}
    stamps = formats.get("timestampOutputFormat") or ("INT64" if formats.get("useInt64Timestamp") else "FLOAT64")
    limit = body.get("maxResults")
    return pages.Wanted(limit=None if limit is None else int(limit), stamps=pages.checked_stamps(stamps))


_OF_QUERY: Final = (
    "query",
    "defaultDataset",
    "parameterMode",
    "queryParameters",
    "maximumBytesBilled",
    "useLegacySql",
    "useQueryCache",
    "connectionProperties",
    "createSession",
)


def _config_of(body: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"query": {k: body[k] for k in _OF_QUERY if body.get(k) is not None}}
    if body.get("labels"):
        config["labels"] = body["labels"]
    return {**config, "dryRun": True} if body.get("dryRun") else config


def results(call: Call) -> Response:
    """jobs.getQueryResults: waits, then answers a page; a job that failed is an HTTP error."""
    job = _job(call)
    if "query" not in job.config:
        raise invalid(f"Job {job.id} is not a query job.")
    timeout = pages.number(call.request.query_params.get("timeoutMs") or QUERY_WAIT_MS, "timeoutMs") / 1000
    job = jobs.of(of(call.store)).waited(job, timeout)
    wanted = pages.Wanted.of_call(call)
    return json_response(_results(call, job, wanted, "bigquery#getQueryResultsResponse"))


def _results(call: Call, job: Job, wanted: pages.Wanted, kind: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": kind, "jobReference": resources.reference(job), "jobComplete": job.done}
    if not job.done:
        return shown
    if job.errors:
        raise of_error(job.errors[0])
    outcome = job.outcome
    shown |= {"totalBytesProcessed": str(outcome.bytes_processed), "cacheHit": False}
    if outcome.dml is not None:
        shown["numDmlAffectedRows"] = str(sum(outcome.dml.values()))
        shown["dmlStats"] = {k: str(v) for k, v in outcome.dml.items()}
    if outcome.schema is not None and outcome.destination is not None:
        shown["schema"] = schema_resource(outcome.schema)
        shown |= pages.page(of(call.store), outcome.destination, wanted)
    return shown


# --- uploads ---


async def upload(call: Call) -> Response:
    """The bytes of a load with its configuration (`multipart`), or the start of a resumable upload."""
    warehouse, kind = await run_in_threadpool(of, call.store), call.request.query_params.get("uploadType")
    if kind == "resumable":
        body = await call.request.body()
        name = await run_in_threadpool(uploads.start, warehouse, call.args["project"], body)
        query = f"uploadType=resumable&upload_id={name}"
        url = f"{call.base_url}/upload/bigquery/v2/projects/{call.args['project']}/jobs?{query}"
        return json_response({}, headers={"location": url, "x-guploader-uploadid": name})
    if kind != "multipart":
        raise invalid(f"Uploads are of type multipart or resumable, not {kind}.")
    path = warehouse.uploads / work.new_upload()
    try:
        with path.open("xb") as f:
            async for piece in call.request.stream():
                f.write(piece)
        content_type = call.request.headers.get("content-type", "")
        job, name = await run_in_threadpool(uploads.take_apart, warehouse, path, content_type)
    finally:
        path.unlink(missing_ok=True)
    return await run_in_threadpool(_inserted, call, job, name)


async def upload_bytes(call: Call) -> Response:
    """A chunk of a resumable upload, or a question how far it got; the last one begins with the job."""
    warehouse, name = await run_in_threadpool(of, call.store), call.request.query_params["upload_id"]
    state = await run_in_threadpool(uploads.find, warehouse, name)
    if state.answer:
        await call.request.body()
        return json_response(msgspec.Raw(state.answer.encode()))
    path = warehouse.uploads / name
    size = path.stat().st_size
    said = call.request.headers.get("content-range")
    found = _RANGE.fullmatch(said) if said else None
    if said and not found:
        raise invalid(f"Invalid Content-Range: {said}")
    first, total = (found[1], found[3]) if found else ("0", "*")
    if first is not None:
        if int(first) > size:
            raise Declined(400, f"Content-Range begins at {first}, but {size} bytes were received.")
        try:
            with path.open("r+b") as f:
                f.truncate(int(first))
                f.seek(int(first))
                async for piece in call.request.stream():
                    f.write(piece)
        except ClientDisconnect:
            return Response(status_code=499)
        size = path.stat().st_size
    if said and (total == "*" or size < int(total)):
        return Response(status_code=308, headers={"range": f"bytes=0-{size - 1}"} if size else {})
    if state.job is None:
        raise invalid("This upload has no configuration.")
    return await run_in_threadpool(_finished, call, name, state.job)


def _finished(call: Call, name: str, body: dict[str, Any]) -> Response:
    warehouse = of(call.store)
    with warehouse.finishing(name):
        state = uploads.find(warehouse, name)
        if not state.answer:
            answer = bytes(_inserted(call, body, name).body)
            uploads.finish(warehouse, name, answer.decode())
            return Response(answer, media_type="application/json")
    return json_response(msgspec.Raw((state.answer or "{}").encode()))


_PROJECT: Final = r"/bigquery/v2/projects/(?P<project>[^/]+)"
_JOBS: Final = _PROJECT + r"/jobs"
_JOB: Final = _JOBS + r"/(?P<job>[^/]+)"

ROUTES: Final = (
    *(
        Route(f"bigquery.jobs.{name}", method, path, handler, open_to_all=True)
        for name, method, path, handler in (
            ("insert", "POST", _JOBS, insert),
            ("get", "GET", _JOB, get),
            ("list", "GET", _JOBS, list_),
            ("cancel", "POST", _JOB + "/cancel", cancel),
            ("delete", "DELETE", _JOB + "/delete", delete),
            ("query", "POST", _PROJECT + "/queries", query),
            ("getQueryResults", "GET", _PROJECT + "/queries/(?P<job>[^/]+)", results),
        )
    ),
    Route("bigquery.jobs.upload", "POST", "/upload" + _JOBS, upload, open_to_all=True, streams=True),
    Route(
        "bigquery.jobs.upload.bytes",
        "PUT",
        "/upload" + _JOBS + r"\?upload",
        upload_bytes,
        open_to_all=True,
        streams=True,
    ),
)
