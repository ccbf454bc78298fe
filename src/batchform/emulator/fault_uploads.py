"""Faults of resumable uploads: bytes that arrive in part or damaged, uploads that are forgotten, missing headers."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import Message

from batchform.emulator import files
from batchform.emulator.calls import Call
from batchform.emulator.fault_answer import Answer
from batchform.emulator.fault_gate import Due
from batchform.emulator.fault_kinds import DamagedUpload, LostUpload, NoUploadHeaders, ShortChunk

_COMMAND = b"x-goog-upload-command"


async def before(due: Sequence[Due], call: Call) -> Call:
    """The call as the service will hear it."""
    for kind in (d.fault.do for d in due):
        if isinstance(kind, LostUpload):
            await run_in_threadpool(_forget, call)
        elif isinstance(kind, ShortChunk):
            body = await call.request.body()
            call = _saying(call, body[: int(len(body) * kind.keep)], unfinished=True)
        elif isinstance(kind, DamagedUpload):
            body = await call.request.body()
            call = _saying(call, body[:-1] + bytes([body[-1] ^ 1]) if body else b"\0")
    return call


def after(due: Sequence[Due], answer: Answer) -> None:
    """The answer as the client will see it."""
    if any(isinstance(d.fault.do, NoUploadHeaders) for d in due):
        answer.without_headers(b"x-goog-upload-")


def _forget(call: Call) -> None:
    upload = call.request.query_params["upload_id"]
    if call.name != "storage.uploads.bytes":
        return files.forget_upload(call.store, upload)
    from batchform.emulator.storage import uploads

    return uploads.forget(call.store, upload)


def _saying(call: Call, body: bytes, *, unfinished: bool = False) -> Call:
    """The same call with another body; unfinished: which is not the last of its upload."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    headers = call.request.scope["headers"]
    if unfinished:
        first = call.request.headers.get("content-range", "bytes 0-").partition("-")[0]
        headers = [(key, b"upload" if key == _COMMAND else value) for key, value in headers if key != b"content-range"]
        headers.append((b"content-range", f"{first}-*/*".encode()))
    return replace(call, request=Request({**call.request.scope, "headers": headers}, receive))
