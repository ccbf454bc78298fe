"""Google's own client, told of a server as users tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

Connect = Callable[[], storage.Client]


def clients(url: str) -> Iterator[Connect]:
    """Makes clients that were told as users tell them, and closes them."""
    made: list[storage.Client] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)

        def make() -> storage.Client:
            made.append(storage.Client(project="acme", credentials=AnonymousCredentials()))
            return made[-1]

        yield make
        for client in made:
            client.close()
