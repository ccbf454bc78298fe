"""What Cloud Storage knows of buckets and objects, and the conditions that a call can set."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, Self

import msgspec

from batchform.emulator.storage.refusals import condition_not_met, not_modified

DEFAULT_TYPE: Final = "application/octet-stream"


class Attributes(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a client may say of an object, in the API's own names when it is JSON."""

    content_type: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None
    content_language: str | None = None
    cache_control: str | None = None
    custom_time: str | None = None
    storage_class: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)

    def patched(self, changes: dict[str, Any]) -> Self:
        """With the changes of a JSON merge patch: null takes away. Fields that clients cannot set are passed over.

        Raises msgspec.ValidationError for a value of another type.
        """
        now = msgspec.to_builtins(self)
        for name, value in changes.items():
            if name == "metadata" and isinstance(value, dict):
                both = {**now.get("metadata", {}), **value}
                now["metadata"] = {key: text for key, text in both.items() if text is not None}
            else:
                now[name] = value
        return msgspec.convert({name: value for name, value in now.items() if value is not None}, type(self))


class Bucket(msgspec.Struct, frozen=True):
    """A bucket. Times are seconds since 1970."""

    name: str
    location: str
    metageneration: int
    created_at: float
    updated_at: float
    versioning: bool
    labels: dict[str, str]
    storage_class: str

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(
            name=row["name"],
            location=row["location"],
            metageneration=row["metageneration"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            versioning=bool(row["versioning"]),
            labels=msgspec.json.decode(row["labels"]),
            storage_class=row["storage_class"],
        )


class ObjectInfo(msgspec.Struct, frozen=True):
    """One generation of an object. size: bytes; crc32c, md5: base64, md5 None for composed objects.

    components: of how many uploads it was composed, None for an upload; deleted_at: None for the live generation;
    content: the name of its file in the state.
    """

    bucket: str
    name: str
    generation: int
    metageneration: int
    size: int
    crc32c: str
    md5: str | None
    components: int | None
    attributes: Attributes
    content: str
    created_at: float
    updated_at: float
    deleted_at: float | None

    @property
    def uri(self) -> str:
        """`gs://bucket/name`."""
        return f"gs://{self.bucket}/{self.name}"

    @property
    def content_type(self) -> str:
        return self.attributes.content_type or DEFAULT_TYPE

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(
            **{name: row[name] for name in cls.__struct_fields__ if name != "attributes"},
            attributes=msgspec.json.decode(row["attributes"], type=Attributes),
        )


class Conditions(msgspec.Struct, frozen=True):
    """What must hold of the live generation. generation=0: there is none; not_generation=0: there is one."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    def check(self, found: ObjectInfo | Bucket | None, *, reading: bool = False) -> None:
        """Raise StorageRefusal 412; for a read whose `not_…` does not hold, 304."""
        generation = found.generation if isinstance(found, ObjectInfo) else 0
        metageneration = found.metageneration if found else 0
        if self.generation is not None and generation != self.generation:
            raise condition_not_met(f"ifGenerationMatch is {self.generation}, the generation is {generation}")
        if self.metageneration is not None and metageneration != self.metageneration:
            raise condition_not_met(
                f"ifMetagenerationMatch is {self.metageneration}, the metageneration is {metageneration}"
            )
        if generation == self.not_generation or metageneration == self.not_metageneration:
            if reading:
                raise not_modified()
            raise condition_not_met(f"the generation is {generation}, the metageneration {metageneration}")


ANY: Final = Conditions()
"""Nothing must hold."""
ABSENT: Final = Conditions(generation=0)
"""There must be no such object."""
