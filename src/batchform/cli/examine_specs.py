"""What `doctor` looks at in each spec: whether its rows can be read and its answers written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from batchform.errors import BatchformError
from batchform.ports import Identified, Probed, Source
from batchform.run.doctor import Finding, Subject
from batchform.spec.bigquery import BigQueryDestination, BigQuerySource
from batchform.spec.model import FileSource, FilesSource
from batchform.spec.model_sql import SqlDestination, SqlSource
from batchform.spec.remote import remote_paths
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from batchform.adapters.doctor_cloud import CloudProject
    from batchform.adapters.doctor_places import Datasets
    from batchform.adapters.doctor_sql import Databases
    from batchform.cli.wiring import Session


def database_uses(specs: Iterable[ResolvedSpec]) -> dict[str, bool]:
    """Names of databases that specs read or write, in order; and whether any reads."""
    uses: dict[str, bool] = {}
    for spec in specs:
        source, to = spec.spec.source, spec.spec.destination
        if isinstance(source, SqlSource):
            uses[source.database] = True
        if isinstance(to, SqlDestination):
            uses.setdefault(to.database, False)
    return uses


class SpecExamination:
    """cloud, databases: looked at before, None where no spec needs them; failed: names of buckets and databases that
    are not as they must be; writes: whether answers are going to be delivered. Whatever is opened is closed at the end.
    """

    def __init__(
        self,
        session: Session,
        *,
        cloud: CloudProject | None,
        databases: Databases | None,
        failed: Collection[str],
        writes: bool,
    ) -> None:
        self._session, self._cloud, self._databases = session, cloud, databases
        self._failed, self._writes = failed, writes
        self._open: list[Datasets] = []

    def close(self) -> None:
        for part in reversed(self._open):
            part.close()

    def spec(self, spec: ResolvedSpec) -> Iterator[Finding]:
        """The source and the destination of one."""
        about = Subject(f"spec {spec.name}")
        for part, end, look in (
            (spec.spec.source, "source", self._source),
            (spec.spec.destination, "destination", self._destination if self._writes else self._delivered),
        ):
            what = self._failed_under(part)
            if what:
                yield about.unknown(end, f"It was not looked at, since its {what} is not as it must be.")
            else:
                yield from look(about, spec)

    def _source(self, about: Subject, spec: ResolvedSpec) -> Iterator[Finding]:
        there = spec.spec.source
        if spec.upstream is not None:
            yield about.ok("source", f"The answers of {spec.upstream}: read from the ledger.")
            return
        try:
            source = self._session.source(spec)
            if not isinstance(source, Identified):
                yield about.ok("source", f"{self._probed(source, there)}: may be read.")
                return
            source.identity()
        except BatchformError as error:
            if isinstance(there, SqlSource) and self._databases is not None and there.database in self._databases:
                yield self._databases.source_refused(about, there, error)
            else:
                yield about.error("source", error, member=self._member)
            return
        if isinstance(there, BigQuerySource) and there.table:
            yield self._datasets(there.project).check_table_read(about, there.table)
        else:
            what = ", ".join(remote_paths(there)) or "The query"
            yield about.ok("source", f"{what}: there, and may be read.")

    def _probed(self, source: Source, there: object) -> str:
        if isinstance(source, Probed):
            with self._session.connect() as con:
                return source.probe(con)
        from batchform.adapters.sources.paths import look
        from batchform.cli.places import remote_for

        session = self._session
        assert isinstance(there, (FileSource, FilesSource))
        return look(there.path, root=session.root, allow=session.allowed, remote=remote_for(session, there))

    def _destination(self, about: Subject, spec: ResolvedSpec) -> Iterator[Finding]:
        to = spec.spec.destination
        try:
            if isinstance(to, BigQueryDestination):
                datasets = self._datasets(to.project)
                found = list(datasets.check_dataset(about, to.table.strip("`").rpartition(".")[0]))
                yield from found
                if any(f.status == "failure" for f in found):
                    return
                yield datasets.check_jobs(about)
                yield datasets.check_table_write(about, to.table)
            self._session.destination(spec).check()
        except BatchformError as error:
            if isinstance(to, SqlDestination) and self._databases is not None and to.database in self._databases:
                yield self._databases.destination_refused(about, to, error)
            else:
                yield about.error("destination", error, member=self._member)
            return
        if isinstance(to, SqlDestination) and self._databases is not None:
            yield from self._databases.check_rights(about, to)
        yield about.ok("destination", f"{to.place}: nothing speaks against writing it.")

    def _delivered(self, about: Subject, spec: ResolvedSpec) -> Iterator[Finding]:
        """Whether a plan can see what was delivered."""
        to = spec.spec.destination
        try:
            if isinstance(to, BigQueryDestination):
                datasets = self._datasets(to.project)
                found = list(datasets.check_dataset(about, to.table.strip("`").rpartition(".")[0], writes=False))
                yield from found
                if any(f.status == "failure" for f in found):
                    return
            there = self._session.destination(spec).exists()
        except BatchformError as error:
            yield about.error("destination", error, member=self._member)
        else:
            yield about.ok("destination", f"{to.place}: {'there, and may be seen' if there else 'not there yet'}.")

    def _failed_under(self, part: object) -> str:
        """`bucket` or `database` where that of a source or destination failed; else empty."""
        if any(path.startswith(f"gs://{name}/") for path in remote_paths(part) for name in self._failed):
            return "bucket"
        return "database" if getattr(part, "database", None) in self._failed else ""

    def _datasets(self, project: str | None) -> Datasets:
        from batchform.adapters.doctor_places import Datasets

        assert self._cloud is not None
        settings = self._session.project.config.google_cloud
        made = Datasets(settings, self._cloud, env=self._session.env, project=project or settings.project)
        self._open.append(made)
        return made

    @property
    def _member(self) -> str:
        return self._cloud.member if self._cloud else ""
