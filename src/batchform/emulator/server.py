"""Runs the emulator: in a thread for a program or a test, or in the foreground for a command."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from batchform.emulator import bill, execute
from batchform.emulator.app import App
from batchform.emulator.bill import BillSummary, Charge
from batchform.emulator.calls import TRANSPORT, Emulator
from batchform.emulator.clock import Now, SystemClock
from batchform.emulator.fault_gate import FaultGate, Fired
from batchform.emulator.store import Store
from batchform.errors import BatchformError, UsageError

if TYPE_CHECKING:
    from batchform.emulator.caches import CacheStorage
    from batchform.emulator.faults import Source

LOOPBACK: Final = "127.0.0.1"
JOB_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 10
_TICK_SECONDS: Final = 0.1
_CLOSING_SECONDS: Final = 0.005
_LET_IN: Final = 4  # rounds of the loop: the socket is accepted, its transport made, its protocol told


class EmulatorServer:
    """An emulator on loopback, in a thread: `with EmulatorServer(state_dir) as server: … server.url`.

    state_dir: made if it does not exist; other processes may use it at the same time. job_seconds: how long a job
    takes by the emulator's clock. clock: any object with `now()`, by default the machine's. port: 0 picks a free one.
    faults: a schedule, a file of one, or () for none; without it what the state has stays. create_buckets: writing to a
    bucket of Cloud Storage that is not there makes it, else it is refused. object_pace: seconds between two changes of
    one object there, what comes sooner is refused (429); 0: as fast as they come.
    Raises BatchformError when the state cannot be kept or the port is taken, InvalidProject for a wrong schedule.
    """

    def __init__(
        self,
        state_dir: Path,
        job_seconds: float = JOB_SECONDS,
        clock: Now | None = None,
        port: int = 0,
        faults: Source | None = None,
        *,
        create_buckets: bool = False,
        object_pace: float = 0.0,
    ) -> None:
        self._create_buckets, self._object_pace = create_buckets, object_pace
        self._state_dir, self._clock, self._port, self._faults = state_dir, clock or SystemClock(), port, faults
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
        self._gate = FaultGate(self._store)
        try:
            if self._faults is not None:
                self._gate.install(self._faults, keep_counts=True)
            listener = _listen(LOOPBACK, self._port)
        except BatchformError:
            self._store.close()
            raise
        self.url = _url(listener)
        ready = threading.Event()
        emulator = Emulator(
            self._store,
            self._job_seconds,
            self._gate,
            create_buckets=self._create_buckets,
            object_pace=self._object_pace,
        )
        self._server = _Server(emulator, on_ready=ready.set)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="batchform-emulator", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Answer what was asked, then end. The state stays."""
        self._server.end()
        self._thread.join(_STOP_SECONDS)
        self._store.close()

    def advance(self, seconds: float) -> None:
        """Move the emulator's time forward."""
        if not 0 <= seconds < math.inf:
            raise UsageError(f"The emulator's time cannot move by {seconds} seconds; it only moves forward.")
        self._store.advance(seconds)

    def provide(self, location: str, *, bucket: str = "", dataset: str = "") -> None:
        """Make a bucket and a dataset (`project.dataset`) that jobs at a location can use, unless they are there."""
        from batchform.emulator.vertex.stores import Stores

        project, _, name = dataset.rpartition(".")
        Stores(self._store).provide(location, bucket=bucket, project=project, dataset=name)

    def bigquery_storage(self) -> str:
        """Where the Storage Read API answers: `127.0.0.1:port`, for an insecure gRPC channel. Started when asked for.

        Raises UsageError when gRPC is not installed.
        """
        try:
            from batchform.emulator.warehouse import read_api, warehouse
        except ImportError as e:
            raise UsageError(
                f"The Storage Read API needs a package that is not installed: {e}.",
                hint="pip install 'batchform[emulator]'",
            ) from e
        return str(read_api.of(warehouse.of(self._store)).address)

    def set_faults(self, source: Source) -> None:
        """Replace the fault schedule, and count afresh. () ends all faults. Raises InvalidProject."""
        self._gate.install(source)

    def faults(self) -> list[dict[str, Any]]:
        """The fault schedule, each fault with `seen` (calls that matched) and `fired` (how often it happened)."""
        return self._gate.report()

    def fired(self) -> list[Fired]:
        """The faults that happened since the schedule was set, in order."""
        return self._gate.fired()

    def bill(self) -> list[Charge]:
        """Every charge so far, oldest first. Jobs that are due are run first."""
        self._settle()
        return list(bill.charges(self._store))

    def bill_summary(self) -> BillSummary:
        """The bill in numbers, without holding it in memory. Jobs that are due are run first."""
        self._settle()
        return bill.summary(self._store)

    def cache_storage(self) -> list[CacheStorage]:
        """What each cache costs beside the requests that use it, oldest first: its tokens and the hours it was kept."""
        from batchform.emulator import caches

        return caches.storage(self._store)

    def _settle(self) -> None:
        execute.settle(self._store, execute.due_jobs(self._store), seconds=math.inf)


def serve(
    state_dir: Path,
    host: str = LOOPBACK,
    port: int = 0,
    job_seconds: float = JOB_SECONDS,
    *,
    faults: Source | None = None,
    create_buckets: bool = False,
    object_pace: float = 0.0,
    on_ready: Callable[[str], None],
    on_faults: Callable[[int], None] | None = None,
) -> None:
    """Serve in the foreground until Ctrl-C. on_ready gets the URL once it answers, on_faults how many are scheduled.

    Raises UsageError for a host that is not loopback, BatchformError when the port is taken or the state unusable,
    InvalidProject for a wrong fault schedule.
    """
    job_seconds = _checked(job_seconds)
    _refuse_public(host)
    store = Store(state_dir, SystemClock())
    gate = FaultGate(store)
    try:
        if faults is not None:
            gate.install(faults, keep_counts=True)
        if on_faults:
            on_faults(len(gate.faults()))
        listener = _listen(host, port)
        emulator = Emulator(store, job_seconds, gate, create_buckets=create_buckets, object_pace=object_pace)
        _Server(emulator, on_ready=lambda: on_ready(_url(listener))).run([listener])
    except KeyboardInterrupt:
        pass  # how a server in the foreground is meant to be stopped
    finally:
        store.close()


class _Server(uvicorn.Server):
    """uvicorn, saying when it is ready, telling long work when to end, and ending at once.

    uvicorn looks ten times a second whether it is to end, and waits as long again: a fifth of a second for each command
    whose emulator is its own.
    """

    def __init__(self, emulator: Emulator, on_ready: Callable[[], None]) -> None:
        super().__init__(_config(emulator))
        self._store, self._on_ready = emulator.store, on_ready
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        """Answer what was asked, then end. For any thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._on_ready()

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _TICK_SECONDS)  # a signal only sets should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._store.closing.set()
        loop = asyncio.get_running_loop()
        for listener in (sock for server in self.servers for sock in server.sockets):
            loop.remove_reader(listener.fileno())
        for _ in range(_LET_IN):  # asyncio drops whom it has just let in, unclosed, when its server is closed before
            await asyncio.sleep(0)
        for closing in (*self.servers, *(sockets or ())):
            closing.close()
        told: set[object] = set()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
                    for connection in self.server_state.connections - told:
                        connection.shutdown()
                        told.add(connection)
                    await asyncio.sleep(_CLOSING_SECONDS)
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()
        for connection in self.server_state.connections.copy():
            connection.transport.abort()
        await asyncio.sleep(0)  # they are closed by then


class _Protocol(H11Protocol):
    """uvicorn's HTTP, letting the application have the connection, so that it can be dropped."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, TRANSPORT: transport}
        super().connection_made(transport)


def _config(emulator: Emulator) -> uvicorn.Config:
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # its own levels would configure the program's logging
    return uvicorn.Config(
        App(emulator),
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        headers=[("x-batchform-emulator", "1")],
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, or asyncio leaves Nagle's algorithm on: 40 ms for each answer whose body follows its head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
