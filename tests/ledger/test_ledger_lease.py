"""The lease says who is at work, gets in nobody's way, and is never taken from who holds it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ledger_kit import HandClock, intent, open_ledger

from batchform.adapters.local_blobs import LocalBlobs
from batchform.errors import LedgerMoved
from batchform.ledger.lease import lease
from batchform.ledger.store import Ledger

AT = "2026-03-01T12:00:00Z"


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def two(tmp_path: Path, clock: HandClock) -> tuple[Ledger, Ledger]:
    ann, bob = (open_ledger(tmp_path / "ledger", clock=clock, who=who) for who in ("ann@desk", "bob@ci"))
    return ann, bob


def test_it_keeps_others_out_while_it_lasts(tmp_path: Path) -> None:
    clock = HandClock()
    ann, bob = two(tmp_path, clock)
    with ann.lease(600) as held:
        assert held.takeover == ""
        with (
            pytest.raises(LedgerMoved, match=r"ann@desk \(process \d+ on .*since 2026-03-01T12:00:00Z") as refused,
            bob.lease(60),
        ):
            pass
        assert refused.value.exit_code == 5
        assert "2026-03-01T12:10:00Z" in refused.value.hint
        bob.commit([intent("t1")])  # it is only a courtesy
        clock.at += timedelta(seconds=500)
        assert held.renew()
        clock.at += timedelta(seconds=500)
        with pytest.raises(LedgerMoved, match="since 2026-03-01T12:00:00Z"), bob.lease(60):
            pass
    with bob.lease(60) as held:
        assert held.takeover == ""
    assert len(list((tmp_path / "ledger/lease").iterdir())) == 1, "past notes are removed"


def test_an_expired_one_is_taken_over_with_a_note(tmp_path: Path) -> None:
    clock = HandClock()
    ann, bob = two(tmp_path, clock)
    with ann.lease(60):
        clock.at += timedelta(seconds=61)
        with bob.lease(60) as held:
            assert held.takeover == (
                "Took over the lease of ann@desk since 2026-03-01T12:00:00Z: it expired at 2026-03-01T12:01:00Z."
            )


def test_who_lost_it_neither_renews_nor_releases_the_next_ones(tmp_path: Path) -> None:
    """Renewing used to delete whatever lease was there."""
    clock = HandClock()
    ann, bob = two(tmp_path, clock)
    first, second = ann.lease(60), bob.lease(60)
    of_ann = first.__enter__()
    clock.at += timedelta(seconds=61)
    of_bob = second.__enter__()
    assert not of_ann.renew()
    first.__exit__(None, None, None)
    with pytest.raises(LedgerMoved, match="bob@ci"), ann.lease(60):
        pass
    assert of_bob.renew()
    second.__exit__(None, None, None)
    assert not of_bob.renew(), "given up is given up"
    with ann.lease(60) as held:
        assert held.takeover == ""


class Between(LocalBlobs):
    """Something happens right before the next note is written."""

    event = staticmethod(lambda: None)

    def write_new(self, name: str, content: bytes | Path) -> None:
        event, self.event = self.event, lambda: None  # type: ignore[method-assign]
        event()
        super().write_new(name, content)


def test_one_who_takes_over_while_it_is_renewed_wins_once(tmp_path: Path) -> None:
    clock = HandClock()
    blobs = Between(tmp_path / "ledger")
    bob = open_ledger(tmp_path / "ledger", clock=clock, who="bob@ci")
    taken = []
    with lease(blobs, clock, who="ann@desk", ttl=60) as held:
        clock.at += timedelta(seconds=61)

        def take() -> None:
            taken.append(bob.lease(60))
            taken[0].__enter__()

        blobs.event = take  # type: ignore[method-assign]
        assert not held.renew(), "bob's note came first"
        with pytest.raises(LedgerMoved, match="bob@ci"), open_ledger(tmp_path / "ledger", clock=clock).lease(60):
            pass
    taken[0].__exit__(None, None, None)


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    ready, inside, refused = threading.Barrier(6), [], []
    over = threading.Event()

    def work(name: str) -> None:
        ledger = open_ledger(tmp_path / "ledger", who=name)
        ready.wait()
        try:
            with ledger.lease(60):
                inside.append(name)
                over.wait(20)
        except LedgerMoved:
            refused.append(name)
            if len(refused) == 5:
                over.set()

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(refused)) == (1, 5)


def leave(ledger: Ledger, **fields: object) -> None:
    note = {"holder": "bob@ci", "host": "elsewhere", "pid": 1, "since": AT, "expires": "2026-03-01T12:05:00Z"}
    content = json.dumps({**note, "seconds": 300, "token": "x", **fields}).encode()
    number = max((int(name[6:-5]) for name in ledger.blobs.list("lease/")), default=6) + 1
    ledger.blobs.write_new(f"lease/{number:08d}.json", content)


def test_that_of_a_dead_process_is_stale_at_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leave(ledger, pid=dead.pid, host=socket.gethostname())
    with ledger.lease(60) as held:
        assert f"process {dead.pid} is gone" in held.takeover
    leave(ledger, pid=dead.pid, host="elsewhere")
    with pytest.raises(LedgerMoved, match="bob@ci"), ledger.lease(60):
        pass
    leave(ledger, pid=os.getpid(), host=socket.gethostname())
    with pytest.raises(LedgerMoved, match="bob@ci"), ledger.lease(60):
        pass


def test_a_clock_that_is_ahead_holds_nobody_up_for_long(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    leave(ledger, expires="2026-03-01T12:05:50Z")
    with pytest.raises(LedgerMoved, match="bob@ci"), ledger.lease(60):
        pass
    leave(ledger, expires="2026-03-02T12:00:00Z")
    with ledger.lease(60) as held:
        assert "the clock of elsewhere is ahead of this one" in held.takeover


@pytest.mark.parametrize("pid", [-1, 0, 2**70])
def test_odd_process_numbers(tmp_path: Path, pid: int) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    leave(ledger, pid=pid, host=socket.gethostname(), expires="2026-03-01T12:00:00Z")
    with ledger.lease(60) as held:
        assert pid == 2**70 or "expired" in held.takeover


@pytest.mark.parametrize("expires", ["", "tomorrow", "2026-03-01T13:00:00", "9999-99-99T00:00:00Z"])
def test_an_end_that_is_no_time(tmp_path: Path, expires: str) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    leave(ledger, expires=expires)
    with ledger.lease(60) as held:
        assert "is no time" in held.takeover


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", b"\xff", b"null", b'{"holder": 1}'])
def test_an_unreadable_one_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    for name in ("lease/00000003.json", "lease/notes", "lease/-1.json", "lease.json"):
        ledger.blobs.write_new(name, content)
    with ledger.lease(60), pytest.raises(LedgerMoved), open_ledger(tmp_path / "ledger").lease(60):
        pass


def test_a_place_for_it_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    ledger.blobs.write_new("lease", b"a file where the folder should be")
    with ledger.lease(60) as held:
        ledger.commit([intent("t1")])
    assert held.takeover.startswith("No lease could be taken")


def test_it_lasts_as_long_as_the_work(tmp_path: Path) -> None:
    """A long upload does not lose it: it is renewed in the background, by real time."""
    first = Ledger.open(LocalBlobs(tmp_path / "ledger"), clock=RealClock(), who="ann@desk")
    second = Ledger.open(LocalBlobs(tmp_path / "ledger"), clock=RealClock(), who="bob@ci")
    with first.lease(2.0) as held:
        since = held.note.expires
        end = time.monotonic() + 20
        while held.note.expires <= since and time.monotonic() < end:
            time.sleep(0.02)
        assert held.note.expires > since
        with pytest.raises(LedgerMoved, match="ann@desk"), second.lease(2.0):
            pass
    with second.lease(2.0) as held:
        assert held.takeover == ""
