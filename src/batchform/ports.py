"""The seams: five small Protocols that adapters implement, and the plain values they speak.

A conformance suite per port runs against every adapter of it (tests/conformance/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msgspec import Struct, field

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Clock(Protocol):
    """Time as an argument, so that tests can move it."""

    def now(self) -> datetime:
        """Current time, timezone-aware UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait. Raises KeyboardInterrupt when the user stops the wait."""
        ...


# --- sources -----------------------------------------------------------------------------------------------------


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


# --- destinations ------------------------------------------------------------------------------------------------


class Delivery(Struct, frozen=True):
    """What one delivery is asked to write.

    relation: FROM-able SQL in the same connection, with exactly the output columns, one row per key, ordered by key;
    changed: the same columns, only the rows whose answer is new since the last delivery to this very destination
    (equal to `relation` on the first delivery and on a redelivery); key_columns: names that identify a row;
    name: stable, unique name of this delivery (spec, ledger serial, digest): writing it twice is writing it once;
    spec: the spec's name; full: whether `changed` is everything (first delivery, changed destination or mapping);
    previous: names of the parts that hold what was delivered before; a full delivery replaces them; stamps: theirs;
    owner: spec and ledger, the part of `name` before its first dot: what else has it is left from a killed delivery.
    """

    spec: str
    name: str
    relation: str
    changed: str
    key_columns: tuple[str, ...]
    full: bool
    previous: tuple[str, ...] = ()
    owner: str = ""
    stamps: tuple[str, ...] = ()


class Delivered(Struct, frozen=True):
    """What a delivery wrote: number of rows written and where, as the user would name it; parts: names of all parts
    that hold the answers now, earlier ones included; empty unless the destination takes parts; stamps: for each
    of them, or for the whole, what tells `exists` that nobody has written there since; empty where nothing does."""

    rows: int
    location: str
    parts: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()


@runtime_checkable
class Destination(Protocol):
    """Where answers go. A delivery is atomic: readers see the old or the new, never half."""

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:
        """Whether what was delivered before is still there, with all of its parts if it has any.

        stamps: as `deliver` gave them: then it must also be as it was written, with no part of ours that is none of
        these. following: `name` of the delivery that would be next, whose unrecorded part may be there.
        """
        ...

    def check(self, columns: Sequence[str] | None = None) -> None:
        """Raise DestinationError if a delivery could not succeed (unwritable folder, foreign table). Writes nothing.

        columns: names of the output columns, where nothing says that what is already there is ours: a file with other
        columns, or of another format, is then refused. None: it was delivered, so it is ours whatever it holds.
        """
        ...

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        """Write the delivery. Raises DestinationError and leaves the destination as it was."""
        ...


class ImageStore(Protocol):
    """Where image files of answers go, under names of batchform's own."""

    def holds(self, name: str, size: int) -> bool:
        """Whether a file is there, with so many bytes."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all. Raises DestinationError."""
        ...

    def note(self, names: Sequence[str]) -> None:
        """Note which files there shall be: a destination whose files are gone is not as it was delivered."""
        ...


@runtime_checkable
class HoldsImages(Protocol):
    """A destination with a place for image files."""

    @property
    def images(self) -> ImageStore: ...


# --- blobs: the ledger's storage ---------------------------------------------------------------------------------


@runtime_checkable
class Blobs(Protocol):
    """Named immutable objects plus one swappable head. Names are relative, with `/`.

    spacing: seconds that must be between two swaps of the head, 0 where they may come as fast as one likes.
    """

    spacing: float

    def read(self, name: str) -> bytes:
        """The bytes of an object. Raises FileNotFoundError."""
        ...

    def write_new(self, name: str, content: bytes | Path) -> None:
        """Durably create an immutable object (fsynced before return). Content may be a file to move or copy in.

        Writing the same bytes under the same name again is a no-op; other bytes raise FileExistsError.
        """
        ...

    def local(self, name: str) -> Path:
        """A local path with the object's bytes (the file itself, or a read cache). Raises FileNotFoundError."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Names under a prefix, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; absent is fine."""
        ...

    def head(self) -> tuple[bytes, str] | None:
        """The head's bytes and version token, or None if there is none yet."""
        ...

    def swap_head(self, content: bytes, expect: str | None) -> str:
        """Replace the head if its version is still `expect` (None: there must be none). Returns the new version.

        Raises LedgerMoved when another writer was first. Durable before return.
        """
        ...

    def describe(self) -> str:
        """The place, as the user wrote it."""
        ...


# --- backends ----------------------------------------------------------------------------------------------------


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
    are on this machine, None for an object; address: of the object, "" for a local file.
    """

    digest: str
    mime_type: str
    size: int
    path: Path | None
    address: str = ""


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
    """A model as the service lists it. batch: whether it takes batches of requests; limits in tokens, None where the
    service says nothing."""

    id: str
    batch: bool
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


class Backend(Protocol):
    """A batch service. Every call has a timeout; only reads are retried; `create` is called once.

    realm: whose answers these are; fingerprint: digest of what decides which jobs are seen (kind, endpoint, and the
    credential or the project), never a credential; place: project and location of the jobs, "" where there are none;
    stored: results that stay where the service wrote them, None where the service has no such place.
    """

    realm: str
    fingerprint: str
    place: str

    @property
    def stored(self) -> StoredFiles | None: ...

    def check_model(self, model: str, *, task: str = "generate") -> None:
        """Raise BackendError if the service does not know the model or it takes no batches of this task."""
        ...

    def stage(self, path: Path, *, digest: str, tag: str, mode: str) -> Staged:
        """Make a shard ready for `create`. mode "file": upload it under a name derived from its digest (repeatable: the
        same digest is uploaded once); mode "inline": nothing to upload."""
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

    def cancel(self, job: str) -> None: ...

    def delete(self, job: str) -> None: ...

    def delete_input(self, name: str) -> None:
        """Remove a staged input; absent is fine."""
        ...

    def generate(self, model: str, request: bytes, *, task: str = "generate") -> dict[str, Any]:
        """One request through the synchronous API: the exact JSON of a shard line's `request`. The response, as the
        result line of a batch would hold it."""
        ...

    def close(self) -> None: ...
