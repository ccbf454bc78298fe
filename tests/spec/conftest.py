"""Fixtures of the spec tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_kit import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
