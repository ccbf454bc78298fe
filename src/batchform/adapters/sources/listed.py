"""A source whose files are all in Cloud Storage: what it would read is known from a listing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchform.adapters.sources.paths import Remote, identity_of
from batchform.ports import Relation, Source

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class ListedSource:
    """Another source, with the identity of its files."""

    def __init__(self, source: Source, patterns: Sequence[str], remote: Remote) -> None:
        self._source, self._patterns, self._remote = source, patterns, remote

    def open(self, con: DuckDBPyConnection) -> Relation:
        return self._source.open(con)

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        return self._source.locate(con, ordinals)

    def identity(self) -> str:
        """As the relation's, without reading any file. Raises SourceError."""
        return identity_of(version for pattern in self._patterns for version in self._remote.versions(pattern))
