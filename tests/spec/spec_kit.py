"""A small project on disk that tests spoil in one place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from batchform.errors import InvalidProject
from batchform.spec.load import load_project
from batchform.spec.resolved import ResolvedProject

PROJECT = """\
version: 1
project: demo
backends:
  local: {type: emulator}
  gemini: {type: gemini}
defaults: {backend: local, model: gemini-3.5-flash-lite}
"""
SPEC = """\
name: triage
source: {type: csv, path: data/tickets.csv}
prompt: {user: triage.j2}
destination: {type: jsonl, path: results/triage.jsonl}
idempotency: {key: [id]}
"""


class Folder:
    """Files of a project in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("batchform.yaml", PROJECT)
        self.write("specs/triage.yaml", SPEC)
        self.write("templates/triage.j2", "Ticket: {{ subject }}")

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def spec(self, more: str, *, without: str = "") -> Path:
        """The small spec with some top-level fields taken away and lines added."""
        kept = [line for line in SPEC.splitlines() if line.partition(":")[0] not in without.split()]
        return self.write("specs/triage.yaml", "\n".join([*kept, more]) + "\n")

    def load(self, *, environment: str | None = None, env: Mapping[str, str] | None = None) -> ResolvedProject:
        return load_project(self.root / "batchform.yaml", environment=environment, env=env or {})

    def complaint(self, *, environment: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """What a user reads when loading fails."""
        with pytest.raises(InvalidProject) as caught:
            self.load(environment=environment, env=env)
        return caught.value.render()
