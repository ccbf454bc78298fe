"""What a file is to a model: of which type, whether models take it, and about how many tokens it has.

Types and figures: Google's pages on file input, PDF documents and tokens, as of 2026-11. Tokens are estimates: images
have 258 a tile of 768 × 768 pixels (one, up to 384 × 384), pages of a PDF 258, audio 32 and video 263 a second, text
one for four bytes. Where the length of audio or video is not read from the file, a usual bit rate stands in.
"""

from __future__ import annotations

import struct
from pathlib import Path, PurePosixPath
from typing import Final

from msgspec import Struct

from batchform.errors import SourceError
from batchform.rows.pdf import page_count
from batchform.spec.mime import UNKNOWN, mime_type

PDF: Final = "application/pdf"
MAX_PDF_BYTES: Final = 50 * 1000**2
MAX_PDF_PAGES: Final = 1000
MAX_FILE_BYTES: Final = 2 * 1000**3

# How the API calls what Python calls otherwise.
_BY_ENDING: Final = {
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".avi": "video/avi",
    ".flv": "video/x-flv",
    ".mov": "video/mov",
    ".mp3": "audio/mp3",
    ".wmv": "video/wmv",
    ".3gp": "video/3gpp",
}
TAKEN: Final = frozenset(
    {
        *(f"image/{t}" for t in ("png", "jpeg", "webp", "heic", "heif")),
        *(f"audio/{t}" for t in ("wav", "mp3", "mpeg", "mp4", "aiff", "aac", "ogg", "flac")),
        *(f"video/{t}" for t in ("mp4", "mpeg", "mov", "avi", "x-flv", "mpg", "webm", "wmv", "3gpp")),
        *(f"text/{t}" for t in ("plain", "html", "css", "markdown", "csv", "xml", "rtf", "javascript", "x-python")),
        PDF,
        "application/json",
    }
)
_TILE_TOKENS: Final = 258
_SECOND_TOKENS: Final = {"audio": 32, "video": 263}
_BYTES_PER_SECOND: Final = {"audio": 16_000, "video": 250_000}
_BYTES_PER_PAGE: Final = 50_000
_HEAD: Final = 1 << 16
_SPLIT: Final = "Ask about it in parts, with `split_pages` of the attachment."


class Measured(Struct, frozen=True):
    """tokens: about how many; pages: of a PDF whose pages could be counted."""

    tokens: int
    pages: int | None = None


def type_of(name: str, stated: str | None) -> str:
    """The MIME type of a file: the one that is stated, or else by its name's ending. Raises SourceError for one that
    is not known to be taken."""
    if stated:
        return stated
    found = _BY_ENDING.get(PurePosixPath(name).suffix.lower()) or mime_type(name)
    if found not in TAKEN:
        what = "has an ending that says nothing of its type" if found == UNKNOWN else f"is {found} by its ending"
        raise SourceError(
            f"{name} {what}, and models take images, PDF, audio, video and text.",
            hint="State its type with `mime_type`, if a model takes it all the same.",
        )
    return found


def check_size(name: str, mime: str, size: int, *, split: bool = False) -> None:
    """Refuse a file that no model takes. split: it is sent in parts. Raises SourceError."""
    if not size:
        raise SourceError(f"{name} is empty.", hint="Leave the row out with source.where, or mend the file.")
    most, what = (MAX_PDF_BYTES, "a PDF") if mime == PDF and not split else (MAX_FILE_BYTES, "a file")
    if size > most:
        raise SourceError(
            f"{name} has {size:,} bytes, and {what} may have {most:,}.",
            hint=_SPLIT if mime == PDF else "Cut it, or send a smaller copy.",
        )


def check_pages(name: str, pages: int | None) -> None:
    """Refuse a PDF with more pages than a request may hold. Raises SourceError."""
    if pages is not None and pages > MAX_PDF_PAGES:
        raise SourceError(f"{name} has {pages:,} pages, and a PDF may have {MAX_PDF_PAGES:,}.", hint=_SPLIT)


def page_tokens(pages: int) -> int:
    """About how many tokens so many pages of a PDF have."""
    return pages * _TILE_TOKENS


def measure(path: Path, mime: str, size: int) -> Measured:
    """About how many tokens a local file has. Raises OSError."""
    kind = mime.partition("/")[0]
    if mime == PDF:
        pages = page_count(path)
        return Measured(page_tokens(pages or -(-size // _BYTES_PER_PAGE)), pages)
    if kind == "image":
        with path.open("rb") as f:
            return Measured(_tiles(dimensions(f.read(_HEAD))) * _TILE_TOKENS)
    if mime == "audio/wav":
        with path.open("rb") as f:
            return Measured(_of_seconds("audio", wav_seconds(f.read(_HEAD), size), size))
    return Measured(guess(mime, size))


def guess(mime: str, size: int) -> int:
    """About how many tokens a file has of which nothing is known but type and size."""
    kind = mime.partition("/")[0]
    if mime == PDF:
        return -(-size // _BYTES_PER_PAGE) * _TILE_TOKENS
    if kind == "image":
        return 4 * _TILE_TOKENS
    return _of_seconds(kind, None, size) if kind in _SECOND_TOKENS else -(-size // 4)


def _of_seconds(kind: str, seconds: float | None, size: int) -> int:
    length = size / _BYTES_PER_SECOND[kind] if seconds is None else seconds
    return max(1, round(length * _SECOND_TOKENS[kind]))


def _tiles(pixels: tuple[int, int] | None) -> int:
    if pixels is None:
        return 4
    width, height = pixels
    return 1 if max(width, height) <= 384 else -(-width // 768) * -(-height // 768)


def dimensions(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a PNG, JPEG or WebP, from its first bytes; None if they do not say."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack(">II", head[16:24])
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _webp(head)
        if head.startswith(b"\xff\xd8"):
            return _jpeg(head)
    except (struct.error, IndexError):
        pass
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if head[12:16] == b"VP8L":
        bits = struct.unpack("<I", head[21:25])[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], struct.unpack(">H", head[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return None


def wav_seconds(head: bytes, size: int) -> float | None:
    """Length of a WAV file by its header; None if that does not say."""
    at = head.find(b"fmt ")
    if head[:4] != b"RIFF" or at < 0 or len(head) < at + 20:
        return None
    per_second = int(struct.unpack("<I", head[at + 16 : at + 20])[0])
    return size / per_second if per_second else None
