"""Small files of each kind, made here, and rows that name them."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from typing import Any

from tests_e2e_kit import Workspace

from batchform.canon import RequestHasher, canonical_json

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


def pdf(pages: int = 1) -> bytes:
    """Empty pages, each higher than the one before."""
    kids = " ".join(f"{n} 0 R" for n in range(3, 3 + pages))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>"]
    objects += [f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 {72 + n}] >>" for n in range(pages)]
    out, offsets = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{at:010} 00000 n \n" for at in offsets)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return out + end.encode() + f"startxref\n{len(out)}\n%%EOF\n".encode()


def project(workspace: Workspace, *attachments: Any, rows: list[dict[str, str]] | None = None, **spec: Any) -> None:
    """Rows with files, of which two have the same one."""
    for name, colour in (("a", 10), ("b", 20)):
        workspace.write(f"media/{name}.png", png(colour=colour))
    workspace.rows(rows or ROWS)
    prompt = {"user": {"text": "What is in picture {{ id }}?"}, "attachments": list(attachments) or ["{{ image }}"]}
    workspace.spec(prompt=prompt, **spec)


def uploads(workspace: Workspace) -> list[str]:
    """Names of the attached files that the embedded emulator of the Gemini API has, in order."""
    state = workspace.root / ".batchform/emulator/emulator.sqlite"
    con = sqlite3.connect(state)
    try:
        return [r[0] for r in con.execute("SELECT id FROM files WHERE id LIKE 'bfa-%' ORDER BY rowid")]
    finally:
        con.close()


def asked(workspace: Workspace) -> set[str]:
    """Fingerprints of the requests that a plan would send or has sent, in hex."""
    found = workspace.ok("render", "triage", "--all").out.splitlines()
    hasher = RequestHasher(model="gemini-3.5-flash-lite", realm="emulator")
    requests = [json.loads(line)["request"] for line in found]
    return {hasher.fingerprint(canonical_json(request)).hex().upper() for request in requests}
