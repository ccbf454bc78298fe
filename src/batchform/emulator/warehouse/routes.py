"""All of BigQuery that the emulator serves over REST."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from batchform.emulator.calls import Route
from batchform.emulator.warehouse import routes_jobs, routes_tables
from batchform.emulator.warehouse.declined import Declined

ROUTES: Final = (*routes_jobs.ROUTES, *routes_tables.ROUTES)
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
