from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from emulated_vertex_kit import LOCATION, Bench, vertex_client
from emulator_kit import StillClock
from google import genai

from batchform.emulator import EmulatorServer
from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.store import Store


@pytest.fixture
def connect_vertex(server: EmulatorServer) -> Iterator[Callable[..., genai.Client]]:
    """Makes unmodified clients of Vertex AI, and closes them."""
    clients: list[genai.Client] = []

    def make(**options: str) -> genai.Client:
        clients.append(vertex_client(server.url, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def store(state_dir: Path) -> Iterator[Store]:
    """The server's state, opened beside it."""
    opened = Store(state_dir, StillClock())
    yield opened
    opened.close()


@pytest.fixture
def bench(server: EmulatorServer, store: Store, connect_vertex: Callable[..., genai.Client]) -> Bench:
    objects = ObjectStore(store)
    objects.create_bucket("acme", location=LOCATION)
    return Bench(server, connect_vertex(), objects)


@pytest.fixture
def wire(server: EmulatorServer) -> Iterator[httpx2.Client]:
    """Plain HTTP, for what Google's client hides or does not send."""
    with httpx2.Client(base_url=server.url, headers={"authorization": "Bearer x"}) as http:
        yield http
