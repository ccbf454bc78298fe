"""Changes that are made of objects that are there: patch, compose, copy, move."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.emulator.storage import content
from batchform.emulator.storage.content import Digest, Digester
from batchform.emulator.storage.objects import ObjectStore, one, retire, save
from batchform.emulator.storage.records import ANY, Attributes, Conditions, ObjectInfo
from batchform.emulator.storage.refusals import condition_not_met, invalid
from batchform.emulator.store import link_or_copy, new_id

MAX_SOURCES: Final = 32


class Source(msgspec.Struct, frozen=True):
    """An object that something is made of."""

    bucket: str
    name: str
    generation: int | None = None
    conditions: Conditions = ANY


def patch(
    objects: ObjectStore,
    source: Source,
    changes: dict[str, Any],
    *,
    replace: bool = False,
) -> ObjectInfo:
    """Change what clients may say of a generation; replace: instead of what was said. Conditions are of `source`."""
    now = objects.store.now()
    with objects.store.writing() as db:
        found = one(db, source.bucket, source.name, source.generation)
        source.conditions.check(found)
        try:
            attributes = (Attributes() if replace else found.attributes).patched(changes)
        except msgspec.ValidationError as e:
            raise invalid(f"Invalid object metadata: {e}") from e
        changed = msgspec.structs.replace(
            found, attributes=attributes, metageneration=found.metageneration + 1, updated_at=now
        )
        save(db, changed)
    return changed


def compose(
    objects: ObjectStore,
    bucket: str,
    name: str,
    sources: Sequence[Source],
    attributes: Attributes,
    *,
    conditions: Conditions = ANY,
) -> ObjectInfo:
    """One object of the content of up to 32 others, in their order."""
    if not 1 <= len(sources) <= MAX_SOURCES:
        raise invalid(f"The number of source components provided ({len(sources)}) must be 1 to {MAX_SOURCES}.")
    gathered = content.incoming(objects.store, new_id(32))
    digester, components = Digester(), 0
    try:
        with gathered.open("xb") as out:
            for source in sources:
                info, stream = objects.opened(
                    source.bucket, source.name, generation=source.generation, conditions=source.conditions
                )
                components += info.components or 1
                with stream:
                    while piece := stream.read(content.PIECE):
                        out.write(piece)
                        digester.update(piece)
        digest = Digest(digester.digest().crc32c, None)
        return objects.commit(gathered, bucket, name, attributes, digest, components=components, conditions=conditions)
    finally:
        gathered.unlink(missing_ok=True)


def copy(
    objects: ObjectStore,
    source: Source,
    bucket: str,
    name: str,
    attributes: Attributes | None = None,
    *,
    conditions: Conditions = ANY,
) -> ObjectInfo:
    """A new object with the content of another, and what is said of that one unless attributes say otherwise."""
    info, gathered = _linked(objects, source)
    try:
        return objects.commit(
            gathered,
            bucket,
            name,
            attributes or info.attributes,
            Digest(info.crc32c, info.md5),
            components=info.components,
            conditions=conditions,
        )
    finally:
        gathered.unlink(missing_ok=True)


def move(objects: ObjectStore, source: Source, name: str, *, conditions: Conditions = ANY) -> ObjectInfo:
    """Rename within the bucket, in one step: nobody sees both, or neither."""
    if source.name == name:
        raise invalid("The source and the destination of a move must differ.")
    info, gathered = _linked(objects, source)
    gone: list[str | None] = []

    def remove_source(db: sqlite3.Connection, moved: ObjectInfo) -> None:
        found = one(db, source.bucket, source.name, None)
        if found.generation != info.generation:
            raise condition_not_met("the source was replaced while it was moved")
        versioning = objects.versioning(db, source.bucket)
        gone.append(retire(db, found, moved.created_at, versioning=versioning))

    try:
        moved = objects.commit(
            gathered,
            source.bucket,
            name,
            info.attributes,
            Digest(info.crc32c, info.md5),
            components=info.components,
            conditions=conditions,
            also=remove_source,
        )
    finally:
        gathered.unlink(missing_ok=True)
    objects.remove_content(*gone)
    return moved


def _linked(objects: ObjectStore, source: Source) -> tuple[ObjectInfo, Path]:
    """The source, and a second name for its content."""
    gathered = content.incoming(objects.store, new_id(32))
    while True:
        info = objects.stat(source.bucket, source.name, generation=source.generation, conditions=source.conditions)
        try:
            link_or_copy(content.path_of(objects.store, info.content), gathered)
        except FileNotFoundError:  # replaced or deleted in this moment, or lost for good
            if objects.find(source.bucket, source.name) == info:
                raise
        else:
            return info, gathered
