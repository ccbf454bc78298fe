"""Run a command and say what it cost: wall clock, and CPU, peak memory and bytes moved by its process tree."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

BATCHFORM = str(Path(sys.executable).with_name("batchform"))
_SAMPLE_SECONDS = 0.05
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_INNER = "cost of the part that counts: "


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall clock and of CPU (user and system, with children); peak memory in MB (10**6 bytes); MB read and
    written through system calls, from disk or not (0 where the kernel does not say)."""

    wall: float
    cpu: float
    peak_mb: float
    read_mb: float = 0.0
    written_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, the folder it runs in, further environment, and the exit codes that are success."""

    words: Sequence[str]
    cwd: Path
    env: tuple[tuple[str, str], ...] = ()
    codes: tuple[int, ...] = (0,)


def measure(command: Sequence[str] | Command, *, cwd: Path | None = None) -> Cost:
    """Run a command to its end. Stops the benchmark with its output if it fails.

    Memory is the larger of the kernel's own figure for the biggest process and the sampled sum over the tree. A
    program that says itself what its part that counts has cost (`counted`) is believed in time; memory and bytes are of
    the whole.
    """
    if not isinstance(command, Command):
        command = Command(command, cwd or Path.cwd())
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command.words,
            cwd=command.cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(), **dict(command.env)},
        )
        peak = _Peak(process.pid)
        peak.start()
        moved = _moved_until_the_end(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        peak.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
        if process.returncode not in command.codes:
            sys.exit(f"{shlex.join(command.words)} ended with exit code {process.returncode}\n{said[-4000:]}")
    cpu, inner = usage.ru_utime + usage.ru_stime, _inner(said)
    if inner:
        wall, cpu = inner
    return Cost(wall, cpu, max(usage.ru_maxrss * _MAXRSS_UNIT, peak.bytes) / 1e6, *moved)


@contextmanager
def counted() -> Iterator[None]:
    """In a measured program: only the time in this block counts."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    cost = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    sys.stdout.write(f"{_INNER}{json.dumps(cost)}\n")


def _inner(said: str) -> tuple[float, float] | None:
    for line in reversed(said.splitlines()):
        if line.startswith(_INNER):
            found = json.loads(line.removeprefix(_INNER))
            return found["wall"], found["cpu"]
    return None


def _moved_until_the_end(pid: int) -> tuple[float, float]:
    """Waits for the process, and reads what it and its children moved before it is reaped."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        found = {name: int(value) for name, value in (line.split(": ") for line in lines)}
        return found["rchar"] / 1e6, found["wchar"] / 1e6
    return 0.0, 0.0


def environment() -> dict[str, str]:
    """This process's environment, with this interpreter's programs first, no colour, and compiled modules kept: else
    each start would compile what changed since they were last written."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PATH": path, "NO_COLOR": "1"}


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of runs that stood side by side, so that a slow moment counts on both sides."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def median_cost(costs: Sequence[Cost]) -> dict[str, float]:
    """The median of each figure; of memory the highest."""
    found = {name: median([asdict(c)[name] for c in costs]) for name in Cost.__dataclass_fields__}
    return {**found, "peak_mb": max(c.peak_mb for c in costs)}


class _Peak(threading.Thread):
    """Samples the resident memory of a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.bytes = max(self.bytes, self._now())

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _now(self) -> int:
        total = 0
        with suppress(psutil.Error, OSError):  # it ended while we looked
            for pid in (self._pid, *_below(self._pid)):
                total += psutil.Process(pid).memory_info().rss
        return total


def _below(pid: int) -> list[int]:
    """Processes below one. The kernel's own lists cost less than a look at all processes of the machine."""
    lists = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if not lists and not Path("/proc/self/task").exists():
        return [p.pid for p in psutil.Process(pid).children(recursive=True)]
    found = [int(child) for file in lists for child in file.read_text().split()]
    return [*found, *(below for child in found for below in _below(child))]
