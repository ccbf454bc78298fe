"""Images: what one result line says of them. Never raises. Their bytes stay in the archive until they are delivered."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from batchform.run.classify import ANSWERED, Reading, classify, key_of

_ENDINGS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}
_FALSE_EMPTY: Final = "The answer holds no text"


class Picture(msgspec.Struct, frozen=True):
    """One image of an answer. file: its name, which says whose it is, which of its parts, and what is in it."""

    file: str
    mime_type: str
    bytes: int
    sha256: str


def read_images(line: Any) -> Reading:
    """The class of a result line, its text, and its images as JSON without their bytes."""
    reading = classify(line)
    empty = reading.cls == "empty" and (reading.message or "").startswith(_FALSE_EMPTY)
    if reading.cls != ANSWERED and not empty:
        return reading
    try:
        found = [picture for picture, _ in pictures(line)]
    except (ValueError, binascii.Error) as error:
        return reading._replace(cls="invalid_output", message=f"An image of the answer cannot be decoded: {error}")
    if not found:
        ended = f"; it ended with {reading.finish_reason}" if reading.finish_reason else ""
        return reading._replace(cls="empty", message=f"The answer holds no image{ended}.")
    response = msgspec.json.encode([asdict(picture) for picture in found]).decode()
    return reading._replace(cls=ANSWERED, message=None, response=response)


def pictures(line: Any) -> Iterator[tuple[Picture, bytes]]:
    """The images of a result line with their bytes, one at a time. Raises ValueError for what is no base64."""
    key = (key_of(line) or "")[1:]
    number = 0
    for part in _parts(line):
        blob = part.get("inlineData") if isinstance(part, dict) else None
        mime = blob.get("mimeType") if isinstance(blob, dict) else None
        if not isinstance(blob, dict) or not isinstance(mime, str) or not mime.startswith("image/"):
            continue
        if part.get("thought"):
            continue
        number += 1
        content = _decoded(blob.get("data"))
        digest = hashlib.sha256(content).hexdigest()
        name = f"{key}-{number}-{digest[:12]}.{_ENDINGS.get(mime, 'bin')}"
        yield Picture(name, mime, len(content), digest), content


def _decoded(data: Any) -> bytes:
    if not isinstance(data, str) or not data:
        raise ValueError("it has no data")
    plain = data.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _parts(line: Any) -> list[Any]:
    at: Any = line
    for name in ("response", "candidates", 0, "content", "parts"):
        if isinstance(name, int):
            at = at[name] if isinstance(at, list) and at else None
        else:
            at = at.get(name) if isinstance(at, dict) else None
    return at if isinstance(at, list) else []
