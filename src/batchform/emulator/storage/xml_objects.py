"""Objects in XML: put, copy, get, head, delete, list."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from batchform.emulator.calls import Call, drain
from batchform.emulator.clock import rfc3339
from batchform.emulator.storage import changes, listing, media
from batchform.emulator.storage.changes import Source
from batchform.emulator.storage.json_uploads import fill
from batchform.emulator.storage.records import Attributes, Conditions, ObjectInfo
from batchform.emulator.storage.refusals import condition_not_met, invalid, not_modified
from batchform.emulator.storage.wire import XML, hashes_in, number, objects_of

_META: Final = "x-goog-meta-"
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


def xml_answer(root: ElementTree.Element, status: int = 200) -> Response:
    """An XML document as an answer."""
    return Response(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True), status, None, XML)


def element(name: str, *children: tuple[str, object] | ElementTree.Element, top: bool = False) -> ElementTree.Element:
    """An element of texts and elements. top: the outermost one, which names the namespace."""
    made = ElementTree.Element(name, {"xmlns": _NAMESPACE} if top else {})
    for child in children:
        if isinstance(child, tuple):
            ElementTree.SubElement(made, child[0]).text = str(child[1])
        else:
            made.append(child)
    return made


def conditions(call: Call, source: str = "") -> Conditions:
    """The conditions in headers; source: `copy-source-` for those of a copy's source."""
    headers = call.request.headers
    return Conditions(
        generation=number(headers, f"x-goog-{source}if-generation-match"),
        metageneration=number(headers, f"x-goog-{source}if-metageneration-match"),
    )


def attributes(request: Request) -> Attributes:
    """What headers say of an object."""
    headers = request.headers
    return Attributes(
        content_type=headers.get("content-type"),
        content_encoding=headers.get("content-encoding"),
        content_disposition=headers.get("content-disposition"),
        content_language=headers.get("content-language"),
        cache_control=headers.get("cache-control"),
        storage_class=headers.get("x-goog-storage-class"),
        metadata={key.removeprefix(_META): value for key, value in headers.items() if key.startswith(_META)},
    )


def said_digests(request: Request) -> tuple[str | None, str | None]:
    """crc32c and md5 of the headers of an upload."""
    crc32c, md5 = hashes_in(request.headers.get("x-goog-hash", ""))
    return crc32c, md5 or request.headers.get("content-md5")


def made_headers(info: ObjectInfo) -> dict[str, str]:
    """What the answer to an upload says."""
    shown = media.headers_of(info)
    wanted = ("x-goog-generation", "x-goog-metageneration", "x-goog-hash", "x-goog-stored-content-length")
    return {name: shown[name] for name in wanted} | {"etag": f'"{media.xml_tag(info)}"'}


async def put(call: Call) -> Response:
    if "x-goog-copy-source" in call.request.headers:
        await drain(call.request)
        return await run_in_threadpool(_copy, call)
    writer = await run_in_threadpool(
        objects_of(call).writing,
        call.args["bucket"],
        call.args["object"],
        attributes=attributes(call.request),
        conditions=conditions(call),
    )
    await fill(writer, call.request.stream(), said_digests(call.request))
    return Response(b"", 200, made_headers(writer.info))


def _copy(call: Call) -> Response:
    headers = call.request.headers
    bucket, _, name = unquote(headers["x-goog-copy-source"]).removeprefix("/").partition("/")
    source = Source(
        bucket, name, number(headers, "x-goog-copy-source-generation"), conditions(call, source="copy-source-")
    )
    said = attributes(call.request) if headers.get("x-goog-metadata-directive", "COPY").upper() == "REPLACE" else None
    made = changes.copy(
        objects_of(call), source, call.args["bucket"], call.args["object"], said, conditions=conditions(call)
    )
    tag = f'"{media.xml_tag(made)}"'
    answer = xml_answer(element("CopyObjectResult", ("LastModified", rfc3339(made.updated_at)), ("ETag", tag)))
    answer.headers.update(made_headers(made))
    return answer


def get(call: Call) -> Response:
    """The content; for HEAD its headers."""
    generation = number(call.request.query_params, "generation")
    bucket, name = call.args["bucket"], call.args["object"]
    _check_tags(call, objects_of(call).stat(bucket, name, generation=generation))
    return media.media(call, bucket, name, generation=generation, conditions=conditions(call))


def _check_tags(call: Call, info: ObjectInfo) -> None:
    """If-Match and If-None-Match."""
    tag, headers = f'"{media.xml_tag(info)}"', call.request.headers
    if "if-match" in headers and not _names(headers["if-match"], tag):
        raise condition_not_met("If-Match")
    if "if-none-match" in headers and _names(headers["if-none-match"], tag):
        raise not_modified()


def _names(said: str, tag: str) -> bool:
    return "*" in said or tag.strip('"') in (one.strip().removeprefix("W/").strip('"') for one in said.split(","))


def delete(call: Call) -> Response:
    objects_of(call).delete(
        call.args["bucket"],
        call.args["object"],
        generation=number(call.request.query_params, "generation"),
        conditions=conditions(call),
    )
    return Response(status_code=204)


def list_(call: Call) -> Response:
    """Both versions of lists: `list-type=2`, and the older one that goes on behind a name (`marker`)."""
    asked = call.request.query_params
    second, limit = asked.get("list-type") == "2", number(asked, "max-keys")
    token, after = asked.get("continuation-token", ""), asked.get("start-after" if second else "marker", "")
    limit = listing.MAX_RESULTS if limit is None else min(limit, listing.MAX_RESULTS)
    if limit == 0:
        raise invalid("max-keys must be at least 1.")
    query = listing.Query(
        prefix=asked.get("prefix", ""),
        delimiter=asked.get("delimiter", ""),
        limit=limit,
        token=token or (listing.start_after(after, "" if second else asked.get("delimiter", "")) if after else ""),
    )
    page = listing.page(objects_of(call), call.args["bucket"], query)
    encoded = asked.get("encoding-type") == "url"

    def text(name: str) -> str:
        return quote(name) if encoded else name

    following = []
    if page.token:
        last = max([*(info.name for info in page.items), *page.prefixes])
        following = [("NextContinuationToken", page.token)] if second else [("NextMarker", text(last))]
    return xml_answer(
        element(
            "ListBucketResult",
            ("Name", call.args["bucket"]),
            ("Prefix", text(query.prefix)),
            ("Delimiter", text(query.delimiter)),
            ("MaxKeys", limit),
            ("KeyCount", len(page.items) + len(page.prefixes)),
            ("IsTruncated", "true" if page.token else "false"),
            *following,
            *(_entry(info, text(info.name)) for info in page.items),
            *(element("CommonPrefixes", ("Prefix", text(prefix))) for prefix in page.prefixes),
            top=True,
        )
    )


def _entry(info: ObjectInfo, key: str) -> ElementTree.Element:
    return element(
        "Contents",
        ("Key", key),
        ("Generation", info.generation),
        ("MetaGeneration", info.metageneration),
        ("LastModified", rfc3339(info.updated_at)),
        ("ETag", f'"{media.xml_tag(info)}"'),
        ("Size", info.size),
        ("StorageClass", info.attributes.storage_class or "STANDARD"),
    )
