"""What `doctor` looks at: the parts of a project, handed to the checks that know them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform.errors import BatchformError
from batchform.run.doctor import Finding, Subject, check_clock, check_ledger, check_model, check_quota
from batchform.spec.backends import EmulatorBackend, VertexBackend
from batchform.spec.bigquery import BigQueryDestination, BigQuerySource
from batchform.spec.model import Backend as BackendSettings
from batchform.spec.realm import cloud_of, realm_of, with_environment
from batchform.spec.remote import Address, address, is_remote, remote_paths
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from batchform.adapters.doctor_cloud import CloudProject
    from batchform.adapters.doctor_places import Buckets, BucketUse, Datasets
    from batchform.adapters.doctor_sql import Databases
    from batchform.adapters.gemini import GeminiBackend as GeminiAdapter
    from batchform.adapters.vertex import VertexBackend as VertexAdapter
    from batchform.cli.examine_specs import SpecExamination
    from batchform.cli.wiring import Session
    from batchform.ledger.records import JobRecord

_EMULATORS: Final = {
    "storage.googleapis.com": "STORAGE_EMULATOR_HOST",
    "bigquery.googleapis.com": "BIGQUERY_EMULATOR_HOST",
}
_GLOB: Final = "*?["


class Examination:
    """One look at a project. Whatever is opened is closed at the end. writes: for commands that send, collect and
    deliver; without it, for those that only plan."""

    def __init__(self, session: Session, *, writes: bool = True) -> None:
        self._session, self._writes = session, writes
        self._jobs: tuple[JobRecord, ...] | None = None  # None: the ledger could not be read
        self._open: list[CloudProject | Buckets | Datasets | SpecExamination] = []
        self._cloud: CloudProject | None = None
        self._databases: Databases | None = None
        self._seen: set[tuple[Address, bool]] = set()
        self._failed: set[str] = set()  # buckets and databases that are not as they must be
        self._absent: set[tuple[str, str]] = set()  # buckets that are not there, by the endpoint that was asked

    def close(self) -> None:
        for part in reversed(self._open):
            part.close()

    # --- the ledger

    def ledger(self) -> Iterator[Finding]:
        """Writable if need be, and whole as far as a short look tells."""
        from batchform.ledger.store import Ledger

        about, session = Subject("ledger"), self._session
        place = session.project.config.ledger
        if not is_remote(place) and self._writes:
            yield _writable(about, session.ledger_path, place)
        try:
            ledger = Ledger(session.blobs, clock=session.clock, who=session.who)
            yield from check_ledger(ledger)
            self._jobs = tuple(ledger.control().jobs.values())
        except BatchformError as error:
            if is_remote(place) and error.message.startswith("There is no bucket"):
                yield about.failure("whole", error.message, hint="The command that makes it stands below.")
            else:
                yield about.error("whole", error)

    # --- backends

    def backends(self, *, everything: bool) -> list[str]:
        """Those that specs use or that have open jobs; or all."""
        used = {s.backend_name for s in self._session.project.specs}
        used |= {r.intent.backend for r in self._jobs or () if r.open}
        declared = self._session.project.config.backends
        return [n for n in (*declared, *sorted(used - set(declared))) if everything or n in used]

    def unused(self, *, everything: bool) -> Iterator[Finding]:
        looked_at = self.backends(everything=everything)
        for name in self._session.project.config.backends:
            if name not in looked_at:
                message = "No spec uses it: it was not looked at. `batchform doctor --all` does."
                yield Subject(f"backend {name}").unknown("used", message)

    def backend(self, name: str) -> Iterator[Finding]:
        """Credentials, access, clock, quota, models; of Vertex AI also the project and where inputs and results lie."""
        about = Subject(f"backend {name}")
        found = next((s.backend for s in self._session.project.specs if s.backend_name == name), None)
        found = found or self._session.project.config.backends.get(name)
        if found is None:
            message = f"It has open jobs, but is not in {self._session.project.file.name}."
            yield about.failure("declared", message, hint="Put it back until its jobs are collected.")
            return
        config = with_environment(found, self._session.env)
        if not self._writes:
            yield from self._models(about, name, config)
            yield from self._stored(about, name, config)
            return
        try:
            if cloud_of(config) == "vertex":
                yield from self._vertex(about, name, config)
            else:
                yield from self._gemini(about, name, config)
        except BatchformError as error:
            yield about.error("backend", error)

    def _gemini(self, about: Subject, name: str, config: BackendSettings) -> Iterator[Finding]:
        from batchform.adapters.doctor_service import check_key

        assert not isinstance(config, VertexBackend)
        keys = list(check_key(about, config, self._session.env))
        yield from keys
        if any(f.status == "failure" for f in keys):
            yield about.unknown("access", "The service was not asked: there is no key.")
            yield from self._models(about, name, config)
            return
        yield from self._service(about, name, config)

    def _vertex(self, about: Subject, name: str, config: BackendSettings) -> Iterator[Finding]:
        from batchform.adapters.doctor_cloud import CloudProject

        assert isinstance(config, (VertexBackend, EmulatorBackend))
        backend = self._opened(name)
        access = backend.access  # type: ignore[union-attr]
        if access.api_key:
            yield about.ok("key", f"A key for Vertex AI was found in {getattr(config, 'api_key_env', '')}.")
        cloud = CloudProject(access.settings, project=config.project, emulated=access.emulated)
        self._open.append(cloud)
        yield from cloud.check_credentials(about)
        tables = config.via == "bigquery"
        apis = ["aiplatform.googleapis.com", "bigquery.googleapis.com" if tables else "storage.googleapis.com"]
        roles = ([] if access.api_key else ["roles/aiplatform.user"]) + (["roles/bigquery.jobUser"] if tables else [])
        yield from cloud.check_project(about, apis, roles)
        if not (cloud.answers or cloud.emulated or access.api_key):
            yield about.unknown("access", "Service and places were not asked: there are no credentials that work.")
            yield from self._quota(about, name, config)
            yield from self._models(about, name, config)
            return
        yield from self._service(about, name, config)
        if cloud.answers:
            yield cloud.check_agent(about)
        yield from self._staging(about, config, cloud, endpoint=access.endpoint)

    def _staging(
        self, about: Subject, config: VertexBackend | EmulatorBackend, cloud: CloudProject, *, endpoint: str | None
    ) -> Iterator[Finding]:
        from batchform.adapters.bigquery_client import EMULATOR
        from batchform.adapters.doctor_places import Buckets, BucketUse, Datasets

        settings = cloud.settings
        if config.via == "bigquery":
            env = {**self._session.env, **({EMULATOR: endpoint} if endpoint else {})}
            datasets = Datasets(settings, cloud, env=env, project=config.project)
            self._open.append(datasets)
            yield datasets.check_jobs(about)
            yield from datasets.check_dataset(about, config.dataset or "", location=config.location)
            return
        use = BucketUse(address((config.staging or "").rstrip("/")), writes=True, location=config.location)
        buckets = Buckets(settings, cloud, endpoint=endpoint)
        self._open.append(buckets)
        found = list(self._bucket(buckets, about, use, endpoint=endpoint))
        yield from found
        if cloud.answers and not any(f.check == "bucket" and f.status == "failure" for f in found):
            agent = buckets.check_agent(about, use)
            yield from [agent] if agent else []

    def _stored(self, about: Subject, name: str, config: BackendSettings) -> Iterator[Finding]:
        """Whether raw results that stay in the bucket can be read: a plan looks at those that it wants to read anew."""
        if getattr(config, "raw_results", "ledger") != "bucket" or cloud_of(config) != "vertex":
            return
        from batchform.adapters.doctor_cloud import CloudProject
        from batchform.adapters.doctor_places import Buckets, BucketUse

        assert isinstance(config, (VertexBackend, EmulatorBackend))
        try:
            access = self._opened(name).access  # type: ignore[union-attr]
            cloud = CloudProject(access.settings, project=config.project, emulated=access.emulated)
            self._open.append(cloud)
            credentials = list(cloud.check_credentials(about))
            yield from credentials
            if any(f.status == "failure" for f in credentials):
                return
            buckets = Buckets(access.settings, cloud, endpoint=access.endpoint)
            self._open.append(buckets)
            use = BucketUse(address((config.staging or "").rstrip("/")), writes=False)
            yield from self._bucket(buckets, about, use, endpoint=access.endpoint)
        except BatchformError as error:
            yield about.error("backend", error)

    def _bucket(
        self, buckets: Buckets, about: Subject, use: BucketUse, *, endpoint: str | None = None
    ) -> Iterator[Finding]:
        """One that is not there is said with the command that makes it, once: the first is the one that knows where."""
        asked = (endpoint or self._session.env.get(_EMULATORS["storage.googleapis.com"], ""), use.at.bucket)
        if asked in self._absent:
            message = f"There is no bucket gs://{use.at.bucket}."
            yield about.failure("bucket", message, hint="The command that makes it stands above.")
            return
        for found in buckets.check(about, use):
            if found.check == "bucket" and found.fix.startswith("gcloud storage buckets create "):
                self._absent.add(asked)
            yield found

    def _service(self, about: Subject, name: str, config: BackendSettings) -> Iterator[Finding]:
        """What both APIs have: a list of jobs, a clock, quotas, models."""
        from batchform.adapters.doctor_service import check_model_there, check_service, service_time

        backend = self._opened(name)
        known = [r.job for r in self._jobs or () if r.job]
        most = self._session.registry.service.max_jobs if cloud_of(config) == "gemini" else None
        access = list(check_service(about, backend, known=known, most=most))
        yield from access
        if not isinstance(config, EmulatorBackend):
            try:
                yield check_clock(about, service_time(backend), self._session.clock, whose=backend.endpoint)
            except BatchformError as error:
                yield about.unknown("clock", f"The service's time could not be asked: {error.message}")
        yield from self._quota(about, name, config)
        yield from self._models(about, name, config)
        for model, task in self._models_of(name):
            if any(f.status == "failure" for f in access):
                yield about.unknown("model-service", f"Whether the service has {model} was not asked.")
            else:
                yield check_model_there(about, backend, model, task=task)

    def _quota(self, about: Subject, name: str, config: BackendSettings) -> Iterator[Finding]:
        if self._jobs is None:
            yield about.unknown("quota", "Jobs at work are not known: the ledger could not be read.")
        else:
            fingerprint = self._opened(name).fingerprint
            yield from check_quota(about, self._jobs, name, config, fingerprint=fingerprint)

    def _models(self, about: Subject, name: str, config: BackendSettings) -> Iterator[Finding]:
        registry, now = self._session.registry.on(cloud_of(config)), self._session.clock.now()
        for model, task in self._models_of(name):
            yield from check_model(about, registry, model, now=now, realm=realm_of(config), task=task)

    def _models_of(self, name: str) -> list[tuple[str, str]]:
        return sorted({(s.model, s.task) for s in self._session.project.specs if s.backend_name == name})

    def _opened(self, name: str) -> GeminiAdapter | VertexAdapter:
        from batchform.adapters.gemini import GeminiBackend as GeminiAdapter
        from batchform.adapters.vertex import VertexBackend as VertexAdapter

        backend = self._session.backends(name)
        assert isinstance(backend, (GeminiAdapter, VertexAdapter))
        return backend

    # --- Google Cloud beside the backends

    def google_cloud(self) -> Iterator[Finding]:
        """Credentials and buckets of ledger, sources and destinations, where any lie there."""
        uses, tables = self._bucket_uses(), self._bigquery_specs()
        apis = (["storage.googleapis.com"] if uses else []) + (["bigquery.googleapis.com"] if tables else [])
        if not apis:
            return
        from batchform.adapters.doctor_cloud import CloudProject
        from batchform.adapters.doctor_places import Buckets

        real = [api for api in apis if not self._session.env.get(_EMULATORS[api])]
        about, settings = Subject("google_cloud"), self._session.project.config.google_cloud
        project = settings.project or self._session.env.get("GOOGLE_CLOUD_PROJECT")
        self._cloud = CloudProject(settings, project=project, emulated=not real)
        self._open.append(self._cloud)
        yield from self._cloud.check_credentials(about)
        yield from self._cloud.check_project(about, real, ["roles/bigquery.jobUser"] if tables and real else [])
        buckets = Buckets(settings, self._cloud)
        self._open.append(buckets)
        for use in uses:
            found = list(self._bucket(buckets, Subject(str(use.at)), use))
            yield from found
            if any(f.status == "failure" for f in found):
                self._failed.add(use.at.bucket)

    def _bucket_uses(self) -> list[BucketUse]:
        from batchform.adapters.doctor_places import BucketUse

        project = self._session.project
        found = [(project.config.ledger, True)]
        for spec in project.specs:
            found += [(path, False) for path in remote_paths(spec.spec.source)]
            found += [(path, True) for path in remote_paths(spec.spec.destination)]
        uses = []
        for path, writes in found:
            if not is_remote(path):
                continue
            try:
                at = _folder(address(path), whole=path == project.config.ledger)
            except ValueError:
                continue  # its spec says so
            use = BucketUse(at, writes=writes and self._writes)
            if (at, use.writes) not in self._seen:
                self._seen.add((at, use.writes))
                uses.append(use)
        return uses

    # --- databases and specs

    def databases(self) -> Iterator[Finding]:
        """Those of batchform.yaml that specs read or write."""
        from batchform.cli.examine_specs import database_uses

        uses = database_uses(self._session.project.specs)
        if not uses:
            return
        from batchform.adapters.doctor_sql import Databases

        self._databases = Databases(self._session.project.config.databases, root=self._session.root)
        for name, reads in uses.items():
            if name not in self._databases:
                continue  # its spec says so
            found = list(self._databases.check(name, reads=reads))
            yield from found
            if any(f.status == "failure" for f in found):
                self._failed.add(name)

    def specs(self) -> Iterator[Finding]:
        """Sources and destinations. Must come after all that they lie in."""
        from batchform.cli.examine_specs import SpecExamination

        look = SpecExamination(
            self._session, cloud=self._cloud, databases=self._databases, failed=self._failed, writes=self._writes
        )
        self._open.append(look)
        for spec in self._session.project.specs:
            yield from look.spec(spec)

    def _bigquery_specs(self) -> list[ResolvedSpec]:
        kinds = (BigQuerySource, BigQueryDestination)
        return [s for s in self._session.project.specs if isinstance(s.spec.source, kinds)
                or isinstance(s.spec.destination, kinds)]  # fmt: skip


def _writable(about: Subject, path: Path, shown: str) -> Finding:
    """Whether a folder can be written, or made if it is not there."""
    at = next(p for p in (path, *path.parents) if p.exists())
    if not at.is_dir():
        message = f"{shown} cannot be written: {at} is no folder."
        return about.failure("writable", message, hint="Move it away, or name another folder as `ledger:`.")
    if not os.access(at, os.W_OK | os.X_OK):
        message = f"{shown} cannot be written by this user."
        return about.failure("writable", message, hint="Make the folder writable:", fix=f"chmod u+rwx {at}")
    return about.ok("writable", f"{shown} can be written." if at == path else f"{shown} can be made.")


def _folder(at: Address, *, whole: bool) -> Address:
    """The part of a path before its first glob, up to a folder."""
    if whole:
        return at
    first = min((i for c in _GLOB if (i := at.name.find(c)) >= 0), default=len(at.name))
    folder = at.name[:first].rpartition("/")[0]
    return Address(at.bucket, f"{folder}/" if folder else "")
