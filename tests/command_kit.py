"""`batchform` for scripts, at the price of a fork: a process that has imported all modules forks for each.

Each command is a process of its own, with the folder, environment and files that the script gives it; several may run
at once.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import TracebackType
from typing import Final, NoReturn, Self

import batchform

_CLIENT: Final = """#!{python} -SE
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({address!r})
told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(s, [len(told).to_bytes(8, "big")], [0, 1, 2])
s.sendall(told)
sys.exit(int(s.recv(16)))
"""
_LATE: Final = (
    "anyio._backends._asyncio",
    "google.genai",
    "jsonschema_rs",
    "pyarrow.compute",
    "pyarrow.parquet",
    "rich.table",
)


class Commands:
    """The server, and `program`: an executable file that stands for batchform."""

    def __init__(self, folder: Path) -> None:
        address = str(folder / "s")
        self.program = folder / "batchform"
        self.program.write_text(_CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
        self.program.chmod(0o755)
        env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._server = subprocess.Popen(
            [sys.executable, __file__, address], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout
        assert self._server.stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.terminate()
        self._server.communicate()


def _serve(address: str) -> None:
    for module in (*(m.name for m in walk_packages(batchform.__path__, "batchform.")), *_LATE):
        if not module.endswith("__main__"):
            import_module(module)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        gc.freeze()
        print("ready", flush=True)  # noqa: T201  (the tests wait for it)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that stay with a script
        while True:
            connection = server.accept()[0]
            if os.fork() == 0:
                _stay(connection)
            connection.close()


def _stay(connection: socket.socket) -> NoReturn:
    """Start one command, and tell its script how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as told:
        asked = json.loads(told.read(int.from_bytes(head, "big")))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _command(asked, files)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(pid)
    if ended not in select.select([ended, connection], (), ())[0]:
        os.kill(pid, signal.SIGTERM)  # whoever stands for it was ended
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        connection.sendall(str(code).encode())
    os._exit(0)


def _command(asked: list[object], files: list[int]) -> None:
    """Become the command: ends the process."""
    arguments, folder, environment = asked
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(str(folder))
    os.environ.clear()
    os.environ.update(dict(environment))  # type: ignore[call-overload]
    sys.argv = ["batchform", *arguments]  # type: ignore[misc]
    from batchform.cli import main

    main()


if __name__ == "__main__":
    _serve(sys.argv[1])
