"""Run a command and say what it cost: wall clock, and the CPU and peak memory of its process tree."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

BATCHFORM = str(Path(sys.executable).with_name("batchform"))
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall clock and of CPU (user and system, with children); peak memory in MB (10**6 bytes)."""

    wall: float
    cpu: float
    peak_mb: float


def measure(command: Sequence[str], *, cwd: Path) -> Cost:
    """Run a command to its end. Stops the benchmark with its output if it fails.

    Memory is the larger of the kernel's own figure for the biggest process and the sampled sum over the tree.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, env=environment())
        peak = _Peak(process.pid)
        peak.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        peak.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{shlex.join(command)} ended with exit code {process.returncode}\n{output.read()[-4000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss * _MAXRSS_UNIT, peak.bytes) / 1e6)


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


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


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
        try:
            root = psutil.Process(self._pid)
            for process in (root, *root.children(recursive=True)):
                total += process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            pass  # it ended while we looked
        return total
