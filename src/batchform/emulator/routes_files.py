"""Files: resumable upload, get, list, delete, download."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response

from batchform.emulator import files
from batchform.emulator.calls import Call, Route, json_response
from batchform.emulator.refusal import Refusal, bad_field


def start(call: Call) -> Response:
    """The first call of a resumable upload. Answers with the URL that takes the bytes, on the host that was called."""
    headers = call.request.headers
    if headers.get("x-goog-upload-protocol") != "resumable" or headers.get("x-goog-upload-command") != "start":
        raise Refusal(400, "The emulator takes resumable uploads only: X-Goog-Upload-Protocol: resumable, then start.")
    length = headers.get("x-goog-upload-header-content-length", "")
    upload = files.start_upload(
        call.store,
        call.account,
        _file_of(call.body),
        mime_type=headers.get("x-goog-upload-header-content-type", "application/octet-stream"),
        declared=int(length) if length.isdecimal() else -1,
    )
    url = f"{call.base_url}/upload/{call.args['version']}/files?upload_id={upload}&upload_protocol=resumable"
    return json_response({}, headers={"x-goog-upload-url": url, "x-goog-upload-status": "active"})


def _file_of(body: bytes) -> dict[str, Any]:
    try:
        parsed = msgspec.json.decode(body or b"{}")
    except msgspec.DecodeError as e:
        raise bad_field(f"Invalid JSON payload received. {e}") from e
    file = parsed.get("file", {}) if isinstance(parsed, dict) else None
    if not isinstance(file, dict):
        raise bad_field("Invalid value at 'file' (File)", "file")
    return file


async def receive(call: Call) -> Response:
    """Bytes of an upload (`upload`, `finalize`, or both), or a question how far it got (`query`)."""
    upload = call.request.query_params["upload_id"]
    await run_in_threadpool(files.open_upload, call.store, upload)
    path = files.upload_path(call.store, upload)
    commands = {c.strip() for c in call.request.headers.get("x-goog-upload-command", "").split(",")}
    if not commands <= {"upload", "finalize", "query"}:
        raise Refusal(400, f"Unknown X-Goog-Upload-Command: {', '.join(sorted(commands))}.")
    size = path.stat().st_size
    if "upload" in commands:
        offset = call.request.headers.get("x-goog-upload-offset", "0")
        if not offset.isdecimal() or int(offset) > size:
            raise Refusal(400, f"X-Goog-Upload-Offset is {offset}, but {size} bytes were received.")
        size = int(offset)
        with path.open("r+b") as f:  # an offset before the end sends those bytes again
            f.truncate(size)
            f.seek(size)
            try:
                async for piece in call.request.stream():
                    size += len(piece)
                    files.check_size(size)
                    f.write(piece)
            except ClientDisconnect:
                return Response(status_code=499)
    if "finalize" not in commands:
        headers = {"x-goog-upload-status": "active", "x-goog-upload-size-received": str(size)}
        return json_response({}, headers=headers)
    row = await run_in_threadpool(files.finish_upload, call.store, upload)
    return json_response({"file": files.resource(row, call.base_url)}, headers={"x-goog-upload-status": "final"})


def get(call: Call) -> Response:
    files.refuse_long_id(call.args["id"])
    return json_response(files.resource(files.find(call.store, call.account, call.args["id"]), call.base_url))


def list_(call: Call) -> Response:
    size, token = call.paging(default=10)
    rows, following = files.page(call.store, call.account, size=size, token=token)
    shown: dict[str, Any] = {"files": [files.resource(row, call.base_url) for row in rows]} if rows else {}
    return json_response({**shown, "nextPageToken": following} if following else shown)


def delete(call: Call) -> Response:
    files.refuse_long_id(call.args["id"])
    files.delete(call.store, call.account, call.args["id"])
    return json_response({})


def download(call: Call) -> Response:
    """The bytes of a generated file. What was uploaded cannot be downloaded."""
    row = files.find(call.store, call.account, call.args["id"])
    if row["source"] != "GENERATED":
        raise Refusal(400, f"The File {row['id']} was uploaded; only generated files can be downloaded.")
    return FileResponse(call.store.files / row["path"], media_type=row["mime_type"])


_ID: Final = r"/files/(?P<id>[^/:]+)"

ROUTES: Final = (
    Route("files.upload.start", "POST", r"/upload/V/files", start),
    Route("files.upload.bytes", "POST", r"/upload/V/files\?upload", receive, open_to_all=True, streams=True),
    Route("files.get", "GET", rf"/V{_ID}", get),
    Route("files.list", "GET", r"/V/files", list_),
    Route("files.delete", "DELETE", rf"/V{_ID}", delete),
    Route("files.download", "GET", rf"(?:/download)?/V{_ID}:download", download),
)
