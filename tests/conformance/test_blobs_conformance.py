"""What every Blobs adapter must do. A new adapter adds itself to `make_blobs`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from batchform.errors import LedgerMoved
from batchform.ports import Blobs

MakeBlobs = Callable[[], Blobs]


@pytest.fixture
def blobs(make_blobs: MakeBlobs) -> Blobs:
    return make_blobs()


def test_is_a_blobs(blobs: Blobs) -> None:
    assert isinstance(blobs, Blobs)
    assert blobs.describe()


def test_an_absent_place_reads_as_empty(blobs: Blobs) -> None:
    assert blobs.head() is None
    assert blobs.list("segments/") == []
    with pytest.raises(FileNotFoundError):
        blobs.read("segments/a")
    with pytest.raises(FileNotFoundError):
        blobs.local("segments/a")
    blobs.delete("segments/a")


def test_reading_creates_nothing(blobs: Blobs, tmp_path: Path) -> None:
    blobs.head()
    blobs.list("segments/")
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_read(make_blobs: MakeBlobs, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    source = tmp_path / "source"
    source.write_bytes(content)
    make_blobs().write_new("segments/a.bin", content)
    make_blobs().write_new("archive/deep/b.bin", source)
    make_blobs().write_new("empty", b"")
    again = make_blobs()
    assert again.read("segments/a.bin") == again.read("archive/deep/b.bin") == content
    assert again.local("archive/deep/b.bin").read_bytes() == content
    assert again.read("empty") == b""


def test_writing_the_same_bytes_again_is_nothing(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"same")
    blobs.write_new("a", b"same")
    blobs.write_new("a", b"same")
    blobs.write_new("a", source)
    assert blobs.read("a") == b"same"


@pytest.mark.parametrize("other", [b"other", b"", b"sam", b"samee"])
def test_objects_are_immutable(blobs: Blobs, other: bytes) -> None:
    blobs.write_new("a", b"same")
    with pytest.raises(FileExistsError):
        blobs.write_new("a", other)
    assert blobs.read("a") == b"same"


def test_list_is_sorted_by_prefix_and_holds_objects_only(blobs: Blobs) -> None:
    for name in ("segments/b", "segments/a", "segments/ab/c", "archive/x", "segments-not"):
        blobs.write_new(name, b"1")
    blobs.swap_head(b"{}", None)
    assert blobs.list("segments/") == ["segments/a", "segments/ab/c", "segments/b"]
    assert blobs.list("segments/a") == ["segments/a", "segments/ab/c"]
    assert blobs.list("archive/x") == ["archive/x"]
    assert blobs.list("nothing/") == []
    there = ("segments/a", "segments/ab/c", "segments/ab", "segments", "archive", "archive/xy", "nothing")
    assert [blobs.has(n) for n in there] == [True, True, False, False, False, False, False]
    assert blobs.list("") == ["archive/x", "segments-not", "segments/a", "segments/ab/c", "segments/b"]


def test_delete_removes_and_absent_is_fine(blobs: Blobs) -> None:
    blobs.write_new("segments/a", b"1")
    blobs.delete("segments/a")
    blobs.delete("segments/a")
    assert blobs.list("segments/") == []
    blobs.write_new("segments/a", b"2")
    assert blobs.read("segments/a") == b"2"


@pytest.mark.parametrize("name", ["", "../a", "a/../../b", "/etc/a", "a//b", "a/", "./a", "a\\b", "a\0b"])
def test_names_stay_inside(blobs: Blobs, name: str, tmp_path: Path) -> None:
    for call in (blobs.read, blobs.local, blobs.delete, lambda n: blobs.write_new(n, b"1")):
        with pytest.raises(ValueError, match="name"):
            call(name)
    assert list(tmp_path.iterdir()) == []


def test_the_head_is_swapped_only_from_what_was_expected(make_blobs: MakeBlobs) -> None:
    mine, theirs = make_blobs(), make_blobs()
    first = mine.swap_head(b"1", None)
    assert theirs.head() == (b"1", first)
    with pytest.raises(LedgerMoved):
        theirs.swap_head(b"x", None)
    second = theirs.swap_head(b"2", first)
    assert second != first
    with pytest.raises(LedgerMoved) as moved:
        mine.swap_head(b"3", first)
    assert moved.value.exit_code == 5
    assert mine.head() == (b"2", second)


def test_a_head_is_expected_where_there_is_none(blobs: Blobs) -> None:
    with pytest.raises(LedgerMoved):
        blobs.swap_head(b"1", "some version")
    assert blobs.head() is None


def test_of_many_swaps_from_one_version_one_wins(make_blobs: MakeBlobs) -> None:
    version = make_blobs().swap_head(b"start", None)
    won: list[bytes] = []
    ready = threading.Barrier(8)

    def race(content: bytes) -> None:
        blobs = make_blobs()
        ready.wait()
        try:
            blobs.swap_head(content, version)
        except LedgerMoved:
            return
        won.append(content)

    threads = [threading.Thread(target=race, args=(f"writer {i}".encode(),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    head = make_blobs().head()
    assert head is not None
    assert won == [head[0]]


def test_of_many_objects_under_one_name_one_wins(make_blobs: MakeBlobs) -> None:
    won: list[bytes] = []
    ready = threading.Barrier(8)

    def race(content: bytes) -> None:
        ready.wait()
        try:
            make_blobs().write_new("a", content)
        except FileExistsError:
            return
        won.append(content)

    threads = [threading.Thread(target=race, args=(f"writer {i}".encode() * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [make_blobs().read("a")]
