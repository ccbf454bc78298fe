"""Uploads in JSON: media, multipart, and resumable sessions."""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import AsyncIterator, MutableMapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from batchform.emulator.calls import Call, drain, json_response
from batchform.emulator.storage import content, uploads
from batchform.emulator.storage.objects import ObjectWriter
from batchform.emulator.storage.records import Attributes
from batchform.emulator.storage.refusals import invalid
from batchform.emulator.storage.related import Related
from batchform.emulator.storage.uploads import Upload
from batchform.emulator.storage.wire import (
    answer,
    attributes_of,
    check_digest,
    conditions,
    hashes_in,
    json_body,
    objects_of,
)

CHUNK: Final = 256 * 1024
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+|\*)|\*)/(?P<total>\d+|\*)")
_RELATED: Final = "batchform.related"
_TURNS: MutableMapping[str, asyncio.Lock] = weakref.WeakValueDictionary()
"""One call at a time per session: a client that gave up waiting may ask while its last call still writes."""


async def media(call: Call) -> Response:
    """The body is the content."""
    said = {"contentType": call.request.headers.get("content-type"), **_in_query(call)}
    return await _insert(call, attributes_of(said), {}, call.request.stream())


async def multipart(call: Call) -> Response:
    """The body is JSON, then the content."""
    body: Related = call.request.scope[_RELATED]
    said = {"contentType": body.content_type, **_in_query(call), **body.resource}
    return await _insert(call, attributes_of(said), body.resource, body.content())


async def read_head(request: Request, args: dict[str, str]) -> None:
    """Read the JSON of a multipart body before anything else happens: faults ask which object a call is about."""
    body = Related(request.headers.get("content-type", ""), aiter(request.stream()))
    await body.read_head()
    request.scope[_RELATED] = body
    args["object"] = str(request.query_params.get("name") or body.resource.get("name") or "")


async def _insert(call: Call, attributes: Attributes, said: dict[str, Any], pieces: AsyncIterator[bytes]) -> Response:
    objects = objects_of(call)
    writer = await run_in_threadpool(
        objects.writing, call.args["bucket"], _name(call, said), attributes=attributes, conditions=conditions(call)
    )
    await fill(writer, pieces, (said.get("crc32c"), said.get("md5Hash")), _hashes(call))
    return answer(writer.info, call)


async def fill(writer: ObjectWriter, pieces: AsyncIterator[bytes], *digests: tuple[str | None, str | None]) -> None:
    """Write all pieces and commit. digests: crc32c and md5 that the content must have."""
    with writer:
        async for piece in pieces:
            writer.write(piece)
        for said in digests:
            check_digest(writer.digest(), *said)
        await run_in_threadpool(writer.commit)


async def start(call: Call) -> Response:
    """Open a resumable session; its URL is on the host that was called."""
    said, headers = json_body(call.body), call.request.headers
    attributes = attributes_of({"contentType": headers.get("x-upload-content-type"), **_in_query(call), **said})
    declared = headers.get("x-upload-content-length", "")
    name = _name(call, said)
    upload = await run_in_threadpool(
        lambda: uploads.start(
            objects_of(call),
            "resumable",
            call.args["bucket"],
            name,
            attributes,
            conditions=conditions(call),
            digest=(said.get("crc32c"), said.get("md5Hash")),
            declared=int(declared) if declared.isdecimal() else None,
        )
    )
    place = f"{call.base_url}/upload/storage/v1/b/{call.args['bucket']}/o?uploadType=resumable&upload_id={upload}"
    return Response(b"", 200, {"location": place, "x-guploader-uploadid": upload})


async def receive(call: Call) -> Response:
    """Bytes of a session, or a question how far it got (`bytes */…`)."""
    upload_id = call.request.query_params["upload_id"]
    async with _TURNS.setdefault(upload_id, asyncio.Lock()):
        upload = await run_in_threadpool(uploads.find, call.store, upload_id)
        if upload.result is not None:
            await drain(call.request)
            return answer(upload.result, call)
        return await _receive(call, upload)


async def _receive(call: Call, upload: Upload) -> Response:
    first, total, asking = _content_range(call)
    path = content.incoming(call.store, upload.id)
    size = path.stat().st_size
    if total is None and upload.declared is not None:
        total = upload.declared
    if not asking:
        if first > size:
            raise invalid(f"The upload has {size} bytes; it cannot go on at byte {first}.")
        size = await _append(call, upload, first, size)
        if "content-range" not in call.request.headers:
            total = size  # the whole content in one call
    if total is not None and size > total:
        raise invalid(f"The upload has {size} bytes, but {total} were announced.")
    if size != total:
        headers = {"x-guploader-uploadid": upload.id, **({"range": f"bytes=0-{size - 1}"} if size else {})}
        return Response(b"", 308, headers)
    made = await run_in_threadpool(uploads.finish, objects_of(call), upload, _hashes(call))
    return answer(made, call)


async def _append(call: Call, upload: Upload, first: int, size: int) -> int:
    """Add what the body has beyond what is there; what came stays, though the client may be gone. The size then."""
    skip = size - first
    with content.incoming(call.store, upload.id).open("ab") as f:
        async for piece in call.request.stream():
            new = piece[skip:]
            skip = max(0, skip - len(piece))
            size += f.write(new)
    return size


def _content_range(call: Call) -> tuple[int, int | None, bool]:
    """First byte, total size if it is known, and whether the call only asks. Raises StorageRefusal 400."""
    headers = call.request.headers
    text = headers.get("content-range")
    if text is None:
        return 0, None, False
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if not found:
        raise invalid(f"Failed to parse Content-Range header: {text!r}.")
    total = None if found["total"] == "*" else int(found["total"])
    if found["first"] is None:
        return 0, total, True
    first = int(found["first"])
    if found["last"] != "*" and total is None and (int(found["last"]) + 1 - first) % CHUNK:
        raise invalid(f"All chunks but the last must have a multiple of {CHUNK} bytes: {text}.")
    return first, total, False


async def cancel(call: Call) -> Response:
    """End a session. The status is the service's own."""
    upload = await run_in_threadpool(uploads.find, call.store, call.request.query_params["upload_id"])
    await run_in_threadpool(uploads.forget, call.store, upload.id)
    return json_response({}, status=499)


def _name(call: Call, said: dict[str, Any]) -> str:
    name = call.request.query_params.get("name") or said.get("name")
    if not isinstance(name, str):
        raise invalid("Required parameter: name")
    return name


def _in_query(call: Call) -> dict[str, str]:
    encoding = call.request.query_params.get("contentEncoding")
    return {"contentEncoding": encoding} if encoding else {}


def _hashes(call: Call) -> tuple[str | None, str | None]:
    return hashes_in(call.request.headers.get("x-goog-hash", ""))
