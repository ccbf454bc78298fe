"""Small files of each kind, made here, and rows that name them."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from tests_e2e_kit import Workspace

ROWS = [
    {"id": "a", "image": "media/a.png"},
    {"id": "b", "image": "media/b.png"},
    {"id": "c", "image": "media/a.png"},
]


def png(width: int = 8, height: int = 8, colour: int = 0) -> bytes:
    """A grey image of one shade."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + bytes([colour]) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def wav(seconds: float = 1.0) -> bytes:
    """Silence: 8-bit mono, 8,000 samples a second."""
    data = b"\x80" * int(8000 * seconds)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    return head + struct.pack("<4sI", b"data", len(data)) + data


def project(workspace: Workspace, *attachments: Any, rows: list[dict[str, str]] | None = None, **spec: Any) -> None:
    """Rows with files, of which two have the same one."""
    for name, colour in (("a", 10), ("b", 20)):
        workspace.write(f"media/{name}.png", png(colour=colour))
    workspace.rows(rows or ROWS)
    prompt = {"user": {"text": "What is in picture {{ id }}?"}, "attachments": list(attachments) or ["{{ image }}"]}
    workspace.spec(prompt=prompt, **spec)
