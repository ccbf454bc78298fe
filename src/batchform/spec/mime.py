"""MIME types by the ending of a name, the same on every machine, and what models take of them."""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath
from typing import Final

UNKNOWN: Final = "application/octet-stream"
# What Python versions disagree about or do not know. The machine's own table must not count: the same file is the same
# row everywhere.
_TYPES: Final = {
    ".csv": "text/csv",
    ".flac": "audio/flac",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".j2": "text/plain",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".m4a": "audio/mp4",
    ".md": "text/markdown",
    ".ogg": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".rst": "text/x-rst",
    ".rtf": "application/rtf",
    ".toml": "application/toml",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}
_PYTHONS: Final = mimetypes.MimeTypes()  # Python's own table, not the machine's


def mime_type(name: str) -> str:
    """The MIME type by the name's ending, the same on every machine; application/octet-stream if unknown."""
    suffix = PurePosixPath(name).suffix.lower()
    return _TYPES.get(suffix) or _PYTHONS.guess_type(f"x{suffix}")[0] or UNKNOWN
