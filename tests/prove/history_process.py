"""Command lines in this process, in a forked one, and in a forked one that kills itself on the way."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from crash_effects import Effects
from history_clock import IDLE, RUNNING, SharedClock

from batchform.cli import run

KILLED: Final = -signal.SIGKILL
CRASHED: Final = 99
_PATIENCE: Final = 90.0  # seconds of real time for one command


@dataclass(frozen=True)
class Done:
    """What a command line came to. code: KILLED if it did not come to an end."""

    line: tuple[str, ...]
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"batchform {' '.join(self.line)} → {self.code}\n{self.out}{self.err}"


def here(clock: SharedClock, line: Sequence[str]) -> Done:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    clock.set(0, RUNNING)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(line)
    finally:
        clock.set(0, IDLE)
    return Done(tuple(line), code, out.getvalue(), err.getvalue())


def forked(clock: SharedClock, *lines: Sequence[str], home: Path, kill_at: int | None = None) -> list[Done]:
    """Run command lines at once, each in a process of its own. kill_at: the place where the first dies, as
    crash_effects counts them below `home`; None for never."""
    started = []
    for slot, line in enumerate(lines, start=1):
        clock.set(slot, RUNNING)
        streams = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        pid = os.fork()
        if pid == 0:
            clock.slot = slot
            kill = (home, kill_at) if kill_at is not None and slot == 1 else None
            _child(line, streams[0].fileno(), streams[1].fileno(), kill)
        started.append((slot, line, pid, streams))
    done = []
    codes = _reap(clock, {pid: slot for slot, _, pid, _ in started})
    for _, line, pid, streams in started:
        texts = []
        for stream in streams:
            stream.seek(0)
            texts.append(stream.read().decode())
            stream.close()
        done.append(Done(tuple(line), codes[pid], *texts))
    return done


def _reap(clock: SharedClock, pids: dict[int, int]) -> dict[int, int]:
    """Exit codes by pid. A process that takes too long is killed, and that is an error."""
    codes: dict[int, int] = {}
    until = time.monotonic() + _PATIENCE
    while len(codes) < len(pids):
        for pid in pids.keys() - codes.keys():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
                clock.set(pids[pid], IDLE)
            elif time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise AssertionError(f"a command line did not end within {_PATIENCE:.0f} s")
        time.sleep(0.002)
    return codes


def _child(line: Sequence[str], out: int, err: int, kill: tuple[Path, int] | None) -> NoReturn:
    """Run the line and end the process, whatever happens."""
    code = CRASHED
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        with os.fdopen(1, "w", closefd=False) as o, os.fdopen(2, "w", closefd=False) as e:
            try:
                with contextlib.redirect_stdout(o), contextlib.redirect_stderr(e):
                    if kill:
                        Effects(kill[0] / "trace", kill_at=kill[1], root=kill[0], state=None).install()
                    code = run(line)
            except BaseException:  # noqa: BLE001  (the parent process looks at it)
                traceback.print_exc(file=e)
    finally:
        os._exit(code)
