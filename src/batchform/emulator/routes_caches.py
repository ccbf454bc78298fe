"""cachedContents: create, get, list, patch, delete."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from batchform.emulator import caches, models
from batchform.emulator.calls import Call, Route, json_response
from batchform.emulator.refusal import bad_field


def create(call: Call) -> Response:
    asked = call.message("CachedContent")
    if "model" not in asked:
        raise bad_field("* CreateCachedContentRequest.cached_content.model: model is not specified", "model")
    model = models.find(asked["model"], method=models.GENERATE)
    return json_response(caches.resource(caches.create(call.store, call.account, asked, model)))


def get(call: Call) -> Response:
    return json_response(caches.resource(caches.find(call.store, call.account, call.args["id"])))


def list_(call: Call) -> Response:
    size, token = call.paging(default=50)
    if token and not token.isdecimal():
        raise bad_field("Invalid page token.", "page_token")
    rows, following = caches.page(call.store, call.account, size=size, after=int(token or 0))
    shown: dict[str, Any] = {"cachedContents": [caches.resource(row) for row in rows]} if rows else {}
    return json_response({**shown, "nextPageToken": str(following)} if following is not None else shown)


def patch(call: Call) -> Response:
    row = caches.prolong(call.store, call.account, call.args["id"], call.message("CachedContent"))
    return json_response(caches.resource(row))


def delete(call: Call) -> Response:
    caches.drop(call.store, call.account, call.args["id"])
    return json_response({})


_ID: Final = r"/V/cachedContents/(?P<id>[^/:]+)"

ROUTES: Final = (
    Route("caches.create", "POST", r"/V/cachedContents", create),
    Route("caches.get", "GET", _ID, get),
    Route("caches.list", "GET", r"/V/cachedContents", list_),
    Route("caches.update", "PATCH", _ID, patch),
    Route("caches.delete", "DELETE", _ID, delete),
)
