"""One virtual time for a project, its emulator and all processes at work: it moves only when everybody waits."""

from __future__ import annotations

import fcntl
import math
import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RUNNING, IDLE = 0.0, math.inf
_SLOTS = 3
_LEAST = 0.001  # seconds that the shortest sleep takes, so that loops come to an end


class SharedClock:
    """`ports.Clock` over memory that forked processes share.

    Each process has a slot: RUNNING, IDLE, or the time when it wakes. Time jumps to the earliest waking as soon as no
    process runs, so that one which sleeps for minutes never overtakes another in the middle of a call.
    """

    def __init__(self, lock: Path) -> None:
        self._memory = mmap.mmap(-1, 8 * (1 + _SLOTS))
        self._lock = lock
        self.slot = 0
        lock.touch()
        for slot in range(_SLOTS):
            self.set(slot, IDLE)

    def now(self) -> datetime:
        return START + timedelta(seconds=self._read(0))

    @property
    def seconds(self) -> float:
        """Since 1970."""
        return self.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Let time pass while nobody is at work."""
        with self._locked():
            self._write(0, self._read(0) + seconds)

    def set(self, slot: int, state: float) -> None:
        """Say that the process of a slot runs or is idle. Whoever reaps a killed process says it for it."""
        self._write(1 + slot, state)

    def sleep(self, seconds: float) -> None:
        wake = self._read(0) + max(seconds, _LEAST)
        with self._locked():
            self.set(self.slot, wake)
        while True:
            with self._locked():
                wakes = [self._read(1 + slot) for slot in range(_SLOTS)]
                if RUNNING not in wakes and min(wakes) > self._read(0):
                    self._write(0, min(wakes))
                if self._read(0) >= wake:
                    self.set(self.slot, RUNNING)
                    return
            time.sleep(0.0005)

    def _read(self, index: int) -> float:
        return float(struct.unpack_from("d", self._memory, 8 * index)[0])

    def _write(self, index: int, value: float) -> None:
        struct.pack_into("d", self._memory, 8 * index, value)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """A file lock: the kernel takes it from a process that is killed."""
        with self._lock.open("rb") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield
