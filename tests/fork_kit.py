"""Processes of their own at the price of a fork: the modules are imported once, by a parent that does nothing else."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

_FAILED: Final = 1


class Forks:
    """Runs functions of modules in new processes, one after the other.

    The parent of these processes has imported the modules, opened nothing and started no thread, and is no fork of the
    tests' own process: what a child limits, breaks or gives up is its own.
    """

    def __init__(self, *modules: str) -> None:
        command = [sys.executable, __file__, *modules]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._server = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, function: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Call `module:function` with the arguments. The process ends with 0, or with 1 and a traceback in stderr."""
        with tempfile.TemporaryDirectory() as name:
            files = [Path(name) / part for part in ("in", "out", "err")]
            for file, text in zip(files, (stdin, "", ""), strict=True):
                file.write_text(text, encoding="utf-8")
            asked = {"function": function, "arguments": arguments, "files": [str(file) for file in files]}
            assert self._server.stdin and self._server.stdout
            self._server.stdin.write(json.dumps(asked) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            out, err = (file.read_text(encoding="utf-8") for file in files[1:])
        return subprocess.CompletedProcess([function, *arguments], code, out, err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.communicate()


def _serve(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(asked)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


def _child(asked: dict[str, Any]) -> NoReturn:
    """Call the function and end the process, whatever happens."""
    code = _FAILED
    try:
        for number, (name, flags) in enumerate(
            zip(asked["files"], (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)
        ):
            os.dup2(os.open(name, flags | (os.O_APPEND if number else 0)), number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "w" if n else "r", closefd=False) for n in range(3))
        module, _, name = asked["function"].partition(":")
        try:
            getattr(importlib.import_module(module), name)(*asked["arguments"])
            code = 0
        except BaseException:  # noqa: BLE001  (the tests look at it)
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])
