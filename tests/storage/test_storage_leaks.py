"""Answers of Cloud Storage that are given up leave no open socket behind for the garbage collector to find."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from batchform.adapters.storage.client import StorageClient
from batchform.adapters.storage.errors import StorageError
from batchform.emulator import EmulatorServer
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import address

AT = address("gs://acme/x")
FAULTS: dict[str, dict[str, Any]] = {
    **{str(status): {"type": "error", "status": status} for status in (403, 404, 429, 503)},
    "cut": {"type": "cut", "keep": 0.5},
    "drop": {"type": "drop", "when": "body"},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path / "state") as server:
        httpx2.post(f"{server.url}/storage/v1/b?project=p", json={"name": "acme"})
        yield server


@pytest.fixture
def client(server: EmulatorServer) -> Iterator[StorageClient]:
    client = StorageClient(GoogleCloud(), endpoint=server.url, pause=0.01, retry_for=5)
    client.write(AT, os.urandom(1_000_000), match=0)
    yield client
    client.close()


def left_open(call: Callable[[], object]) -> list[str]:
    """What the collector complains of after a call."""
    gc.collect()
    gc.freeze()  # what was there before need not be looked through again
    gc.disable()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with suppress(StorageError):
                call()
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return [str(warning.message) for warning in told]


@pytest.mark.parametrize("fault", FAULTS)
def test_downloads_that_go_wrong(server: EmulatorServer, client: StorageClient, tmp_path: Path, fault: str) -> None:
    found = client.stat(AT)
    assert found is not None

    def a_piece() -> None:
        with client.seekable(found) as file:
            file.read(100)

    calls: dict[str, Callable[[], object]] = {
        "read": lambda: client.read(AT),
        "range": lambda: client.read(AT, generation=found.generation, span=(0, 500_000)),
        "download": lambda: client.download(found, tmp_path / "x"),
        "decoded": lambda: client.download(found, tmp_path / "x", decoded=True),
        "seekable": a_piece,
    }
    left = {}
    for name, call in calls.items():
        server.set_faults([{"call": "storage.objects.download", "do": FAULTS[fault]}])
        left[name] = left_open(call)
        assert len(server.fired()) == 1, name
    assert left == {name: [] for name in calls}


@pytest.mark.parametrize("call", ["objects.get", "objects.list", "objects.insert"])
def test_other_calls_that_go_wrong(server: EmulatorServer, client: StorageClient, call: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "objects.get": lambda: client.stat(AT),
        "objects.list": lambda: list(client.list(address("gs://acme/"))),
        "objects.insert": lambda: client.write(address("gs://acme/y"), b"y", match=0),
    }
    for status in (403, 503):
        server.set_faults([{"call": f"storage.{call}", "do": {"type": "error", "status": status}}])
        assert left_open(calls[call]) == [] and len(server.fired()) == 1
