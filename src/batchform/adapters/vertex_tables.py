"""Inputs and results of Vertex AI's jobs as tables in BigQuery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchform import canon
from batchform.adapters.vertex_access import Access
from batchform.adapters.vertex_wire import BQ, suits_tables, table_name
from batchform.errors import AuthError, BackendError, NotFound
from batchform.ports import RemoteJob

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

    from batchform.adapters.bigquery_client import Access as BigQuery

_LOADS: Final = 9
"""Loads of one input that one run begins."""
_IDS: Final = 1000
"""Loads of one input under one tag that there can ever be."""
_PAGE_ROWS: Final = 5_000
"""Result rows, of a few kilobytes each, that REST is asked for at once."""
_COLUMNS: Final = ("key", "request", "response", "status", "processed_time")


class TableStaging:
    """A dataset: one table for each input, one for the results of each job. `dataset`: `[project.]dataset`."""

    def __init__(self, access: Access, dataset: str, *, project: str, location: str, env: Mapping[str, str]) -> None:
        self._access, self._location = access, location
        self._project, self._env = project, env
        self._dataset = dataset if "." in dataset or ":" in dataset else f"{project}.{dataset}"
        self._fits = False
        self._where = "" if location in ("global", "us", "eu") else location  # of the dataset, as far as is known

    @cached_property
    def _bigquery(self) -> BigQuery:
        from batchform.adapters.bigquery_client import EMULATOR, Access

        env = dict(self._env)
        if self._access.endpoint:
            env[EMULATOR] = self._access.endpoint
        return Access(self._access.settings, env)

    @cached_property
    def _client(self) -> Client:
        return self._bigquery.client(project=self._project, location=None)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    # --- inputs --------------------------------------------------------------------------------------------

    def put(self, path: Path, *, digest: str, tag: str) -> str:
        """Load a shard's lines into a table named by its digest, once. Returns its bq:// URI."""
        doing = f"Loading the input of {tag}"
        with _errors(doing):
            self._check_place()
        table = f"{self._dataset}.bf_in_{canon.short(digest, 32)}"
        rows = path.with_name(f"{path.name}.rows")
        try:
            wanted = _write_rows(path, rows)
            with _errors(doing):
                begun = 0
                for number in range(1, _IDS + 1):
                    if self._rows(table) == wanted:
                        return BQ + table
                    if begun == _LOADS:
                        break
                    begun += self._load(rows, table, job=f"{_job(digest, tag)}-{number}")
        finally:
            rows.unlink(missing_ok=True)
        raise BackendError(
            f"{doing}: after {begun} loads table {table} does not hold its {wanted} rows.",
            hint="Delete the table; only batchform should write into the dataset of `dataset:`.",
        )

    def _rows(self, table: str) -> int | None:
        """How many rows a table has; None if there is none."""
        from google.cloud.exceptions import NotFound as Missing

        try:
            return int(self._client.get_table(table, retry=self._bigquery.retry).num_rows or 0)
        except Missing:
            return None

    def _load(self, rows: Path, table: str, *, job: str) -> bool:
        """One load under an id of its own, which is taken for good. False when it was sent already: its end is waited
        for, and how it ended says nothing about the next one. A load that failed leaves no rows."""
        from google.cloud import bigquery
        from google.cloud.exceptions import Conflict, GoogleCloudError

        config = bigquery.LoadJobConfig(
            schema=[bigquery.SchemaField("key", "STRING", "REQUIRED"), bigquery.SchemaField("request", "STRING")],
            source_format="NEWLINE_DELIMITED_JSON",
            write_disposition="WRITE_EMPTY",
        )
        begun, where = True, self._where or None  # a job of a region is not found without it
        try:
            with rows.open("rb") as lines:
                load: Any = self._client.load_table_from_file(
                    lines, table, job_id=job, job_config=config, location=where
                )
        except Conflict:
            begun = False
            load = self._client.get_job(job, location=where, retry=self._bigquery.retry)
        try:
            load.result(timeout=600, retry=self._bigquery.retry)
        except GoogleCloudError as error:
            ended = load.state == "DONE" and not begun
            if not ended and self._rows(table) is None and error.code not in (400, 404, 409):
                raise
        return begun

    def _check_place(self) -> None:
        """A job fails, after the create call has said yes, if it may not use the dataset where it runs."""
        from google.cloud.exceptions import Forbidden
        from google.cloud.exceptions import NotFound as Missing

        if self._fits:
            return
        try:
            where = str(self._client.get_dataset(self._dataset, retry=self._bigquery.retry).location or "")
        except Forbidden:
            where = ""
        except Missing:
            if not self._access.endpoint:
                raise
            self._make_dataset()
            where = ""
        if where and not suits_tables(where, self._location):
            raise BackendError(
                f"Dataset {self._dataset} lies in {where}, where jobs of {self._location} cannot read it: "
                "BigQuery's tables must be in the job's own region.",
                hint=f"Set `dataset` to one in {self._location}, or `location` to where it is, or `via: storage`.",
                status=400,
            )
        self._where = where or self._where
        self._fits = True

    def _make_dataset(self) -> None:
        """At an emulator, where nobody made one beforehand: where jobs may use it."""
        from google.cloud.bigquery import Dataset

        made = Dataset(self._dataset)
        made.location = "US" if self._location == "global" else self._location
        self._client.create_dataset(made, exists_ok=True)

    def delete(self, name: str) -> None:
        with _errors(f"Deleting input {name}"):
            self._client.delete_table(name.removeprefix(BQ), not_found_ok=True, retry=self._bigquery.retry)

    # --- results -------------------------------------------------------------------------------------------

    def results_at(self, tag: str) -> str:
        """Where the results of a job are to go: a table of its own."""
        return f"{BQ}{self._dataset}.{table_name('bf_out', tag)}"

    def fetch(self, job: RemoteJob, to: Path) -> int:
        """Write the rows of a job's result table as result lines; returns bytes."""
        assert job.results is not None
        with _errors(f"Downloading the results of {job.name}"), to.open("wb") as out:
            return sum(out.write(result_line(row)) for row in self._read(job.results.removeprefix(BQ)))

    def fetch_asked(self, job: RemoteJob, to: Path) -> None:
        """As `fetch`, each line with its request."""
        assert job.results is not None
        with _errors(f"Downloading the results of {job.name}"), to.open("wb") as out:
            for row in self._read(job.results.removeprefix(BQ)):
                out.write(result_line({**row, "key": None}))

    def still_there(self, job: RemoteJob, *, results: Path, lines: Path) -> tuple[str, ...]:
        """The name of a job's result table, if it still holds what was collected, and the shard's requests; else none.

        The table is read once more: a table has no checksum. Its rows come in any order.
        """
        assert job.results is not None
        asked, found, count = _asked(lines), 0, 0
        with _errors(f"Looking at the results of {job.name}"):
            self._check_place()
            for row in self._read(job.results.removeprefix(BQ)):
                found, count = found + _sum_of(result_line(row)), count + 1
                wanted = asked.pop(str(row.get("key")), None)
                if wanted is not None and wanted != _request_digest(row.get("request")):
                    return ()
        with results.open("rb") as kept:
            for line in kept:
                found, count = found - _sum_of(line), count - 1
        return () if asked or found or count else (job.results,)

    def _read(self, name: str) -> Iterator[Mapping[str, Any]]:
        """The rows of a table, a batch or page at a time: by the Storage Read API where it is there and allowed."""
        from batchform.adapters.bigquery_storage import stored_rows

        table = self._client.get_table(name, retry=self._bigquery.retry)
        wanted = [field for field in table.schema if field.name in _COLUMNS]
        columns = [field.name for field in wanted]
        at = table.reference.to_bqstorage()
        stored = stored_rows(self._bigquery, billed=self._client.project, table=at, columns=columns)
        if stored is not None:
            for batch in stored:
                yield from batch.to_pylist()
            return
        for row in self._client.list_rows(
            table, selected_fields=wanted, page_size=_PAGE_ROWS, retry=self._bigquery.retry
        ):
            yield dict(row.items())


def _job(digest: str, tag: str) -> str:
    """What the loads of an input are called, but for their number. Each tag has its own: the table of another one was
    deleted since, and its ids are taken."""
    return f"batchform-in-{canon.short(digest, 32)}-{canon.short(canon.digest_of('load', tag), 12)}"


def result_line(row: Mapping[str, Any]) -> bytes:
    """A row of a result table as a line of a result file. The request is only kept where no key came back."""
    line: dict[str, Any] = {"status": row.get("status") or "", "response": _json(row.get("response")) or {}}
    if row.get("key") is not None:
        line = {"key": str(row["key"]), **line}
    else:
        line["request"] = _json(row.get("request"))
    if row.get("processed_time") is not None:
        line["processed_time"] = str(row["processed_time"])
    return msgspec.json.encode(line) + b"\n"


def _sum_of(line: bytes) -> int:
    """What a line adds to a sum that lines in any order share."""
    return int(canon.digest(line).rpartition(":")[2], 16)


def _request_digest(value: Any) -> str:
    return canon.digest_of("request", _json(value))


def _asked(lines: Path) -> dict[str, str]:
    """Key → digest of the request, of a shard."""
    with lines.open("rb") as source:
        decoded = map(msgspec.json.decode, source)
        return {row["key"]: canon.digest_of("request", row["request"]) for row in decoded}


def _json(value: Any) -> Any:
    """The JSON of a column of type JSON or STRING. What is no JSON stays text."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value


def _write_rows(path: Path, to: Path) -> int:
    """A shard's lines with each request as text, so that it arrives byte for byte. Returns their number."""
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    count = 0
    with path.open("rb") as lines, to.open("wb") as out:
        for line in lines:
            count += 1
            row = decode(line)
            text = bytes(row["request"]).decode()
            out.write(msgspec.json.encode({"key": row["key"], "request": text}) + b"\n")
    return count


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """What BigQuery's client raises, as one of ours."""
    from batchform.adapters.bigquery_client import meaning, reason_of, vendor_errors

    try:
        yield
    except BackendError:
        raise
    except vendor_errors() as error:
        found, reason = meaning(error), reason_of(error)
        status = int(getattr(error, "code", 0) or 0)
        message = f"{doing}: {f'HTTP {status}: ' if status else ''}{found.said}."
        if reason == "notFound":
            raise NotFound(message, hint=found.hint, status=404) from None
        if status in (401, 403):
            raise AuthError(message, hint=found.hint, status=status) from None
        raise BackendError(message, hint=found.hint, status=status) from None
