"""The few calls that batchform makes to Cloud Storage: each has a timeout, bounded retries, and errors of our own."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import google_crc32c
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from msgspec import Struct

from batchform.adapters.google_credentials import find_credentials
from batchform.adapters.storage.errors import (
    VENDOR_ERRORS,
    ObjectMissing,
    StorageError,
    refused_connection,
    vendor_errors,
)
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import Address

EMULATOR: Final = "STORAGE_EMULATOR_HOST"
"""Environment variable of Google's own client: another server in place of Cloud Storage, asked without credentials."""

_CONNECT_SECONDS: Final = 10.0
_UNREACHABLE_ATTEMPTS: Final = 3
BINARY: Final = "application/octet-stream"
_ONE_REQUEST: Final = 8 << 20  # bytes; what is larger is uploaded in pieces that can be resumed
_PIECE: Final = 16 << 20  # bytes
_LOOK: Final = 256 << 10  # bytes that are read at once where a few are wanted
_FIELDS: Final = "items(name,generation,size,crc32c,contentEncoding),nextPageToken"


class Stat(Struct, frozen=True):
    """An object as it is listed. crc32c: base64 as the API gives it; encoding: its Content-Encoding, or nothing."""

    at: Address
    generation: int
    size: int
    crc32c: str
    encoding: str = ""

    def holds(self, content: bytes | Path) -> bool:
        """Whether its bytes are these, by size and checksum."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        return size == self.size and checksum(content) == self.crc32c


class StorageClient:
    """Cloud Storage for one command. Nothing is asked before the first call; threads may share it."""

    def __init__(
        self,
        settings: GoogleCloud,
        *,
        timeout: float = 60.0,
        retry_for: float = 120.0,
        pause: float = 0.25,
        endpoint: str | None = None,
    ) -> None:
        """timeout: seconds that one request may be without an answer; retry_for: seconds in which failed requests are
        sent again; pause: the first pause before that, at most, each up to twice as long as the one before; endpoint:
        of a server that stands in, asked without credentials."""
        self._settings = settings
        self._endpoint = endpoint
        self._timeout = (_CONNECT_SECONDS, timeout)
        self._retry_for = retry_for
        self._pause = pause

    @property
    def emulated(self) -> bool:
        """Whether another server stands in for Cloud Storage."""
        return bool(self._endpoint or os.environ.get(EMULATOR))

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def stat(self, at: Address, *, generation: int | None = None) -> Stat | None:
        """The live version of an object, or this one; None if there is none."""
        blob = self._blob(at, generation)
        try:
            with vendor_errors("read", at, self._settings):
                blob.reload(projection="noAcl", timeout=self._timeout, retry=self._retry())
                return _stat(at.bucket, blob)
        except ObjectMissing:
            return None

    def read(
        self, at: Address, *, generation: int | None = None, span: tuple[int, int] | None = None
    ) -> tuple[bytes, int]:
        """The bytes and their generation. span: first and last byte, the last included. Raises ObjectMissing."""
        blob = self._blob(at, generation)
        first, last = span or (None, None)
        with vendor_errors("read", at, self._settings):
            content = blob.download_as_bytes(
                start=first, end=last, raw_download=True, timeout=self._timeout, retry=self._retry(),
                checksum=None if span else "auto",
            )  # fmt: skip
            return content, int(blob.generation)

    def download(self, found: Stat, to: Path, *, decoded: bool = False) -> None:
        """Stream exactly this generation into a file, checksum verified. decoded: without its Content-Encoding.

        Raises ObjectMissing when it was replaced or deleted since.
        """
        blob = self._blob(found.at, found.generation)
        with vendor_errors("read", found.at, self._settings), to.open("wb") as out:
            blob.download_to_file(out, raw_download=not decoded, timeout=self._timeout, retry=self._retry())

    @contextmanager
    def seekable(self, found: Stat) -> Iterator[IO[bytes]]:
        """This generation as a file that is read in pieces, where it is asked. Raises ObjectMissing."""
        with vendor_errors("read", found.at, self._settings):
            reader = self._blob(found.at, found.generation).open(
                "rb", chunk_size=_LOOK, timeout=self._timeout, retry=self._retry(), raw_download=True
            )
            with reader:
                yield reader

    def list(self, folder: Address, *, delimiter: str = "", at_most: int | None = None) -> Iterator[Stat]:
        """Objects whose names start with that of `folder`, sorted by name. Placeholders of folders are left out.

        delimiter: "/" leaves out what lies in folders below.
        """
        with vendor_errors("list", folder, self._settings):
            pages = self._client.list_blobs(
                folder.bucket, prefix=folder.name or None, delimiter=delimiter or None, fields=_FIELDS,
                max_results=at_most, timeout=self._timeout, retry=self._retry(),
            )  # fmt: skip
            for blob in pages:
                if not blob.name.endswith("/"):
                    yield _stat(folder.bucket, blob)

    def location(self, bucket: str) -> str:
        """Where a bucket is, such as `US-CENTRAL1`. Raises ObjectMissing when there is none."""
        with vendor_errors("read", Address(bucket, ""), self._settings):
            found = self._client.get_bucket(bucket, timeout=self._timeout, retry=self._retry())
        return str(found.location or "")

    def owner(self, bucket: str) -> str:
        """The number of the project whose bucket it is; "" where that is not said."""
        with vendor_errors("read", Address(bucket, ""), self._settings):
            found = self._client.get_bucket(bucket, timeout=self._timeout, retry=self._retry())
        return str(found.project_number or "")

    def roles(self, bucket: str, member: str) -> set[str]:
        """The roles that a bucket's own policy gives to somebody, by its address with its kind in front."""
        with vendor_errors("read", Address(bucket, ""), self._settings):
            policy = self._client.bucket(bucket).get_iam_policy(
                requested_policy_version=3, timeout=self._timeout, retry=self._retry()
            )
            return {str(b["role"]) for b in policy.bindings if member in b.get("members", ())}

    def allowed(self, bucket: str, *permissions: str) -> set[str]:
        """Those of the permissions that the credentials have on a bucket."""
        with vendor_errors("read", Address(bucket, ""), self._settings):
            handle = self._client.bucket(bucket)
            return set(handle.test_iam_permissions(list(permissions), timeout=self._timeout, retry=self._retry()))

    def allowed_at(self, at: Address, *permissions: str) -> set[str] | None:
        """Those of the permissions that the credentials have on an object; None where that cannot be asked."""
        try:
            with vendor_errors("read", at, self._settings):
                blob = self._blob(at)
                return set(blob.test_iam_permissions(list(permissions), timeout=self._timeout, retry=self._retry()))
        except StorageError:
            return None

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, at: Address, content: bytes | Path, *, match: int, content_type: str = BINARY) -> Stat:
        """Create or replace an object whose generation is still `match`; 0: there must be none.

        Atomic for readers, and the service holds the bytes against a checksum before they count. Raises
        PreconditionLost, also for a write of its own whose answer was lost: compare before it is believed.
        """
        blob = self._blob(at)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size > _ONE_REQUEST:
            blob.chunk_size = _PIECE
        blob._patch_property("crc32c", checksum(content))
        opened = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
        with opened as source, vendor_errors("write", at, self._settings):
            blob.upload_from_file(
                source, size=size, content_type=content_type, if_generation_match=match,
                timeout=self._timeout, checksum=None, retry=self._retry(),
            )  # fmt: skip
            return _stat(at.bucket, blob)

    def delete(self, at: Address, *, match: int | None = None) -> None:
        """Remove an object; absent is fine. match: only in this generation, else PreconditionLost."""
        try:
            with vendor_errors("delete", at, self._settings):
                self._blob(at).delete(if_generation_match=match, timeout=self._timeout, retry=self._retry())
        except ObjectMissing:
            return

    # --- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> Any:
        made = self._made()
        made._bucket_metadata_cache = None  # it asks for each bucket in a thread of its own, for traces nobody takes
        return made

    def _made(self) -> Any:
        if self._endpoint:
            from google.auth.credentials import AnonymousCredentials

            return storage.Client(
                project=self._settings.project or "emulator",
                credentials=AnonymousCredentials(),
                client_options={"api_endpoint": self._endpoint},
            )
        if self.emulated:
            return storage.Client(project=self._settings.project)
        found = find_credentials(self._settings)
        return storage.Client(project=found.project, credentials=found.credentials)

    def _blob(self, at: Address, generation: int | None = None) -> Any:
        return self._client.bucket(at.bucket).blob(at.name, generation=generation)

    def _retry(self) -> Any:
        """Google's own rules on what may be sent again, but a server that is not there is not waited for."""
        return (
            DEFAULT_RETRY.with_predicate(_patience())
            .with_delay(initial=self._pause, maximum=16.0, multiplier=2.0)
            .with_timeout(self._retry_for)
        )


def checksum(content: bytes | Path) -> str:
    """CRC32C of some bytes, or of a file, as the API writes it."""
    total = google_crc32c.Checksum()
    if isinstance(content, bytes):
        total.update(content)
    else:
        with content.open("rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    return base64.b64encode(total.digest()).decode()


def _patience() -> Callable[[Exception], bool]:
    """Whether an error of one call is worth another attempt."""
    unreachable = 0

    def again(error: Exception) -> bool:
        nonlocal unreachable
        _release(error)
        unreachable += refused_connection(error)
        return unreachable < _UNREACHABLE_ATTEMPTS and bool(DEFAULT_RETRY._predicate(error))

    return again


def _release(error: Exception) -> None:
    """Give back the connection of a refused download: the client leaves the answer unread, and so the socket open."""
    response = getattr(error, "response", None)
    if response is not None:
        with suppress(*VENDOR_ERRORS, RuntimeError):
            response.content  # noqa: B018  (read now, since the message is taken from it later)
        response.close()


def _stat(bucket: str, blob: Any) -> Stat:
    at, size = Address(bucket, blob.name), int(blob.size or 0)
    return Stat(at, int(blob.generation), size, blob.crc32c or "", blob.content_encoding or "")
