"""Attachments of rows: what of a file stands in a row's request, and what else has to be known of it.

A request names a file by its content: `"fileUri":"sha256:<hex>"`. That is what is fingerprinted, planned, saved and
archived, so that neither a file's place nor the name of its upload matters. Where the bytes can be fetched is put in
when a job's lines are sent.

A source whose rows have attachments has two more columns, made by an adapter: ATTACHMENTS, which says which parts the
request has, and is part of the input fingerprint; and FILES, which says where their bytes are, and is not.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.canon import canonical_json, digest

BEFORE: Final = "\x00batchform:before\x00"
AFTER: Final = "\x00batchform:after\x00"
"""Where a compiled request has the parts before and after the text."""
_BEFORE_AT: Final = canonical_json(BEFORE) + b","
_AFTER_AT: Final = b"," + canonical_json(AFTER)

_NAMED: Final = re.compile(
    rb'"fileUri":"((?:sha256|crc32c):[0-9a-f-]+(?:#pages=[0-9]+-[0-9]+)?)","mimeType":"([^"\\]+)"'
)
"""Within a JSON text a quote is escaped, so that no text of a row can look like this."""


class AttachedFile(Struct, frozen=True, array_like=True):
    """A file that requests name by its content.

    digest: `sha256:<hex>`, with `#pages=51-100` behind it if only these pages of a PDF are meant, or
    `crc32c:<hex>-<size>` of an object in Cloud Storage; name: a local path relative to the project, or a gs:// address;
    size in bytes, of pages about; tokens: about how many it is for a model; inline: whether its bytes go within the
    request.
    """

    digest: str
    mime_type: str
    size: int
    name: str
    tokens: int
    inline: bool = False

    @property
    def extra_bytes(self) -> int:
        """About how many bytes more a line has once it says where the file is, or holds it. Never fewer."""
        return -(-self.size // 3) * 4 if self.inline else _URI_BYTES

    @property
    def identity(self) -> tuple[str, str]:
        """What tells files apart: the same bytes of two MIME types are uploaded twice."""
        return self.digest, self.mime_type


_URI_BYTES: Final = 200
_FILES: Final = msgspec.json.Decoder(list[AttachedFile])
_PARTS: Final = msgspec.json.Decoder(dict[str, list[Any]])


def part(uri: str, mime_type: str) -> dict[str, Any]:
    """A part of a request that is a file. uri: its content, or an address whose content nobody can know."""
    return {"fileData": {"fileUri": uri, "mimeType": mime_type}}


def encode(parts: Mapping[str, Sequence[Mapping[str, Any]]], files: Iterable[AttachedFile]) -> tuple[str, str]:
    """A row's values of ATTACHMENTS and FILES. parts: position → parts, in order."""
    return canonical_json(parts).decode(), msgspec.json.encode(list(files)).decode()


def splice(request: bytes, attachments: str) -> bytes:
    """A request with its parts put in. attachments: the row's value of ATTACHMENTS."""
    parts = _PARTS.decode(attachments)
    before = b"".join(canonical_json(p) + b"," for p in parts.get("before", ()))
    after = b"".join(b"," + canonical_json(p) for p in parts.get("after", ()))
    return request.replace(_BEFORE_AT, before, 1).replace(_AFTER_AT, after, 1)


class Carried:
    """The files of the row that was rendered last, by their content."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], AttachedFile] = {}

    def take(self, files: str) -> None:
        """The row's value of FILES."""
        self._files = {f.identity: f for f in _FILES.decode(files)}

    def of(self, request: bytes) -> list[AttachedFile]:
        """The files that the request of that row names."""
        return [self._files[name] for name in dict.fromkeys(names_in(request)) if name in self._files]


def names_in(request: bytes) -> Iterator[tuple[str, str]]:
    """(digest, MIME type) of each file that a canonical request names, in order."""
    return ((found[1].decode(), found[2].decode()) for found in _NAMED.finditer(request))


def with_places(line: bytes, places: Mapping[tuple[str, str], bytes]) -> bytes:
    """A line with each file that it names replaced by where it is. places: (digest, MIME type) → what stands in a part
    in place of `"fileData":{…}`. Raises KeyError for a file without a place."""
    return _OBJECT.sub(lambda found: places[found[1].decode(), found[2].decode()], line)


_OBJECT: Final = re.compile(rb'"fileData":\{' + _NAMED.pattern + rb"\}")


def by_content(part: dict[str, Any]) -> dict[str, Any]:
    """A part as the service repeats it, its file by its content where that can be told: it is held, or was staged under
    its digest."""
    held = part.get("inlineData")
    if isinstance(held, dict):
        try:
            content = base64.b64decode(str(held.get("data")).replace("-", "+").replace("_", "/"))
        except ValueError:
            return part
        own = {"fileUri": digest(content), "mimeType": held.get("mimeType")}
        return {**{name: v for name, v in part.items() if name != "inlineData"}, "fileData": own}
    named = part.get("fileData")
    if isinstance(named, dict) and (staged := _STAGED.search(str(named.get("fileUri")))):
        pages = f"#pages={staged[2]}" if staged[2] else ""
        return {**part, "fileData": {**named, "fileUri": f"sha256:{staged[1]}{pages}"}}
    return part


_STAGED: Final = re.compile(r"^gs://.*/attachments/([0-9a-f]{64})(?:\.pages-([0-9]+-[0-9]+))?(?:\.[^/]*)?$")


def at_uri(uri: str, mime_type: str) -> bytes:
    """What stands in a part whose file can be fetched."""
    return canonical_json(part(uri, mime_type))[1:-1]


def inline(content: bytes, mime_type: str) -> bytes:
    """What stands in a part that holds the file itself."""
    data = base64.b64encode(content).decode()
    return canonical_json({"inlineData": {"data": data, "mimeType": mime_type}})[1:-1]
