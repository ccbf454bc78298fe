"""Bodies of multipart/related uploads: JSON first, then content, which is passed on as it comes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from email.message import Message
from typing import Any, Final

from batchform.emulator.storage.refusals import invalid
from batchform.emulator.storage.wire import json_body

_MAX_HEAD: Final = 1 << 20
_HEADERS: Final = rb"(?:[^\r\n]+\r?\n)*\r?\n"


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart body. Raises StorageRefusal 400."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or header.get_content_maintype() != "multipart":
        raise invalid("A multipart body needs a Content-Type of multipart/…; boundary=….")
    return boundary.encode()


class Related:
    """Reads a body of two parts. Lines may end in CRLF or, as some clients have it, in LF."""

    resource: dict[str, Any]
    content_type: str | None = None

    def __init__(self, content_type: str, pieces: AsyncIterator[bytes]) -> None:
        self._mark, self._pieces, self._rest = b"--" + boundary_of(content_type), pieces, b""
        mark = re.escape(self._mark)
        self._head = re.compile(
            rb"\s*" + mark + rb"[ \t]*(\r?\n)" + _HEADERS + rb"(?P<resource>.*?)\r?\n"
            + mark + rb"[ \t]*\r?\n(?P<headers>" + _HEADERS + rb")",
            re.DOTALL,
        )  # fmt: skip

    async def read_head(self) -> None:
        """Read the JSON and what stands before the content. Raises StorageRefusal 400."""
        while True:
            found = self._head.match(self._rest)
            if found:
                break
            try:
                self._rest += await anext(self._pieces)
            except StopAsyncIteration:
                raise invalid("The multipart body must have two parts: JSON and content.") from None
            if len(self._rest) > _MAX_HEAD:
                raise invalid("The first part of the multipart body is too large, or there is no second one.")
        self._end = found[1] + self._mark
        self._rest = self._rest[found.end() :]
        self.resource = json_body(found["resource"])
        type_line = re.search(rb"^content-type:[ \t]*([^\r\n]+)", found["headers"], re.IGNORECASE | re.MULTILINE)
        self.content_type = type_line[1].strip().decode("latin-1") if type_line else None

    async def content(self) -> AsyncIterator[bytes]:
        """The content, in pieces. Raises StorageRefusal 400 when the body ends too early."""
        while True:
            at = self._rest.find(self._end)
            if at >= 0:
                yield self._rest[:at]
                async for _ in self._pieces:
                    pass
                return
            kept = len(self._end) - 1
            if len(self._rest) > kept:
                yield self._rest[:-kept]
                self._rest = self._rest[-kept:]
            try:
                self._rest += await anext(self._pieces)
            except StopAsyncIteration:
                raise invalid("The multipart body ends before its last boundary.") from None
