"""Where rows come from and answers go: picks the adapter for a spec's source and destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchform.errors import SourceError
from batchform.spec.bigquery import BigQueryDestination, BigQuerySource
from batchform.spec.image import images_folder
from batchform.spec.model import DatabaseSource, FileDestination, FileSource, FilesSource, SpecSource
from batchform.spec.model_sql import SqlDestination, SqlSource
from batchform.spec.realm import cloud_of
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.adapters.bigquery_client import Access
    from batchform.adapters.fetched import Fetched
    from batchform.adapters.sources.paths import Remote
    from batchform.adapters.web import Web
    from batchform.cli.wiring import Session
    from batchform.plan.registry import Registry
    from batchform.plan.unchanged import Kept
    from batchform.ports import Destination, Source
    from batchform.spec.resolved import ResolvedSpec


def source_of(session: Session, spec: ResolvedSpec, *, whole: bool = False) -> Source:
    """Where a spec's rows come from. whole: with all columns, where reading fewer would cost less."""
    from batchform.adapters.sources import make_source

    there = spec.spec.source
    if isinstance(there, BigQuerySource):
        from batchform.rows.keyed import key_order, needed_columns

        return _bigquery(session, there, key_order(spec), None if whole else needed_columns(spec))
    if isinstance(there, SqlSource):
        from batchform.rows.keyed import needed_columns

        return _sql(session, there, None if whole else needed_columns(spec))
    if isinstance(there, SpecSource):
        return _answers(session, spec, there)
    return make_source(there, root=session.root, allow=session.allowed, remote=remote_for(session, there))


def attached(session: Session, spec: ResolvedSpec, source: Source) -> Source:
    """A source whose rows come with their attachments."""
    from batchform.adapters.contents import Contents
    from batchform.adapters.sources.attached import AttachedAnswers, AttachedSource
    from batchform.ports import Chained
    from batchform.spec.realm import cloud_of

    contents = Contents(
        root=session.root,
        allow=session.allowed,
        cloud=cloud_of(spec.backend),
        fetched=fetched(session),
        offline=session.offline,
        memory=session.digests,
    )
    made = AttachedAnswers if isinstance(source, Chained) else AttachedSource
    return made(source, spec, contents, root=session.root, allow=session.allowed)


def fetched(session: Session) -> Fetched:
    """Files that rows name elsewhere, as far as they are needed here."""
    from batchform.adapters.fetched import Fetched

    def web() -> Web:
        from batchform.adapters.web import Web

        return Web(allow_hosts=session.project.config.allow_hosts)

    folder = session.cache / "fetched"
    return Fetched(folder, storage=lambda: session.storage, web=None if session.offline else web)


def _answers(session: Session, spec: ResolvedSpec, there: SpecSource) -> Source:
    from batchform.adapters.sources.answers import AnswersSource, Upstream

    upstream = next(s for s in session.project.specs if s.name == there.name)
    of = Upstream(
        upstream,
        session.ledger,
        connect=session.connect,
        scratch=session.scratch,
        source=lambda: session.source(upstream, whole=True),
        source_rows=lambda con: session.source_rows(con, upstream, whole=True),
    )
    return AnswersSource(there, spec, of)


def kept_of(session: Session, spec: ResolvedSpec) -> Kept | None:
    """Where it is noted that nothing was to do for a spec; None unless its rows and the ledger are local files, no row
    names other files, and the choice of rows depends on nothing else."""
    from batchform.adapters.sources.sql import reads_nothing_else
    from batchform.plan.unchanged import Kept

    source = spec.spec.source
    remote = is_remote(session.project.config.ledger) or _lies_remote(source)
    if remote or not isinstance(source, (FileSource, FilesSource)) or spec.attachments:
        return None
    if source.query or not reads_nothing_else(source.where or ""):
        return None

    def stamp() -> str | None:
        from batchform.adapters.sources.paths import expand, stamp_of

        head = session.ledger.head
        own = [s.name for s in head.segments if s.kind == "rows" and s.spec == spec.name] if head else []
        own += [asked.chosen for _, asked in session.ledger.control().reruns.get(spec.name, ())]
        try:
            files = expand(source.path, root=session.root, allow=session.allowed)
        except SourceError:  # told, with its place, by whoever reads the rows
            return None
        return stamp_of(files, settled=[session.ledger_path / name for name in own])

    return Kept(session.cache / "plans" / f"{spec.name}.json", stamp)


def destination_of(session: Session, spec: ResolvedSpec) -> Destination:
    """Where a spec's answers go."""
    from batchform.adapters.destinations import make_destination, with_images

    to, pictures = spec.spec.destination, images_folder(spec.spec) if spec.task == "image" else None
    beside = session.storage if pictures and is_remote(pictures) else None
    if isinstance(to, BigQueryDestination):
        from batchform.adapters.destinations.bigquery import BigQueryTable

        was = _earlier_names(session, spec)
        table = BigQueryTable(to, spec=spec.name, access=_access(session), now=session.clock.now, was=was)
        return with_images(table, spec.spec, root=session.root, allow=session.allowed, storage=beside)

    storage = session.storage if _lies_remote(to) else None
    rows = make_destination(
        to,
        spec=spec.name,
        root=session.root,
        allow=session.allowed,
        storage=storage,
        databases=session.project.config.databases,
        was=() if isinstance(to, FileDestination) else _earlier_names(session, spec),
    )
    return with_images(rows, spec.spec, root=session.root, allow=session.allowed, storage=beside)


def _earlier_names(session: Session, spec: ResolvedSpec) -> tuple[str, ...]:
    """Names that a spec's rows went under before, as its file or the ledger says: tables may still bear them."""
    from batchform.ledger.moves import Moved

    names = list(spec.spec.moved.names if spec.spec.moved else ())
    wanted = {spec.name}
    for _, event in reversed(session.ledger.control().moves):
        if isinstance(event, Moved) and event.before and event.spec in wanted:
            wanted.add(event.before)
            names.append(event.before)
    return tuple(dict.fromkeys(names))


def delivered_of(session: Session, spec: ResolvedSpec) -> Source:
    """What lies at a spec's destination, to be read as a source is."""
    from batchform.adapters.sources import make_source

    there = spec.spec.destination
    if isinstance(there, BigQueryDestination):
        # Of a shared table, the rows that are this spec's.
        own = f"_batchform.spec = '{spec.name}'" if there.shared and there.metadata else None
        source = BigQuerySource(
            type="bigquery", table=there.table, where=own, project=there.project, location=there.location, cache=False
        )
        return _bigquery(session, source, (), None)
    if isinstance(there, SqlDestination):
        return _sql(session, SqlSource(type="sql", database=there.database, table=there.table), None)
    if isinstance(there, FileDestination):
        path = f"{there.path}part-*" if there.path.endswith("/") else there.path
        made: FileSource | DatabaseSource = FileSource(type=there.type, path=path)
    else:
        made = DatabaseSource(type=there.type, path=there.path, table=there.table)
    return make_source(made, root=session.root, allow=session.allowed, remote=remote_for(session, made))


def _bigquery(
    session: Session, source: BigQuerySource, order: tuple[str, ...], needed: frozenset[str] | None
) -> Source:
    from batchform.adapters.sources import make_bigquery_source
    from batchform.adapters.sources.bigquery_cache import SnapshotCache

    cache = SnapshotCache(session.cache / "bigquery")
    return make_bigquery_source(source, access=_access(session), order=order, needed=needed, cache=cache)


def _sql(session: Session, source: SqlSource, needed: frozenset[str] | None) -> Source:
    from batchform.adapters.sources import make_sql_source

    return make_sql_source(source, root=session.root, databases=session.project.config.databases, needed=needed)


def _access(session: Session) -> Access:
    from batchform.adapters.bigquery_client import Access

    return Access(session.project.config.google_cloud, session.env)


def remote_for(session: Session, source: object) -> Remote | None:
    """Brings the files of a source at gs://; None for one that has none."""
    if not _lies_remote(source):
        return None
    from batchform.adapters.storage.files import StorageFiles

    return StorageFiles(session.storage, session.cache)


def _lies_remote(part: object) -> bool:
    """Whether a source or destination has a gs:// path."""
    path = getattr(part, "path", "")
    return any(map(is_remote, [path] if isinstance(path, str) else path))


def registry_of(session: Session, backend: str) -> Registry:
    """Models and prices as they hold at a backend; those of the Gemini API for one that the project has no longer."""
    known = session.project.config.backends.get(backend)
    return session.registry.on(cloud_of(known) if known else "gemini")
