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
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from pydantic import SecretStr

from batchform.adapters.bigquery_client import Access
from batchform.adapters.destinations import make_destination
from batchform.adapters.destinations.bigquery import BigQueryTable
from batchform.adapters.destinations.bigquery_jobs import Jobs, Named
from batchform.adapters.local_blobs import LocalBlobs
from batchform.errors import DestinationError
from batchform.ledger.store import Ledger
from batchform.plan.recorded import recorded
from batchform.ports import Delivered, Delivery, Destination
from batchform.run.deliver import deliver_spec
from batchform.spec.bigquery import BigQueryDestination
from batchform.spec.model import GoogleCloud
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
TABLES: dict[str, dict[str, Any]] = {"bigquery": {"type": "bigquery"}}
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
        self.to = {**(LOCAL | REMOTE | TABLES)[kind], **COLUMNS}
        if kind in REMOTE:
            self.to["path"] = bucket.uri(self.to["path"])
        if kind in TABLES:
            self.to["table"] = f"test.{bucket.name.replace('-', '_')}.answers"
            with closing(self.bigquery()) as client:
                client.create_dataset(self.to["table"].split(".")[1])
        (root / "out").mkdir()
        databases = "databases: {shop: {url: '${ENV:SHOP}'}}\n"
        self.env["SHOP"] = SHOP
        (root / "batchform.yaml").write_text((root / "batchform.yaml").read_text() + databases)

    def bigquery(self) -> bigquery.Client:
        options = {"api_endpoint": self._bucket.url}
        return bigquery.Client(project="test", credentials=AnonymousCredentials(), client_options=options)

    def sql(self, statement: str) -> Rows:
        """Run a statement in BigQuery, with `{t}` for the destination's table."""
        with closing(self.bigquery()) as client:
            return [tuple(r.values()) for r in client.query(statement.replace("{t}", self.to["table"])).result()]

    def destination(self, spec: ResolvedSpec) -> Destination:
        if isinstance(spec.spec.destination, BigQueryDestination):
            access = Access(GoogleCloud(project="test"), {"BIGQUERY_EMULATOR_HOST": self._bucket.url})
            return BigQueryTable(spec.spec.destination, spec=spec.name, access=access)
        databases = {"shop": Database(url=SecretStr(SHOP))}
        return make_destination(
            spec.spec.destination, spec=spec.name, root=self.root, allow=(), storage=self._storage, databases=databases,
        )  # type: ignore[arg-type]  # fmt: skip

    def rows(self) -> Rows:
        """What a reader of the destination finds."""
        match self.to:
            case {"type": "bigquery"}:
                return self.sql("SELECT id, label FROM `{t}` ORDER BY 1")
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


@pytest.mark.parametrize("kind", [*LOCAL, *REMOTE, *TABLES])
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


@pytest.mark.parametrize("kind", ["file", "parts", "file there", "parts there", "bigquery"])
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


EDIT = "UPDATE `{t}` SET label = 'edited' WHERE id = '1'"
MORE = "INSERT INTO `{t}` (id, label) VALUES ('9', 'added')"


def test_what_somebody_else_did_to_a_table_is_seen(make_world: Callable[[str], Place]) -> None:
    world = make_world("bigquery")
    spec = world.spec(world.to)
    world.answer({"1": said("a"), "2": said("b")})
    world.deliver(spec)
    assert world.is_current(spec) and world.deliver(spec) is None
    for statement in (EDIT, MORE, "DELETE FROM `{t}` WHERE id = '1'"):
        world.sql(statement)
        assert not world.is_current(spec)
        assert world.deliver(spec) is not None
        assert world.rows() == [("1", "a"), ("2", "b")]
        assert world.is_current(spec)
    world.sql("CREATE OR REPLACE TABLE `{t}` AS SELECT '1' AS id, 'other' AS label")
    assert not world.is_current(spec)
    with pytest.raises(DestinationError, match="batchform did not make it"):  # it lacks the label that says whose it is
        world.deliver(spec)


def test_a_write_between_the_merge_and_the_look_after_it_is_merged_over(
    make_world: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("bigquery")
    spec = world.spec(world.to)
    world.answer({"1": said("a")})
    merge, merged = Jobs.merge, []

    def then_edited(self: Jobs, sql: str, named: Named) -> None:
        merge(self, sql, named)
        merged.append(named.merge)
        if len(merged) == 1:
            world.sql(EDIT)

    monkeypatch.setattr(Jobs, "merge", then_edited)
    world.deliver(spec)
    assert len(merged) == 2 and world.rows() == [("1", "a")]
    assert world.is_current(spec) and world.deliver(spec) is None


def test_a_shared_table_is_written_by_others_and_stays_current(make_world: Callable[[str], Place]) -> None:
    world = make_world("bigquery")
    spec = world.spec({**world.to, "shared": True})
    world.answer({"1": said("a")})
    world.deliver(spec)
    world.sql(MORE)
    assert world.is_current(spec) and world.deliver(spec) is None
