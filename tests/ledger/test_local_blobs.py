"""A local folder as storage: full disks, missing permissions, killed writers, hung writers."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchform.adapters.local_blobs import LocalBlobs
from batchform.errors import BatchformError, LedgerMoved

NOBODY = 65534


@contextmanager
def disk_full_beyond(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: writing on fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere, so take the rights of a user for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("as_file", [True, False], ids=["from a file", "from memory"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, as_file: bool) -> None:
    content: bytes | Path = b"x" * 2_000_000
    if as_file:
        (tmp_path / "source").write_bytes(b"x" * 2_000_000)
        content = tmp_path / "source"
    blobs = LocalBlobs(tmp_path / "ledger", described=".batchform")
    blobs.write_new("segments/small", b"1")
    version = blobs.swap_head(b"before", None)
    with disk_full_beyond(500_000):
        with pytest.raises(BatchformError, match=r"\.batchform/segments/big cannot be written: ") as full:
            blobs.write_new("segments/big", content)
        with pytest.raises(BatchformError, match=r"\.batchform/head\.json cannot be written: "):
            blobs.swap_head(b"x" * 2_000_000, version)
    assert "Free some space" in full.value.hint
    assert blobs.list("") == ["segments/small"]
    assert list((tmp_path / "ledger" / ".tmp").iterdir()) == []
    assert blobs.head() == (b"before", version)


def test_a_folder_that_may_not_be_written(open_folder: Path) -> None:
    blobs = LocalBlobs(open_folder)
    blobs.write_new("segments/a", b"1")
    version = blobs.swap_head(b"before", None)
    for path in [open_folder, *(p for p in open_folder.rglob("*") if p.is_dir())]:
        path.chmod(0o555)
    with unprivileged():
        assert blobs.head() == (b"before", version)
        assert blobs.read("segments/a") == b"1"
        assert blobs.list("segments/") == ["segments/a"]
        with pytest.raises(BatchformError, match="Permission denied") as refused:
            blobs.write_new("segments/b", b"1")
        with pytest.raises(BatchformError, match="Permission denied"):
            blobs.swap_head(b"after", version)
        with pytest.raises(BatchformError, match="Permission denied"):
            blobs.delete("segments/a")
    assert "writable" in refused.value.hint
    assert blobs.head() == (b"before", version)


def test_a_head_that_may_not_be_read_is_not_an_absent_one(open_folder: Path) -> None:
    blobs = LocalBlobs(open_folder)
    blobs.swap_head(b"before", None)
    (open_folder / "head.json").chmod(0o000)
    with unprivileged(), pytest.raises(BatchformError, match="cannot be read: Permission denied"):
        blobs.head()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("not a folder")
    blobs = LocalBlobs(tmp_path / "ledger")
    with pytest.raises(BatchformError, match="cannot be written: Not a directory"):
        blobs.write_new("segments/a", b"1")
    with pytest.raises(BatchformError, match="cannot be read: Not a directory"):
        blobs.head()


@pytest.mark.parametrize("name", ["head.json", ".lock", ".tmp/a"])
def test_its_own_files_are_no_objects(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        LocalBlobs(tmp_path).write_new(name, b"1")


def test_what_a_killed_writer_left_is_invisible_and_removed_in_time(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    version = blobs.swap_head(b"1", None)
    old, new = tmp_path / ".tmp" / "old", tmp_path / ".tmp" / "new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    two_days_ago = old.stat().st_mtime - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    assert blobs.list("") == []
    blobs.swap_head(b"2", version)
    assert not old.exists()
    assert new.exists(), "a live writer may still need it"


def test_a_writer_that_hangs_does_not_hang_others(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path, lock_timeout=0.05)
    version = blobs.swap_head(b"1", None)
    with (tmp_path / ".lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert blobs.head() == (b"1", version), "readers take no lock"
        with pytest.raises(LedgerMoved, match="held the lock"):
            blobs.swap_head(b"2", version)
    blobs.swap_head(b"2", version)
