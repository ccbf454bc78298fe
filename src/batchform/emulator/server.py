"""Runs the emulator: in a thread for a program or a test, or in the foreground for a command."""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import uvicorn

from batchform.emulator import bill, execute
from batchform.emulator.app import App
from batchform.emulator.bill import BillSummary, Charge
from batchform.emulator.calls import Emulator
from batchform.emulator.clock import Now, SystemClock
from batchform.emulator.store import Store
from batchform.errors import BatchformError, UsageError

LOOPBACK: Final = "127.0.0.1"
JOB_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 10


class EmulatorServer:
    """An emulator on loopback, in a thread: `with EmulatorServer(state_dir) as server: … server.url`.

    state_dir: made if it does not exist; other processes may use it at the same time. job_seconds: how long a job
    takes by the emulator's clock. clock: any object with `now()`, by default the machine's. port: 0 picks a free one.
    Raises BatchformError when the state cannot be kept or the port is taken.
    """

    def __init__(
        self, state_dir: Path, job_seconds: float = JOB_SECONDS, clock: Now | None = None, port: int = 0
    ) -> None:
        self._state_dir, self._clock, self._port = state_dir, clock or SystemClock(), port
        self._job_seconds = _checked(job_seconds)
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Answer from now on at `url`."""
        self._store = Store(self._state_dir, self._clock)
        try:
            listener = _listen(LOOPBACK, self._port)
        except BatchformError:
            self._store.close()
            raise
        self.url = _url(listener)
        ready = threading.Event()
        self._server = _Server(Emulator(self._store, self._job_seconds), on_ready=ready.set)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="batchform-emulator", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Answer what was asked, then end. The state stays."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._store.close()

    def advance(self, seconds: float) -> None:
        """Move the emulator's time forward."""
        if not 0 <= seconds < math.inf:
            raise UsageError(f"The emulator's time cannot move by {seconds} seconds; it only moves forward.")
        self._store.advance(seconds)

    def bill(self) -> list[Charge]:
        """Every charge so far, oldest first. Jobs that are due are run first."""
        self._settle()
        return list(bill.charges(self._store))

    def bill_summary(self) -> BillSummary:
        """The bill in numbers, without holding it in memory. Jobs that are due are run first."""
        self._settle()
        return bill.summary(self._store)

    def _settle(self) -> None:
        execute.settle(self._store, execute.due_jobs(self._store), seconds=math.inf)


def serve(
    state_dir: Path,
    host: str = LOOPBACK,
    port: int = 0,
    job_seconds: float = JOB_SECONDS,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve in the foreground until Ctrl-C. on_ready gets the URL once it answers.

    Raises UsageError for a host that is not loopback, BatchformError when the port is taken or the state unusable.
    """
    job_seconds = _checked(job_seconds)
    _refuse_public(host)
    store = Store(state_dir, SystemClock())
    try:
        listener = _listen(host, port)
        _Server(Emulator(store, job_seconds), on_ready=lambda: on_ready(_url(listener))).run([listener])
    except KeyboardInterrupt:
        pass  # how a server in the foreground is meant to be stopped
    finally:
        store.close()


class _Server(uvicorn.Server):
    """uvicorn, saying when it is ready, and telling long work when to end."""

    def __init__(self, emulator: Emulator, on_ready: Callable[[], None]) -> None:
        super().__init__(_config(emulator))
        self._store, self._on_ready = emulator.store, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._store.closing.set()
        await super().shutdown(sockets)


def _config(emulator: Emulator) -> uvicorn.Config:
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # its own levels would configure the program's logging
    return uvicorn.Config(
        App(emulator),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("x-batchform-emulator", "1")],
        timeout_graceful_shutdown=_STOP_SECONDS,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as e:
        listener.close()
        raise BatchformError(
            f"The emulator cannot listen on {host}:{port}: {e}.", hint="Choose another port, or 0 for any free one."
        ) from e
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refuse_public(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"The emulator does not listen on '{host}': it knows no passwords and is only for this machine.",
            hint="Use 127.0.0.1, ::1 or localhost.",
        )


def _checked(job_seconds: float) -> float:
    if not 0 <= job_seconds < math.inf:
        raise UsageError(f"A job cannot take {job_seconds} seconds; give 0 or more.")
    return job_seconds
