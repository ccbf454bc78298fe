"""Real clients of the emulator, over real sockets, on a clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from emulator_kit import JOB_SECONDS, Batches, StillClock
from google import genai

from batchform.emulator import EmulatorServer


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "emulator"


@pytest.fixture
def server(state_dir: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(state_dir, job_seconds=JOB_SECONDS, clock=StillClock()) as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Callable[..., genai.Client]]:
    """Makes unmodified Google clients, and closes them."""
    clients: list[genai.Client] = []

    def make(url: str, key: str = "a-key", **options: Any) -> genai.Client:
        clients.append(genai.Client(api_key=key, http_options={"base_url": url, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(server: EmulatorServer, connect: Callable[..., genai.Client]) -> genai.Client:
    return connect(server.url)


@pytest.fixture
def raw(server: EmulatorServer) -> Iterator[httpx2.Client]:
    """Plain HTTP, for what Google's client hides."""
    with httpx2.Client(base_url=server.url, headers={"x-goog-api-key": "a-key"}) as http:
        yield http


@pytest.fixture
def batches(client: genai.Client, server: EmulatorServer, tmp_path: Path) -> Batches:
    return Batches(client, server, tmp_path)
