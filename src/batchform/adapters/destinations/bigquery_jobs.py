"""The jobs of a delivery to BigQuery: begun once under their own name, found again and waited for by a retry."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.adapters.bigquery_client import CALL_SECONDS, Access, vendor_errors
from batchform.adapters.bigquery_types import Column
from batchform.adapters.destinations.bigquery_rows import Lines

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

_STAGED_HOURS: Final = 24
_ONE_REQUEST: Final = 4 << 20
"""Up to this size a file is sent in one request; larger ones in pieces, which can be taken up again."""


class Named(Struct, frozen=True):
    """What one attempt at a delivery is called: its two jobs, and its staging table."""

    load: str
    merge: str
    staging: str


def names_of(digest: str, attempt: int) -> Named:
    name = f"{digest}_{attempt}"
    return Named(f"batchform_load_{name}", f"batchform_merge_{name}", f"_batchform_staging_{name}")


class Jobs:
    """The jobs in one dataset."""

    def __init__(
        self,
        client: Client,
        access: Access,
        *,
        dataset: str,
        location: str,
        seconds: float,
        max_bytes_billed: int | None,
        now: Callable[[], dt.datetime],
    ) -> None:
        """dataset: project.dataset; location: where it lies; seconds: how long each job may take."""
        self._client, self._access, self._dataset, self._location = client, access, dataset, location
        self._seconds, self._max_bytes_billed, self._now = seconds, max_bytes_billed, now

    def staging(self, named: Named) -> str:
        return f"{self._dataset}.{named.staging}"

    def find(self, job_id: str) -> Any | None:
        """A job by its name, None if there never was one."""
        from google.api_core.exceptions import NotFound

        try:
            return self._client.get_job(job_id, location=self._location, retry=self._access.retry, timeout=CALL_SECONDS)
        except NotFound:
            return None

    def succeeded(self, job: Any) -> bool:
        """Whether a job that was begun earlier did its work; waits for one that is still at it."""
        try:
            job.result(retry=self._access.retry, timeout=self._seconds)
        except vendor_errors():
            if job.state == "DONE":
                return False
            raise
        return True

    def load(self, columns: Sequence[Column], lines: Lines, named: Named) -> bool:
        """Load the rows into their staging table. False when an earlier job of this name left nothing to merge."""
        from google.api_core.exceptions import Conflict
        from google.cloud.bigquery import LoadJobConfig, SchemaField, SourceFormat, Table

        staging = Table(self.staging(named), schema=[SchemaField.from_api_repr(c.api()) for c in columns])
        staging.expires = self._now() + dt.timedelta(hours=_STAGED_HOURS)
        staging.labels = {"batchform": "staging"}
        self._client.create_table(staging, exists_ok=True, retry=self._access.retry, timeout=CALL_SECONDS)
        config = LoadJobConfig(
            source_format=SourceFormat.NEWLINE_DELIMITED_JSON,
            schema=staging.schema,
            write_disposition="WRITE_EMPTY",
            labels={"batchform": "load"},
        )
        size = lines.path.stat().st_size

        def send() -> Any:
            with lines.path.open("rb") as file:
                return self._client.load_table_from_file(
                    file,
                    staging,
                    job_id=named.load,
                    location=self._location,
                    job_config=config,
                    size=size if size < _ONE_REQUEST else None,
                    timeout=CALL_SECONDS,
                )

        try:  # the client repeats an upload by its status alone, not by BigQuery's word: a rate limit may be a 403
            job = self._access.retry(send)()
        except Conflict:
            found = self.find(named.load)
            if found is None:
                raise
            if not self.succeeded(found):
                return False
        else:
            job.result(retry=self._access.retry, timeout=self._seconds)
        held = self._client.get_table(staging.reference, retry=self._access.retry, timeout=CALL_SECONDS)
        whole: bool = held.num_rows == lines.rows
        return whole

    def merge(self, sql: str, named: Named) -> None:
        """Run the merge, or wait for the one of this name. Raises what BigQuery says when it fails."""
        from google.api_core.exceptions import Conflict
        from google.cloud.bigquery import QueryJobConfig

        config = QueryJobConfig(labels={"batchform": "merge"}, job_timeout_ms=int(self._seconds * 1000))
        if self._max_bytes_billed is not None:
            config.maximum_bytes_billed = self._max_bytes_billed
        job: Any
        try:
            job = self._client.query(
                sql,
                job_id=named.merge,
                job_config=config,
                location=self._location,
                retry=self._access.retry,
                timeout=CALL_SECONDS,
                job_retry=None,
            )
        except Conflict:
            job = self.find(named.merge)
            if job is None:
                raise
        job.result(retry=self._access.retry, timeout=self._seconds, job_retry=None)

    def unstage(self, named: Named) -> None:
        """Remove the staging table. One that stays expires by itself."""
        with suppress(*vendor_errors()):
            self._client.delete_table(
                self.staging(named), not_found_ok=True, retry=self._access.retry, timeout=CALL_SECONDS
            )
