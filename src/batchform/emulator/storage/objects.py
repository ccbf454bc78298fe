"""Cloud Storage from Python: what the routes of this package and the emulator's Vertex jobs work with."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from batchform.emulator.storage import content
from batchform.emulator.storage.content import Digest, Digester
from batchform.emulator.storage.records import ANY, Attributes, Bucket, Conditions, ObjectInfo
from batchform.emulator.storage.refusals import StorageRefusal, conflict, invalid, no_bucket, no_object, too_often
from batchform.emulator.store import Store, new_id

Also = Callable[[sqlite3.Connection, ObjectInfo], None]

MAX_NAME: Final = 1024
_BUCKET: Final = re.compile(
    r"(?!goog)[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?)*"
)
_PAGE: Final = 500


class ObjectStore:
    """Buckets and objects of one emulator's state; any number of these, in many threads and processes, may share it.

        objects = ObjectStore(store)
        objects.create_bucket("acme")
        with objects.writing("acme", "in/rows.jsonl", content_type="application/jsonl") as out:
            out.write(b"{}\\n")
        print(out.info.generation)
        with objects.open_read("acme", "in/rows.jsonl") as lines: ...
        for info in objects.list("acme", prefix="in/"): ...

    Content is streamed and never held in memory. A write is seen by nobody before its block ends, and then as a whole,
    under a generation larger than all before; a block that raises leaves nothing. Who reads goes on reading the
    generation that was opened, whatever happens to the object. `conditions` (`Conditions(generation=…)`, `ABSENT`) are
    checked in the transaction that makes the change.
    create_buckets: a write makes the bucket that it names, as `US`; otherwise it must exist, as in the real service.
    object_pace: seconds that must be between two changes of one object (its making, replacing or deletion); 0: none.
    Every refusal is a StorageRefusal with the status of the service: 404 no such bucket or object, 409 bucket exists or
    is not empty, 412 a condition does not hold (304 for reads with not_generation), 400 a name that cannot be,
    429 an object that was changed a moment ago.
    """

    def __init__(self, store: Store, *, create_buckets: bool = False, object_pace: float = 0.0) -> None:
        self.store, self._create_buckets, self._pace = store, create_buckets, object_pace

    # --- buckets ---

    def buckets(self, prefix: str = "") -> list[Bucket]:
        """All buckets, by name."""
        with self.store.reading() as db:
            rows = db.execute("SELECT * FROM buckets ORDER BY name").fetchall()
        return [Bucket.of(row) for row in rows if row["name"].startswith(prefix)]

    def bucket(self, name: str) -> Bucket:
        """One bucket. Raises StorageRefusal 404."""
        with self.store.reading() as db:
            return _bucket(db, name)

    def create_bucket(
        self,
        name: str,
        *,
        location: str = "US",
        storage_class: str = "STANDARD",
        versioning: bool = False,
        labels: dict[str, str] | None = None,
    ) -> Bucket:
        """Make a bucket. location: `US`, `EU`, `US-CENTRAL1`, …, kept in capitals as the service does."""
        if not _BUCKET.fullmatch(name) or not 3 <= len(name) <= 222:
            raise invalid(f"Invalid bucket name: '{name}'", code="InvalidBucketName")
        now = self.store.now()
        values = (name, location.upper(), now, now, versioning, msgspec.json.encode(labels or {}).decode())
        with self.store.writing() as db:
            if db.execute("SELECT 1 FROM buckets WHERE name = ?", (name,)).fetchone():
                message = f"Your previous request to create the named bucket '{name}' succeeded and you already own it."
                raise conflict(message, code="BucketAlreadyOwnedByYou")
            db.execute("INSERT INTO buckets VALUES (?, ?, 1, ?, ?, ?, ?, ?)", (*values, storage_class))
            return _bucket(db, name)

    def update_bucket(
        self,
        name: str,
        *,
        versioning: bool | None = None,
        labels: dict[str, str] | None = None,
        conditions: Conditions = ANY,
    ) -> Bucket:
        """Change what is not None."""
        with self.store.writing() as db:
            now = _bucket(db, name)
            conditions.check(now)
            db.execute(
                "UPDATE buckets SET versioning = ?, labels = ?, metageneration = metageneration + 1, updated_at = ?"
                " WHERE name = ?",
                (
                    now.versioning if versioning is None else versioning,
                    msgspec.json.encode(now.labels if labels is None else labels).decode(),
                    self.store.now(),
                    name,
                ),
            )
            return _bucket(db, name)

    def delete_bucket(self, name: str, *, conditions: Conditions = ANY) -> None:
        """Remove an empty bucket."""
        with self.store.writing() as db:
            conditions.check(_bucket(db, name))
            if db.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (name,)).fetchone():
                raise conflict("The bucket you tried to delete is not empty.", code="BucketNotEmpty")
            db.execute("DELETE FROM buckets WHERE name = ?", (name,))

    # --- looking ---

    def find(self, bucket: str, name: str) -> ObjectInfo | None:
        """The live generation of an object, None when there is none."""
        with self.store.reading() as db:
            return live(db, bucket, name)

    def stat(
        self, bucket: str, name: str, *, generation: int | None = None, conditions: Conditions = ANY
    ) -> ObjectInfo:
        """The live generation of an object, or the one that is named. Raises StorageRefusal 404, 412, 304."""
        with self.store.reading() as db:
            found = one(db, bucket, name, generation)
        conditions.check(found, reading=True)
        return found

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Live objects whose names begin with prefix, in the order of UTF-8, each as it is when it gets there."""
        self.bucket(bucket)
        after = prefix
        where = "bucket = ? AND deleted_at IS NULL AND name >= ? AND substr(name, 1, ?) = ?"
        while True:
            with self.store.reading() as db:
                rows = db.execute(
                    f"SELECT * FROM objects WHERE {where} ORDER BY name LIMIT {_PAGE}",
                    (bucket, after, len(prefix), prefix),
                ).fetchall()
            yield from map(ObjectInfo.of, rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1]["name"] + "\0"

    def open_read(
        self, bucket: str, name: str, *, generation: int | None = None, conditions: Conditions = ANY
    ) -> BinaryIO:
        """A stream of an object's content. Close it."""
        return self.opened(bucket, name, generation=generation, conditions=conditions)[1]

    def opened(
        self, bucket: str, name: str, *, generation: int | None = None, conditions: Conditions = ANY
    ) -> tuple[ObjectInfo, BinaryIO]:
        """The same, with what is known of the generation that was opened."""
        while True:
            info = self.stat(bucket, name, generation=generation, conditions=conditions)
            try:
                return info, content.path_of(self.store, info.content).open("rb")
            except FileNotFoundError:  # replaced or deleted in this moment, or lost for good
                if self.find(bucket, name) == info:
                    raise

    # --- changing ---

    def writing(
        self,
        bucket: str,
        name: str,
        *,
        content_type: str | None = None,
        metadata: dict[str, str] | None = None,
        attributes: Attributes | None = None,
        conditions: Conditions = ANY,
    ) -> ObjectWriter:
        """A stream into a new generation, as a context: the end of its block commits. attributes: all that can be said.

        Conditions are checked at the end; that the bucket exists, at once as well.
        """
        check_name(name)
        self.check_bucket(bucket)
        given = attributes or Attributes(content_type=content_type, metadata=metadata or {})
        return ObjectWriter(self, bucket, name, given, conditions)

    def check_bucket(self, bucket: str) -> None:
        """Raise StorageRefusal 404 when a write to this bucket would be refused."""
        if not self._create_buckets:
            self.bucket(bucket)

    def commit(
        self,
        gathered: Path,
        bucket: str,
        name: str,
        attributes: Attributes,
        digest: Digest,
        *,
        components: int | None = None,
        conditions: Conditions = ANY,
        also: Also | None = None,
    ) -> ObjectInfo:
        """Make a file under `store.incoming` the live generation. also: what belongs to the same transaction."""
        check_name(name)
        self._provide(bucket)
        size, now = gathered.stat().st_size, self.store.now()
        with self.store.writing() as db:
            within, before = _bucket(db, bucket), live(db, bucket, name)
            conditions.check(before)
            self._check_pace(before, now)
            info = ObjectInfo(
                bucket=bucket,
                name=name,
                generation=_next_generation(db, now),
                metageneration=1,
                size=size,
                crc32c=digest.crc32c,
                md5=digest.md5,
                components=components,
                attributes=attributes,
                content=content.keep(self.store, gathered),
                created_at=now,
                updated_at=now,
                deleted_at=None,
            )
            gone = [retire(db, before, now, versioning=within.versioning)] if before else []
            save(db, info)
            try:
                if also:
                    also(db, info)
            except BaseException:
                self.remove_content(info.content)
                raise
        self.remove_content(*gone)
        return info

    def delete(
        self, bucket: str, name: str, *, generation: int | None = None, conditions: Conditions = ANY
    ) -> ObjectInfo:
        """Remove the live generation (with versioning it becomes noncurrent), or the one that is named for good."""
        now = self.store.now()
        with self.store.writing() as db:
            within, found = _bucket(db, bucket), one(db, bucket, name, generation)
            conditions.check(found)
            self._check_pace(found, now)
            gone = retire(db, found, now, versioning=within.versioning and generation is None)
        self.remove_content(gone)
        return found

    def remove_content(self, *gone: str | None) -> None:
        """Remove content that `retire` left to be removed, once that is committed."""
        for name in gone:
            if name:
                content.path_of(self.store, name).unlink(missing_ok=True)

    def versioning(self, db: sqlite3.Connection, bucket: str) -> bool:
        """Whether the bucket keeps what is replaced or deleted."""
        return _bucket(db, bucket).versioning

    def _check_pace(self, before: ObjectInfo | None, now: float) -> None:
        """Refuse what changes an object too soon after its last change."""
        if before is not None and now < before.updated_at + self._pace:
            raise too_often(before.bucket, before.name)

    def _provide(self, bucket: str) -> None:
        """Make the bucket when there is none, if the emulator was told to."""
        if not self._create_buckets:
            return
        try:
            self.bucket(bucket)
        except StorageRefusal:
            with suppress(StorageRefusal):  # another made it in this moment; or its name cannot be, which shows later
                self.create_bucket(bucket)


class ObjectWriter:
    """A binary stream into a new object. After its block, `info` says what was made."""

    info: ObjectInfo

    def __init__(
        self, objects: ObjectStore, bucket: str, name: str, attributes: Attributes, conditions: Conditions
    ) -> None:
        self._objects, self._bucket, self._name = objects, bucket, name
        self._attributes, self._conditions = attributes, conditions
        self.size = 0

    def __enter__(self) -> Self:
        self._path = content.incoming(self._objects.store, new_id(32))
        self._file, self._digester, self._open = self._path.open("xb"), Digester(), True
        return self

    def write(self, data: bytes) -> int:
        """Append bytes; their number."""
        self._digester.update(data)
        self.size += len(data)
        return self._file.write(data)

    def digest(self) -> Digest:
        """Of what was written so far."""
        return self._digester.digest()

    def commit(self) -> ObjectInfo:
        """Make the object now, before the block ends; nothing can be written after."""
        self._file.close()
        self.info = self._objects.commit(
            self._path, self._bucket, self._name, self._attributes, self.digest(), conditions=self._conditions
        )
        self._open = False
        return self.info

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        try:
            if kind is None and self._open:
                self.commit()
        finally:
            self._path.unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Raise StorageRefusal 400 for a name that no object can have."""
    size = len(name.encode())
    if not 1 <= size <= MAX_NAME:
        raise invalid(f"The name of an object has 1 to {MAX_NAME} bytes of UTF-8; this one has {size}.")
    if name in (".", "..") or set(name) & {"\r", "\n"}:
        raise invalid(f"Disallowed object name: {name!r}")


def one(db: sqlite3.Connection, bucket: str, name: str, generation: int | None) -> ObjectInfo:
    """The live generation, or the one that is named. Raises StorageRefusal 404."""
    found = live(db, bucket, name)
    if generation and (found is None or found.generation != generation):
        row = db.execute(
            "SELECT * FROM objects WHERE bucket = ? AND name = ? AND generation = ?", (bucket, name, generation)
        ).fetchone()
        found = ObjectInfo.of(row) if row else None
    if found is None:
        _bucket(db, bucket)
        raise no_object(bucket, name, generation)
    return found


def live(db: sqlite3.Connection, bucket: str, name: str) -> ObjectInfo | None:
    """The live generation, if there is one."""
    row = db.execute(
        "SELECT * FROM objects WHERE bucket = ? AND name = ? AND deleted_at IS NULL", (bucket, name)
    ).fetchone()
    return ObjectInfo.of(row) if row else None


def save(db: sqlite3.Connection, info: ObjectInfo) -> None:
    """Insert a generation, or replace what is known of it."""
    values = {**msgspec.structs.asdict(info), "attributes": msgspec.json.encode(info.attributes).decode()}
    marks = ", ".join(f":{name}" for name in values)
    db.execute(f"INSERT OR REPLACE INTO objects ({', '.join(values)}) VALUES ({marks})", values)


def retire(db: sqlite3.Connection, info: ObjectInfo, now: float, *, versioning: bool) -> str | None:
    """End a generation: make it noncurrent, or delete it, and then say whose content is to be removed."""
    which = (info.bucket, info.name, info.generation)
    if versioning:
        db.execute("UPDATE objects SET deleted_at = ? WHERE bucket = ? AND name = ? AND generation = ?", (now, *which))
        return None
    db.execute("DELETE FROM objects WHERE bucket = ? AND name = ? AND generation = ?", which)
    return info.content


def _bucket(db: sqlite3.Connection, name: str) -> Bucket:
    row = db.execute("SELECT * FROM buckets WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise no_bucket(name)
    return Bucket.of(row)


def _next_generation(db: sqlite3.Connection, now: float) -> int:
    """Microseconds since 1970, as the service has it, but never the same one twice."""
    (generation,) = db.execute(
        "UPDATE last_generation SET generation = max(generation + 1, ?) RETURNING generation", (int(now * 1e6),)
    ).fetchone()
    return int(generation)
