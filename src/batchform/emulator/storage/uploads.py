"""Uploads that take several calls: resumable sessions, and the parts of XML multipart uploads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, Self

import msgspec

from batchform.emulator.storage import content
from batchform.emulator.storage.content import Digest, Digester, digest_of
from batchform.emulator.storage.objects import ObjectStore, check_name
from batchform.emulator.storage.records import ANY, Attributes, Conditions, ObjectInfo
from batchform.emulator.storage.refusals import invalid, no_upload
from batchform.emulator.storage.wire import check_digest
from batchform.emulator.store import Store, new_id

EXPIRY_SECONDS: Final = 7 * 24 * 3600
MAX_PARTS: Final = 10_000


class Upload(msgspec.Struct, frozen=True):
    """An open upload. crc32c, md5: what the client announced; result: the object, once it is finished."""

    id: str
    kind: Literal["resumable", "parts"]
    bucket: str
    name: str
    attributes: Attributes
    conditions: Conditions
    crc32c: str | None
    md5: str | None
    declared: int | None
    result: ObjectInfo | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(
            id=row["id"],
            kind=row["kind"],
            bucket=row["bucket"],
            name=row["name"],
            attributes=msgspec.json.decode(row["attributes"], type=Attributes),
            conditions=msgspec.json.decode(row["conditions"], type=Conditions),
            crc32c=row["crc32c"],
            md5=row["md5"],
            declared=row["declared"],
            result=msgspec.json.decode(row["result"], type=ObjectInfo) if row["result"] else None,
        )


def start(
    objects: ObjectStore,
    kind: Literal["resumable", "parts"],
    bucket: str,
    name: str,
    attributes: Attributes,
    *,
    conditions: Conditions = ANY,
    digest: tuple[str | None, str | None] = (None, None),
    declared: int | None = None,
) -> str:
    """Open an upload; its id. digest: crc32c and md5 that the content must have; declared: its size in bytes."""
    check_name(name)
    objects.check_bucket(bucket)
    conditions.check(objects.find(bucket, name))
    store, upload = objects.store, new_id(32)
    now = store.now()
    with store.writing() as db:
        _purge(db, store, now)
        values = (msgspec.json.encode(attributes).decode(), msgspec.json.encode(conditions).decode(), *digest, declared)
        db.execute(
            "INSERT INTO object_uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
            (upload, kind, bucket, name, *values, now),
        )
        if kind == "resumable":
            content.incoming(store, upload).touch()
        else:
            content.incoming(store, upload).mkdir()
    return upload


def find(store: Store, upload: str) -> Upload:
    """An upload, open or finished. Raises StorageRefusal 404."""
    with store.reading() as db:
        row = db.execute("SELECT * FROM object_uploads WHERE id = ?", (upload,)).fetchone()
    if row is None:
        raise no_upload()
    return Upload.of(row)


def forget(store: Store, upload: str) -> None:
    """Drop an upload and its bytes."""
    with store.writing() as db:
        db.execute("DELETE FROM object_uploads WHERE id = ?", (upload,))
    _remove(content.incoming(store, upload))


def finish(objects: ObjectStore, upload: Upload, digest: tuple[str | None, str | None] = (None, None)) -> ObjectInfo:
    """Make the object of a resumable upload. Conditions are checked again; when one fails the upload is over."""
    gathered = content.incoming(objects.store, upload.id)
    found = digest_of(gathered)
    check_digest(found, upload.crc32c, upload.md5)
    check_digest(found, *digest)
    return objects.commit(
        gathered,
        upload.bucket,
        upload.name,
        upload.attributes,
        found,
        conditions=upload.conditions,
        also=lambda db, info: _note(db, upload.id, info),
    )


@contextmanager
def part(store: Store, upload: str, part_number: int) -> Iterator[PartWriter]:
    """A stream into a part of an upload in parts; a part that was there is replaced."""
    if not 1 <= part_number <= MAX_PARTS:
        raise invalid(f"Part numbers go from 1 to {MAX_PARTS}; this one is {part_number}.")
    if find(store, upload).kind != "parts":
        raise no_upload()
    folder = content.incoming(store, upload)
    path = folder / f"{new_id(16)}.new"
    try:
        with path.open("xb") as f:
            yield PartWriter(f)
        path.rename(folder / f"{part_number:05d}")
    finally:
        path.unlink(missing_ok=True)


class PartWriter:
    """Where the bytes of a part go."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digester = file, Digester()

    def write(self, data: bytes) -> None:
        self._digester.update(data)
        self._file.write(data)

    def digest(self) -> Digest:
        return self._digester.digest()


def parts(store: Store, upload: str) -> list[tuple[int, Path]]:
    """The parts that are there, by number."""
    if find(store, upload).kind != "parts":
        raise no_upload()
    return sorted((int(p.name), p) for p in content.incoming(store, upload).iterdir() if p.name.isdecimal())


def join(objects: ObjectStore, upload: Upload, wanted: Sequence[tuple[int, str]]) -> ObjectInfo:
    """Make the object of parts: their numbers, growing, each with the MD5 in hex that it was answered with, or ""."""
    there = dict(parts(objects.store, upload.id))
    numbers = [n for n, _ in wanted]
    if not numbers or numbers != sorted(set(numbers)):
        raise invalid("The parts of an upload must be listed in growing order, at least one.", code="InvalidPartOrder")
    gathered = content.incoming(objects.store, new_id(32))
    digester = Digester()
    try:
        with gathered.open("xb") as out:
            for n, tag in wanted:
                if n not in there or tag not in ("", hex_md5(digest_of(there[n]))):
                    raise invalid(f"Part {n} was not uploaded, or is another one.", code="InvalidPart")
                with there[n].open("rb") as f:
                    while piece := f.read(content.PIECE):
                        out.write(piece)
                        digester.update(piece)
        info = objects.commit(
            gathered,
            upload.bucket,
            upload.name,
            upload.attributes,
            Digest(digester.digest().crc32c, None),
            components=len(wanted),
            conditions=upload.conditions,
            also=lambda db, info: _note(db, upload.id, info),
        )
    finally:
        gathered.unlink(missing_ok=True)
    _remove(content.incoming(objects.store, upload.id))
    return info


def hex_md5(digest: Digest) -> str:
    """An MD5 as XML shows it."""
    return content.hex_of(digest.md5) if digest.md5 else ""


def _note(db: sqlite3.Connection, upload: str, info: ObjectInfo) -> None:
    """What a finished upload says whenever it is asked again."""
    db.execute("UPDATE object_uploads SET result = ? WHERE id = ?", (msgspec.json.encode(info).decode(), upload))


def _purge(db: sqlite3.Connection, store: Store, now: float) -> None:
    """Forget uploads after a week, as the service does."""
    for row in db.execute("SELECT id FROM object_uploads WHERE started_at <= ?", (now - EXPIRY_SECONDS,)).fetchall():
        _remove(content.incoming(store, row["id"]))
    db.execute("DELETE FROM object_uploads WHERE started_at <= ?", (now - EXPIRY_SECONDS,))


def _remove(gathered: Path) -> None:
    if gathered.is_dir():
        for piece in gathered.iterdir():
            piece.unlink(missing_ok=True)
        gathered.rmdir()
    else:
        gathered.unlink(missing_ok=True)
