"""Sources: rows made readable in DuckDB. Nothing heavy is imported before a source is opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform import ports
from batchform.adapters.sources.connect import connect
from batchform.adapters.sources.sql import source_error
from batchform.errors import SourceError
from batchform.spec import bigquery, model
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.adapters.bigquery_client import Access
    from batchform.adapters.sources.bigquery_cache import SnapshotCache
    from batchform.adapters.sources.paths import Remote
    from batchform.spec.model_sql import Database, SqlSource

__all__ = ["connect", "make_bigquery_source", "make_source", "make_sql_source", "source_error"]


LocalSource = model.FileSource | model.DatabaseSource | model.FilesSource


def make_source(spec: LocalSource, *, root: Path, allow: Sequence[Path], remote: Remote | None = None) -> ports.Source:
    """The adapter for a `source` of files. root: the project's folder; allow: other folders it may read; remote: brings
    files of gs:// patterns, which are refused without it.

    Raises SourceError if the fields do not fit together; files are looked at by `open`.
    """
    if remote is not None and not isinstance(spec, model.DatabaseSource):
        patterns = [spec.path] if isinstance(spec.path, str) else spec.path
        if patterns and all(map(is_remote, patterns)):
            from batchform.adapters.sources.listed import ListedSource

            return ListedSource(_of_files(spec, root=root, allow=allow, remote=remote), patterns, remote)
    return _of_files(spec, root=root, allow=allow, remote=remote)


def _of_files(spec: LocalSource, *, root: Path, allow: Sequence[Path], remote: Remote | None) -> ports.Source:
    if isinstance(spec, model.FilesSource):
        from batchform.adapters.sources.files import FileListSource

        return FileListSource(spec, root=root, allow=allow, remote=remote)
    if isinstance(spec, model.DatabaseSource):
        if spec.type == "sqlite":
            from batchform.adapters.sources.sqlite import SqliteSource

            return SqliteSource(spec, root=root, allow=allow)
        from batchform.adapters.sources.databases import DuckdbSource

        return DuckdbSource(spec, root=root, allow=allow)
    return _file_source(spec, root=root, allow=allow, remote=remote)


def make_bigquery_source(
    spec: bigquery.BigQuerySource,
    *,
    access: Access,
    order: Sequence[str],
    needed: frozenset[str] | None,
    cache: SnapshotCache | None,
) -> ports.Source:
    """The adapter for a source in BigQuery. order: columns of the key; needed: columns to read, None for all.

    Raises SourceError if the fields do not fit together; BigQuery is asked by `open`.
    """
    from batchform.adapters.sources.bigquery import BigQueryRows

    return BigQueryRows(spec, access=access, order=order, needed=needed, cache=cache)


def make_sql_source(
    spec: SqlSource, *, root: Path, databases: Mapping[str, Database], needed: Collection[str] | None = None
) -> ports.Source:
    """The adapter for a source that SQLAlchemy reads. databases: those of batchform.yaml; needed: columns to read, None
    for all.

    Raises SourceError if the fields do not fit together; the database is asked by `open`.
    """
    from batchform.adapters.sources.sqlalchemy_rows import SqlSourceRows

    return SqlSourceRows(spec, root=root, databases=databases, needed=needed)


def _file_source(spec: model.FileSource, *, root: Path, allow: Sequence[Path], remote: Remote | None) -> ports.Source:
    if spec.type == "csv":
        from batchform.adapters.sources.delimited import CsvSource

        return CsvSource(spec, root=root, allow=allow, remote=remote)
    for name in ("encoding", "delimiter", "quote"):
        if getattr(spec, name) is not None:
            raise SourceError(f"source.{name} is for csv, and this source is {spec.type}.")
    if spec.type == "parquet":
        from batchform.adapters.sources.parquet import ParquetSource

        return ParquetSource(spec, root=root, allow=allow, remote=remote)
    from batchform.adapters.sources.json_rows import JsonSource

    return JsonSource(spec, root=root, allow=allow, remote=remote)
