"""Makes the files of examples/attachments (a bar chart and a map as PNG, a note of two pages as PDF, a tone as WAV) and
of examples/pages: the log of a lighthouse, seven pages of PDF, and one of a boat, two.

They are drawn here, so they are free for any use. The same bytes come out each time.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
WHITE, BLUE, RED, GREEN = (255, 255, 255), (40, 90, 200), (200, 50, 50), (60, 160, 80)
Pixel = tuple[int, int, int]


def png(rows: list[list[Pixel]]) -> bytes:
    """An RGB image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + b"".join(map(bytes, row)) for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    # Stored, not deflated: what deflate makes differs between versions of zlib.
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chart() -> bytes:
    """Three bars: low, high, middle."""
    rows = [[WHITE] * 48 for _ in range(32)]
    for x, height, colour in ((4, 10, BLUE), (20, 28, RED), (36, 18, GREEN)):
        for y in range(32 - height, 32):
            rows[y][x : x + 8] = [colour] * 8
    return png(rows)


def place() -> bytes:
    """A green island in blue water."""
    return png([[GREEN if (x - 20) ** 2 + (y - 14) ** 2 < 90 else BLUE for x in range(40)] for y in range(28)])


def tone(seconds: float = 2.5, hertz: int = 440) -> bytes:
    """One note, 8-bit mono."""
    data = bytes(128 + round(60 * math.sin(2 * math.pi * hertz * n / 8000)) for n in range(int(8000 * seconds)))
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    return head + struct.pack("<4sI", b"data", len(data)) + data


def note(*pages: str) -> bytes:
    """A page for each text."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, text in enumerate(pages):
        drawn = f"BT /F1 18 Tf 40 120 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents {5 + 2 * n} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    out, offsets = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table, size = "".join(f"{at:010} 00000 n \n" for at in offsets), len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return out + end.encode() + f"startxref\n{len(out)}\n%%EOF\n".encode()


LIGHTHOUSE = (
    "Monday: fog, 14 ships.", "Tuesday: clear, 22 ships.", "Wednesday: rain, 17 ships.", "Thursday: storm, 3 ships.",
    "Friday: clear, 25 ships.", "Saturday: fog, 9 ships.", "Sunday: clear, 11 ships.",
)  # fmt: skip


def made() -> dict[str, bytes]:
    """File below examples/ → content."""
    return {
        "attachments/media/chart.png": chart(),
        "attachments/media/island.png": place(),
        "attachments/media/note.pdf": note("Delivery on Tuesday.", "Bring the blue boxes."),
        "attachments/media/tone.wav": tone(),
        "pages/media/lighthouse.pdf": note(*LIGHTHOUSE),
        "pages/media/boat.pdf": note("Monday: 3 nets, 40 fish.", "Tuesday: 4 nets, 52 fish."),
    }


if __name__ == "__main__":
    for name, content in made().items():
        (EXAMPLES / name).parent.mkdir(parents=True, exist_ok=True)
        (EXAMPLES / name).write_bytes(content)
