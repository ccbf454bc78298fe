"""The only place that picks adapters: a project's files become sources, destinations, a ledger and backends."""

from __future__ import annotations

import getpass
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.cli.options import Asked, Common
from batchform.errors import UsageError
from batchform.spec.model import EmulatorBackend, VertexBackend
from batchform.spec.realm import realm_of, with_environment
from batchform.spec.remote import is_remote
from batchform.spec.resolved import ResolvedProject, ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.adapters.contents import Memory
    from batchform.adapters.storage.bundles import RemoteBundle
    from batchform.adapters.storage.client import StorageClient
    from batchform.cli.scratch import Scratch
    from batchform.emulator import EmulatorServer
    from batchform.ledger.store import Ledger
    from batchform.plan.registry import Registry
    from batchform.plan.work import Settings, Work
    from batchform.ports import Backend, Blobs, Delivered, Destination, Source, StoredFiles
    from batchform.run.context import Backends, Progress, RunContext

# Of DuckDB, measured on a million rows. Reading commands: with less the joins of a plan spill, with more they are no
# faster. Commands that run for long beside others would rather spill: their peak is to be the same for any table.
READING_MEMORY = "320MB"
RUNNING_MEMORY = "256MB"
_LOCAL = ".batchform"  # folder of what is kept on this machine when the ledger is elsewhere


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Session:
    """One command's view of a project. Everything is made when first asked for, and closed at the end."""

    def __init__(self, project: ResolvedProject, env: Mapping[str, str], *, memory: str = READING_MEMORY) -> None:
        self.project = project
        self.env = env
        self.clock = SystemClock()
        self._memory = memory
        self.count = 0  # requests of each spec whose tokens the service is to count
        self.offline = False  # whether objects that rows name may be looked up
        self.who = f"{getpass.getuser()}@{platform.node()}"
        self._emulators: list[EmulatorServer] = []
        self._scratch: Scratch | None = None
        self._databases: dict[tuple[Path, ...], DuckDBPyConnection] = {}

    # --- places

    @property
    def root(self) -> Path:
        return self.project.root

    @cached_property
    def ledger_path(self) -> Path:
        """The ledger's folder; of one in Cloud Storage, where its local files lie."""
        ledger = self.project.config.ledger
        return (self.root / (_LOCAL if is_remote(ledger) else ledger)).resolve()

    @property
    def cache(self) -> Path:
        """What was read from Cloud Storage and found of rows, for the next command; beside the run's own files if the
        project's folder cannot be written."""
        folder = self.root / _LOCAL / "cache"
        at = next(p for p in (folder, *folder.parents) if p.exists())
        return folder if os.access(at, os.W_OK) else self.scratch / "cache"

    @property
    def allowed(self) -> tuple[Path, ...]:
        """Folders outside the project that the project's file allows."""
        return tuple((self.root / p).resolve() for p in self.project.config.allow_paths)

    @property
    def scratch(self) -> Path:
        """A private folder that is removed at the end; on the ledger's disk when that can be written."""
        if self._scratch is None:
            from batchform.cli.scratch import Scratch

            self._scratch = Scratch(self.ledger_path)
        return self._scratch.path

    def close(self) -> None:
        if "backends" in self.__dict__:
            self.backends.close()
        for emulator in self._emulators:
            emulator.__exit__(None, None, None)
        for database in self._databases.values():
            database.close()
        if "digests" in self.__dict__:
            self.digests.close()
        if "storage" in self.__dict__:
            self.storage.close()
        if self._scratch is not None:
            self._scratch.close()

    # --- what commands use

    @cached_property
    def blobs(self) -> Blobs:
        """Where the ledger lies."""
        ledger = self.project.config.ledger
        if is_remote(ledger):
            return self._remote_blobs(ledger)
        from batchform.adapters.local_blobs import LocalBlobs

        return LocalBlobs(self.ledger_path, described=ledger)

    def _remote_blobs(self, place: str) -> Blobs:
        from batchform.adapters.storage.blobs import StorageBlobs
        from batchform.spec.remote import address

        return StorageBlobs(self.storage, address(place), cache=self.cache, described=place)

    @cached_property
    def storage(self) -> StorageClient:
        """Cloud Storage, for whatever of the project lies there."""
        from batchform.adapters.storage.client import StorageClient

        return StorageClient(self.project.config.google_cloud)

    @cached_property
    def digests(self) -> Memory:
        """What is remembered of the project's files."""
        from batchform.adapters.contents import Memory

        return Memory(self.cache)

    def remote_bundle(self, place: str) -> RemoteBundle:
        """A saved plan at gs://."""
        from batchform.adapters.storage.bundles import RemoteBundle

        return RemoteBundle(self.storage, place)

    @cached_property
    def ledger(self) -> Ledger:
        from batchform.ledger.store import Ledger

        ledger = Ledger.open(self.blobs, clock=self.clock, who=self.who)
        ledger.stores = self.stores
        return ledger

    def stores(self, backend: str) -> StoredFiles | None:
        """What reads the raw results that a backend left where they were written."""
        return self.backends(backend).stored

    @cached_property
    def ledger_at_hand(self) -> Ledger:
        """The ledger if it is on this machine, or else an empty one: for commands that need no network."""
        if not is_remote(self.project.config.ledger):
            return self.ledger
        from batchform.adapters.local_blobs import LocalBlobs
        from batchform.ledger.store import Ledger

        return Ledger.open(
            LocalBlobs(self.scratch / "no-ledger", described="no ledger"), clock=self.clock, who=self.who
        )

    def copy_of_ledger(self, place: str) -> Blobs:
        """A copy of the ledger's folder, as it is named on the command line."""
        if is_remote(place):
            return self._remote_blobs(place)
        from batchform.adapters.local_blobs import LocalBlobs

        path = Path(place).resolve()
        if not path.is_dir():
            raise UsageError(f"{place} is no folder", hint="Name a copy of the ledger's folder.")
        return LocalBlobs(path, described=place)

    @cached_property
    def registry(self) -> Registry:
        from batchform.plan.registry import Registry

        prices = self.project.config.prices
        if not prices:
            return Registry.load()
        from batchform.plan.override import lay_over

        return lay_over(Registry.load(), self.root / prices, prices)

    def connect(self, *extra: Path) -> DuckDBPyConnection:
        """A DuckDB connection that may read the project, the ledger, the scratch folder and `extra`, and nothing else.

        Each has temp objects of its own; all with the same `extra` share one database and so one memory limit.
        """
        from batchform.adapters.sources import connect

        if extra not in self._databases:
            allowed = [self.root, *self.allowed, self.ledger_path, self.scratch, *extra]
            threads = os.cpu_count() or 2
            self._databases[extra] = connect(self.scratch, memory_limit=self._memory, threads=threads, allowed=allowed)
        return self._databases[extra].cursor()

    def source(self, spec: ResolvedSpec, *, whole: bool = False) -> Source:
        """Where a spec's rows come from. whole: with all columns, where reading fewer would cost less."""
        from batchform.cli.places import source_of

        return source_of(self, spec, whole=whole)

    def rows(self, spec: ResolvedSpec, *, whole: bool = False) -> Source:
        """A spec's source, its rows with their attachments. whole: see `source`."""
        from batchform.cli.places import attached

        source = self.source(spec, whole=whole)
        return attached(self, spec, source) if spec.attachments else source

    def destination(self, spec: ResolvedSpec) -> Destination:
        from batchform.cli.places import destination_of

        return destination_of(self, spec)

    def delivered(self, spec: ResolvedSpec) -> Source:
        """What lies at a spec's destination, to be read as a source is."""
        from batchform.cli.places import delivered_of

        return delivered_of(self, spec)

    def work(self, specs: Sequence[ResolvedSpec], *folders: Path) -> list[Work]:
        from batchform.cli.places import kept_of
        from batchform.plan.work import Work

        def connect() -> DuckDBPyConnection:
            return self.connect(*folders)

        return [Work(s, self.rows(s), self.destination(s), connect, kept_of(self, s)) for s in specs]

    def settings(
        self, specs: Sequence[ResolvedSpec], *, asked: Asked | None = None, purpose: str = "apply", wave_of: str = ""
    ) -> Settings:
        from batchform.cli.plan_settings import settings_of

        return settings_of(self, specs, asked or Asked(), purpose=purpose, wave_of=wave_of)

    def select(self, patterns: Sequence[str]) -> tuple[ResolvedSpec, ...]:
        from batchform.spec.select import select

        if not any(":" in p for p in patterns):
            return select(self.project.specs, patterns)
        from batchform.cli.selecting import found_by

        return select(self.project.specs, patterns, found_by=found_by(self))

    def spec(self, name: str) -> ResolvedSpec:
        """One spec by its name. Raises UsageError with the nearest names."""
        found = [s for s in self.select([name]) if s.name == name]
        if not found:
            raise UsageError(f"{name!r} names several specs or none", hint="Give the name of one spec.")
        return found[0]

    @cached_property
    def backends(self) -> Backends:
        """Backends by name, each opened once. An emulator without a url is started in this process."""
        from batchform.run.context import Backends

        return Backends(self._open_backend)

    def _open_backend(self, name: str) -> Backend:
        config = self.project.config.backends.get(name)
        config = next((s.backend for s in self.project.specs if s.backend_name == name), config)
        if config is None:
            raise UsageError(
                f"backend {name!r} is not in {self.project.file.name}", hint="Put it back until its jobs are collected."
            )
        config = with_environment(config, self.env)
        base_url = None
        if isinstance(config, EmulatorBackend):
            base_url = config.url or self._start_emulator(config)
        realm, sleep, now = realm_of(config), self.clock.sleep, self.clock.now
        if isinstance(config, VertexBackend) or (isinstance(config, EmulatorBackend) and config.cloud == "vertex"):
            from batchform.adapters.vertex import VertexBackend as VertexAdapter

            cloud = self.project.config.google_cloud
            return VertexAdapter(
                config, cloud=cloud, env=self.env, realm=realm, base_url=base_url, sleep=sleep, now=now
            )
        from batchform.adapters.gemini import GeminiBackend as GeminiAdapter

        return GeminiAdapter(config, env=self.env, realm=realm, base_url=base_url, sleep=sleep, now=now)

    def _start_emulator(self, config: EmulatorBackend) -> str:
        from batchform.emulator import EmulatorServer

        faults = self.root / config.faults if config.faults else ()
        server = EmulatorServer(self.emulator_state, job_seconds=config.job_seconds, faults=faults)
        server.__enter__()
        self._emulators.append(server)
        if config.cloud == "vertex":  # what a user would have made beforehand
            tables = config.via == "bigquery"
            dataset = config.dataset if "." in config.dataset else f"{config.project}.{config.dataset}"
            bucket = config.staging.removeprefix("gs://").partition("/")[0]
            server.provide(config.location, bucket=bucket, dataset=dataset if tables else "")
        return server.url

    def run_context(self, progress: Progress, *folders: Path) -> RunContext:
        """What apply and sync work with. folders: bundles outside the project that DuckDB may read."""
        from batchform.cli.places import fetched, registry_of
        from batchform.plan.price import rates
        from batchform.run.context import RunContext

        return RunContext(
            project=self.project,
            ledger=self.ledger,
            backends=self.backends,
            connect=lambda: self.connect(*folders),
            rates=lambda model, backend: rates(model, registry=registry_of(self, backend), when=self.clock.now()),
            deliver=self._deliver,
            clock=self.clock,
            who=self.who,
            work_dir=self.scratch,
            progress=progress,
            fetched=lambda address, digest: fetched(self).having(address, digest),
        )

    def _deliver(self, ctx: RunContext, spec: ResolvedSpec) -> Delivered | None:
        from batchform.run.deliver import deliver_spec

        if spec.name not in ctx.ledger.specs():
            return None
        return deliver_spec(
            ctx.ledger,
            spec,
            self.destination(spec),
            connect=ctx.connect,
            clock=ctx.clock,
            who=ctx.who,
            scratch=self.scratch,
            source_rows=lambda con: self.source_rows(con, spec),
        )

    def source_rows(self, con: DuckDBPyConnection, spec: ResolvedSpec, *, whole: bool = False) -> str:
        """FROM-able rows of a spec's source with their key_hash, for destination columns that read `row`."""
        from batchform.ports import Chained
        from batchform.rows.keyed import WIDE, prepare

        source = self.source(spec, whole=whole)
        prepare(con, spec, source.delivered() if isinstance(source, Chained) else source, recorded_fp_columns=())
        return f"(SELECT bf_key_hash AS key_hash, * EXCLUDE (bf_key, bf_key_hash) FROM {WIDE})"

    @property
    def emulator_state(self) -> Path:
        """Where the in-process emulator keeps its files and jobs, so that a later sync sees them."""
        return self.root / ".batchform" / "emulator"


@contextmanager
def open_session(common: Common, *, memory: str = READING_MEMORY, saved: str | None = None) -> Iterator[Session]:
    """Load the project and hand out a session; closes whatever was opened. saved: a plan that is to be applied, whose
    schemas stand for the Python classes that specs name."""
    from batchform.spec.load import find_project, load_project

    recorded = None
    if saved:
        from batchform.cli.saved import schemas_of

        recorded = partial(schemas_of, saved)
    env = dict(os.environ)
    # Read by Arrow when it is imported. Its own allocator keeps what was freed; the C library's gives it back.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    file = find_project(Path(common.directory))
    project = load_project(file, environment=common.environment, env=env, recorded=recorded)
    session = Session(project, env, memory=memory)
    try:
        yield session
    finally:
        session.close()


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
