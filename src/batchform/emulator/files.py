"""Uploaded and generated files: metadata in the store, bytes on disk."""

from __future__ import annotations

import base64
import re
import sqlite3
from pathlib import Path
from typing import Any, Final

from batchform import canon
from batchform.emulator.clock import rfc3339
from batchform.emulator.refusal import Refusal, bad_field, file_forbidden
from batchform.emulator.store import Store, new_id

MAX_BYTES: Final = 2 * 1024**3
MAX_ID: Final = 40
MAX_DISPLAY_NAME: Final = 512
UPLOADED_SECONDS: Final = 48 * 3600
GENERATED_SECONDS: Final = 6 * 7 * 24 * 3600

_ID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def start_upload(store: Store, account: str, meta: dict[str, Any], *, mime_type: str, declared: int) -> str:
    """Open an upload and return its id. declared: size in bytes, -1 if the client did not say."""
    name = str(_either(meta, "name") or "").removeprefix("files/") or None
    display_name = _either(meta, "display_name", "displayName")
    if name is not None:
        _check_id(name)
    if display_name is not None and len(str(display_name)) > MAX_DISPLAY_NAME:
        raise bad_field(f"* CreateFileRequest.file.display_name: at most {MAX_DISPLAY_NAME} characters are allowed")
    if declared > MAX_BYTES:
        raise _too_large(declared)
    upload = new_id(32)
    now = store.now()
    with store.writing() as db:
        _purge(db, store, now)
        _refuse_taken(db, account, name)
        mime = str(_either(meta, "mime_type", "mimeType") or mime_type)
        db.execute(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)", (upload, account, name, display_name, mime, declared)
        )
        upload_path(store, upload).touch()
    return upload


def upload_path(store: Store, upload: str) -> Path:
    """Where the bytes of an open upload are gathered; its size is what was received."""
    return store.uploads / f"{upload}.part"


def open_upload(store: Store, upload: str) -> sqlite3.Row:
    """The open upload. Raises Refusal 404 if it was finished or never started."""
    with store.reading() as db:
        row: sqlite3.Row | None = db.execute("SELECT * FROM uploads WHERE id = ?", (upload,)).fetchone()
    if row is None:
        raise Refusal(404, "Upload has already been terminated, or never existed.")
    return row


def forget_upload(store: Store, upload: str) -> None:
    """Drop an open upload and its bytes."""
    with store.writing() as db:
        db.execute("DELETE FROM uploads WHERE id = ?", (upload,))
    upload_path(store, upload).unlink(missing_ok=True)


def finish_upload(store: Store, upload: str) -> sqlite3.Row:
    """Turn the gathered bytes into a file and return its row."""
    row = open_upload(store, upload)
    part = upload_path(store, upload)
    size = part.stat().st_size
    if row["declared"] not in (-1, size):
        raise Refusal(400, f"Upload has {size} bytes, but {row['declared']} were announced.")
    sha256 = canon.file_digest(part).removeprefix("sha256:")
    now = store.now()
    file_id = row["name"] or new_id(12)
    with store.writing() as db:
        _refuse_taken(db, row["account"], row["name"])
        db.execute("DELETE FROM uploads WHERE id = ?", (upload,))
        part.rename(store.files / upload)
        db.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, 'UPLOADED', ?, ?, ?)",
            (
                row["account"],
                file_id,
                row["display_name"],
                row["mime_type"],
                size,
                sha256,
                upload,
                now,
                now + UPLOADED_SECONDS,
            ),
        )
    return find(store, row["account"], file_id)


def find(store: Store, account: str, file_id: str, *, at: float | None = None) -> sqlite3.Row:
    """The file that this account can see, now or `at` a time. Raises Refusal 403, as the service does."""
    with store.reading() as db:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM files WHERE account = ? AND id = ? AND expires_at > ?",
            (account, file_id, store.now() if at is None else at),
        ).fetchone()
    if row is None:
        raise file_forbidden(file_id)
    return row


def page(store: Store, account: str, *, size: int, token: str) -> tuple[list[sqlite3.Row], str]:
    """Uploaded files, newest first, and the token of the next page ("" at the end)."""
    start = int(token) if token.isdecimal() else 2**62
    if token and not token.isdecimal():
        raise bad_field("Invalid page token.", "page_token")
    with store.reading() as db:
        rows = db.execute(
            "SELECT rowid, * FROM files WHERE account = ? AND source = 'UPLOADED' AND expires_at > ? AND rowid < ?"
            " ORDER BY rowid DESC LIMIT ?",
            (account, store.now(), start, size + 1),
        ).fetchall()
    return rows[:size], str(rows[size - 1]["rowid"]) if len(rows) > size else ""


def delete(store: Store, account: str, file_id: str) -> None:
    """Remove a file. Jobs that were made from it go on."""
    row = find(store, account, file_id)
    with store.writing() as db:
        db.execute("DELETE FROM files WHERE account = ? AND id = ?", (account, file_id))
    (store.files / row["path"]).unlink(missing_ok=True)


def refuse_long_id(file_id: str) -> None:
    """get and delete take no id of more than 40 characters, though result files have 42. Download does."""
    if len(file_id) > MAX_ID:
        raise Refusal(400, f"File ID cannot be more than {MAX_ID} characters")


def id_in(uri: str) -> str | None:
    """The id in `files/ID` or `…/v1beta/files/ID`; None for anything else."""
    head, found, file_id = uri.rpartition("files/")
    ours = not head or head.endswith(("/v1/", "/v1beta/"))
    return file_id if found and ours and "/" not in file_id else None


def resource(row: sqlite3.Row, base_url: str) -> dict[str, Any]:
    """The file as the API shows it."""
    shown = {
        "name": f"files/{row['id']}",
        "displayName": row["display_name"],
        "mimeType": row["mime_type"],
        "sizeBytes": str(row["size"]),
        "createTime": rfc3339(row["created_at"]),
        "updateTime": rfc3339(row["created_at"]),
        "expirationTime": rfc3339(row["expires_at"]),
        "sha256Hash": base64.b64encode(row["sha256"].encode()).decode(),  # of the hex text, as the service does it
        "uri": f"{base_url}/v1beta/files/{row['id']}",
        "state": "ACTIVE",
        "source": row["source"],
    }
    return {name: value for name, value in shown.items() if value is not None}


def _either(meta: dict[str, Any], *names: str) -> Any:
    return next((meta[name] for name in names if meta.get(name) is not None), None)


def _check_id(file_id: str) -> None:
    refuse_long_id(file_id)
    if not _ID.fullmatch(file_id):
        raise bad_field(
            f"* CreateFileRequest.file.name: 'files/{file_id}' may have lower-case letters, digits and dashes only,"
            " and no dash at either end"
        )


def _too_large(size: int) -> Refusal:
    return Refusal(400, f"The file has {size} bytes; at most {MAX_BYTES} are allowed.")


def check_size(size: int) -> None:
    """Raise Refusal when an upload has grown beyond what the service takes."""
    if size > MAX_BYTES:
        raise _too_large(size)


def _refuse_taken(db: sqlite3.Connection, account: str, name: str | None) -> None:
    taken = db.execute("SELECT 1 FROM files WHERE account = ? AND id = ?", (account, name)).fetchone()
    if name is not None and taken:
        raise Refusal(409, f"File files/{name} already exists.")


def _purge(db: sqlite3.Connection, store: Store, now: float) -> None:
    """Forget what has expired, so that disk and names are free again."""
    for row in db.execute("SELECT path FROM files WHERE expires_at <= ?", (now,)).fetchall():
        (store.files / row["path"]).unlink(missing_ok=True)
    db.execute("DELETE FROM files WHERE expires_at <= ?", (now,))
