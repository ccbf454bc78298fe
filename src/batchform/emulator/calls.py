"""What every route works with: the emulator's parts, and one call to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from batchform.emulator import strict
from batchform.emulator.fate import ORDINARY, Fate
from batchform.emulator.refusal import bad_field
from batchform.emulator.store import Store

if TYPE_CHECKING:
    from batchform.emulator.fault_gate import FaultGate

MAX_BODY: Final = 20 * 1024**2
MAX_PAGE: Final = 1_000
TRANSPORT: Final = "transport"
"""Under this name the server puts a connection's transport into the state of its calls."""
AGAIN: Final = re.compile(r"again-\d+-")
"""Before a page token: the same page, under another token. Only faults hand such tokens out."""


class Emulator(Struct, frozen=True):
    """State and settings. job_seconds: how long a new job takes, by the emulator's clock.

    create_buckets: who writes to a bucket of Cloud Storage makes it, if there is none; object_pace: seconds
    between two changes of one object in Cloud Storage.
    """

    store: Store
    job_seconds: float
    faults: FaultGate
    create_buckets: bool = False
    object_pace: float = 0.0


class Call(Struct, frozen=True):
    """One request to the emulator. account stands for the API key; base_url has no version and no trailing slash.

    fate: what is in store for the job that it makes, or for the row that it runs.
    """

    emulator: Emulator
    name: str
    request: Request
    account: str
    base_url: str
    args: dict[str, str]
    body: bytes
    fate: Fate = ORDINARY

    @property
    def store(self) -> Store:
        return self.emulator.store

    def message(self, kind: str) -> dict[str, Any]:
        """The body as a normalised message of the grammar. Raises Refusal 400."""
        try:
            return strict.read(kind, self.body)
        except strict.Misfit as e:
            raise e.refusal() from e

    def paging(self, *, default: int) -> tuple[int, str]:
        """pageSize and pageToken, in either spelling."""
        query = self.request.query_params
        size = query.get("pageSize") or query.get("page_size") or str(default)
        if not size.isdecimal():
            raise bad_field(f"Invalid value at 'page_size' (TYPE_INT32), \"{size}\"", "page_size")
        token = query.get("pageToken") or query.get("page_token") or ""
        return min(int(size) or default, MAX_PAGE), AGAIN.sub("", token)

    def with_query(self, **changes: str) -> Call:
        """The same call with some of its query replaced."""
        query = urlencode({**self.request.query_params, **changes}).encode()
        return replace(self, request=Request({**self.request.scope, "query_string": query}))


Prepare = Callable[[Request, dict[str, str]], Awaitable[None]]
Handler = Callable[[Call], Response] | Callable[[Call], Awaitable[Response]]


class Route(Struct, frozen=True):
    """One operation. path: a regular expression whose named groups become `Call.args`.

    open_to_all: needs no API key; streams: the handler reads the body itself; authorize: says whose a call is, where
    it is not the API key that does; prepare: looks at the request, and adds to the arguments, before faults do.
    """

    name: str
    method: str
    path: str
    handler: Handler
    open_to_all: bool = False
    streams: bool = False
    authorize: Callable[[Request, dict[str, str]], str] | None = None
    prepare: Prepare | None = None


def json_response(value: Any, *, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, headers, "application/json; charset=UTF-8")


def json_stream(pieces: Iterator[bytes]) -> Response:
    """A JSON answer that may be too large to hold."""
    return StreamingResponse(pieces, 200, None, "application/json; charset=UTF-8")


async def drain(request: Request) -> None:
    """Read what is still coming, so that the client is not cut off before it reads why it was refused."""
    try:
        async for _ in request.stream():
            pass
    except (ClientDisconnect, RuntimeError):
        return  # gone, or read to its end before
