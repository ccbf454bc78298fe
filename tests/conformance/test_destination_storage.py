"""What every destination must do, at gs://: the same bytes as a local file, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from destination_kit import FILES, ROWS, Place, row

from batchform.adapters.storage.client import Stat, StorageClient
from batchform.adapters.storage.destinations import make_remote
from batchform.emulator import EmulatorServer
from batchform.errors import DestinationError
from batchform.ports import Destination
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import Address
from bucket_kit import Bucket, Opened

COLUMNS = ("key", "n", "doc", "note", "score", "ok", "at")


class Far:
    """A local place of one kind, and the object that must be its equal."""

    def __init__(self, place: Place, bucket: Bucket, client: StorageClient) -> None:
        self.place, self.bucket, self.client = place, bucket, client
        self.name = f"out/answers.{place.kind}"

    def destination(self, *, folder: bool = False, client: StorageClient | None = None) -> Destination:
        name = "out/" if folder else self.name
        return make_remote(client or self.client, self.bucket.uri(name), format=self.place.kind)

    def deliver(self, rows: list[Any], **options: Any) -> Any:
        return self.place.deliver(rows, to=options.pop("to", None) or self.destination(), **options)


@pytest.fixture(params=FILES)
def far(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Iterator[Far]:
    with Opened() as opened:
        yield Far(Place(tmp_path, request.param), bucket, opened.client())


def test_nothing_is_there_before_and_nothing_is_made_by_looking(far: Far) -> None:
    for made in (far.destination(), far.destination(folder=True)):
        assert isinstance(made, Destination)
        assert not made.exists()
        made.check(COLUMNS)
    assert far.bucket.names() == []


def test_the_object_is_the_file_byte_for_byte(far: Far) -> None:
    delivered = far.deliver(ROWS)
    far.place.deliver(ROWS)
    assert (delivered.rows, delivered.location) == (2, far.bucket.uri(far.name))
    assert far.bucket.get(far.name) == far.place.file.read_bytes()
    assert far.destination().exists()
    assert not [p for p in (far.place.root / ".batchform").rglob("*") if p.is_file()], "what was staged is gone"


def test_the_same_again_touches_nothing(far: Far) -> None:
    far.deliver(ROWS)
    generation = far.bucket.generation(far.name)
    assert far.deliver(ROWS).rows == 2
    assert far.bucket.generation(far.name) == generation
    far.deliver([row("other")])
    assert far.bucket.generation(far.name) != generation


def test_a_failing_query_leaves_the_old_content(far: Far) -> None:
    far.deliver(ROWS)
    before = far.bucket.get(far.name)
    with pytest.raises(DestinationError, match="cannot be written"):
        far.deliver(ROWS, columns="key, CAST(key AS INTEGER) AS n")
    assert far.bucket.get(far.name) == before


def test_what_was_delivered_is_known_by_its_columns(far: Far) -> None:
    far.deliver(ROWS)
    far.destination().check(COLUMNS)
    with pytest.raises(DestinationError, match="batchform did not make it"):
        far.destination().check(COLUMNS[:-1])
    far.destination().check()
    far.bucket.put(far.name, b"\x00something else\n" * 1000)
    with pytest.raises(DestinationError, match="batchform did not make it"):
        far.destination().check(COLUMNS)
    far.bucket.put(far.name, b"")
    far.destination().check(COLUMNS)


class Raced(StorageClient):
    """Another writer is faster, each time."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(GoogleCloud(), pause=0.001)
        self._bucket = bucket

    def write(self, at: Address, content: bytes | Path, *, match: int) -> Stat:
        self._bucket.put(at.name, b"theirs")
        return super().write(at, content, match=match)


@pytest.mark.parametrize("first", [True, False])
def test_another_writer_is_noticed_and_not_written_over(far: Far, first: bool) -> None:
    if not first:
        far.deliver([row("old")])
    raced = Raced(far.bucket)
    with pytest.raises(DestinationError, match="was changed by another writer") as caught:
        far.deliver(ROWS, to=far.destination(client=raced))
    raced.close()
    assert "batchform sync" in caught.value.hint
    assert far.bucket.get(far.name) == b"theirs"


class Reader(StorageClient):
    """Credentials that may read and nothing else; `sees` says whether an object tells so too."""

    def __init__(self, *, sees: bool) -> None:
        super().__init__(GoogleCloud(), pause=0.001)
        self._sees = sees

    def allowed(self, bucket: str, *permissions: str) -> set[str]:  # noqa: ARG002
        return set()

    def allowed_at(self, at: Address, *permissions: str) -> set[str] | None:  # noqa: ARG002
        return set() if self._sees else None


def test_rights_that_are_surely_missing_are_told_before_anything_is_sent(far: Far) -> None:
    reader, unsure = Reader(sees=True), Reader(sees=False)
    for folder in (False, True):
        far.destination(folder=folder, client=reader).check()  # perhaps rights on that part of the bucket alone
    far.bucket.put(far.name, b"")
    for folder in (False, True):
        far.destination(folder=folder, client=unsure).check()
        with pytest.raises(DestinationError, match=r"lack storage\.objects\.create") as caught:
            far.destination(folder=folder, client=reader).check()
        assert f"add-iam-policy-binding {far.bucket.uri().rstrip('/')} " in caught.value.hint
    reader.close()
    unsure.close()


def test_parts_add_up_and_a_full_delivery_replaces_them(far: Far) -> None:
    far.bucket.put("out/notes.txt", b"ours")
    far.bucket.put("out/part-other-00000000.aaaa.1.csv", b"of another spec")
    a, b = row("a"), row("b")
    folder = far.destination(folder=True)
    one = far.deliver([a], to=folder, name="triage-00000000.aaaa.1")
    assert one.parts == (f"part-triage-00000000.aaaa.1.{far.place.kind}",)
    two = far.deliver([a, b], to=folder, changed=[b], full=False, previous=one.parts, name="triage-00000000.bbbb.2")
    assert two.parts == (*one.parts, f"part-triage-00000000.bbbb.2.{far.place.kind}")
    assert folder.exists(two.parts)
    assert two.location == far.bucket.uri(f"out/{two.parts[1]}")
    killed = f"part-triage-00000000.cccc.3.{far.place.kind}"
    far.bucket.put(f"out/{killed}", b"left by a killed delivery")
    full = far.deliver([a, b], to=folder, previous=two.parts, name="triage-00000000.dddd.4")
    assert full.parts == (f"part-triage-00000000.dddd.4.{far.place.kind}",)
    assert not folder.exists(two.parts)
    assert sorted(far.bucket.names("out/")) == sorted(
        ["out/notes.txt", "out/part-other-00000000.aaaa.1.csv", f"out/{full.parts[0]}"]
    )


def test_the_same_part_again_touches_nothing(far: Far) -> None:
    folder = far.destination(folder=True)
    one = far.deliver(ROWS, to=folder)
    generation = far.bucket.generation(f"out/{one.parts[0]}")
    assert far.deliver(ROWS, to=folder) == one
    assert far.bucket.generation(f"out/{one.parts[0]}") == generation


def test_an_answer_that_is_lost_is_no_other_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatorServer(tmp_path / "server") as server, Opened() as opened:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        bucket = Bucket(server.url)
        far = Far(Place(tmp_path, "jsonl"), bucket, opened.client())
        lost = {"call": "storage.objects.insert", "do": {"type": "error", "status": 503, "when": "after"}}
        server.set_faults([lost])
        far.deliver(ROWS)
        assert len(server.fired()) == 1
        refused = {"type": "error", "status": 403, "message": "no"}
        server.set_faults([{"call": "storage.buckets.permissions", "times": "all", "do": refused}])
        with pytest.raises(DestinationError, match="HTTP 403: no"):
            far.destination().check()
        assert bucket.get(far.name).count(b"\n") == len(ROWS)
        bucket.close()


@pytest.mark.parametrize("path", ["gs://x", "gs://Bucket/a", "gs://bucket", "gs://bucket/a//b", "gs://bucket/../a"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(DestinationError, match=r"destination\.path"):
        make_remote(StorageClient(GoogleCloud()), path, format="csv")
