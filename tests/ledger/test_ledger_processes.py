"""Real processes on one ledger: races for the swap, and SIGKILL in the middle of anything."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from ledger_kit import database, intent, open_ledger, rows_file, values

from batchform.errors import LedgerMoved
from batchform.ledger.compact import compact
from batchform.ledger.verify import verify

SPAWN = multiprocessing.get_context("spawn")
WRITERS = 3
COMMITS = 8


class RealClock:
    """The system's time: these tests race for real."""

    def now(self) -> Any:
        from datetime import UTC, datetime

        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def append(root: Path, writer: int, done: Queue[tuple[int, int]]) -> None:
    """Commit records that are true whatever others do."""
    ledger = open_ledger(root / "ledger", clock=RealClock(), who=f"writer{writer}")  # type: ignore[arg-type]
    for step in range(COMMITS):
        file = rows_file(root / f"{writer}-{step}.parquet", [f"{writer}-{step}", "shared"], tag=f"{writer}-{step}")
        head = ledger.commit([intent(f"{writer}-{step}")], [file])
        done.put((head.serial, writer))


def increment(root: Path, writer: int, done: Queue[tuple[int, int]]) -> None:
    """Read, decide, commit what was decided: a counter in the number of jobs."""
    ledger = open_ledger(root / "ledger", clock=RealClock(), who=f"writer{writer}")  # type: ignore[arg-type]
    made = refused = 0
    while made < COMMITS:
        ledger.refresh()
        serial, count = ledger.serial, len(ledger.control().jobs)
        try:
            ledger.commit([intent(f"job {count}")], expect=serial)
            made += 1
        except LedgerMoved:
            refused += 1
    done.put((made, refused))


def commit_forever(root: Path, writer: int, done: Queue[tuple[int, int]]) -> None:
    """Acknowledge each commit on disk, after it returned."""
    del done
    ledger = open_ledger(root / "ledger", clock=RealClock(), who=f"writer{writer}")  # type: ignore[arg-type]
    with (root / "acknowledged").open("a", buffering=1) as acknowledged:
        for step in range(10**6):
            name = f"{os.getpid()}-{step}"
            ledger.commit([intent(name)], [rows_file(root / "rows.parquet", [name], tag=name)])
            acknowledged.write(name + "\n")
            if step % 7 == 6:
                compact(ledger, database)


def run_all(target: Any, root: Path) -> list[tuple[int, int]]:
    done: Queue[tuple[int, int]] = SPAWN.Queue()
    processes = [SPAWN.Process(target=target, args=(root, writer, done)) for writer in range(WRITERS)]
    for process in processes:
        process.start()
    expected = WRITERS * COMMITS if target is append else WRITERS
    results = [done.get(timeout=60) for _ in range(expected)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    done.close()
    done.join_thread()
    return results


def test_commits_of_several_processes_all_count(tmp_path: Path) -> None:
    results = run_all(append, tmp_path)
    total = WRITERS * COMMITS
    assert sorted(serial for serial, _ in results) == list(range(1, total + 1)), "each serial is one commit"
    ledger = open_ledger(tmp_path / "ledger")
    assert ledger.serial == total
    assert len(ledger.control().jobs) == total
    rows = values(ledger, "triage", "key", "changed_serial")
    assert len(rows) == total + 1
    assert rows[-1] == ("shared", total)
    with database() as con:
        assert not [f for f in verify(ledger, con) if f.severity in ("error", "info")]


def test_decisions_on_an_old_view_never_pass(tmp_path: Path) -> None:
    results = run_all(increment, tmp_path)
    total = WRITERS * COMMITS
    assert sum(made for made, _ in results) == total
    ledger = open_ledger(tmp_path / "ledger")
    assert (ledger.serial, list(ledger.control().jobs)) == (total, [f"job {n}" for n in range(total)])
    with database() as con:
        assert not [f for f in verify(ledger, con) if f.severity == "info"], "refused commits leave no segments"


def test_readers_never_take_a_busy_ledger_for_a_damaged_one(tmp_path: Path) -> None:
    """Head and copies are read at different moments, while writers go on."""
    done: Queue[tuple[int, int]] = SPAWN.Queue()
    processes = [SPAWN.Process(target=append, args=(tmp_path, writer, done)) for writer in range(2)]
    for process in processes:
        process.start()
    serial = reads = 0
    while serial < 2 * COMMITS:
        ledger = open_ledger(tmp_path / "ledger")
        assert ledger.serial >= serial
        assert len(ledger.control().jobs) == ledger.serial
        serial, reads = ledger.serial, reads + 1
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert reads > COMMITS
    done.close()
    done.cancel_join_thread()


def test_sigkill_loses_no_acknowledged_commit(tmp_path: Path) -> None:
    done: Queue[tuple[int, int]] = SPAWN.Queue()
    lines = 0
    for kill in range(5):
        process = SPAWN.Process(target=commit_forever, args=(tmp_path, kill, done))
        process.start()
        end = time.monotonic() + 60
        while lines + 5 + 3 * kill > len(acknowledged(tmp_path)) and time.monotonic() < end:
            time.sleep(0.003)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        lines = len(acknowledged(tmp_path))
        ledger = open_ledger(tmp_path / "ledger")
        recorded = set(ledger.control().jobs)
        assert set(acknowledged(tmp_path)) <= recorded
        assert recorded == {key for (key,) in values(ledger, "triage", "key")}, "rows and events go together"
        assert len(recorded) <= lines + kill + 1, "at most one unacknowledged commit for each kill"
    with database() as con:
        assert not [f for f in verify(ledger, con) if f.severity == "error"]
    done.close()
    done.join_thread()


def acknowledged(root: Path) -> list[str]:
    path = root / "acknowledged"
    return [line for line in path.read_text().splitlines(keepends=False) if line] if path.exists() else []
