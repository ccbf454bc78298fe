"""An answer in hand: rendered, so that faults can change it, and sent whole, in pieces, or not to its end."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final, Self

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from batchform.emulator.calls import TRANSPORT
from batchform.emulator.fault_kinds import Drop

_PIECES: Final = 10


class Answer(Struct):
    """Status, headers and the whole body of an answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @classmethod
    async def of(cls, response: Response, scope: Scope) -> Self:
        """What a response would send. scope: of its request; files answer ranges by it."""
        answer = cls(200, [], b"")
        pieces: list[bytes] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], list(message["headers"])
            else:
                pieces.append(message.get("body", b""))

        await response(scope, _nothing_more, send)
        answer.body = b"".join(pieces)
        return answer

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def without_headers(self, *prefixes: bytes) -> None:
        self.headers = [(key, value) for key, value in self.headers if not key.lower().startswith(prefixes)]

    def write(self, body: bytes) -> None:
        """Replace the body; a length that was announced is announced anew."""
        if self.header(b"content-length") is not None:
            self.without_headers(b"content-length")
            self.headers.append((b"content-length", str(len(body)).encode()))
        self.body = body

    def json(self) -> dict[str, Any] | None:
        """The body as a JSON object; None if it is an error, or none."""
        if self.status != 200:
            return None
        try:
            found = msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None
        return found if isinstance(found, dict) else None

    def write_json(self, value: dict[str, Any]) -> None:
        self.write(msgspec.json.encode(value))


class Whole(Response):
    """Sends an answer; `seconds` longer than it takes, in pieces."""

    def __init__(self, answer: Answer, seconds: float = 0) -> None:
        super().__init__()
        self.raw_headers = answer.headers
        self._answer, self._seconds = answer, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (what ASGI gives)
        await send({"type": "http.response.start", "status": self._answer.status, "headers": self._answer.headers})
        body = self._answer.body
        if self._seconds:
            size = max(1, -(-len(body) // _PIECES))
            for start in range(0, len(body) - size, size):
                await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
                await asyncio.sleep(self._seconds / _PIECES)
            body = body[(max(0, -(-len(body) // size) - 1)) * size :] if body else body
        await send({"type": "http.response.body", "body": body})


class Dropped(Response):
    """Closes the connection: without an answer, or after a share of the answer's body."""

    def __init__(self, how: Drop, answer: Answer | None = None) -> None:
        super().__init__()
        self._how, self._answer = how, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._answer is not None:
            await send({"type": "http.response.start", "status": self._answer.status, "headers": self._answer.headers})
            kept = self._answer.body[: int(len(self._answer.body) * self._how.keep)]
            await send({"type": "http.response.body", "body": kept, "more_body": True})
        transport: asyncio.Transport = scope["state"][TRANSPORT]
        if self._how.how == "reset":
            await asyncio.sleep(0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass


async def _nothing_more() -> Message:
    """What an answer hears from its client while it is rendered."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable: nobody sets it")
