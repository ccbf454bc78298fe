"""The effects of one process on files, databases and the network: numbered, written down, and cut short by SIGKILL.

Nothing in the product knows of this. It wraps what the product calls (os, open, the HTTP transport, DuckDB, SQLite) in
the process that runs it, which is a child made for one run.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batchform.adapters.sources import paths

_OS: Final = (
    "replace", "rename", "link", "symlink", "unlink", "remove", "rmdir", "mkdir", "fsync", "truncate", "ftruncate",
    "chmod",
)  # fmt: skip
_WRITES: Final = ("BEGIN", "COMMIT", "ROLLBACK", "INSERT", "DELETE", "UPDATE", "DROP", "CREATE", "COPY")

_FEW_ROWS: Final = {"threads": 1, "allocator_background_threads": "false"}


@dataclass(frozen=True)
class Point:
    """A place to kill at. place: 2 n before effect n, 2 n + 1 after it; kind: file, scratch, network or database.

    scratch: a file that no other process ever reads; state: digest of what a kill here would leave behind, if noted.
    """

    place: int
    kind: str
    effect: str
    state: str = ""

    @property
    def after(self) -> bool:
        return self.place % 2 == 1

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} effect {self.place // 2} ({self.effect})"


def read_trace(path: Path) -> list[Point]:
    """The points that a process passed, in order."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        place, kind, state, effect = line.split("\t", 3)
        found.append(Point(int(place), kind, effect, state))
    return found


class Effects:
    """Counts effects. `install` wraps what makes them, for the rest of this process's life."""

    def __init__(self, trace: Path, *, kill_at: int | None, root: Path, state: Callable[[], str] | None) -> None:
        """trace: file that gets a line per point passed; kill_at: the place to die at; root: cut from paths; state: see
        Point, None to leave it out."""
        self._fd = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._kill_at = kill_at
        self._root = f"{root}/"
        self._state = state or (lambda: "")
        self._count = 0
        self._databases: set[int] = set()

    def install(self) -> None:
        paths._SETTLE_NS = 1 << 62  # all files are young: what is written must not depend on how long a test took
        self._install_os()
        self._install_open()
        self._install_network()
        self._install_duckdb()
        self._install_sqlite()

    # --- counting --------------------------------------------------------------------------------------------------

    def _around(self, kind: str, effect: str, call: Callable[[], Any]) -> Any:
        number, self._count = self._count, self._count + 1
        self._pass(2 * number, kind, effect)
        result = call()
        self._pass(2 * number + 1, kind, effect)
        return result

    def _pass(self, place: int, kind: str, effect: str) -> None:
        os.write(self._fd, f"{place}\t{kind}\t{self._state()}\t{effect}\n".encode())
        if place == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal ends the process before this does

    def _file(self, name: str, path: Any, call: Callable[[], Any]) -> Any:
        shown = self._shown(path)
        kind = "scratch" if shown.startswith(("tmp/", "project/.batchform/tmp-")) else "file"
        return self._around(kind, f"{name} {shown}", call)

    def _shown(self, path: Any) -> str:
        if isinstance(path, int):
            opened = Path(f"/proc/self/fd/{path}")
            path = opened.readlink() if opened.exists() else f"fd {path}"
        return os.path.abspath(os.fsdecode(path)).removeprefix(self._root)  # noqa: PTH100  (no Path: it is wrapped)

    # --- wrapping --------------------------------------------------------------------------------------------------

    def _install_os(self) -> None:
        for name in _OS:
            setattr(os, name, self._wrapped_os(name, getattr(os, name)))
        real_open = os.open

        @functools.wraps(real_open)
        def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if not flags & os.O_CREAT:
                return real_open(path, flags, *args, **kwargs)
            return int(self._file("create", path, lambda: real_open(path, flags, *args, **kwargs)))

        os.open = open_

    def _wrapped_os(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def wrapped(path: Any, *args: Any, **kwargs: Any) -> Any:
            # A name relative to an open folder is one of rmtree, which is let alone only in scratch folders.
            shown = path if kwargs.get("dir_fd") is None else os.path.join(self._shown(kwargs["dir_fd"]), path)  # noqa: PTH118
            if kwargs.get("dir_fd") is not None and not os.path.isabs(shown):  # noqa: PTH117
                shown = self._root + shown
            return self._file(name, shown, lambda: real(path, *args, **kwargs))

        return wrapped

    def _install_open(self) -> None:
        real = io.open

        @functools.wraps(real)
        def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wxa+"):
                return real(file, mode, *args, **kwargs)
            return self._file(f"open {mode}", file, lambda: real(file, mode, *args, **kwargs))

        io.open = open_  # type: ignore[assignment]
        builtins.open = open_  # type: ignore[assignment]

    def _install_network(self) -> None:
        import httpx2

        real = httpx2.HTTPTransport.handle_request

        @functools.wraps(real)
        def handle(transport: Any, request: Any) -> Any:
            effect = f"{request.method} {request.url.path}"
            return self._around("network", effect, lambda: real(transport, request))

        httpx2.HTTPTransport.handle_request = handle  # type: ignore[method-assign]
        if "requests" in sys.modules:  # the clients of Cloud Storage and BigQuery speak through it
            self._install_requests()

    def _install_requests(self) -> None:
        from urllib.parse import urlsplit

        from requests.adapters import HTTPAdapter

        real = HTTPAdapter.send

        @functools.wraps(real)
        def send(adapter: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            effect = f"{request.method} {urlsplit(request.url).path}"
            return self._around("network", effect, lambda: real(adapter, request, *args, **kwargs))

        HTTPAdapter.send = send  # type: ignore[method-assign]

    def _install_duckdb(self) -> None:
        """In a file of ours every statement that writes; elsewhere only COPY, which writes a file."""
        import duckdb

        connect, kind = duckdb.connect, duckdb.DuckDBPyConnection
        execute, close = kind.execute, kind.close

        @functools.wraps(connect)
        def connect_(database: Any = ":memory:", *args: Any, **kwargs: Any) -> Any:
            if str(database) == ":memory:" or kwargs.get("read_only"):
                if "config" in kwargs:  # a few rows: threads of their own are most of the work
                    kwargs["config"] = {**kwargs["config"], **_FEW_ROWS}
                return connect(database, *args, **kwargs)
            opened = self._file("duckdb", str(database), lambda: connect(database, *args, **kwargs))
            self._databases.add(id(opened))
            return opened

        def execute_(con: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            verb = str(query).split(None, 1)[0].upper()
            if verb == "COPY" or (id(con) in self._databases and verb in _WRITES):
                kind = "database" if verb != "COPY" else "scratch" if "/tmp-" in str(query) else "file"
                effect = f"duckdb {' '.join(str(query).split()[:3])}" if kind == "database" else "duckdb COPY"
                return self._around(kind, effect, lambda: execute(con, query, *args, **kwargs))
            return execute(con, query, *args, **kwargs)

        def close_(con: Any) -> Any:
            if id(con) not in self._databases:
                return close(con)
            self._databases.discard(id(con))
            return self._around("database", "duckdb close", lambda: close(con))

        duckdb.connect = connect_  # type: ignore[assignment]
        kind.execute, kind.close = execute_, close_  # type: ignore[assignment,method-assign]

    def _install_sqlite(self) -> None:
        connect, around = sqlite3.connect, self._around

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> Any:
                if sql.split(None, 1)[0].upper() in _WRITES:
                    effect = f"sqlite {' '.join(sql.split()[:3])}"
                    return around("database", effect, lambda: sqlite3.Connection.execute(self, sql, *args))
                return super().execute(sql, *args)

            def executemany(self, sql: str, *args: Any) -> Any:
                effect = f"sqlite {' '.join(sql.split()[:3])}"
                return around("database", effect, lambda: sqlite3.Connection.executemany(self, sql, *args))

        @functools.wraps(connect)
        def connect_(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            return connect(*args, factory=Connection, **kwargs)

        sqlite3.connect = connect_
