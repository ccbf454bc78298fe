"""A project folder, a confined connection, and rows read through the real adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from pydantic import TypeAdapter

from batchform.adapters.sources import connect, make_source
from batchform.ports import Relation, Source
from batchform.spec.model import Source as SourceSpec

_SPEC: TypeAdapter[Any] = TypeAdapter(SourceSpec)


@dataclass
class Read:
    source: Source
    relation: Relation
    rows: list[tuple[Any, ...]]
    con: DuckDBPyConnection

    def places(self, *ordinals: int) -> list[str]:
        return self.source.locate(self.con, ordinals or range(len(self.rows)))


@dataclass
class Desk:
    """A project to put files into and read sources from."""

    root: Path
    con: DuckDBPyConnection
    allow: tuple[Path, ...] = ()

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def source(self, **spec: Any) -> Source:
        return make_source(_SPEC.validate_python(spec), root=self.root, allow=self.allow)

    def read(self, **spec: Any) -> Read:
        source = self.source(**spec)
        relation = source.open(self.con)
        return Read(source, relation, self.con.execute(f"SELECT * FROM {relation.sql}").fetchall(), self.con)


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    made: list[DuckDBPyConnection] = []

    def make(*, allow: tuple[Path, ...] = (), memory_limit: str = "512MB") -> Desk:
        root = tmp_path / "project"
        root.mkdir(exist_ok=True)
        con = connect(tmp_path / "temp", memory_limit=memory_limit, threads=2, allowed=[root, *allow])
        made.append(con)
        return Desk(root, con, allow)

    yield make
    for con in made:
        con.close()


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()
