"""Every exception class of the vendor's libraries is mapped, and what the service says is told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage import exceptions as storage

from batchform.adapters.storage.client import StorageClient
from batchform.adapters.storage.errors import (
    VENDOR_ERRORS,
    ObjectMissing,
    PreconditionLost,
    StorageError,
    vendor_errors,
)
from batchform.emulator import EmulatorServer
from batchform.errors import AuthError, BatchformError
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import Address
from bucket_kit import Bucket, Opened

VENDORS = ("google.api_core.", "google.auth.", "google.cloud.", "requests.", "urllib3.")
NEVER_HERE = {"AsyncRestUnsupportedParameterError"}  # of a transport that the client does not use
AT = Address("bucket", "name")


def vendor_classes() -> list[type[Exception]]:
    found: set[type[Exception]] = set()
    for module in (api, auth, storage, requests.exceptions, urllib3.exceptions):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith(VENDORS):
                found.add(value)
    found = {cls for cls in found if not issubclass(cls, Warning) and cls.__name__ not in NEVER_HERE}
    return sorted(found, key=lambda c: (c.__module__, c.__name__))


def an(cls: type[Exception]) -> Exception:
    """An instance, as the library would raise it, or without its fields if it takes others."""
    body: Any = urllib3.HTTPResponse(b"")
    for args in (
        ("said",),
        (),
        (1, 2),
        (body, b"said"),
        ("said", "more"),
        ("said", "more", 0),
        (None, "said"),
        (None, "said", "more"),
    ):
        try:
            made = cls(*args)
            str(made)
        except (TypeError, AttributeError):
            continue
        return made
    raise AssertionError(f"how is {cls} raised?")


def test_there_are_many() -> None:
    assert len(vendor_classes()) > 60


@pytest.mark.parametrize("cls", vendor_classes(), ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_no_vendor_exception_is_unmapped(cls: type[Exception]) -> None:
    assert issubclass(cls, VENDOR_ERRORS)
    with pytest.raises(BatchformError) as caught, vendor_errors("read", AT, GoogleCloud()):
        raise an(cls)
    assert isinstance(caught.value, StorageError | AuthError)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path / "server") as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def own(server: EmulatorServer) -> Iterator[Bucket]:
    made = Bucket(server.url)
    yield made
    made.close()


@pytest.fixture
def client() -> Iterator[StorageClient]:
    with Opened() as opened:
        yield opened.client(retry_for=0.2)


def calls(client: StorageClient, at: Address, to: Path) -> dict[str, Any]:
    """Every call of the adapter, and the call of the service behind it."""
    found = client.stat(at)
    assert found is not None
    return {
        "storage.objects.get": lambda: client.stat(at),
        "storage.objects.download": lambda: client.read(at),
        "storage.objects.download 2": lambda: client.download(found, to),
        "storage.objects.list": lambda: list(client.list(at)),
        "storage.objects.insert": lambda: client.write(at, b"new", match=found.generation),
        "storage.uploads.start": lambda: client.write(at, bytes(9 << 20), match=found.generation),
        "storage.objects.delete": lambda: client.delete(at),
        "storage.buckets.permissions": lambda: client.allowed(at.bucket, "storage.objects.get"),
    }


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_what_the_service_says_is_one_sentence(
    server: EmulatorServer, own: Bucket, client: StorageClient, tmp_path: Path, status: int
) -> None:
    own.put("folder/name", b"content")
    for call, run in calls(client, own.address("folder/name"), tmp_path / "to").items():
        do = {"type": "error", "status": status, "message": f"No, says {call}"}
        server.set_faults([{"call": call.removesuffix(" 2"), "times": "all", "do": do}])
        with pytest.raises(StorageError) as caught:
            run()
        assert caught.value.status == status, call
        assert f"HTTP {status}: No, says {call}." in caught.value.message
        assert own.uri() in caught.value.message
        assert ("roles/storage.object" in caught.value.hint) == (status == 403)
        server.set_faults(())


def test_credentials_that_are_refused(server: EmulatorServer, own: Bucket, client: StorageClient) -> None:
    server.set_faults([{"call": "storage.objects.list", "times": "all", "do": {"type": "error", "status": 401}}])
    with pytest.raises(AuthError) as caught:
        list(client.list(own.address()))
    assert "gcloud auth application-default login" in caught.value.hint


def test_what_is_not_there(own: Bucket, client: StorageClient) -> None:
    assert client.stat(own.address("none")) is None
    with pytest.raises(ObjectMissing, match="No such object"):
        client.read(own.address("none"))
    client.delete(own.address("none"))
    nowhere = Address("no-such-bucket", "name")
    for run in (
        lambda: client.read(nowhere),
        lambda: client.stat(nowhere),
        lambda: list(client.list(nowhere)),
        lambda: client.write(nowhere, b"", match=0),
    ):
        with pytest.raises(StorageError, match=r"There is no bucket gs://no-such-bucket\.") as caught:
            run()
        assert not isinstance(caught.value, ObjectMissing)


@pytest.mark.parametrize("size", [3, 9 << 20])
def test_a_write_is_refused_when_the_object_moved(own: Bucket, client: StorageClient, size: int) -> None:
    first = client.write(own.address("a"), b"1" * size, match=0)
    second = client.write(own.address("a"), b"2" * size, match=first.generation)
    for match in (0, first.generation):
        with pytest.raises(PreconditionLost):
            client.write(own.address("a"), b"3" * size, match=match)
    with pytest.raises(PreconditionLost):
        client.delete(own.address("a"), match=first.generation)
    assert client.read(own.address("a")) == (b"2" * size, second.generation)


@pytest.mark.parametrize(
    "fault",
    [
        {"call": "storage.objects.download", "do": {"type": "drop", "when": "body"}},
        {"call": "storage.uploads.bytes", "do": {"type": "drop", "when": "after"}},
        {"call": "storage.uploads.bytes", "do": {"type": "error", "status": 503}},
        {"call": "storage.uploads.start", "do": {"type": "error", "status": 429}},
    ],
)
def test_large_files_survive_lost_pieces(
    server: EmulatorServer, own: Bucket, tmp_path: Path, fault: dict[str, Any]
) -> None:
    content = bytes(range(256)) * (70 << 10)  # more than one piece
    source = tmp_path / "source"
    source.write_bytes(content)
    server.set_faults([fault])
    with Opened() as opened:
        client = opened.client()
        written = client.write(own.address("large"), source, match=0)
        client.download(written, tmp_path / "back")
    assert server.fired()
    assert (tmp_path / "back").read_bytes() == content
    assert written.holds(source)
