"""Content of objects as answers: ranges, digests, and gzip that is unpacked for who does not take it."""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO, Final, cast
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batchform.emulator.calls import TRANSPORT, Call
from batchform.emulator.clock import http_date
from batchform.emulator.storage import content
from batchform.emulator.storage.records import Conditions, ObjectInfo
from batchform.emulator.storage.refusals import no_range
from batchform.emulator.storage.wire import objects_of

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_GUNZIP: Final = 31


def media(
    call: Call, bucket: str, name: str, *, generation: int | None, conditions: Conditions, etag: str = ""
) -> Response:
    """An object's content, or the part of it that a Range header asks for. etag: in place of the one of XML."""
    info, stream = objects_of(call).opened(bucket, name, generation=generation, conditions=conditions)
    try:
        return _media(call, info, stream, etag)
    except BaseException:
        stream.close()
        raise


def _media(call: Call, info: ObjectInfo, stream: BinaryIO, etag: str) -> Response:
    headers = {**headers_of(info), "etag": etag or f'"{xml_tag(info)}"'}
    asked = call.request.headers
    packed = info.attributes.content_encoding == "gzip"
    if packed and "gzip" not in asked.get("accept-encoding", "") and "no-transform" not in headers["cache-control"]:
        del headers["content-encoding"]
        return Content(stream, None, 200, {**headers, "warning": "214 UploadServer gunzipped"})
    first, last = _range(asked.get("range", ""), info.size)
    whole = last - first + 1 == info.size
    headers["content-length"] = str(last - first + 1)
    if not whole or (_RANGE.fullmatch(asked.get("range", "")) and info.size):
        headers["content-range"] = f"bytes {first}-{last}/{info.size}"
    if call.request.method == "HEAD":
        stream.close()
        return Response(None, 200, headers)
    stream.seek(first)
    return Content(stream, last - first + 1, 206 if "content-range" in headers else 200, headers)


def xml_tag(info: ObjectInfo) -> str:
    """The entity tag of XML answers, without quotes: the MD5, if there is one."""
    return content.hex_of(info.md5) if info.md5 else f"-{info.generation}-{info.metageneration}"


def headers_of(info: ObjectInfo) -> dict[str, str]:
    """What the headers of an answer say of an object."""
    said = info.attributes
    headers = {
        "content-type": info.content_type,
        "last-modified": http_date(info.updated_at),
        "accept-ranges": "bytes",
        "cache-control": said.cache_control or "private, max-age=0",
        "x-goog-generation": str(info.generation),
        "x-goog-metageneration": str(info.metageneration),
        "x-goog-stored-content-length": str(info.size),
        "x-goog-stored-content-encoding": said.content_encoding or "identity",
        "x-goog-storage-class": said.storage_class or "STANDARD",
        "x-goog-hash": f"crc32c={info.crc32c}" + (f",md5={info.md5}" if info.md5 else ""),
    }
    more = {
        "content-encoding": said.content_encoding,
        "content-disposition": said.content_disposition,
        "content-language": said.content_language,
        "x-goog-component-count": None if info.components is None else str(info.components),
        **{f"x-goog-meta-{name.lower()}": value for name, value in said.metadata.items()},
    }
    # A header holds latin-1 only; what else there is comes percent-encoded.
    return headers | {name: _header(value) for name, value in more.items() if value is not None}


def _header(value: str) -> str:
    return value if value.isascii() and value.isprintable() else quote(value, safe=" ")


def _range(asked: str, size: int) -> tuple[int, int]:
    """First and last byte. A header that is none of one range is passed over, as HTTP says. Raises 416."""
    found = _RANGE.fullmatch(asked.strip())
    if not found or not any(found.groups()):
        return 0, size - 1
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
    if first > last:
        raise no_range(size)
    return first, last


class Content(Response):
    """Sends a stream from where it stands, and closes it. size: bytes; None: all of it, unpacked."""

    def __init__(self, stream: BinaryIO, size: int | None, status: int, headers: dict[str, str]) -> None:
        super().__init__(None, status, headers)
        if size is None:
            self.raw_headers = [(key, value) for key, value in self.raw_headers if key != b"content-length"]
        self._stream, self._size = stream, size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (what ASGI gives)
        left, unpack = self._size, zlib.decompressobj(_GUNZIP) if self._size is None else None
        transport = scope.get("state", {}).get(TRANSPORT)
        with self._stream:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while not (transport and transport.is_closing()):
                size = content.PIECE if left is None else min(left, content.PIECE)
                piece = cast(bytes, await run_in_threadpool(self._stream.read, size)) if size else b""
                if not piece:
                    break
                if left is not None:
                    left -= len(piece)
                body = unpack.decompress(piece) if unpack else piece
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
