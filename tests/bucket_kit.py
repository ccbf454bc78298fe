"""A Cloud Storage server for tests: the emulator's, over a socket, asked by Google's own client.

BATCHFORM_FOREIGN_STORAGE=URL names another server, for a second opinion.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from batchform.adapters.storage.blobs import StorageBlobs
from batchform.adapters.storage.client import EMULATOR, StorageClient
from batchform.emulator import EmulatorServer
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import Address, address


@contextmanager
def storage_server(state: Path) -> Iterator[str]:
    """The URL of a server that keeps what it is told under `state`."""
    if url := os.environ.get("BATCHFORM_FOREIGN_STORAGE"):
        yield url
        return
    with EmulatorServer(state) as server:
        yield server.url


class Bucket:
    """A new bucket, seen with Google's own client. Closes it at the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"test-{secrets.token_hex(6)}"
        self.client = storage.Client(
            project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
        )
        self.bucket = self.client.create_bucket(self.name)

    def put(self, name: str, content: bytes) -> int:
        """Write an object as a user would; returns its generation."""
        blob = self.bucket.blob(name)
        blob.upload_from_string(content, content_type="application/octet-stream")
        return int(blob.generation)

    def get(self, name: str) -> bytes:
        return bytes(self.bucket.blob(name).download_as_bytes(raw_download=True))

    def names(self, prefix: str = "") -> list[str]:
        return [blob.name for blob in self.client.list_blobs(self.name, prefix=prefix)]

    def generation(self, name: str) -> int:
        return int(self.bucket.get_blob(name).generation)

    def address(self, name: str = "") -> Address:
        return Address(self.name, name)

    def uri(self, name: str = "") -> str:
        return str(self.address(name))

    def close(self) -> None:
        self.client.close()


class Opened:
    """The adapters as commands open them, closed at the end. STORAGE_EMULATOR_HOST must be set."""

    def __init__(self) -> None:
        self._clients: list[StorageClient] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()

    def client(self, **options: Any) -> StorageClient:
        assert os.environ[EMULATOR]
        self._clients.append(StorageClient(GoogleCloud(), pause=0.001, **options))
        return self._clients[-1]

    def blobs(self, place: str, cache: Path, *, client: StorageClient | None = None, **options: Any) -> StorageBlobs:
        """A ledger's place, with a client of its own, as another process would have."""
        return StorageBlobs(client or self.client(), address(place), cache=cache, described=place, **options)
