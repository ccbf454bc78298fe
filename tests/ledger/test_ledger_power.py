"""Power cuts and full disks: only what was forced to the disk survives, and every write may be refused."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path

import duckdb
import pytest
from ledger_kit import HandClock, database, intent, open_ledger, rows_file, values

from batchform.adapters.local_blobs import LocalBlobs
from batchform.errors import BatchformError, no_room
from batchform.ledger.compact import compact
from batchform.ledger.repair import repair
from batchform.ledger.store import Ledger
from batchform.ledger.verify import verify

Image = dict[str, bytes | None]
EVERY = int(os.environ.get("BATCHFORM_POWER_CUTS_EVERY", "3"))  # 1: a cut after each sync


@dataclass
class Disk:
    """What is surely on the disk: the entries of each folder when it was last synced, the bytes of each file then."""

    root: Path
    files: dict[int, bytes] = field(default_factory=dict)  # by inode
    folders: dict[Path, dict[str, int | None]] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)

    def synced(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if not path.is_relative_to(self.root):
            return
        self.log.append(("sync", path.relative_to(self.root).as_posix()))
        if path.is_dir():
            self.folders[path] = {e.name: None if e.is_dir() else e.inode() for e in os.scandir(path)}
        else:
            self.files[os.fstat(fd).st_ino] = path.read_bytes()
        self.images.append(self.image())

    def image(self) -> Image:
        """After a power cut: unsynced names are gone, unsynced files have lost their bytes."""
        found: Image = {}

        def walk(folder: Path, prefix: str) -> None:
            for name, inode in self.folders.get(folder, {}).items():
                if inode is None:
                    found[f"{prefix}{name}/"] = None
                    walk(folder / name, f"{prefix}{name}/")
                else:
                    found[prefix + name] = self.files.get(inode, b"")

        walk(self.root, "")
        return found


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Records what commits force to the disk, and in which order names appear, by the real calls."""
    found = Disk(tmp_path / "disk")
    found.root.mkdir()
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def watched(fd: int) -> None:
        fsync(fd)
        found.synced(fd)

    def moved(call: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def move(source: str, target: str) -> None:
            if Path(target).is_relative_to(found.root):
                found.log.append(("name", Path(target).relative_to(found.root).as_posix()))
            call(source, target)

        return move

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "rename", moved(rename))
    monkeypatch.setattr(os, "replace", moved(replace))
    return found


def write(image: Image, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name, content in image.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def rows_of(ledger: Ledger) -> object:
    return values(ledger, "triage", "key", "tag"), list(ledger.control().jobs)


def work(root: Path, scratch: Path) -> Iterator[Ledger]:
    """Everything that a ledger does, step by step."""
    clock = HandClock()
    ledger = open_ledger(root, clock=clock)
    (scratch / "raw").write_bytes(b"raw results")
    for i in range(2):
        ledger.commit([intent(f"t{i}")], [rows_file(scratch / f"{i}.parquet", ["a", f"b{i}"], tag=f"t{i}")])
        yield ledger
        ledger.put_blob(f"archive/t{i}.jsonl.gz", scratch / "raw")
        yield ledger
    clock.at += timedelta(hours=2)
    compact(ledger, database, keep_history=timedelta(0))
    yield ledger
    ledger.commit([intent("last")])
    yield ledger


def test_no_head_names_what_a_power_cut_could_take(disk: Disk, tmp_path: Path) -> None:
    root = disk.root / "deep/ledger"
    for _ in work(root, tmp_path):
        pass
    assert [kind for kind, name in disk.log if name.endswith("head.json")] == ["name"] * 5, (
        "1 empty, 3 commits, 1 folded"
    )
    base = "deep/ledger/"
    for index, (kind, name) in enumerate(disk.log):
        if (kind, name) != ("name", f"{base}head.json"):
            continue
        before = disk.log[:index]
        assert disk.log[index + 1] == ("sync", "deep/ledger"), "the swap itself is forced to the disk at once"
        assert before[-1][1].startswith(f"{base}.tmp/"), "the new head's bytes come last before its name"
        for number, (was, earlier) in enumerate(before):
            if was == "name" and not earlier.endswith("head.json"):
                folder = earlier.rpartition("/")[0]
                assert before[number - 1][0] == "sync", f"{earlier} got its name before its bytes were safe"
                assert ("sync", folder) in before[number:], f"{earlier} was not safe in its folder"
    assert {"deep", "deep/ledger", "deep/ledger/segments"} <= {name for kind, name in disk.log if kind == "sync"}


def test_after_a_power_cut_the_ledger_is_as_before_or_after(disk: Disk, tmp_path: Path) -> None:
    root = disk.root / "ledger"
    steps = iter(work(root, tmp_path))
    known: object = ([], [])
    cuts = 0
    while True:
        start = len(disk.images)
        try:
            ledger = next(steps)
        except StopIteration:
            break
        after = rows_of(ledger)
        for image in disk.images[start::EVERY]:
            for variant in variants(image, root):
                cuts += 1
                write(variant, tmp_path / "cut")
                check(tmp_path / "cut/ledger", known, after)
        known = after
    assert cuts >= 80 / EVERY


def variants(image: Image, root: Path) -> Iterator[Image]:
    """The cut itself; with a head that was renamed and not synced yet; with a head whose bytes are lost."""
    yield image
    head = "ledger/head.json"
    if (root / "head.json").exists() and image.get(head) is not None:
        yield {**image, head: b""}


def check(folder: Path, before: object, after: object) -> None:
    blobs = LocalBlobs(folder)
    clock = HandClock()
    if (found := blobs.head()) and not found[0] and (folder / "heads").exists() and any((folder / "heads").iterdir()):
        report = repair(blobs, clock=clock)
        assert report.refused == []
    elif found and not found[0]:
        return  # the empty head of a new ledger, before anything was recorded
    ledger = Ledger.open(blobs, clock=clock, who="ann@desk")
    assert rows_of(ledger) in (before, after)
    ledger.commit([intent("on")])
    assert rows_of(ledger)[1] in ([*before[1], "on"], [*after[1], "on"])  # type: ignore[index]


def test_a_disk_that_refuses_leaves_nothing_half_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the n-th write on, the disk takes nothing any more; later it does again."""
    real = os.fsync
    left, number = [10**9], count()
    codes = (errno.ENOSPC, errno.EROFS, errno.EIO)

    def refusing(fd: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            code = codes[next(number) % len(codes)]
            raise OSError(code, os.strerror(code))
        real(fd)

    monkeypatch.setattr(os, "fsync", refusing)
    for commit in (one_commit, one_compaction):
        refused = finished = 0
        while finished < 3:
            allowed = refused + finished
            root = tmp_path / f"{commit.__name__}{allowed}"
            root.mkdir()
            left[0] = 10**9
            ledger = open_ledger(root / "ledger")
            for i in range(3):
                ledger.commit([intent(f"t{i}")], [rows_file(root / f"{i}.parquet", ["a", f"b{i}"], tag=f"t{i}")])
            before, serial = rows_of(ledger), ledger.serial
            left[0] = allowed
            done = attempt(partial(commit, ledger, root))
            left[0] = 10**9
            refused, finished = refused + (not done), finished + done
            again = open_ledger(root / "ledger")
            with database() as con:
                assert not [f for f in verify(again, con) if f.severity == "error"]
            if done:
                assert again.serial == serial + 1
            else:
                assert rows_of(again) == before
            again.commit([intent("on")])
            assert "on" in again.control().jobs
        assert refused >= 7, "rows, events, a copy and the head: each its bytes, then its name"


@pytest.mark.parametrize("commit", ["one_commit", "one_compaction"])
def test_files_that_may_not_grow_leave_nothing_half_named(tmp_path: Path, commit: str) -> None:
    """A real limit of the kernel, met in rows, events, the copy of the head, and DuckDB's own files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    outcomes = []
    for limit in (0, 500, 1_500, 4_000, 100_000):
        root = tmp_path / str(limit)
        root.mkdir()
        ledger = open_ledger(root / "ledger")
        for i in range(4):
            ledger.commit([intent(f"t{i}")], [rows_file(root / f"{i}.parquet", ["a", f"b{i}"], tag=f"t{i}")])
        rows_file(root / "new.parquet", ["a", "n"], tag="new")
        before = rows_of(ledger)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            globals()[commit](ledger, root)
            outcomes.append("done")
        except (BatchformError, duckdb.Error, OSError) as error:
            assert no_room(error) or "cannot be written" in str(error)
            outcomes.append("refused")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        again = open_ledger(root / "ledger")
        with database() as con:
            assert not [f for f in verify(again, con) if f.severity == "error"]
        if outcomes[-1] == "refused" or commit == "one_compaction":
            assert rows_of(again) == before
        again.commit([intent("on")])
    assert (outcomes[0], outcomes[-1]) == ("refused", "done")


def one_commit(ledger: Ledger, root: Path) -> None:
    ledger.commit([intent("new")], [rows_file(root / "new.parquet", ["a", "n"], tag="new")])


def one_compaction(ledger: Ledger, root: Path) -> None:
    assert compact(ledger, database, scratch=root).folded


def attempt(act: Callable[[], None]) -> bool:
    try:
        act()
    except BatchformError as error:
        assert "cannot be written" in error.message
        assert error.hint
        return False
    return True
