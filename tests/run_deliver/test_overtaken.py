"""A delivery that is overtaken before it writes, puts its older content over the newer, and is killed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from delivery_kit import FixedClock, World, said
from pydantic import SecretStr

from batchform.adapters.destinations import make_destination
from batchform.adapters.local_blobs import LocalBlobs
from batchform.ledger.store import Ledger
from batchform.plan.recorded import recorded
from batchform.ports import Delivered, Delivery, Destination
from batchform.run.deliver import deliver_spec
from batchform.spec.model_sql import Database
from batchform.spec.resolved import ResolvedSpec
from bucket_kit import Bucket, Opened

COLUMNS = {"columns": {"label": "response.category"}}
LOCAL: dict[str, dict[str, Any]] = {
    "file": {"type": "jsonl", "path": "out/a.jsonl"},
    "csv": {"type": "csv", "path": "out/a.csv"},
    "parts": {"type": "jsonl", "path": "out/parts/"},
    "sqlite": {"type": "sqlite", "path": "out/a.db", "table": "answers"},
    "duckdb": {"type": "duckdb", "path": "out/a.duckdb", "table": "answers"},
    "sql": {"type": "sql", "database": "shop", "table": "answers"},
}
REMOTE: dict[str, dict[str, Any]] = {
    "file there": {"type": "jsonl", "path": "out/a.jsonl"},
    "parts there": {"type": "jsonl", "path": "out/parts/"},
}
SHOP = "sqlite:///out/shop.db"
Rows = list[tuple[str, str]]


class KilledError(Exception):
    pass


class SlowDestination:
    """Does something before it writes, and dies after it."""

    def __init__(self, inner: Destination, meanwhile: Callable[[], object]) -> None:
        self.inner, self.meanwhile = inner, meanwhile

    def exists(self, parts: tuple[str, ...] = (), **written: Any) -> bool:
        return self.inner.exists(parts, **written)

    def check(self, columns: tuple[str, ...] | None = None) -> None:
        self.inner.check(columns)

    def deliver(self, con: duckdb.DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.meanwhile()
        self.inner.deliver(con, delivery)
        raise KilledError


class Place(World):
    """A world whose destination may lie in a bucket or in a database of batchform.yaml."""

    def __init__(self, root: Path, kind: str, bucket: Bucket, opened: Opened) -> None:
        super().__init__(root)
        self._bucket, self._storage = bucket, opened.client()
        self.to = {**(LOCAL.get(kind) or REMOTE[kind]), **COLUMNS}
        if kind in REMOTE:
            self.to["path"] = bucket.uri(self.to["path"])
        (root / "out").mkdir()
        databases = "databases: {shop: {url: '${ENV:SHOP}'}}\n"
        self.env["SHOP"] = SHOP
        (root / "batchform.yaml").write_text((root / "batchform.yaml").read_text() + databases)

    def destination(self, spec: ResolvedSpec) -> Destination:
        databases = {"shop": Database(url=SecretStr(SHOP))}
        return make_destination(
            spec.spec.destination, spec=spec.name, root=self.root, allow=(), storage=self._storage, databases=databases,
        )  # type: ignore[arg-type]  # fmt: skip

    def rows(self) -> Rows:
        """What a reader of the destination finds."""
        match self.to:
            case {"type": "sql"} | {"type": "sqlite"}:
                with closing(sqlite3.connect(self.root / self.to.get("path", "out/shop.db"))) as db:
                    return db.execute("SELECT id, label FROM answers ORDER BY 1").fetchall()
            case {"type": "duckdb"}:
                with duckdb.connect(str(self.root / self.to["path"]), read_only=True) as db:
                    return db.execute("SELECT id, label FROM answers ORDER BY 1").fetchall()
            case {"type": "csv"}:
                with (self.root / self.to["path"]).open(newline="") as file:
                    return [(r["id"], r["label"]) for r in csv.DictReader(file)]
        return sorted((r["id"], r["label"]) for r in map(json.loads, self._lines()))

    def _lines(self) -> Iterator[bytes]:
        path = self.to["path"]
        if path.startswith("gs://"):
            for name in self._bucket.names(path.removeprefix(self._bucket.uri(""))):
                yield from self._bucket.get(name).splitlines()
            return
        at = self.root / path
        for file in sorted(at.iterdir()) if at.is_dir() else [at]:
            yield from file.read_bytes().splitlines()

    def overtake(self, spec: ResolvedSpec, meanwhile: Callable[[], object]) -> None:
        """A delivery of what is recorded now, which writes only after `meanwhile`, and dies then."""
        other = Ledger.open(LocalBlobs(self.root / ".batchform"), clock=FixedClock(), who="bob@desk")
        with pytest.raises(KilledError):
            deliver_spec(
                other, spec, SlowDestination(self.destination(spec), meanwhile), connect=self.connect,
                clock=FixedClock(), who="bob@desk", scratch=self.scratch,
            )  # fmt: skip

    def is_current(self, spec: ResolvedSpec) -> bool:
        """Whether a plan takes the destination for up to date."""
        with closing(self.connect()) as con:
            found = recorded(con, self.ledger, spec, destination=self.destination(spec), said={})
        return found.delivered_through is not None


@pytest.fixture
def make_world(tmp_path: Path, bucket: Bucket) -> Iterator[Callable[[str], Place]]:
    with Opened() as opened:
        yield lambda kind: Place(tmp_path / "project", kind, bucket, opened)


@pytest.mark.parametrize("kind", [*LOCAL, *REMOTE])
def test_older_content_over_newer_is_seen_and_written_anew(make_world: Callable[[str], Place], kind: str) -> None:
    world = make_world(kind)
    spec = world.spec(world.to)
    world.answer({"1": said("a")})
    world.deliver(spec)
    world.answer({"2": said("old")})

    def newer() -> None:
        world.answer({"2": said("new"), "3": said("c")})
        assert world.deliver(spec) is not None
        assert world.rows() == expected

    expected = [("1", "a"), ("2", "new"), ("3", "c")]
    world.overtake(spec, newer)
    assert world.rows() != expected, "the slow one has overwritten the newer answers"
    assert not world.is_current(spec)
    assert world.deliver(spec) is not None
    assert world.rows() == expected
    assert world.is_current(spec) and world.deliver(spec) is None


@pytest.mark.parametrize("kind", ["parts", "parts there"])
def test_a_part_that_nobody_recorded_is_removed(make_world: Callable[[str], Place], kind: str) -> None:
    """The slow one adds its rows to a folder that another delivery has replaced whole: they would be there twice."""
    world = make_world(kind)
    spec = world.spec(world.to)
    world.answer({"1": said("a")})
    world.deliver(spec)
    world.answer({"2": said("b")})

    def replaced() -> None:
        world.restate(["1"], status="'gone'")
        assert world.deliver(spec) is not None
        assert world.rows() == [("2", "b")]

    world.overtake(spec, replaced)
    assert world.rows() == [("2", "b"), ("2", "b")]
    assert not world.is_current(spec)
    assert world.deliver(spec) is not None
    assert world.rows() == [("2", "b")]
    assert world.is_current(spec) and world.deliver(spec) is None


@pytest.mark.parametrize("kind", ["file", "parts"])
def test_a_copy_with_the_same_content_is_not_written_anew(make_world: Callable[[str], Place], kind: str) -> None:
    """As a checkout or a restored backup has it: other times, the same bytes."""
    world = make_world(kind)
    spec = world.spec(world.to)
    world.answer({"1": said("a")})
    world.deliver(spec)
    shutil.copytree(world.root / "out", world.root / "copy")
    shutil.rmtree(world.root / "out")
    shutil.move(world.root / "copy", world.root / "out")
    for file in (f for f in (world.root / "out").rglob("*") if f.is_file()):
        os.utime(file, ns=(1, 1))
    assert world.is_current(spec) and world.deliver(spec) is None


@pytest.mark.parametrize("kind", ["file", "parts", "file there", "parts there"])
def test_what_an_earlier_version_delivered_is_taken_as_it_is(make_world: Callable[[str], Place], kind: str) -> None:
    """Its record has no stamps: only what is missing is noticed, as it was then."""
    world = make_world(kind)
    spec = world.spec(world.to)
    world.answer({"1": said("a")})
    world.deliver(spec)
    destination, last = world.destination(spec), world.ledger.control().deliveries["triage"]
    assert len(last.stamps) == 1
    assert destination.exists(last.parts) and destination.exists(last.parts, stamps=last.stamps)
    wrong = tuple(f"1{stamp}" for stamp in last.stamps)
    assert not destination.exists(last.parts, stamps=wrong)
