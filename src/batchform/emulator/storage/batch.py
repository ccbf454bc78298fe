"""Several calls in one: the batch endpoint."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from email import message_from_bytes
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from batchform.emulator.calls import Call
from batchform.emulator.fault_answer import Answer
from batchform.emulator.storage.refusals import invalid
from batchform.emulator.storage.related import boundary_of
from batchform.emulator.store import new_id

MAX_CALLS: Final = 100
_REQUEST: Final = re.compile(rb"\s*(?P<method>[A-Z]+) (?P<target>\S+)(?: HTTP/[\d.]+)?\r?\n(?P<rest>.*)", re.DOTALL)

Run = Callable[[Request], Awaitable[Response]]


async def run(call: Call) -> Response:
    """Make the calls of a multipart/mixed body, one after the other; their answers, in that order."""
    answer: Run = call.request.app.answer
    parts = list(_parts(call))
    if not 1 <= len(parts) <= MAX_CALLS:
        raise invalid(f"A batch has 1 to {MAX_CALLS} calls; this one has {len(parts)}.")
    boundary = f"batch_{new_id(16)}"
    body = b""
    for content_id, inner in parts:
        request = _request(call, inner)
        response = await Answer.of(await answer(request), request.scope)
        head = f"--{boundary}\r\nContent-Type: application/http\r\n"
        head += f"Content-ID: <response-{content_id}>\r\n\r\n" if content_id else "\r\n"
        status = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
        headers = b"".join(
            name + b": " + value + b"\r\n" for name, value in response.headers if name.lower() != b"transfer-encoding"
        )
        body += (head + status).encode() + headers + b"\r\n" + response.body + b"\r\n"
    return Response(body + f"--{boundary}--\r\n".encode(), 200, None, f"multipart/mixed; boundary={boundary}")


def _parts(call: Call) -> Iterator[tuple[str, bytes]]:
    """Content-ID, without brackets, and HTTP text of each call."""
    content_type = call.request.headers.get("content-type", "")
    boundary_of(content_type)
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + call.body)
    if not message.is_multipart():
        raise invalid("Failed to parse batch request: its parts cannot be found.")
    for part in message.get_payload():
        payload = part.get_payload(decode=True)  # type: ignore[union-attr]  # parts of a multipart message are messages
        yield str(part.get("content-id") or "").strip("<> "), payload  # type: ignore[union-attr, misc]


def _request(call: Call, inner: bytes) -> Request:
    """A call of the batch, as if it had come alone, on the same connection."""
    found = _REQUEST.fullmatch(inner)
    if not found:
        raise invalid("Failed to parse batch request: a part is no HTTP request.")
    head, _, body = found["rest"].replace(b"\r\n", b"\n").partition(b"\n\n")
    lines = (line.partition(b":") for line in head.split(b"\n") if b":" in line)
    own = [(name.strip().lower(), value.strip()) for name, _, value in lines]
    outer = [(name, value) for name, value in call.request.scope["headers"] if name == b"host"]
    target = urlsplit(found["target"].decode("latin-1"))
    scope = {
        **call.request.scope,
        "method": found["method"].decode(),
        "path": target.path,
        "raw_path": target.path.encode("latin-1"),
        "query_string": target.query.encode("latin-1"),
        "headers": [*outer, *((name, value) for name, value in own if name not in (b"host", b"content-length"))],
    }
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await call.request.receive()

    return Request(scope, receive)
