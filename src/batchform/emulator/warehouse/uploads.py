"""Bytes that come with load jobs: resumable uploads, and multipart bodies taken apart on disk."""

from __future__ import annotations

import re
import shutil
from email.message import Message
from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.warehouse import Warehouse
from batchform.emulator.warehouse.work import new_upload

_HEAD: Final = 4 * 1024**2
"""Where a multipart body's second part must begin."""


class Upload(msgspec.Struct, frozen=True):
    """A resumable upload. job: the body that jobs.insert would have; answer: what the last chunk was answered."""

    job: dict[str, Any] | None
    answer: str | None


def start(warehouse: Warehouse, project: str, body: bytes) -> str:
    """A new upload's name. Raises Declined when `body` is no job."""
    try:
        job = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as e:
        raise invalid(f"Parse Error: {e}") from e
    name = new_upload()
    (warehouse.uploads / name).touch()
    with warehouse.catalog.writing() as db:
        row = (name, project, msgspec.json.encode(job).decode())
        db.execute("INSERT INTO uploads (id, project, job) VALUES (?, ?, ?)", row)
    return name


def find(warehouse: Warehouse, name: str) -> Upload:
    """Raises Declined 404."""
    with warehouse.catalog.reading() as db:
        row = db.execute("SELECT * FROM uploads WHERE id = ?", (name,)).fetchone()
    if row is None:
        raise Declined(404, "Not found: there is no such upload.")
    return Upload(msgspec.json.decode(row["job"]), row["answer"])


def finish(warehouse: Warehouse, name: str, answer: str) -> None:
    """From now on it answers this."""
    with warehouse.catalog.writing() as db:
        db.execute("UPDATE uploads SET answer = ? WHERE id = ?", (answer, name))


def take_apart(warehouse: Warehouse, path: Path, content_type: str) -> tuple[dict[str, Any], str]:
    """A multipart/related body: the job in its first part, and the name of a file with the second. Raises Declined."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str):
        raise invalid("A multipart upload needs a boundary in its Content-Type.")
    mark = re.escape(boundary.encode())
    with path.open("rb") as f:
        head = f.read(_HEAD)
    pattern = rb"\s*--" + mark + rb"\r?\n.*?\r?\n\r?\n(?P<job>.*?)\r?\n--" + mark + rb"\r?\n.*?\r?\n\r?\n"
    found = re.match(pattern, head, re.DOTALL)
    end = _end(path, boundary.encode())
    if not found or end < found.end():
        raise invalid("The multipart body has not two parts.")
    try:
        job = msgspec.json.decode(found["job"], type=dict[str, Any])
    except msgspec.DecodeError as e:
        raise invalid(f"Parse Error: {e}") from e
    name = new_upload()
    with path.open("rb") as source, (warehouse.uploads / name).open("xb") as target:
        source.seek(found.end())
        shutil.copyfileobj(source, target)
        target.truncate(end - found.end())
    return job, name


def _end(path: Path, boundary: bytes) -> int:
    """Where the second part ends; -1 without an end."""
    size = path.stat().st_size
    last = min(size, len(boundary) + 64)
    with path.open("rb") as f:
        f.seek(size - last)
        tail = f.read()
    found = tail.rfind(b"\r\n--" + boundary + b"--")
    return -1 if found < 0 else size - last + found
