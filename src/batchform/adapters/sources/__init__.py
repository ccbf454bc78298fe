"""Sources: rows made readable in DuckDB. Nothing heavy is imported before a source is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform import ports
from batchform.adapters.sources.connect import connect
from batchform.adapters.sources.sql import source_error
from batchform.errors import SourceError
from batchform.spec import bigquery, model

if TYPE_CHECKING:
    from batchform.adapters.bigquery_client import Access
    from batchform.adapters.sources.bigquery_cache import SnapshotCache

__all__ = ["connect", "make_bigquery_source", "make_source", "source_error"]


LocalSource = model.FileSource | model.DatabaseSource | model.FilesSource


def make_source(spec: LocalSource, *, root: Path, allow: Sequence[Path]) -> ports.Source:
    """The adapter for a `source` on this machine. root: the project's folder; allow: other folders it may read.

    Raises SourceError if the fields do not fit together; files are looked at by `open`.
    """
    if isinstance(spec, model.FilesSource):
        from batchform.adapters.sources.files import FileListSource

        return FileListSource(spec, root=root, allow=allow)
    if isinstance(spec, model.DatabaseSource):
        if spec.type == "sqlite":
            from batchform.adapters.sources.sqlite import SqliteSource

            return SqliteSource(spec, root=root, allow=allow)
        from batchform.adapters.sources.databases import DuckdbSource

        return DuckdbSource(spec, root=root, allow=allow)
    return _file_source(spec, root=root, allow=allow)


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


def _file_source(spec: model.FileSource, *, root: Path, allow: Sequence[Path]) -> ports.Source:
    if spec.type == "csv":
        from batchform.adapters.sources.delimited import CsvSource

        return CsvSource(spec, root=root, allow=allow)
    for name in ("encoding", "delimiter", "quote"):
        if getattr(spec, name) is not None:
            raise SourceError(f"source.{name} is for csv, and this source is {spec.type}.")
    if spec.type == "parquet":
        from batchform.adapters.sources.parquet import ParquetSource

        return ParquetSource(spec, root=root, allow=allow)
    from batchform.adapters.sources.json_rows import JsonSource

    return JsonSource(spec, root=root, allow=allow)
