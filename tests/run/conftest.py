from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from run_kit import World, world


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    """An emulator whose jobs take a minute, a ledger, a clock that moves when it is slept."""
    with world(tmp_path) as made:
        yield made
