"""Inputs and results of Vertex AI's jobs as files in Cloud Storage."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform import canon
from batchform.adapters.contents import object_digest
from batchform.adapters.vertex_access import Access
from batchform.adapters.vertex_errors import staging_errors
from batchform.adapters.vertex_wire import suits
from batchform.errors import BackendError, NotFound
from batchform.ports import File, RemoteJob, StoredFile
from batchform.run.attachments import changed, check_content
from batchform.spec.remote import Address, address

if TYPE_CHECKING:
    from batchform.adapters.storage.client import Stat, StorageClient

_PIECE: Final = 1 << 20
_RANGE: Final = 8 << 20  # bytes of stored results that are asked for at once
_NAMES: Final = 9
_PARTIAL: Final = ("FAILED", "CANCELLED", "EXPIRED")


class ObjectStaging:
    """A folder of a bucket: `inputs/` and `results/` below it."""

    def __init__(self, access: Access, staging: str, *, location: str, timeout: float) -> None:
        self._access, self._timeout, self._location = access, timeout, location
        self._folder = address(staging.rstrip("/"))
        self._fits = False

    @cached_property
    def _client(self) -> StorageClient:
        from batchform.adapters.storage.client import StorageClient

        return StorageClient(self._access.settings, timeout=self._timeout, endpoint=self._access.endpoint)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    def put(self, path: Path, *, digest: str, tag: str) -> str:
        """Upload a shard's lines under a name from its digest, once. Returns its gs:// URI."""
        from batchform.adapters.storage.errors import PreconditionLost

        doing = f"Uploading the input of {tag}"
        with staging_errors(doing):
            self._check_place()
            for number in range(1, _NAMES + 1):
                suffix = "" if number == 1 else f"-{number}"
                at = self._folder.below(f"inputs/bf-{canon.short(digest, 32)}{suffix}.jsonl")
                try:
                    self._client.write(at, path, match=0)
                except PreconditionLost:  # there already: by us, whose answer was lost, or by an earlier run
                    there = self._client.stat(at)
                    if there is None or not there.holds(path):
                        continue
                return str(at)
        raise BackendError(
            f"{doing}: all {_NAMES} names of it below {self._folder} are taken by other content.",
            hint="Delete what lies there; only batchform should write below `staging`.",
            status=400,
        )

    def place(self, file: File) -> str:
        """The gs:// URI of a file: its own if it is an object already, or else of a copy under a name from its content.

        Raises StalePlan when it no longer holds what was planned.
        """
        with staging_errors(f"Placing {file.address or (file.path and file.path.name)}"):
            self._check_place()
            if file.path is None:
                return self._checked(file)
            suffix = file.path.suffix.lower() if file.path.suffix.isascii() else ""
            at = self._folder.below(f"attachments/{file.name or canon.short(file.digest, 64)}{suffix}")
            there = self._client.stat(at)
            if there is None or there.size != file.size:
                check_content(file.path, file.digest, file.path.name)
                self._write(at, file.path, there)
            return str(at)

    def _write(self, at: Address, path: Path, there: Stat | None) -> None:
        """Its name is its content, so whoever was first has written the same."""
        from batchform.adapters.storage.errors import PreconditionLost

        with suppress(PreconditionLost):
            self._client.write(at, path, match=there.generation if there else 0)

    def _checked(self, file: File) -> str:
        there = self._client.stat(address(file.address))
        if there is None or object_digest(there) != file.digest:
            raise changed(file.address)
        return file.address

    def _check_place(self) -> None:
        """A job fails, after the create call has said yes, if it may not use the bucket where it runs."""
        if self._fits:
            return
        where = self._location_of_bucket()
        if where and not suits(where, self._location):
            raise BackendError(
                f"Bucket {self._folder.bucket} lies in {where}, where jobs of {self._location} cannot read it.",
                hint=f"Set `staging` to a bucket in {self._location}, or `location` to where the bucket is.",
                status=400,
            )
        self._fits = True

    def _location_of_bucket(self) -> str:
        """Where the bucket is; "" if these credentials may not ask."""
        from batchform.adapters.storage.errors import ObjectMissing, StorageError

        try:
            return self._client.location(self._folder.bucket)
        except ObjectMissing:
            if self._access.endpoint:
                return ""  # the emulator makes buckets as they are written
            raise
        except StorageError as error:
            if error.status == 403:
                return ""
            raise

    def results_at(self, tag: str) -> str:
        """Where the results of a job are to go: a prefix of its own."""
        return str(self._folder.below(f"results/{tag}"))

    def fetch(self, job: RemoteJob, to: Path) -> int:
        """Write the lines of all result files of a job to one file; returns bytes. Raises NotFound when there is no
        result file although the job has results."""
        assert job.results is not None
        folder = address(job.results.rstrip("/") + "/")
        with staging_errors(f"Downloading the results of {job.name}"):
            written, files = 0, 0
            with to.open("wb") as out:
                for found in self._files(folder):
                    files += 1
                    for piece in self._pieces(found, to):
                        written += out.write(piece)
        if not files and (job.state not in _PARTIAL or job.counts.get("succeeded")):
            raise NotFound(f"There is no predictions*.jsonl below {folder}, where job {job.name} has its results.")
        return written

    def still_there(self, job: RemoteJob, *, results: Path, lines: Path) -> tuple[str, ...]:  # noqa: ARG002
        """Names of a job's result files, in order, if they still are what was collected, byte for byte; else none.

        They hold the requests, too, so that the shard's lines need no look.
        """
        assert job.results is not None
        with staging_errors(f"Looking at the results of {job.name}"):
            self._check_place()
            found = list(self._files(address(job.results.rstrip("/") + "/")))
        return tuple(str(f.at) for f in found) if _hold(found, results) else ()

    # --- results that stay ---------------------------------------------------------------------------------------

    def files_of(self, job: RemoteJob, *, results: Path) -> tuple[StoredFile, ...]:
        if job.results is None or not job.results.startswith("gs://"):
            return ()
        with staging_errors(f"Looking at the results of {job.name}"):
            found = list(self._files(address(job.results.rstrip("/") + "/")))
        if not _hold(found, results):
            return ()
        return tuple(StoredFile(str(f.at), f.generation, f.size, f.crc32c) for f in found)

    def problem(self, file: StoredFile) -> str:
        with staging_errors(f"Looking at {file.uri}"):
            there = self._client.stat(address(file.uri), generation=file.generation)
            if there is None:
                now = self._client.stat(address(file.uri))
                return "was replaced since" if now else "is gone"
        return "" if (there.size, there.crc32c) == (file.size, file.crc32c) else "has other content"

    def pieces(self, file: StoredFile) -> Iterator[bytes]:
        import google_crc32c

        total, at = google_crc32c.Checksum(), address(file.uri)
        for first in range(0, file.size, _RANGE):
            last = min(first + _RANGE, file.size) - 1
            with staging_errors(f"Reading {file.uri}"):
                piece, _ = self._client.read(at, generation=file.generation, span=(first, last))
            total.update(piece)
            if len(piece) != last - first + 1:
                break
            yield piece
        if base64.b64encode(total.digest()).decode() != file.crc32c:
            raise NotFound(f"{file.uri} does not hold what was collected: its checksum is another.")

    def _files(self, folder: Address) -> Iterator[Stat]:
        for found in self._client.list(folder):
            name = found.at.name.rpartition("/")[2]
            if name.startswith("predictions") and name.endswith(".jsonl"):
                yield found

    def _pieces(self, found: Stat, beside: Path) -> Iterator[bytes]:
        """The bytes of one result file, its last line ended. The client holds them against their checksum."""
        part = beside.with_name(f"{beside.name}.part")
        try:
            self._client.download(found, part, decoded=True)
            last = b"\n"
            with part.open("rb") as source:
                while piece := source.read(1 << 20):
                    last = piece[-1:]
                    yield piece
            if last != b"\n":
                yield b"\n"
        finally:
            part.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        with staging_errors(f"Deleting input {name}"):
            self._client.delete(address(name))


def _hold(files: Iterable[Stat], content: Path) -> bool:
    """Whether these objects, one after the other, hold the bytes of a file, by their sizes and checksums."""
    import google_crc32c

    with content.open("rb") as source:
        for found in files:
            total, left = google_crc32c.Checksum(), found.size
            while left and (piece := source.read(min(left, _PIECE))):
                total.update(piece)
                left -= len(piece)
            if left or found.encoding or base64.b64encode(total.digest()).decode() != found.crc32c:
                return False
        return not source.read(1)
