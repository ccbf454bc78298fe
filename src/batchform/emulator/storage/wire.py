"""What all routes of Cloud Storage share: conditions in a query, objects as JSON, refusals as answers."""

from __future__ import annotations

import base64
import functools
import inspect
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from batchform.emulator.calls import Call, Handler, drain, json_response
from batchform.emulator.clock import rfc3339
from batchform.emulator.storage.content import Digest
from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.storage.records import Attributes, Bucket, Conditions, ObjectInfo
from batchform.emulator.storage.refusals import StorageRefusal, invalid

XML: Final = "application/xml; charset=UTF-8"


def objects_of(call: Call) -> ObjectStore:
    """The objects of the emulator that is called."""
    return ObjectStore(call.store, create_buckets=call.emulator.create_buckets, object_pace=call.emulator.object_pace)


def served(handler: Handler, *, xml: bool = False) -> Handler:
    """A handler whose refusals are answers, in JSON or XML, without a body where HTTP wants none."""
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def wrapped(call: Call) -> Response:
            try:
                found: Response = await handler(call)
            except StorageRefusal as e:
                await drain(call.request)
                return refused(e, xml=xml)
            except ClientDisconnect:
                return Response(status_code=499)
            return found

        return wrapped

    @functools.wraps(handler)
    def answered(call: Call) -> Response:
        try:
            found = handler(call)
            assert isinstance(found, Response)
        except StorageRefusal as e:
            return refused(e, xml=xml)
        return found

    return answered


def refused(e: StorageRefusal, *, xml: bool = False) -> Response:
    """A refusal as an answer."""
    if e.status == 304:
        return Response(status_code=304)
    if not xml:
        return json_response(e.body(), status=e.status)
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{e.code}</Code><Message>{escape(e.message)}</Message>"
    return Response(f"{body}</Error>", e.status, None, XML)


def number(values: Mapping[str, str], name: str) -> int | None:
    """A whole number of a query or header, None if it is not given. Raises StorageRefusal 400."""
    text = values.get(name)
    if text is None or text == "":
        return None
    if not text.isdecimal() or len(text) > 19:
        raise invalid(f"Invalid argument {name}: {text!r} is no number.")
    return int(text)


def conditions(call: Call, source: str = "") -> Conditions:
    """The conditions in a query; source: `Source` for those of a copy's source."""
    query = call.request.query_params
    return Conditions(
        generation=number(query, f"if{source}GenerationMatch"),
        not_generation=number(query, f"if{source}GenerationNotMatch"),
        metageneration=number(query, f"if{source}MetagenerationMatch"),
        not_metageneration=number(query, f"if{source}MetagenerationNotMatch"),
    )


def json_body(body: bytes) -> dict[str, Any]:
    """A JSON object, {} for nothing. Raises StorageRefusal 400."""
    try:
        found = msgspec.json.decode(body or b"{}")
    except msgspec.DecodeError as e:
        raise invalid(f"Parse Error: {e}") from e
    if not isinstance(found, dict):
        raise invalid("Parse Error: the body must be a JSON object.")
    return found


def attributes_of(resource: dict[str, Any]) -> Attributes:
    """What a client says of an object. Raises StorageRefusal 400."""
    try:
        return Attributes().patched(resource)
    except msgspec.ValidationError as e:
        raise invalid(f"Invalid object metadata: {e}") from e


def check_digest(found: Digest, crc32c: str | None, md5: str | None) -> None:
    """Raise StorageRefusal 400 when the content is not what the client says that it is."""
    for name, said, true in (("CRC32C", crc32c, found.crc32c), ("MD5 hash", md5, found.md5)):
        if said and said != true:
            raise invalid(f'Provided {name} "{said}" doesn\'t match calculated {name} "{true}".', code="BadDigest")


def hashes_in(header: str) -> tuple[str | None, str | None]:
    """crc32c and md5 of an `x-goog-hash` header."""
    said = dict(part.strip().split("=", 1) for part in header.split(",") if "=" in part)
    return said.get("crc32c"), said.get("md5")


def etag(info: ObjectInfo | Bucket) -> str:
    """The etag that JSON shows."""
    generation = info.generation if isinstance(info, ObjectInfo) else 0
    return base64.b64encode(f"{generation}/{info.metageneration}".encode()).decode()


def resource(info: ObjectInfo, base_url: str) -> dict[str, Any]:
    """An object as JSON shows it. Its links point here, since clients follow them."""
    path = f"storage/v1/b/{info.bucket}/o/{quote(info.name, safe='')}"
    generation = str(info.generation)
    shown = {
        "kind": "storage#object",
        "id": f"{info.bucket}/{info.name}/{generation}",
        "selfLink": f"{base_url}/{path}",
        "mediaLink": f"{base_url}/download/{path}?generation={generation}&alt=media",
        "name": info.name,
        "bucket": info.bucket,
        "generation": generation,
        "metageneration": str(info.metageneration),
        "storageClass": "STANDARD",
        **msgspec.to_builtins(info.attributes),
        "size": str(info.size),
        "crc32c": info.crc32c,
        "md5Hash": info.md5,
        "componentCount": info.components,
        "etag": etag(info),
        "timeCreated": rfc3339(info.created_at),
        "updated": rfc3339(info.updated_at),
        "timeStorageClassUpdated": rfc3339(info.created_at),
        "timeFinalized": rfc3339(info.created_at),
        "timeDeleted": None if info.deleted_at is None else rfc3339(info.deleted_at),
    }
    return {name: value for name, value in shown.items() if value is not None}


def answer(info: ObjectInfo, call: Call) -> Response:
    """An object as the answer to a call."""
    return json_response(resource(info, call.base_url))
