"""A project, an emulator in a process of its own, one clock for both, and commands as children that can be killed.

Everything lies in one folder, so that a world can be copied and set back. The process that uses this is a fork server:
it has imported all that commands need, has no thread of its own, and never opens DuckDB itself.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import mmap
import os
import pkgutil
import shutil
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml
from crash_cloud import ANSWERS, BUCKET, GEMINI, LOCATION, PROJECT, Cloud, Service
from crash_effects import Effects, Point, read_trace

if TYPE_CHECKING:
    from batchform.ports import Backend

SETTLE: Final = 60.0
_START: Final = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
_TICK: Final = 0.001
_LONGEST: Final = 120  # seconds; a command that takes longer hangs
_ENVIRONMENT: Final = (
    "GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV", "BIGQUERY_STORAGE_EMULATOR_HOST",
    "GOOGLE_CLOUD_PROJECT",
)  # fmt: skip

Command = tuple[str, ...]


def warm_up() -> None:
    """Import now what every child would import anew; also so that all run the same code, whoever edits it meanwhile."""
    import duckdb  # noqa: F401
    import httpx2  # noqa: F401
    import jinja2  # noqa: F401
    import jsonschema_rs  # noqa: F401
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401
    import requests  # noqa: F401
    import rich.console  # noqa: F401
    import sqlglot  # noqa: F401
    from google import genai  # noqa: F401
    from google.cloud import bigquery, storage  # noqa: F401
    from google.genai import batches, files, types  # noqa: F401

    import batchform

    for module in pkgutil.walk_packages(batchform.__path__, "batchform."):
        if not module.name.endswith(("__main__", "pytest_plugin")):
            importlib.import_module(module.name)


def warm_up_project(world: World) -> None:
    """Read a project's files once: models, rules and patterns are made at their first use. Starts no thread and leaves
    DuckDB alone."""
    from batchform.spec.load import load_project

    load_project(world.project / "batchform.yaml", environment=None, env={})


def warm_up_client(world: World) -> None:
    """Use Google's clients once, with all calls of a run: they build their models at their first use. Starts no
    thread."""
    from batchform.adapters.gemini import GeminiBackend
    from batchform.adapters.vertex import VertexBackend
    from batchform.spec.model import EmulatorBackend, GoogleCloud

    config = EmulatorBackend.model_validate({"type": "emulator", "url": world.url, **world.cloud.backend})
    backend: Backend
    if world.cloud.vertex:
        backend = VertexBackend(config, cloud=GoogleCloud(), env={}, realm="emulator")
    else:
        backend = GeminiBackend(config, env={}, realm="emulator")
    parts = [{"text": "x"}]
    line = {"key": "k", "request": {"contents": [{"role": "user", "parts": parts}]}}
    world.write("warm.jsonl", json.dumps(line) + "\n")
    model, path = "gemini-3.5-flash-lite", world.project / "warm.jsonl"
    backend.check_model(model)
    for mode in ("file",) if world.cloud.vertex else ("file", "inline"):
        staged = backend.stage(path, digest="sha256:" + "0" * 64, tag=f"bf-warm-{mode}", mode=mode)
        job = backend.create(model=model, tag=f"bf-warm-{mode}", staged=staged)
        while not (seen := backend.get(job)).terminal:  # its place is named before its results are there
            time.sleep(0.01)
        assert seen.state == "SUCCEEDED", seen
        backend.download(seen, world.folder / "warm.out")
        if staged.name is not None:
            backend.delete_input(staged.name)
    backend.close()


class SharedClock:
    """Seconds in a file that several processes map. It moves when a command looks at it, and when one sleeps."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(struct.pack("d", 0.0))
        with path.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), 8)

    @property
    def seconds(self) -> float:
        """Passed since the start; may be set back to it."""
        return float(struct.unpack("d", self._mapped[:8])[0])

    @seconds.setter
    def seconds(self, passed: float) -> None:
        self._mapped[:8] = struct.pack("d", passed)

    def now(self) -> datetime:
        return _START + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, _TICK)

    def close(self) -> None:
        self._mapped.close()


class _TickingClock(SharedClock):
    """What a command sees: no two looks show the same time."""

    def now(self) -> datetime:
        self.sleep(_TICK)
        return super().now()


@dataclass(frozen=True)
class Ran:
    """What became of a command. code: its exit code, -9 when it was killed; points: what it passed."""

    code: int
    out: str
    err: str
    points: list[Point]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class World:
    """One folder with a project and the emulator it talks to. `reset` starts it, `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cloud: Cloud = GEMINI
        self._emulator = 0
        # Bound and never listened on: keeps the port for this world's emulators, one after the other.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = int(self._reserved.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.stop()
        self._reserved.close()

    # --- its folder ------------------------------------------------------------------------------------------------

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def reset(self, template: Path | None = None) -> None:
        """Start again from nothing, or from a copy of a stored world."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if template is None:
            self.project.mkdir(parents=True)
            (self.folder / "tmp").mkdir()
        else:
            shutil.copytree(template, self.folder)
        self._start()

    def store(self, template: Path) -> None:
        """Keep a copy of the world as it is; it goes on afterwards."""
        self.stop()
        shutil.rmtree(template, ignore_errors=True)
        shutil.copytree(self.folder, template)
        self._start()

    def write(self, name: str, content: Any) -> None:
        """A file of the project: text, or what becomes YAML."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")

    def pass_time(self, seconds: float) -> None:
        clock = SharedClock(self.folder / "clock")
        clock.sleep(seconds)
        clock.close()

    # --- the emulator ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        ready, tell = os.pipe()
        SharedClock(self.folder / "clock").close()
        self._emulator = os.fork()
        if self._emulator == 0:
            os.close(ready)
            _emulate(self.folder, self.port, tell, self.cloud)
        os.close(tell)
        if os.read(ready, 1) != b"y":
            raise RuntimeError("the emulator did not start")
        os.close(ready)

    def stop(self) -> None:
        """End the emulator; its state stays on disk."""
        if self._emulator:
            os.kill(self._emulator, signal.SIGKILL)
            os.waitpid(self._emulator, 0)
            self._emulator = 0

    @property
    def service(self) -> Service:
        """What the emulator holds, asked over HTTP."""
        return Service(self.url, self.cloud)

    def bill(self) -> Counter[str]:
        """Digests of the requests of jobs that were charged for, and how often."""
        return Counter(charge["digest"] for charge in self.service.bill() if charge["job"] is not None)

    def tries(self) -> int:
        """How many requests were charged for at once, without a job."""
        return sum(charge["job"] is None for charge in self.service.bill())

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of this project at the service."""
        return self.service.jobs()

    def inputs(self) -> list[str]:
        """Names of the staged inputs that the service still holds."""
        return self.service.inputs()

    def strays(self) -> list[str]:
        """Names of results that belong to no job."""
        return self.service.strays()

    # --- commands --------------------------------------------------------------------------------------------------

    def run(self, command: Command, *, kill_at: int | None = None, note_states: bool = False) -> Ran:
        """One command in a child of its own. kill_at: the place where it dies; note_states: of all points."""
        (self.folder / "trace").unlink(missing_ok=True)

        def work() -> int:
            from batchform.cli import run

            return run(list(command))

        _, status = os.waitpid(self._fork(work, kill_at=kill_at, note_states=note_states), 0)
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        trace = self.folder / "trace"
        return Ran(os.waitstatus_to_exitcode(status), out, err, read_trace(trace) if trace.exists() else [])

    def ok(self, command: Command, codes: Iterable[int] = (0,), *, note_states: bool = False) -> Ran:
        ran = self.run(command, note_states=note_states)
        if ran.code not in codes:
            raise AssertionError(f"{' '.join(command)}: exit code {ran.code}\n{ran.out}{ran.err}")
        return ran

    def ask(self, *commands: Command) -> list[Ran]:
        """Several commands in one child, which is never killed."""

        def asked() -> int:
            from batchform.cli import run

            said = []
            for command in commands:
                with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
                    said.append([run(list(command)), out.getvalue(), err.getvalue()])
            print(json.dumps(said))  # noqa: T201
            return 0

        return [Ran(code, out, err, []) for code, out, err in json.loads(self._outcome(asked))]

    def rows_of(self, database: str, table: str) -> list[Any]:
        """All rows of a table of a DuckDB file in the project, in order."""

        def read() -> int:
            import duckdb

            with duckdb.connect(database, read_only=True) as db:
                print(json.dumps(db.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall(), default=str))  # noqa: T201
            return 0

        return list(json.loads(self._outcome(read)))

    def tried(self) -> int:
        """How many requests `try` has sent, or may have sent, as the ledger has it."""

        def read() -> int:
            from batchform.cli.options import Common
            from batchform.cli.wiring import open_session

            with open_session(Common(".", None, as_json=False, quiet=True)) as session:
                print(sum(spent.requests for _, spent in session.ledger.control().spent))  # noqa: T201
            return 0

        return int(self._outcome(read))

    def _outcome(self, work: Callable[[], int]) -> str:
        _, status = os.waitpid(self._fork(work), 0)
        if status:
            raise AssertionError((self.folder / "err").read_text(encoding="utf-8"))
        return (self.folder / "out").read_text(encoding="utf-8")

    def _fork(self, work: Callable[[], int], *, kill_at: int | None = None, note_states: bool = False) -> int:
        """A child that does this with its streams in files; its process id."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = 70
        try:
            self._become(kill_at, state=self._state if note_states else None)
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001  (a child of a fork must never go on as its parent)
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code & 0xFF)

    def _state(self) -> str:
        """Digest of all that a kill would leave to others: the project's files and the service's. Not of scratch, nor
        of files in .tmp, which are for nobody but their writer."""
        found = []
        for top in (self.project, self.folder / "emulator"):
            for base, folders, files in os.walk(top):
                folders[:] = [f for f in folders if not f.startswith("tmp-") and f != ".tmp"]
                for name in (*folders, *files):
                    with suppress(FileNotFoundError):
                        at = os.lstat(f"{base}/{name}")
                        found.append((base, name, at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns))
        return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()[:16]

    def _become(self, kill_at: int | None, *, state: Callable[[], str] | None) -> None:
        """Be the process of one command: its folder, its streams, its clock, its effects."""
        import tempfile

        from batchform.adapters.local_blobs import LocalBlobs
        from batchform.cli import wiring

        self._reserved.close()
        os.chdir(self.project)
        for name in _ENVIRONMENT:
            os.environ.pop(name, None)
        os.environ["TMPDIR"] = str(self.folder / "tmp")
        if self.cloud.vertex:
            os.environ["STORAGE_EMULATOR_HOST"] = os.environ["BIGQUERY_EMULATOR_HOST"] = self.url
        tempfile.tempdir = None
        for number, name in ((1, "out"), (2, "err")):
            fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(fd, number)
            os.close(fd)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        signal.alarm(_LONGEST)
        if self.cloud.joined:
            LocalBlobs.spacing = 1.0
        clock = _TickingClock(self.folder / "clock")
        wiring.SystemClock = lambda: clock  # type: ignore[misc,assignment]
        Effects(self.folder / "trace", kill_at=kill_at, root=self.folder, state=state).install()


def _emulate(folder: Path, port: int, tell: int, cloud: Cloud) -> NoReturn:
    """Be the emulator until killed, or until nobody is left to do that."""
    from batchform.emulator import EmulatorServer

    lane = os.getppid()
    try:
        server = EmulatorServer(folder / "emulator", job_seconds=0, clock=SharedClock(folder / "clock"), port=port)
        server.start()
        if cloud.vertex:
            server.provide(LOCATION, bucket=BUCKET, dataset=f"{PROJECT}.{ANSWERS}")
        os.write(tell, b"y")
        os.close(tell)
        while os.getppid() == lane:
            time.sleep(1)
    finally:
        os._exit(1)
