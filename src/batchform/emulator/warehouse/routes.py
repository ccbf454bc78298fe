"""All of BigQuery that the emulator serves over REST."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final, cast

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from batchform.emulator.calls import Call, Route
from batchform.emulator.refusal import Refusal
from batchform.emulator.warehouse import routes_jobs, routes_tables
from batchform.emulator.warehouse.declined import Declined, unforeseen


def _guarded(route: Route) -> Route:
    """The same route, refusing what it fails on."""
    handler: Any = route.handler
    if inspect.iscoroutinefunction(handler):

        async def waits(call: Call) -> Response:
            try:
                return cast(Response, await handler(call))
            except (Refusal, ClientDisconnect):
                raise
            except Exception as e:
                raise unforeseen(e) from e

        return msgspec.structs.replace(route, handler=waits)

    def answers(call: Call) -> Response:
        try:
            return cast(Response, handler(call))
        except Refusal:
            raise
        except Exception as e:
            raise unforeseen(e) from e

    return msgspec.structs.replace(route, handler=answers)


ROUTES: Final = tuple(map(_guarded, (*routes_jobs.ROUTES, *routes_tables.ROUTES)))
_COMPILED: Final = tuple((re.compile(route.path), route) for route in ROUTES)


def find(request: Request) -> tuple[Route, dict[str, str]]:
    """The route of a call, and the arguments in its path. Raises Declined 501."""
    path = request.url.path + ("?upload" if "upload_id" in request.query_params else "")
    for pattern, route in _COMPILED:
        found = pattern.fullmatch(path) if route.method == request.method else None
        if found:
            return route, found.groupdict()
    served = ", ".join(route.name for route in ROUTES)
    message = f"The emulator does not serve {request.method} {request.url.path}. Of BigQuery it serves {served}."
    raise Declined(501, message)
