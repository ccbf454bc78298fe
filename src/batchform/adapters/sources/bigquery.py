"""Rows from BigQuery, read once as of one moment into a Parquet file, in order of the key.

A table is read as it was at that moment (`FOR SYSTEM_TIME AS OF`), so that a saved plan sends what was reviewed
whatever becomes of the table. A view or a query cannot be told to: what it reads has versions instead, and a saved plan
is refused when one of them changed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from batchform.adapters.bigquery_client import (
    CALL_SECONDS,
    Access,
    closed,
    human_bytes,
    quoted,
    reason_of,
    table_name,
    telling,
    vendor_errors,
)
from batchform.adapters.bigquery_types import arrow_schema, duckdb_type
from batchform.adapters.sources import bigquery_sql as sql
from batchform.adapters.sources.bigquery_cache import SnapshotCache
from batchform.adapters.sources.bigquery_read import batches, in_order, write_raw
from batchform.adapters.sources.bigquery_views import moves_by_views
from batchform.adapters.sources.snapshot import check_columns, temp_path
from batchform.adapters.sources.sql import quote_name, quote_text
from batchform.canon import digest_of, short
from batchform.errors import SourceError
from batchform.ports import Relation
from batchform.spec.bigquery import BigQuerySource

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from google.cloud.bigquery import Client, QueryJob, QueryJobConfig, SchemaField

_ONE: Final = "Write what the rows are made of as one SELECT; WITH may come before it."
_OF_SQL: Final = ("invalidQuery", "invalid", "notFound")
"""Reasons of BigQuery's for which a statement that it was given is at fault, where its table is there."""
_FORMAT: Final = 1  # of what the cache keeps
_KEPT: Final = dt.timedelta(days=7)
_MOST_TABLES: Final = 50  # BigQuery names no more than these of a query


class _Asked(Struct, frozen=True):
    """What would be read. fields: columns to read; columns: all there are; statement: the SQL at a moment (RFC 3339),
    or now for None; version: of what is read, None if that cannot be told; modified: when that changed last, None for
    nothing; pinned: whether the moment decides the rows."""

    fields: tuple[SchemaField, ...]
    columns: tuple[SchemaField, ...]
    statement: Callable[[str | None], str]
    version: str | None
    modified: dt.datetime | None
    pinned: bool
    location: str | None


class BigQueryRows:
    """The `bigquery` source."""

    def __init__(
        self,
        spec: BigQuerySource,
        *,
        access: Access,
        order: Sequence[str] = (),
        needed: frozenset[str] | None = None,
        cache: SnapshotCache | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """order: columns of the key; needed: columns that are read, None for all; cache: where rows are kept."""
        if (spec.table is None) == (spec.query is None):
            raise SourceError("A bigquery source needs either source.table or source.query.")
        if spec.where is not None and spec.table is None:
            raise SourceError("source.where goes with source.table; write the condition into source.query.")
        self._spec, self._access, self._order, self._needed = spec, access, tuple(order), needed
        self._cache = cache if spec.cache else None
        self._now = now
        self._what = "source.query" if spec.query is not None else "source.table"
        self._described = f"bigquery {spec.table}" if spec.table else "bigquery query"

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Read the rows, or take those that were read before and have not changed. Raises SourceError."""
        import duckdb

        from batchform.adapters.sources.sql import source_error

        try:
            with self._client() as client:
                return self._open(con, client)
        except duckdb.Error as error:
            raise source_error(error, self._described) from error

    def identity(self) -> str:
        with self._client() as client:
            return self._identity(self._ask(client))

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:  # noqa: ARG002
        """`bigquery p.d.t, row N by key`."""
        order = " by key" if self._order else ""
        return [f"{self._described}, row {ordinal + 1}{order}" for ordinal in ordinals]

    # --- what is asked

    def _ask(self, client: Client) -> _Asked:
        with telling(SourceError, self._what):
            return self._ask_table(client) if self._spec.table is not None else self._ask_query(client)

    def _ask_table(self, client: Client) -> _Asked:
        spec = self._spec
        try:
            name = table_name(spec.table or "", project=client.project)
        except ValueError as error:
            raise SourceError(f"source.table: {error}.", hint="Write project.dataset.table.") from error
        where = spec.where
        if where is not None:
            sql.check_steady(where, "source.where")
            sql.one_condition(where)
        table = client.get_table(name, retry=self._access.retry, timeout=CALL_SECONDS)
        self._check_location(table.location, f"the table {name}")
        fields, columns = self._chosen(table.schema)
        kind = str(table.table_type or "TABLE")
        pinnable = kind == "TABLE"
        if spec.as_of and not pinnable:
            raise SourceError(
                f"source.as_of: {name} is a {kind.lower().replace('_', ' ')}, which cannot be read as of a time.",
                hint="Name a table, or write FOR SYSTEM_TIME AS OF @snapshot behind each table of source.query.",
            )
        moving = where is not None and sql.is_moving(where)
        if pinnable:
            version, modified = None if table.streaming_buffer is not None else _version(table), table.modified
        else:
            whole = f"SELECT * FROM {quoted(name)}"
            dry = self._dry_run(client, whole, table.location)
            version, modified = self._versions(client, dry, own=_version(table))
            moving |= moves_by_views(client, self._access, whole)

        def statement(at: str | None) -> str:
            return sql.select(fields, sql.from_table(name, moment=at if pinnable else None, where=where))

        pinned = pinnable and not moving
        return _Asked(fields, columns, statement, None if moving else version, modified, pinned, table.location)

    def _ask_query(self, client: Client) -> _Asked:
        query = sql.one_statement(self._spec.query or "")
        sql.check_steady(query, "source.query")
        if self._spec.as_of and not sql.names_snapshot(query):
            raise SourceError(
                "source.as_of needs @snapshot in source.query.",
                hint="Write FOR SYSTEM_TIME AS OF @snapshot behind each table.",
            )
        self._check_moment()
        dry = self._dry_run(client, sql.at_time(query, self._spec.as_of), self._spec.location)
        fields, columns = self._chosen(dry.schema or ())
        read = {r.table_id for r in dry.referenced_tables or ()}
        moving = sql.is_moving(query) or moves_by_views(client, self._access, query)
        version, modified = self._versions(client, dry, own="")

        def statement(at: str | None) -> str:
            return sql.select(fields, sql.from_query(sql.at_time(query, at)))

        pinned = not moving and sql.all_pinned(query, read)
        return _Asked(fields, columns, statement, None if moving else version, modified, pinned, dry.location)

    def _chosen(self, schema: Sequence[SchemaField]) -> tuple[tuple[SchemaField, ...], tuple[SchemaField, ...]]:
        check_columns([field.name for field in schema], f"The result of {self._what}")
        if self._needed is None:
            return tuple(schema), tuple(schema)
        return tuple(f for f in schema if f.name in self._needed), tuple(schema)

    def _check_location(self, there: str | None, what: str) -> None:
        wanted = self._spec.location
        if wanted and there and wanted.lower() != there.lower():
            raise SourceError(
                f"source.location is {wanted}, and {what} lies in {there}.",
                hint=f"Set location: {there}, or remove it: a table is read where it lies.",
            )

    def _versions(self, client: Client, dry: QueryJob, *, own: str) -> tuple[str | None, dt.datetime | None]:
        """The versions of all tables that a statement reads, and when the last of them changed. None: one has none, or
        may not be seen, as those below an authorized view."""
        from google.api_core.exceptions import Forbidden

        tables = list(dry.referenced_tables or ())
        if not tables or len(tables) >= _MOST_TABLES:
            return None, None
        found, times = [own], []
        for reference in tables:
            try:
                table = client.get_table(reference, retry=self._access.retry, timeout=CALL_SECONDS)
            except Forbidden:
                return None, None
            if table.streaming_buffer is not None or str(table.table_type) == "EXTERNAL":
                return None, None
            found.append(_version(table))
            times += [table.modified] if table.modified else []
        return digest_of("bigquery", found), max(times, default=None)

    # --- what is read

    def _open(self, con: DuckDBPyConnection, client: Client) -> Relation:
        asked = self._ask(client)
        columns = {f.name: duckdb_type(f) for f in asked.columns}
        if self._needed is not None and not self._needed <= set(columns):
            return self._relation(con, _nothing(columns))  # what is missing is said by who needs it
        columns = {f.name: columns[f.name] for f in asked.fields}
        slot, version = self._named(asked)
        path = temp_path(con, ".parquet")
        if version and self._cache and self._cache.take(slot, version, path):
            moment, how = self._spec.as_of or _text(self._now()), "unchanged since it was last read"
        else:
            moment, how = self._read(con, client, asked, path)
            settled = bool(self._spec.as_of) or asked.modified is None or _text(asked.modified) < moment
            if version and self._cache and settled:
                self._cache.keep(slot, version, path)
        time = f"as of {moment}" if asked.pinned else f"read at {moment}"
        made = self._relation(con, _reading(path, columns))
        described = f"{self._described}, {time}, {how}"
        return structs.replace(made, described=described, identity=self._identity(asked), notes=self._notes(asked))

    def _relation(self, con: DuckDBPyConnection, select: str) -> Relation:
        described = con.execute(f"DESCRIBE SELECT * FROM {select}").fetchall()
        return Relation(select, {str(name): str(kind) for name, kind, *_ in described}, self._described)

    def _read(self, con: DuckDBPyConnection, client: Client, asked: _Asked, to: Path) -> tuple[str, str]:
        """Read into the file `to`. Returns as of when, and what was processed, in words."""
        self._check_moment()
        with telling(SourceError, self._what):
            dry = self._dry_run(client, asked.statement(self._spec.as_of), asked.location)
            count = int(dry.total_bytes_processed or 0)
            self._check_bytes(count)
            # The service's own time where it says so: for a clock that is ahead of ours, our time has not come yet.
            moment = self._spec.as_of or _text(dry.created or self._now())
            job = self._start(client, asked.statement(moment), asked.location)
            try:
                fields, rows = batches(self._access, job, way=self._spec.read, seconds=self._spec.timeout)
                raw, number = write_raw(con, arrow_schema(fields), rows)
            except BaseException:
                _cancel(client, job)
                raise
        try:
            names = [f.name for f in fields]
            in_order(con, raw, number, order=[n for n in self._order if n in names], columns=names, to=to)
        finally:
            raw.unlink(missing_ok=True)
        return moment, f"{human_bytes(count)} processed"

    def _check_moment(self) -> None:
        if self._spec.as_of is None:
            return
        passed = self._now() - dt.datetime.fromisoformat(self._spec.as_of)
        if passed > _KEPT:
            raise SourceError(
                f"source.as_of is {passed.days} days ago, and BigQuery keeps tables as they were for {_KEPT.days}.",
                hint="Choose a later time, or read a copy of the table that was made then.",
            )

    def _check_bytes(self, count: int) -> None:
        most = self._spec.max_bytes_billed
        if most is not None and count > most:
            raise SourceError(
                f"source.max_bytes_billed allows {human_bytes(most)}, and BigQuery would process {human_bytes(count)}.",
                hint="Nothing was read or billed. Narrow source.where or the query, or raise max_bytes_billed.",
            )

    def _dry_run(self, client: Client, statement: str, location: str | None) -> QueryJob:
        from google.cloud.bigquery import QueryJobConfig

        config = QueryJobConfig(dry_run=True, use_query_cache=False)
        job = self._query(client, statement, config, location)
        kind = job.statement_type
        if kind not in (None, "SELECT"):
            raise SourceError(f"{self._what} may only read: it must be one SELECT, not {kind}.", hint=_ONE)
        return job

    def _start(self, client: Client, statement: str, location: str | None) -> QueryJob:
        from google.cloud.bigquery import QueryJobConfig

        config = QueryJobConfig(labels={"batchform": "source"}, job_timeout_ms=int(self._spec.timeout * 1000))
        if self._spec.max_bytes_billed is not None:
            config.maximum_bytes_billed = self._spec.max_bytes_billed
        return self._query(client, statement, config, location)

    def _query(self, client: Client, statement: str, config: QueryJobConfig, location: str | None) -> QueryJob:
        """Begin a query. What is wrong in the SQL is wrong in `source.where` where that is all that a user wrote."""
        from google.api_core.exceptions import BadRequest, NotFound

        retry = self._access.retry
        try:
            return client.query(
                statement, job_config=config, location=location, retry=retry, timeout=CALL_SECONDS, job_retry=None
            )
        except (BadRequest, NotFound) as error:
            if self._spec.where is None or reason_of(error) not in _OF_SQL:
                raise
            with telling(SourceError, "source.where"):
                raise

    # --- what it is called

    def _named(self, asked: _Asked) -> tuple[str, str | None]:
        """(slot, version) in the cache; the version is None for what must be read anew."""
        asks = [
            _FORMAT,
            asked.statement(None),
            list(self._order),
            [[f.name, f.field_type, f.mode] for f in asked.fields],
        ]
        version = f"as of {self._spec.as_of}" if self._spec.as_of and asked.pinned else asked.version
        slot = short(digest_of("bigquery", asks), 24)
        return slot, short(digest_of("bigquery", version), 24) if version else None

    def _identity(self, asked: _Asked) -> str:
        which = "pinned" if asked.pinned else asked.version or "unknown"
        return digest_of("bigquery", [self._spec.as_of, asked.statement(None), which])

    def _notes(self, asked: _Asked) -> tuple[str, ...]:
        if asked.pinned or asked.version:
            return ()
        said = "can neither be pinned to a time nor be told apart by version"
        return (f"{self._described} {said}: a saved plan sends the rows that were read now, whatever becomes of them",)

    @contextmanager
    def _client(self) -> Iterator[Client]:
        with telling(SourceError, self._what):
            client = self._access.client(project=self._spec.project, location=self._spec.location)
        try:
            yield client
        finally:
            closed(client)


def _version(table: Any) -> str:
    return digest_of(
        "bigquery",
        [str(table.reference), table.etag, str(table.created), str(table.modified), table.num_rows, table.num_bytes],
    )


def _text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cancel(client: Client, job: QueryJob) -> None:
    """Stop what nobody waits for any more: it would be billed all the same."""
    try:
        from google.api_core.retry import Retry

        client.cancel_job(job.job_id, location=job.location, retry=Retry(timeout=5.0), timeout=5.0)
    except vendor_errors():
        return


def _reading(path: Path, columns: dict[str, str]) -> str:
    items = ", ".join(
        f"CAST({quote_name(name)} AS JSON) AS {quote_name(name)}" if kind == "JSON" else quote_name(name)
        for name, kind in columns.items()
    )
    return f"(SELECT {items or 'NULL'} FROM read_parquet({quote_text(str(path))}, hive_partitioning = false))"


def _nothing(columns: dict[str, str]) -> str:
    items = ", ".join(f"CAST(NULL AS {kind}) AS {quote_name(name)}" for name, kind in columns.items())
    return f"(SELECT {items} WHERE false)"
