"""The services that run jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, field

if TYPE_CHECKING:
    from batchform.ports.caches import Caches


class BackendLimits(Struct, frozen=True):
    """What one job may hold. Bytes of the JSONL; inline_bytes bounds the whole create request; largest: bytes of the
    longest line that the service takes at all."""

    max_rows_per_job: int
    max_bytes_per_job: int
    inline_bytes: int
    largest: int


class Staged(Struct, frozen=True):
    """An input ready to be named in a create call. `name` is None for inline input (then `path` has the lines).

    more: names of further files of the same input.
    """

    path: Path
    name: str | None
    expires_at: datetime | None = None
    more: tuple[str, ...] = ()


class File(Struct, frozen=True):
    """A file that requests name by its content.

    digest: `sha256:<hex>`, or `crc32c:<hex>-<size>` of an object in Cloud Storage; size in bytes; path: where its bytes
    are on this machine, None for an object; address: of the object, "" for a local file; name: of pages of a PDF, which
    are named by the content of the whole, what its copy is to be called, where names can be chosen.
    """

    digest: str
    mime_type: str
    size: int
    path: Path | None
    address: str = ""
    name: str = ""


class Placed(Struct, frozen=True):
    """Where a job can read a file. renew_at: from then on no job may be created that reads it there; None: never."""

    uri: str
    renew_at: datetime | None = None


TERMINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"})


class RemoteJob(Struct, frozen=True):
    """A job as the service shows it, read from the raw answer.

    state: without prefix: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, EXPIRED, PARTIALLY_SUCCEEDED, or whatever
    unknown word the service used; counts: request counts by name (total, succeeded, failed, pending), as integers, may
    be empty; error: the service's own message; results: opaque handle for `download`, None if there are none.
    """

    name: str
    tag: str
    state: str
    model: str = ""
    created_at: datetime | None = None
    ended_at: datetime | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    input_name: str | None = None
    results: str | None = None
    inline_results: bool = False
    error: str = ""

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL_STATES


class StoredFile(Struct, frozen=True):
    """A file of results that stays where the service wrote it. uri: `gs://…`; generation: which version of it; size: in
    bytes; crc32c: as Cloud Storage gives it."""

    uri: str
    generation: int
    size: int
    crc32c: str


class StoredFiles(Protocol):
    """Results as the service wrote them, read where they lie and only when they are needed."""

    def files_of(self, job: RemoteJob, *, results: Path) -> tuple[StoredFile, ...]:
        """The files with a job's result lines, in order, if they can be read later and hold what `download` wrote to
        `results`, byte for byte; else none. Raises BackendError."""
        ...

    def problem(self, file: StoredFile) -> str:
        """What became of a file, in words; "" if it is there as it was. Raises BackendError, AuthError when that cannot
        be asked."""
        ...

    def pieces(self, file: StoredFile) -> Iterator[bytes]:
        """The bytes of a file, asked for range by range as they are used, and held against its checksum at the end.
        Raises NotFound when it is not there as it was, BackendError."""
        ...


class ServedModel(Struct, frozen=True):
    """A model as the service lists it. batch: whether it takes batches of requests; embeds: whether it makes
    vectors and nothing else; thinking: whether it can think; limits in tokens. None where the service says nothing."""

    id: str
    batch: bool
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    embeds: bool | None = None
    thinking: bool | None = None


class Backend(Protocol):
    """A batch service. Every call has a timeout; only reads are retried; `create` is called once.

    realm: whose answers these are; fingerprint: digest of what decides which jobs are seen (kind, endpoint, and the
    credential or the project), never a credential; place: project and location of the jobs, "" where there are none;
    stored: results that stay where the service wrote them, None where the service has no such place; caches: contexts
    that requests name, None where its batches take none.
    """

    realm: str
    fingerprint: str
    place: str

    @property
    def stored(self) -> StoredFiles | None: ...

    @property
    def caches(self) -> Caches | None: ...

    def check_model(self, model: str, *, task: str = "generate") -> None:
        """Raise BackendError if the service does not know the model or it takes no batches of this task."""
        ...

    def stage(self, path: Path, *, digest: str, tag: str, mode: str) -> Staged:
        """Make a shard ready for `create`. mode "file" or "table", which are for people to tell apart: upload it under
        a name derived from its digest (repeatable: the same digest is uploaded once); mode "inline": nothing to
        upload."""
        ...

    def stage_results(self, job: RemoteJob, *, results: Path, lines: Path) -> Staged | None:
        """What an ended job has written, as the input of a job that goes on with it: the service runs the rows without
        an answer and hands on the others. Nothing is uploaded. None where the service has no such thing, or where what
        is there now is not what was collected, with the requests of the rows to be run.

        results: the job's result lines as `download` wrote them; lines: a shard of the rows without an answer.
        """
        ...

    def place_file(self, file: File) -> Placed:
        """Make a file readable for jobs, under a name from its content and type: the same file is uploaded once. What
        was uploaded too long ago to outlive a job is uploaded anew.

        Raises StalePlan when the file no longer holds what its digest says, BackendError. Threads may call it at once.
        """
        ...

    def at(self, place: str) -> Backend:
        """This backend for jobs of another place, as the ledger recorded it; itself for its own place and for ""."""
        ...

    def create(
        self,
        *,
        model: str,
        tag: str,
        staged: Staged,
        before: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        task: str = "generate",
    ) -> str:
        """Create the job, once. Returns its name. Raises NotCreated or OutcomeUnknown, nothing else.

        before: the call must not be on its way later than this, however long it took to connect: NotCreated then;
        labels: for people and for bills, where the service keeps such; any text, made fit by the adapter; task: what is
        made of each row, by the words of a spec: some services have a call of its own for it.
        """
        ...

    def get(self, job: str) -> RemoteJob:
        """The job now. Raises NotFound, AuthError, BackendError."""
        ...

    def list_jobs(self) -> Iterator[RemoteJob]:
        """All jobs of this credential, newest first, page by page."""
        ...

    def download(self, job: RemoteJob, to: Path) -> int:
        """Stream the raw result lines of a terminal job to a file, one JSON object a line; returns bytes written."""
        ...

    def download_foreign(self, job: RemoteJob, to: Path, *, requests: Path) -> None:
        """As `download`, of a job that somebody else made: each result with its request, where the service keeps that
        beside it. requests: gets the lines that the job was sent where the service gives those back, or none."""
        ...

    def input_digest(self, job: RemoteJob) -> str:
        """sha256 of the content that a job was sent, in hex; "" where the service does not say, or no longer does."""
        ...

    def cancel(self, job: str) -> None: ...

    def delete(self, job: str) -> None: ...

    def delete_input(self, name: str) -> None:
        """Remove a staged input; absent is fine."""
        ...

    def generate(self, model: str, request: bytes, *, task: str = "generate") -> dict[str, Any]:
        """One request through the synchronous API: the exact JSON of a shard line's `request`. The response, as the
        result line of a batch would hold it."""
        ...

    def count_tokens(self, model: str, request: bytes, *, task: str = "generate") -> int:
        """Input tokens of one request, as `generate` takes it; nothing is charged for it. Raises BackendError, with
        status 400 for this very request. Threads may call it at once."""
        ...

    def close(self) -> None: ...
