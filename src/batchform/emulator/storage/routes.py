"""Which call of Cloud Storage a request is."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import QueryParams
from starlette.requests import Request

from batchform.emulator.calls import Handler, Prepare, Route
from batchform.emulator.storage import batch, json_buckets, json_objects, json_uploads, xml_objects, xml_uploads
from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.storage.refusals import unserved
from batchform.emulator.storage.wire import served
from batchform.emulator.store import Store


def _json(
    name: str, method: str, path: str, handler: Handler, *, streams: bool = False, prepare: Prepare | None = None
) -> Route:
    path = path.replace("{b}", "(?P<bucket>[^/?]+)").replace("{o}", "(?P<object>[^/?]+)")
    path = path.replace("{to_b}", "(?P<to_bucket>[^/?]+)").replace("{to_o}", "(?P<to_object>[^/?]+)")
    name, streams = f"storage.{name}", streams or prepare is not None
    return Route(name, method, path, served(handler), open_to_all=True, streams=streams, prepare=prepare)


def _xml(name: str, method: str, marks: str, handler: Handler, *, streams: bool = False) -> Route:
    path = r"/(?P<bucket>[^/?]+)" + (r"/?" if marks == "bucket" else r"/(?P<object>[^?]+)")
    path += "" if marks in ("", "bucket") else rf"\?{marks}"
    return Route(f"storage.{name}", method, path, served(handler, xml=True), open_to_all=True, streams=streams)


_V1: Final = "/storage/v1"
_UPLOAD: Final = r"/upload/storage/v1/b/{b}/o\?"
_OBJECT: Final = f"{_V1}/b/{{b}}/o/{{o}}"
_ANY: Final = f"{_V1}/b/{{b}}/o/(?P<object>[^?]+)"

JSON_ROUTES: Final = (
    _json("buckets.insert", "POST", f"{_V1}/b", json_buckets.insert),
    _json("buckets.list", "GET", f"{_V1}/b", json_buckets.list_),
    _json("buckets.get", "GET", f"{_V1}/b/{{b}}", json_buckets.get),
    _json("buckets.patch", "PATCH", f"{_V1}/b/{{b}}", json_buckets.patch),
    _json("buckets.patch", "PUT", f"{_V1}/b/{{b}}", json_buckets.patch),
    _json("buckets.delete", "DELETE", f"{_V1}/b/{{b}}", json_buckets.delete),
    _json("buckets.layout", "GET", f"{_V1}/b/{{b}}/storageLayout", json_buckets.layout),
    _json("buckets.permissions", "GET", f"{_V1}/b/{{b}}/iam/testPermissions", json_buckets.permissions),
    _json("uploads.bytes", "PUT", _UPLOAD + "bytes", json_uploads.receive, streams=True),
    _json("uploads.bytes", "POST", _UPLOAD + "bytes", json_uploads.receive, streams=True),
    _json("uploads.cancel", "DELETE", _UPLOAD + "bytes", json_uploads.cancel, streams=True),
    _json("uploads.start", "POST", _UPLOAD + "resumable", json_uploads.start),
    _json("objects.insert", "POST", _UPLOAD + "multipart", json_uploads.multipart, prepare=json_uploads.read_head),
    _json("objects.insert", "POST", _UPLOAD + "media", json_uploads.media, streams=True),
    _json("objects.list", "GET", f"{_V1}/b/{{b}}/o", json_objects.list_),
    _json("objects.download", "GET", rf"(?:/download)?{_ANY}\?media", json_objects.download),
    _json("objects.get", "GET", _ANY, json_objects.get),
    _json("objects.patch", "PATCH", _ANY, json_objects.patch),
    _json("objects.patch", "PUT", _ANY, json_objects.update),
    _json("objects.delete", "DELETE", _ANY, json_objects.delete),
    _json("objects.compose", "POST", f"{_OBJECT}/compose", json_objects.compose),
    _json("objects.copy", "POST", f"{_OBJECT}/copyTo/b/{{to_b}}/o/{{to_o}}", json_objects.copy),
    _json("objects.rewrite", "POST", f"{_OBJECT}/rewriteTo/b/{{to_b}}/o/{{to_o}}", json_objects.rewrite),
    _json("batch", "POST", "/batch/storage/v1", batch.run),
    _json("objects.move", "POST", f"{_OBJECT}/moveTo/o/{{to_o}}", json_objects.move),
)
XML_ROUTES: Final = (
    _xml("objects.list", "GET", "bucket", xml_objects.list_),
    _xml("multipart.start", "POST", "uploads", xml_uploads.start),
    _xml("multipart.part", "PUT", "part", xml_uploads.part, streams=True),
    _xml("multipart.complete", "POST", "upload", xml_uploads.complete),
    _xml("multipart.list", "GET", "upload", xml_uploads.list_),
    _xml("multipart.abort", "DELETE", "upload", xml_uploads.abort),
    _xml("objects.insert", "PUT", "", xml_objects.put, streams=True),
    _xml("objects.download", "GET", "", xml_objects.get),
    _xml("objects.get", "HEAD", "", xml_objects.get),
    _xml("objects.delete", "DELETE", "", xml_objects.delete),
)


NAMES: Final = tuple(dict.fromkeys(route.name for route in (*JSON_ROUTES, *XML_ROUTES)))
"""The names of all calls, each once."""

_JSON: Final = tuple((re.compile(route.path), route) for route in JSON_ROUTES)
_XML: Final = tuple((re.compile(route.path), route) for route in XML_ROUTES)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]+[a-z0-9]")
_RESERVED: Final = ("v1beta", "v1beta1", "upload", "download", "emulator", "storage", "batch")


def find_json(request: Request) -> tuple[Route, dict[str, str]]:
    """The JSON call that a request is, and the arguments in its path. Raises StorageRefusal 501."""
    query, mark = request.query_params, ""
    if request.url.path.startswith("/upload/"):
        mark = "bytes" if "upload_id" in query else query.get("uploadType", "")
    elif query.get("alt") == "media":
        mark = "media"
    found = _match(_JSON, request, mark) or _match(_JSON, request, "")
    if found is None:
        served_ones = ", ".join(NAMES)
        raise unserved(f"The emulator does not serve {request.method} {request.url.path}. It serves {served_ones}.")
    return found


def find_xml(request: Request, store: Store, *, other: bool) -> tuple[Route, dict[str, str]] | None:
    """The XML call that a request is, if it is one. other: its path is also that of another API.

    Then it is XML if the first name in its path is that of a bucket.
    """
    bucket = unquote(_raw_path(request).removeprefix("/").partition("/")[0])  # some clients encode its dashes
    keyed = "x-goog-api-key" in request.headers or "key" in request.query_params  # no XML call has one
    if not _BUCKET.fullmatch(bucket) or bucket in _RESERVED or keyed:
        return None
    if other and not any(found.name == bucket for found in ObjectStore(store).buckets(bucket)):
        return None
    return _match(_XML, request, _xml_mark(request.query_params))


def _xml_mark(query: QueryParams) -> str:
    if "uploadId" in query:
        return "part" if "partNumber" in query else "upload"
    return "uploads" if "uploads" in query else ""


def _match(
    routes: tuple[tuple[re.Pattern[str], Route], ...], request: Request, mark: str
) -> tuple[Route, dict[str, str]] | None:
    path = _raw_path(request) + (f"?{mark}" if mark else "")
    for pattern, route in routes:
        if route.method == request.method and (found := pattern.fullmatch(path)):
            return route, {name: unquote(value) for name, value in found.groupdict().items()}
    return None


def _raw_path(request: Request) -> str:
    """The path as it was sent: a slash in an object's name is %2F in it."""
    raw: bytes = request.scope["raw_path"]
    return raw.decode("latin-1")
