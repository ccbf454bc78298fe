"""Where rows come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Relation(Struct, frozen=True):
    """Rows ready to be read in DuckDB: `SELECT * FROM <sql>` yields them in a stable order.

    sql: a FROM-able expression (a view or temp table, quoted if needed); columns: name → DuckDB type, in order;
    described: what was read, for people ("3 files, data/tickets*.csv"); paths: the files read, empty for databases;
    identity: what was read beside files, such as a table and its version: another one makes a saved plan stale;
    notes: what a reader of the plan should know of it.
    versions: what was read elsewhere, so exactly that each names the same bytes for ever ("gs://b/a.csv#17"); a saved
    plan lists them, and `identity` covers them.
    """

    sql: str
    columns: Mapping[str, str]
    described: str
    paths: tuple[Path, ...] = ()
    identity: str = ""
    notes: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


@runtime_checkable
class Source(Protocol):
    """Where rows come from."""

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Make the rows readable in `con`. Raises SourceError naming file and line where it can."""
        ...

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """Where the rows with these 0-based ordinals of the relation stand, for error messages: `data/a.csv:17`."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A source that knows what it would read without reading it: what is far away is not read again only to see whether
    a saved plan is stale."""

    def identity(self) -> str:
        """The `identity` that the relation would have if it were opened now. Raises SourceError."""
        ...


@runtime_checkable
class Probed(Protocol):
    """A source that can be tried without reading its rows."""

    def probe(self, con: DuckDBPyConnection) -> str:
        """Whether its rows could be read: what is there, for people. Raises SourceError as `open` would."""
        ...


@runtime_checkable
class Chained(Source, Protocol):
    """A source whose rows are the answers of another spec, of which some may still be to come.

    upstream: that spec's name; whole_only: whether nothing can be told of its rows until all answers are there.
    """

    @property
    def upstream(self) -> str: ...

    @property
    def whole_only(self) -> bool: ...

    def without(self, changing: Sequence[Path]) -> Source:
        """The same source without rows whose answers are about to change. changing: Parquet files of `key_hash`."""
        ...

    def delivered(self) -> Source:
        """The same source with every answer that is delivered, also one that is about to be another."""
        ...

    def settled(self) -> int:
        """Rows whose answers are there, as far as the ledger tells."""
        ...

    def unsettled(self) -> int:
        """Rows whose answers are still to come, as far as the ledger tells: in jobs, queued, or failed and tried
        again."""
        ...
