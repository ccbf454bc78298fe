"""Routes of Vertex AI. What they do is loaded by the first call: most emulators never get one."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from batchform.emulator.calls import Call, Handler, Route
from batchform.emulator.refusal import Refusal

REFUSED_TOKEN: Final = "invalid"


def authorize(request: Request, args: dict[str, str]) -> str:
    """The account of a call: its project and location. Any credentials do, but for those that say `invalid`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else ""
    given = given or request.headers.get("x-goog-api-key") or request.query_params.get("key") or ""
    if not given or given == REFUSED_TOKEN:
        message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other"
        raise Refusal(401, f"{message} valid authentication credential.")
    return f"projects/{args['project']}/locations/{args['location']}"


def _late(name: str) -> Handler:
    def handler(call: Call) -> Response:
        from batchform.emulator.vertex import handlers

        answer: Response = getattr(handlers, name)(call)
        return answer

    return handler


_PLACE: Final = r"/v1(?:beta1)?/projects/(?P<project>[^/:]+)/locations/(?P<location>[^/:]+)"
_JOBS: Final = rf"{_PLACE}/batchPredictionJobs"
_ID: Final = rf"{_JOBS}/(?P<id>[^/:]+)"
_MODEL: Final = rf"{_PLACE}/publishers/google/models/(?P<model>[^/:]+)"

ROUTES: Final = tuple(
    Route(name, method, path, _late(handler), authorize=authorize)
    for name, method, path, handler in (
        ("vertex.batches.create", "POST", _JOBS, "create"),
        ("vertex.batches.get", "GET", _ID, "get"),
        ("vertex.batches.list", "GET", _JOBS, "list_"),
        ("vertex.batches.cancel", "POST", rf"{_ID}:cancel", "cancel"),
        ("vertex.batches.delete", "DELETE", _ID, "delete"),
        ("vertex.models.generate_content", "POST", rf"{_MODEL}:generateContent", "generate"),
        ("vertex.models.embed_content", "POST", rf"{_MODEL}:embedContent", "embed"),
        ("vertex.models.count_tokens", "POST", rf"{_MODEL}:countTokens", "count"),
    )
)
