"""Answers in a BigQuery table: loaded into a staging table, then merged by key in one statement.

Readers see the table as it was or as it is: a MERGE is atomic. Jobs are named after what they do to which table, so
that a delivery that was cut off finds its own job and waits for it, and one whose answer was lost does nothing twice.
Doing the same merge twice would change nothing either: rows are found by their key, and written whole.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from batchform.adapters.bigquery_client import CALL_SECONDS, Access, closed, table_name, telling, vendor_errors
from batchform.adapters.bigquery_types import Column, column_in
from batchform.adapters.destinations.bigquery_jobs import Jobs, names_of
from batchform.adapters.destinations.bigquery_merge import evolved, merge_sql, own_rows
from batchform.adapters.destinations.bigquery_rows import Lines, columns_of, staging_columns, write_lines
from batchform.adapters.destinations.staging import refusing
from batchform.adapters.sources.snapshot import temp_path
from batchform.canon import digest_of, short
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery
from batchform.rows.sql import identifier
from batchform.spec.bigquery import BigQueryDestination, name_problem

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from google.cloud.bigquery import Client, Table

LABEL: Final = "batchform-spec"
_FORMAT: Final = 2  # of what a merge does; part of the names of jobs
_ATTEMPTS: Final = 1000
_HINT: Final = "Nothing was changed there, and no answer is lost: put this right and run `batchform sync`."
_TIMES: Final = ("DATE", "DATETIME", "TIMESTAMP")


class BigQueryTable:
    """The `bigquery` destination."""

    def __init__(
        self,
        to: BigQueryDestination,
        *,
        spec: str,
        access: Access,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        was: Collection[str] = (),
    ) -> None:
        """spec: name of the spec whose answers the table holds; was: its earlier names."""
        self._to, self._spec, self._access, self._now = to, spec, access, now
        self._was = was
        self._shown = f"table {to.table}"

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:  # noqa: ARG002
        """A table that cannot be asked for now counts as still there, and as it was. A shared one is others' too."""
        try:
            with self._client() as client:
                table = self._table(client)
        except DestinationError:
            return True
        return table is not None and (self._to.shared or all(_stamp(table) == stamp for stamp in stamps))

    def check(self, columns: Sequence[str] | None = None) -> None:
        with self._client() as client, self._telling():
            self._check_options(columns)
            self._dataset_location(client)
            table = self._table(client)
            if table is not None:
                self._refuse_foreign(table)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        relation = delivery.relation if delivery.full else delivery.changed
        path, stamps = temp_path(con, ".jsonl.gz"), delivery.stamps
        try:
            with refusing(self._shown):
                columns = columns_of(con, relation)
                self._refuse_names(columns)
                self._check_options([c.name for c in columns])
                self._refuse_null_keys(con, relation, delivery.key_columns)
                lines = write_lines(con, relation, path)
            if lines.rows or delivery.full:
                with self._client() as client, self._telling():
                    stamp = self._write(client, delivery, columns, lines)
                stamps = () if self._to.shared else (stamp,)
        finally:
            path.unlink(missing_ok=True)
        return Delivered(lines.rows, self._to.table, stamps=stamps)

    # --- what is there

    def _table(self, client: Client) -> Table | None:
        from google.api_core.exceptions import NotFound

        with self._telling():
            try:
                return client.get_table(self._name(client), retry=self._access.retry, timeout=CALL_SECONDS)
            except NotFound:
                return None

    def _name(self, client: Client) -> str:
        try:
            name = table_name(self._to.table, project=client.project)
        except ValueError as error:
            raise DestinationError(f"destination.table: {error}.", hint="Write project.dataset.table.") from error
        if any(sign in name.rpartition(".")[2] for sign in "*$@"):
            raise DestinationError(f"destination.table: {self._to.table} names no single table.")
        return name

    def _dataset_location(self, client: Client) -> str:
        """Where the dataset lies: there all jobs run. Raises DestinationError when the spec says another region."""
        from google.api_core.exceptions import NotFound

        project, dataset, _ = self._name(client).rsplit(".", 2)
        try:
            found = client.get_dataset(f"{project}.{dataset}", retry=self._access.retry, timeout=CALL_SECONDS)
        except NotFound as error:
            region = self._to.location or "REGION"
            raise DestinationError(
                f"{self._shown}: there is no dataset {project}.{dataset}, or these credentials may not see it.",
                hint=f"Make it with: bq --location={region} mk --dataset {project}:{dataset}",
            ) from error
        there = str(found.location)
        if self._to.location and self._to.location.lower() != there.lower():
            raise DestinationError(
                f"destination.location is {self._to.location}, and the dataset {project}.{dataset} lies in {there}.",
                hint=f"Set location: {there}, or name a dataset in {self._to.location}.",
            )
        return there

    def _refuse_foreign(self, table: Table) -> None:
        """Raise DestinationError unless the table is this spec's, empty, or shared."""
        kind = str(table.table_type or "TABLE")
        if kind != "TABLE":
            raise DestinationError(f"{self._shown} is a {kind.lower().replace('_', ' ')}, which cannot be written.")
        owner = (table.labels or {}).get(LABEL)
        if self._to.shared or owner == self._spec or owner in self._was:
            return
        if owner:
            raise DestinationError(
                f"{self._shown} belongs to the spec {owner}: two specs cannot share a table.",
                hint=f"Choose another table, drop this one if {owner} no longer delivers to it, or set "
                "destination.shared: true in both.",
            )
        if table.num_rows or table.streaming_buffer is not None:
            raise DestinationError(
                f"{self._shown} is already there, and batchform did not make it: it is left alone.",
                hint="Choose another table, or set destination.shared: true to merge by key into this one.",
            )

    def _check_options(self, columns: Sequence[str] | None) -> None:
        to = self._to
        if to.prune and to.shared and not to.metadata:
            raise DestinationError(
                "destination.prune in a shared table needs destination.metadata, which tells whose a row is."
            )
        if len(to.cluster_by) > 4:
            raise DestinationError(
                f"destination.cluster_by names {len(to.cluster_by)} columns, and BigQuery takes four."
            )
        known = {c.casefold() for c in columns} if columns is not None else None
        for field, names in (
            ("partition_by", [to.partition_by] if to.partition_by else []),
            ("cluster_by", to.cluster_by),
        ):
            for name in names:
                if known is not None and name.casefold() not in known:
                    raise DestinationError(
                        f"destination.{field} names {name}, which is no column of the answers.",
                        hint=f"They are: {', '.join(columns or ())}.",
                    )

    def _refuse_names(self, columns: Sequence[Column]) -> None:
        for column in columns:
            if problem := name_problem(column.name):
                raise DestinationError(
                    f"{self._shown}: the name {column.name!r} {problem}.",
                    hint="Give it another one, or deliver it as JSON.",
                )
            self._refuse_names(column.fields)

    def _refuse_null_keys(self, con: DuckDBPyConnection, relation: str, key: Sequence[str]) -> None:
        if not key:
            raise DestinationError(f"{self._shown}: rows are merged by key, and no column holds it.")
        missing = " OR ".join(f"{identifier(k)} IS NULL" for k in key)
        [(count,)] = con.execute(f"SELECT count(*) FROM {relation} WHERE {missing}").fetchall()
        if count:
            raise DestinationError(
                f"{self._shown}: {count:,} answers have no value in a column of the key ({', '.join(key)}).",
                hint="They were sent under another key. Give them up with prune, or deliver them to a file.",
            )

    # --- writing

    def _write(self, client: Client, delivery: Delivery, columns: Sequence[Column], lines: Lines) -> str:
        location = self._dataset_location(client)
        before = self._table(client)
        if before is not None:
            self._refuse_foreign(before)
        table = self._prepared(client, before, columns)
        try:
            return self._bring(client, table, delivery, columns, lines, location)
        except BaseException:
            if before is None:
                self._undo(client)
            raise

    def _prepared(self, client: Client, table: Table | None, columns: Sequence[Column]) -> Table:
        """The table with all columns: made, or with new columns added."""
        from google.api_core.exceptions import Conflict, PreconditionFailed
        from google.cloud.bigquery import SchemaField

        for _ in range(5):
            if table is None:
                with suppress(Conflict):
                    return client.create_table(
                        self._new_table(client, columns), retry=self._access.retry, timeout=CALL_SECONDS
                    )
                table = self._table(client)
                continue
            schema = [f.to_api_repr() for f in table.schema]
            more = evolved(schema, [column_in(f) for f in table.schema], columns, shown=self._shown)
            changed = []
            if more is not None:
                table.schema = [SchemaField.from_api_repr(f) for f in more]
                changed.append("schema")
            if not self._to.shared and (table.labels or {}).get(LABEL) != self._spec:
                table.labels = {**(table.labels or {}), LABEL: self._spec}
                changed.append("labels")
            if not changed:
                return table
            with suppress(PreconditionFailed):  # somebody else was first: look again
                return client.update_table(table, changed, retry=self._access.retry, timeout=CALL_SECONDS)
            table = self._table(client)
        raise DestinationError(f"{self._shown} is being changed by others again and again.", hint=_HINT)

    def _new_table(self, client: Client, columns: Sequence[Column]) -> Table:
        from google.cloud.bigquery import SchemaField, Table, TimePartitioning

        made = Table(self._name(client), schema=[SchemaField.from_api_repr(c.api()) for c in columns])
        made.labels = {} if self._to.shared else {LABEL: self._spec}
        named = {c.name.casefold(): c for c in columns}
        if self._to.partition_by:
            by = named[self._to.partition_by.casefold()]
            if by.kind not in _TIMES:
                raise DestinationError(
                    f"destination.partition_by names {by.name}, which is {by.shown}: it must be a date or a time."
                )
            made.time_partitioning = TimePartitioning(type_=self._to.partition.upper(), field=by.name)
        if self._to.cluster_by:
            made.clustering_fields = [named[c.casefold()].name for c in self._to.cluster_by]
        return made

    def _bring(
        self,
        client: Client,
        table: Table,
        delivery: Delivery,
        columns: Sequence[Column],
        lines: Lines,
        location: str,
    ) -> str:
        """Load and merge, or wait for the jobs that already do so; the table's stamp after that.

        When somebody wrote while the merge ended, it is done once more: what they wrote may lie over it.
        """
        there = [column_in(f) for f in table.schema]
        remove = None
        if delivery.full:
            remove = "true" if not self._to.shared else own_rows(self._spec, *self._was) if self._to.metadata else None
        asks = [_FORMAT, delivery.owner, self._name(client), [c.api() for c in columns], delivery.key_columns, remove]
        jobs = Jobs(
            client,
            self._access,
            dataset=f"{table.project}.{table.dataset_id}",
            location=location,
            seconds=self._to.timeout,
            max_bytes_billed=self._to.max_bytes_billed,
            now=self._now,
        )
        digest = short(digest_of("delivery", [*asks, lines.digest]), 24)
        target, again = f"{table.project}.{table.dataset_id}.{table.table_id}", False
        for attempt in range(_ATTEMPTS):
            named = names_of(digest, attempt)
            merged = jobs.find(named.merge)
            if merged is not None:
                left = self._table(client) if jobs.succeeded(merged) else None
                jobs.unstage(named)
                if left is not None and _untouched_since(left, merged):
                    return _stamp(left)
                continue
            if not jobs.load(staging_columns(columns), lines, named):
                jobs.unstage(named)
                continue
            sql = merge_sql(target, jobs.staging(named), columns, there, key=delivery.key_columns, remove=remove)
            jobs.merge(sql, named)
            jobs.unstage(named)
            left, merged = self._table(client), jobs.find(named.merge)
            if left is None or merged is None or again or self._to.shared or _untouched_since(left, merged):
                return _stamp(left)
            again = True
        raise DestinationError(f"{self._shown}: {_ATTEMPTS} attempts at this delivery failed.", hint=_HINT)

    def _undo(self, client: Client) -> None:
        """Remove a table that was made for a delivery that failed, if nothing has come into it."""
        with suppress(DestinationError, *vendor_errors()):
            table = self._table(client)
            if table is not None and not table.num_rows and table.streaming_buffer is None:
                client.delete_table(table.reference, not_found_ok=True, retry=self._access.retry, timeout=CALL_SECONDS)

    @contextmanager
    def _client(self) -> Iterator[Client]:
        with self._telling():
            client = self._access.client(project=self._to.project, location=self._to.location)
        try:
            yield client
        finally:
            closed(client)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        with telling(DestinationError, f"{self._shown} cannot be used", hint=_HINT):
            yield


def _untouched_since(table: Table, job: Any) -> bool:
    """Whether a table is still as a job left it: not dropped, nor made anew, nor written since."""
    if job.ended is None or table.modified is None:
        return False
    untouched: bool = table.modified <= job.ended
    return untouched


def _stamp(table: Table | None) -> str:
    """When a table was last written, or changed otherwise. None is a table that was dropped."""
    return "" if table is None or table.modified is None else table.modified.isoformat(timespec="milliseconds")
