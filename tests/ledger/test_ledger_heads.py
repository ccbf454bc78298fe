"""A head that is lost, torn or put back: noticed by everyone, put right exactly or not at all."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from ledger_kit import HandClock, database, intent, open_ledger, rows_file, values

from batchform.adapters.local_blobs import LocalBlobs
from batchform.errors import LedgerCorrupt
from batchform.ledger import heads
from batchform.ledger.compact import compact
from batchform.ledger.records import Submitted
from batchform.ledger.repair import Repaired, repair
from batchform.ledger.segments import decode_head, encode_head
from batchform.ledger.store import Ledger
from batchform.ledger.verify import verify


def grown(root: Path, commits: int = 5) -> Ledger:
    ledger = open_ledger(root / "ledger")
    for i in range(commits):
        ledger.commit([intent(f"t{i}")], [rows_file(root / f"{i}.parquet", ["a", f"b{i}"], tag=f"t{i}")])
    return ledger


def mend(root: Path, **options: object) -> Repaired:
    return repair(LocalBlobs(root / "ledger"), clock=HandClock(), **options)  # type: ignore[arg-type]


def state(ledger: Ledger) -> object:
    return (
        ledger.serial,
        ledger.lineage,
        values(ledger, "triage", "key", "tag", "changed_serial"),
        ledger.control().jobs,
    )


def errors(ledger: Ledger) -> list[str]:
    with database() as con:
        return [f.message for f in verify(ledger, con) if f.severity == "error"]


def test_the_newest_copies_are_kept(tmp_path: Path) -> None:
    ledger = grown(tmp_path, 8)
    kept = heads.copies(ledger.blobs)
    assert [c.serial for c in kept] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ledger.blobs.read(kept[-1].name) == (tmp_path / "ledger/head.json").read_bytes()
    compact(ledger, database)
    assert [c.serial for c in heads.copies(ledger.blobs)] == [7, 8, 9]


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "empty": lambda p: p.write_bytes(b""),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "zeros": lambda p: p.write_bytes(b"\0" * p.stat().st_size),
    "other json": lambda p: p.write_bytes(b"{}"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_head_comes_back_exactly(tmp_path: Path, loss: str) -> None:
    before = state(grown(tmp_path))
    head = tmp_path / "ledger/head.json"
    sound = head.read_bytes()
    LOSSES[loss](head)
    left = head.read_bytes() if head.exists() else None
    with pytest.raises(LedgerCorrupt, match=r"head\.json") as lost:
        open_ledger(tmp_path / "ledger")
    assert "batchform ledger repair" in lost.value.hint
    (found,) = _verify_unopened(tmp_path)
    assert (found.severity, found.file, found.repair) == ("error", "head.json", "batchform ledger repair")
    assert mend(tmp_path, dry_run=True).done
    assert (head.read_bytes() if head.exists() else None) == left, "a dry run changes nothing"
    report = mend(tmp_path)
    assert (len(report.done), report.refused) == (1, [])
    assert head.read_bytes() == sound
    assert state(open_ledger(tmp_path / "ledger")) == before
    kept = [p.read_bytes() for p in (tmp_path / "ledger/damaged").rglob("head.json")]
    assert kept == ([left] if left is not None else [])
    assert mend(tmp_path) == Repaired()


def _verify_unopened(root: Path) -> list[object]:
    ledger = Ledger(LocalBlobs(root / "ledger"), clock=HandClock(), who="ann@desk")  # type: ignore[arg-type]
    with database() as con:
        return list(verify(ledger, con))


@pytest.mark.parametrize("back", [1, 2, 4, 5])
def test_a_head_that_was_put_back_is_never_built_upon(tmp_path: Path, back: int) -> None:
    """An older head forgets jobs: their rows would be sent again."""
    ledger = grown(tmp_path, 0)
    old: list[bytes] = []
    for i in range(5):
        ledger.commit([intent(f"t{i}")], [rows_file(tmp_path / f"{i}.parquet", ["a"], tag=f"t{i}")])
        old.append((tmp_path / "ledger/head.json").read_bytes())
    before = state(ledger)
    (tmp_path / "ledger/head.json").write_bytes(old[4 - back] if back < 5 else _empty(old[0]))
    if back == 1:
        again = open_ledger(tmp_path / "ledger")  # may be a commit that is just being swapped in
        assert again.serial == 4
        assert "was made ready" in " ".join(f.message for f in _verify_unopened(tmp_path))  # type: ignore[attr-defined]
        again.commit([intent("t9")])
        assert list(again.control().jobs) == ["t0", "t1", "t2", "t3", "t4", "t9"]
        return
    with pytest.raises(LedgerCorrupt, match=r"went back: it is at serial . but heads/.* serial 5|went back"):
        open_ledger(tmp_path / "ledger")
    assert len(mend(tmp_path).done) == 1
    assert state(open_ledger(tmp_path / "ledger")) == before


def _empty(first: bytes) -> bytes:
    head = decode_head(first, "")
    return encode_head(msgspec.structs.replace(head, serial=0, segments=(), recent=(), writer="0"))


def test_one_in_use_notices_too(tmp_path: Path) -> None:
    ledger = grown(tmp_path)
    old = (tmp_path / "ledger/head.json").read_bytes()
    for i in range(3):
        open_ledger(tmp_path / "ledger").commit([intent(f"later{i}")])
    (tmp_path / "ledger/head.json").write_bytes(old)
    ledger.refresh()  # the very head that it knows
    for i in range(2):
        open_copy = LocalBlobs(tmp_path / "ledger")
        with pytest.raises(LedgerCorrupt, match="went back"):
            Ledger.open(open_copy, clock=HandClock(), who=f"bob{i}@ci")
    with pytest.raises(LedgerCorrupt, match="went back"):
        ledger.commit([intent("on top of an old head")])
    mend(tmp_path)
    assert "later2" in open_ledger(tmp_path / "ledger").control().jobs


class Killed(LocalBlobs):
    """Storage that dies right before the swap."""

    def swap_head(self, content: bytes, expect: str | None) -> str:
        if self.list("segments/"):
            raise KeyboardInterrupt
        return super().swap_head(content, expect)


def test_a_commit_killed_before_its_swap_is_finished_by_the_next(tmp_path: Path) -> None:
    grown(tmp_path, 1)
    dying = Ledger.open(Killed(tmp_path / "ledger"), clock=HandClock(), who="ann@desk")
    with pytest.raises(KeyboardInterrupt):
        dying.commit([intent("killed")], [rows_file(tmp_path / "k.parquet", ["k"], tag="killed")], expect=1)
    ledger = open_ledger(tmp_path / "ledger")
    assert (ledger.serial, errors(ledger)) == (1, [])
    ledger.commit([intent("next")])
    assert list(ledger.control().jobs) == ["t0", "killed", "next"]
    assert (ledger.serial, errors(ledger)) == (3, [])


def test_after_a_power_cut_the_prepared_commit_is_the_head(tmp_path: Path) -> None:
    grown(tmp_path, 1)
    dying = Ledger.open(Killed(tmp_path / "ledger"), clock=HandClock(), who="ann@desk")
    with pytest.raises(KeyboardInterrupt):
        dying.commit([intent("killed")])
    (tmp_path / "ledger/head.json").write_bytes(b"")
    assert len(mend(tmp_path).done) == 1
    assert list(open_ledger(tmp_path / "ledger").control().jobs) == ["t0", "killed"], "it knows more, never less"


def test_two_that_could_be_the_newest_are_a_guess(tmp_path: Path) -> None:
    grown(tmp_path, 2)
    shutil.copytree(tmp_path / "ledger", tmp_path / "other")
    open_ledger(tmp_path / "ledger").commit([intent("here")])
    open_ledger(tmp_path / "other").commit([intent("there")])
    for path in (tmp_path / "other").rglob("*-*"):
        target = tmp_path / "ledger" / path.relative_to(tmp_path / "other")
        if path.is_file() and not target.exists():
            shutil.copy(path, target)
    (tmp_path / "ledger/head.json").unlink()
    report = mend(tmp_path)
    assert report.done == []
    assert "several copies" in report.refused[0].message
    assert not (tmp_path / "ledger/head.json").exists()


def _only_copy_damaged(folder: Path) -> None:
    (folder / "head.json").unlink()
    newest = sorted((folder / "heads").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-9])


def _copies_are_older(folder: Path) -> None:
    head = folder / "head.json"
    sorted((folder / "heads").iterdir())[-1].unlink()
    head.write_bytes(head.read_bytes()[:-20])


def _segment_gone(folder: Path) -> None:
    (folder / "head.json").unlink()
    sorted((folder / "segments").iterdir())[0].unlink()


def _later_results(folder: Path) -> None:
    (folder / "head.json").unlink()
    (folder / "archive").mkdir()
    (folder / "archive/t9.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))


def _no_copies(folder: Path) -> None:
    (folder / "head.json").unlink()
    shutil.rmtree(folder / "heads")


REFUSALS = {
    "its newest copy, is damaged": _only_copy_damaged,
    "it was at serial 5, its newest copy is of serial 4": _copies_are_older,
    "which its copy names, is missing or damaged": _segment_gone,
    "holds results of a job that its copy does not know": _later_results,
    "there is no copy of it": _no_copies,
}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_would_be_a_guess_is_refused(tmp_path: Path, why: str) -> None:
    grown(tmp_path)
    REFUSALS[why](tmp_path / "ledger")
    files = {p: p.read_bytes() for p in (tmp_path / "ledger").rglob("*") if p.is_file()}
    report = mend(tmp_path)
    assert report.done == []
    assert why in report.refused[0].message
    assert "Restore the newest backup" in report.refused[0].hint
    assert {p: p.read_bytes() for p in (tmp_path / "ledger").rglob("*") if p.is_file()} == files


def test_a_backups_head_serves_if_nothing_was_committed_since(tmp_path: Path) -> None:
    ledger = grown(tmp_path)
    before = state(ledger)
    shutil.copytree(tmp_path / "ledger", tmp_path / "backup")
    _no_copies(tmp_path / "ledger")
    assert len(mend(tmp_path, backup=LocalBlobs(tmp_path / "backup")).done) == 1
    assert state(open_ledger(tmp_path / "ledger")) == before
    open_ledger(tmp_path / "ledger").commit([intent("since")])
    _no_copies(tmp_path / "ledger")
    assert "there is no copy" in mend(tmp_path, backup=LocalBlobs(tmp_path / "backup")).refused[0].message


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-7])])
def test_segments_come_back_from_a_backup_by_their_digest(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    ledger = grown(tmp_path)
    before = state(ledger)
    shutil.copytree(tmp_path / "ledger", tmp_path / "backup")
    segments = sorted((tmp_path / "ledger/segments").iterdir())
    for path in (segments[0], segments[-1]):
        damage(path)
    found = errors(open_ledger(tmp_path / "ledger"))
    assert len(found) == 2
    assert {f.file for f in mend(tmp_path).refused} == {f"segments/{p.name}" for p in (segments[0], segments[-1])}
    wrong = tmp_path / "backup/segments" / segments[-1].name
    sound = wrong.read_bytes()
    wrong.write_bytes(b"other bytes")
    report = mend(tmp_path, backup=LocalBlobs(tmp_path / "backup"))
    assert (len(report.done), [f.file for f in report.refused]) == (1, [f"segments/{segments[-1].name}"])
    wrong.write_bytes(sound)
    assert len(mend(tmp_path, backup=LocalBlobs(tmp_path / "backup")).done) == 1
    again = open_ledger(tmp_path / "ledger")
    assert (state(again), errors(again)) == (before, [])


def test_a_ledger_of_another_lineage_beside(tmp_path: Path) -> None:
    grown(tmp_path)
    open_ledger(tmp_path / "other").commit([intent("x")])
    shutil.copy(tmp_path / "other/head.json", tmp_path / "ledger/head.json")
    with pytest.raises(LedgerCorrupt, match="went back"):
        open_ledger(tmp_path / "ledger")
    assert "two ledgers were mixed" in mend(tmp_path).refused[0].message
    (tmp_path / "ledger/head.json").write_bytes((tmp_path / "other/head.json").read_bytes()[:-9])
    assert "its copy is of another ledger" in mend(tmp_path).refused[0].message


def test_a_newer_formats_head_is_let_alone(tmp_path: Path) -> None:
    grown(tmp_path)
    (tmp_path / "ledger/head.json").write_bytes(b'{"format_version": 2}')
    with pytest.raises(LedgerCorrupt, match="newer batchform"):
        mend(tmp_path)
    with pytest.raises(LedgerCorrupt, match="newer batchform"):
        _verify_unopened(tmp_path)
    (tmp_path / "ledger/head.json").unlink()
    newest = sorted((tmp_path / "ledger/heads").iterdir())[-1]
    newest.write_bytes(b'{"format_version": 2}')
    assert "is damaged" in mend(tmp_path).refused[0].message


def test_an_older_ledger_has_no_copies_and_works(tmp_path: Path) -> None:
    ledger = grown(tmp_path)
    shutil.rmtree(tmp_path / "ledger/heads")
    assert errors(open_ledger(tmp_path / "ledger")) == []
    ledger.commit([intent("t9")])
    assert [c.serial for c in heads.copies(ledger.blobs)] == [6]


def test_segments_of_a_later_ledger_beside_an_older_one(tmp_path: Path) -> None:
    """A backup of the head and its copies was put back, and newer files lie beside."""
    ledger = grown(tmp_path, 2)
    shutil.copytree(tmp_path / "ledger", tmp_path / "backup")
    ledger.commit([intent("later")])
    ledger.commit([Submitted(at="2026-03-01T12:00:00Z", tag="later", job="batches/9")])
    for name in ("head.json", "heads"):
        target = tmp_path / "ledger" / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        source = tmp_path / "backup" / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (message,) = errors(open_ledger(tmp_path / "ledger"))
    assert message.endswith("tells of job later, which this ledger does not know: the ledger went back.")


def test_garbage_in_its_folders_is_named_and_harmless(tmp_path: Path) -> None:
    ledger = grown(tmp_path)
    for name in ("segments/Thumbs.db", "heads/copy of 5.json", "heads/-x.json", "lease/x", "archive/x", "answers/x"):
        ledger.blobs.write_new(name, b"\0garbage")
    with database() as con:
        found = verify(open_ledger(tmp_path / "ledger"), con)
    assert [(f.severity, f.file) for f in found if f.file] == [("info", "segments/Thumbs.db")]
    ledger.commit([intent("t9")])
    compact(ledger, database)
    assert errors(ledger) == []
