"""ObjectStore: what the emulator's own jobs read and write through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchform.emulator.clock import SystemClock
from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.storage.records import ABSENT, Conditions
from batchform.emulator.storage.refusals import StorageRefusal
from batchform.emulator.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "state", SystemClock())
    yield found
    found.close()


@pytest.fixture
def objects(store: Store) -> ObjectStore:
    made = ObjectStore(store)
    made.create_bucket("acme")
    return made


def put(objects: ObjectStore, name: str, data: bytes, conditions: Conditions | None = None) -> int:
    with objects.writing("acme", name, conditions=conditions or Conditions()) as out:
        out.write(data)
    return out.info.generation


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_written_is_read_by_another_store_on_the_same_folder(objects: ObjectStore, store: Store) -> None:
    with objects.writing("acme", "a/b.txt", content_type="text/plain", metadata={"who": "me"}) as out:
        out.write(b"hello ")
        out.write(b"world")
    assert out.info.size == 11 and out.info.crc32c == "yZRlqg==" and out.info.md5 == "XrY7u+Ae7tCTyyK7j1rNww=="
    again = ObjectStore(store)
    assert again.stat("acme", "a/b.txt") == out.info
    assert out.info.content_type == "text/plain" and out.info.attributes.metadata == {"who": "me"}
    with again.open_read("acme", "a/b.txt") as f:
        assert f.read() == b"hello world"


def test_a_block_that_raises_leaves_nothing(objects: ObjectStore, store: Store) -> None:
    with pytest.raises(KeyError), objects.writing("acme", "x") as out:
        out.write(b"half")
        raise KeyError
    assert objects.find("acme", "x") is None
    assert files_under(store.incoming) == files_under(store.objects) == []


def test_generations_grow_and_conditions_hold(objects: ObjectStore, store: Store) -> None:
    first = put(objects, "x", b"1", ABSENT)
    with pytest.raises(StorageRefusal) as refused:
        put(objects, "x", b"2", ABSENT)
    assert refused.value.status == 412
    second = put(objects, "x", b"2", Conditions(generation=first))
    assert second > first
    with pytest.raises(StorageRefusal) as refused:
        objects.delete("acme", "x", conditions=Conditions(generation=first))
    assert refused.value.status == 412
    assert len(files_under(store.objects)) == 1 and files_under(store.incoming) == []


def test_who_reads_goes_on_reading_what_was_opened(objects: ObjectStore) -> None:
    put(objects, "x", b"old")
    with objects.open_read("acme", "x") as f:
        put(objects, "x", b"new")
        objects.delete("acme", "x")
        assert f.read() == b"old"


def test_list_goes_by_name_over_many_pages(objects: ObjectStore) -> None:
    names = sorted(f"p/{i:04d}" for i in range(601))
    for name in [*names, "o", "q", "p0", "p"]:
        put(objects, name, b"")
    assert [info.name for info in objects.list("acme", "p/")] == names
    assert [info.name for info in objects.list("acme", "p%")] == []
    assert next(objects.list("acme")).name == "o"


def test_buckets_must_exist_unless_they_are_made_on_demand(store: Store) -> None:
    for call in (lambda: ObjectStore(store).writing("acme", "x"), lambda: list(ObjectStore(store).list("acme"))):
        with pytest.raises(StorageRefusal, match="acme") as refused:
            call()
        assert refused.value.status == 404
    put(ObjectStore(store, create_buckets=True), "x", b"1")
    assert [bucket.name for bucket in ObjectStore(store).buckets()] == ["acme"]


def test_with_versioning_old_generations_stay(store: Store) -> None:
    objects = ObjectStore(store)
    objects.create_bucket("acme", versioning=True)
    first, _ = put(objects, "x", b"1"), put(objects, "x", b"2")
    objects.delete("acme", "x")
    assert objects.find("acme", "x") is None
    with objects.open_read("acme", "x", generation=first) as f:
        assert f.read() == b"1"
    objects.delete("acme", "x", generation=first)
    with pytest.raises(StorageRefusal) as refused:
        objects.stat("acme", "x", generation=first)
    assert refused.value.status == 404
    with pytest.raises(StorageRefusal) as refused:
        objects.delete_bucket("acme")
    assert refused.value.status == 409


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "é" * 513])
def test_names_that_no_object_can_have(objects: ObjectStore, name: str) -> None:
    with pytest.raises(StorageRefusal) as refused:
        objects.writing("acme", name)
    assert refused.value.status == 400


@pytest.mark.parametrize("name", ["ab", "Acme", "-acme", "acme-", "goog-x", "a..b", "a/b", "x" * 64])
def test_names_that_no_bucket_can_have(objects: ObjectStore, name: str) -> None:
    with pytest.raises(StorageRefusal) as refused:
        objects.create_bucket(name)
    assert refused.value.status == 400
