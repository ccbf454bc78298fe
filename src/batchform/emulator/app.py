"""The emulator as an ASGI application. Every call passes through `App.passes`, by name."""

from __future__ import annotations

import inspect
import re
import sqlite3
from contextlib import suppress
from functools import partial
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batchform import canon
from batchform.emulator import routes_batches, routes_caches, routes_control, routes_files, routes_models
from batchform.emulator.calls import MAX_BODY, Call, Emulator, Route, drain, json_response
from batchform.emulator.clock import http_date
from batchform.emulator.refusal import Refusal
from batchform.emulator.vertex import routes as vertex

ROUTES: Final = (
    *routes_files.ROUTES,
    *routes_batches.ROUTES,
    *routes_models.ROUTES,
    *routes_caches.ROUTES,
    *vertex.ROUTES,
    *routes_control.ROUTES,
)

_STORAGE: Final = ("/storage/", "/upload/storage/", "/download/storage/", "/batch/storage/")
REFUSED_KEY: Final = "invalid"
_VERSION: Final = r"(?P<version>v1|v1beta)"
_COMPILED: Final = tuple((re.compile(route.path.replace("/V", "/" + _VERSION, 1)), route) for route in ROUTES)
_PREFIX: Final = re.compile(r"(?P<prefix>.*?)(?P<path>/(?:(?:upload/|download/)?v1(?:beta1?)?|emulator)/.*)")
_BIGQUERY: Final = ("/bigquery/", "/upload/bigquery/")


class App:
    """Finds the route of a call, checks its key, and turns refusals into Google's error bodies."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["app"] = self
        try:
            response = await self.answer(Request(scope, receive))
        except ClientDisconnect:
            return
        with suppress(OSError, sqlite3.Error):
            response.headers.setdefault("date", http_date(self._emulator.store.now()))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """The answer to a request; refusals are answers. Raises ClientDisconnect."""
        try:
            return await self._answer(request)
        except Refusal as e:
            await drain(request)
            return json_response(e.body(), status=e.status)
        except (OSError, sqlite3.Error) as e:  # a full disk, or a state folder that was damaged
            refusal = Refusal(500, f"The emulator's state cannot be read or written: {e}.")
            return json_response(refusal.body(), status=refusal.status)

    async def passes(self, route: Route, call: Call) -> Response:
        """The one gate: every call of every route comes through here, with its name (`batches.create`) in `call.name`.

        Scripted faults happen here, before, instead of or after the call.
        """
        run = partial(self._run, route)
        due = [] if route in routes_control.ROUTES else await run_in_threadpool(self._emulator.faults.take, call)
        if not due:
            return await run(call)
        from batchform.emulator.fault_effects import carry_out  # only who scripts faults waits for their models

        return await carry_out(self._emulator.faults, due, call, run)

    async def _run(self, route: Route, call: Call) -> Response:
        if inspect.iscoroutinefunction(route.handler):
            response: Response = await route.handler(call)
            return response
        return await run_in_threadpool(route.handler, call)  # type: ignore[arg-type]  # the other half of Handler

    async def _answer(self, request: Request) -> Response:
        prefix, route, args = _find(request, self._emulator)
        if route.authorize is not None:
            account = route.authorize(request, args)
        else:
            account = "" if route.open_to_all else _account(request)
        if route.prepare is not None:
            await route.prepare(request, args)
        call = Call(
            emulator=self._emulator,
            name=route.name,
            request=request,
            account=account,
            base_url=f"{request.url.scheme}://{request.headers.get('host', 'localhost')}{prefix}",
            args=args,
            body=b"" if route.streams else await _body(request),
        )
        return await self.passes(route, call)


def _of_bigquery(request: Request) -> tuple[Route, dict[str, str]]:
    """Loads BigQuery, which needs packages of an extra."""
    try:
        from batchform.emulator.warehouse import routes
    except ImportError as e:
        message = (
            f"The emulator's BigQuery needs a package that is not installed ({e}): pip install 'batchform[emulator]'."
        )
        raise Refusal(501, message) from e
    return routes.find(request)


def _find(request: Request, emulator: Emulator) -> tuple[str, Route, dict[str, str]]:
    """What stands before the version, the route, and the arguments in its path."""
    if request.url.path.startswith(_STORAGE):
        from batchform.emulator.storage import routes  # here and below: only who calls it waits for it

        return "", *routes.find_json(request)
    if request.url.path.startswith(_BIGQUERY):
        return "", *_of_bigquery(request)
    split = _PREFIX.fullmatch(request.url.path)
    prefix, path = (split["prefix"], split["path"]) if split else ("", request.url.path)
    if "upload_id" in request.query_params:
        path += "?upload"
    found = None
    for pattern, route in _COMPILED:
        found = pattern.fullmatch(path) if route.method == request.method else None
        if found:
            break
    if found is None or prefix:
        from batchform.emulator.storage import routes

        xml = routes.find_xml(request, emulator.store, other=found is not None)
        if xml:
            return "", *xml
    if found:
        return prefix, route, found.groupdict()
    served = ", ".join(route.name for route in ROUTES)
    message = f"The emulator does not serve {request.method} {request.url.path}. It serves {served}."
    raise Refusal(501 if split else 404, message)


def _account(request: Request) -> str:
    """What stands for the API key in the state. The key itself is kept nowhere."""
    key = request.headers.get("x-goog-api-key") or request.query_params.get("key") or ""
    if not key:
        raise Refusal(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key"
            " or other form of API consumer identity to call this API.",
        )
    if key == REFUSED_KEY:
        detail = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        raise Refusal(400, "API key not valid. Please pass a valid API key.", details=[detail])
    return canon.short(canon.digest_of("emulator account", key), 16)


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY:
            raise Refusal(400, f"Request payload size exceeds the limit: {MAX_BODY} bytes.")
        pieces.append(piece)
    return b"".join(pieces)
