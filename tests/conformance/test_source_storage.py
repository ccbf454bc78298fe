"""Files at gs:// give the rows that the same files give when they are local; and a listing says which they were."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection
from pydantic import TypeAdapter
from test_source_conformance import SPECS as KINDS

from batchform.adapters.sources import connect, make_source
from batchform.adapters.sources.paths import expand
from batchform.adapters.storage.client import Stat, StorageClient
from batchform.adapters.storage.files import StorageFiles
from batchform.errors import SourceError
from batchform.ports import Identified, Relation, Source
from batchform.spec.model import GoogleCloud
from batchform.spec.model import Source as SourceSpec
from bucket_kit import Bucket, Opened

_SPEC: TypeAdapter[Any] = TypeAdapter(SourceSpec)
SPECS = {kind: made for kind, made in KINDS.items() if kind not in ("sqlite", "duckdb")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def con(tmp_path: Path, root: Path) -> Iterator[DuckDBPyConnection]:
    with connect(tmp_path / "temp", memory_limit="256MB", threads=2, allowed=[root]) as opened:
        yield opened


@pytest.fixture
def remote(root: Path, bucket: Bucket) -> Iterator[StorageFiles]:
    assert bucket.names() == []
    with Opened() as opened:
        yield StorageFiles(opened.client(), root / "cache")


def upload(root: Path, bucket: Bucket, prefix: str = "data/") -> None:
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        bucket.put(prefix + path.relative_to(root).as_posix(), path.read_bytes())


def source(kind: str, root: Path, remote: StorageFiles, path: str, **changed: Any) -> Source:
    spec = _SPEC.validate_python({**SPECS[kind][1], "path": path, **changed})
    return make_source(spec, root=root, allow=(), remote=remote)


def rows(con: DuckDBPyConnection, relation: Relation) -> list[tuple[Any, ...]]:
    return con.execute(f"SELECT * FROM {relation.sql}").fetchall()


@pytest.mark.parametrize("changed", [{}, {"where": "name LIKE '%7%'"}, {"query": "SELECT max(name) AS m FROM source"}])
@pytest.mark.parametrize("kind", [kind for kind, (_, spec) in SPECS.items() if "path" in spec])
def test_rows_and_places_are_those_of_local_files(
    root: Path, con: DuckDBPyConnection, remote: StorageFiles, bucket: Bucket, kind: str, changed: dict[str, str]
) -> None:
    SPECS[kind][0](root)
    upload(root, bucket)
    glob = SPECS[kind][1]["path"]
    here = make_source(_SPEC.validate_python({**SPECS[kind][1], **changed}), root=root, allow=())
    there = source(kind, root, remote, bucket.uri(f"data/{glob}"), **changed)
    local, far = here.open(con), there.open(con)
    names = "replace(columns(*)::VARCHAR, 'gs://" + bucket.name + "/data/', '')"
    assert list(far.columns.items()) == list(local.columns.items())
    assert (
        con.execute(f"SELECT {names} FROM {far.sql}").fetchall()
        == con.execute(f"SELECT columns(*)::VARCHAR FROM {local.sql}").fetchall()
    )
    places = here.locate(con, [0])
    assert there.locate(con, [0]) == [p if changed.get("query") else bucket.uri(f"data/{p}") for p in places]
    assert far.paths == ()
    objects = bucket.names("data/")
    assert sorted(far.versions) == [f"{bucket.uri(n)}#{bucket.generation(n)}" for n in objects]
    assert isinstance(there, Identified)
    assert there.identity() == far.identity == "\n".join(sorted(far.versions))


GLOBS = (
    *("*.csv", "**/*.csv", "*", "**", "deep/*", "*/a.csv", "?.csv", "[ab].*", "a.csv", "deep/**", ".hidden/*"),
    *("**/c.csv", "x[1].csv", "d*/**/*.csv"),
)
TREE = ("a.csv", "b.txt", "deep/a.csv", "deep/er/c.csv", ".hidden/d.csv", "deep/.e.csv", "x[1].csv")


@pytest.mark.parametrize("glob", GLOBS)
def test_globs_mean_what_they_mean_locally(root: Path, remote: StorageFiles, bucket: Bucket, glob: str) -> None:
    for name in TREE:
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
        bucket.put(f"data/{name}", b"x\n")
    bucket.put("data/empty/", b"")  # how a console marks a folder
    local = [f.name for f in expand(f"data/{glob}", root=root, allow=())]
    far = expand(bucket.uri(f"data/{glob}"), root=root, allow=(), remote=remote)
    assert [f.name for f in far] == [bucket.uri(name) for name in local]
    assert [v.partition("#")[0] for v in remote.versions(bucket.uri(f"data/{glob}"))] == [f.name for f in far]


@pytest.mark.parametrize("how", ["gz", "zst", "encoding"])
def test_compressed_objects(
    root: Path, con: DuckDBPyConnection, remote: StorageFiles, bucket: Bucket, how: str
) -> None:
    text = b"name,body\nk1,one\nk2,two\n"
    if how == "encoding":
        blob = bucket.bucket.blob("t.csv")
        blob.content_encoding = "gzip"
        blob.upload_from_string(gzip.compress(text), content_type="text/csv")
        name = "t.csv"
    else:
        name = f"t.csv.{how}"
        bucket.put(name, gzip.compress(text) if how == "gz" else pa.compress(text, "zstd", asbytes=True))
    relation = source("csv", root, remote, bucket.uri(name)).open(con)
    assert rows(con, relation) == [("k1", "one"), ("k2", "two")]


def test_a_generation_is_downloaded_once(remote: StorageFiles, bucket: Bucket) -> None:
    bucket.put("a.csv", b"first")
    (first,) = remote.fetch(bucket.uri("a.csv"))
    kept = first.path.stat()
    (again,) = remote.fetch(bucket.uri("*.csv"))
    assert again == first
    assert again.path.stat().st_mtime_ns == kept.st_mtime_ns
    assert (kept.st_mode & 0o077, first.path.parent.stat().st_mode & 0o077) == (0, 0), "rows may be private"
    bucket.put("a.csv", b"first")
    (other,) = remote.fetch(bucket.uri("a.csv"))
    assert other.path != first.path
    assert other.version != first.version
    assert other.path.read_bytes() == first.path.read_bytes() == b"first"


class Overtaken(StorageClient):
    """Another writer replaces each object right before it is downloaded for the first time."""

    def __init__(self, bucket: Bucket, content: bytes | None) -> None:
        super().__init__(GoogleCloud(), pause=0.001)
        self._bucket, self._content = bucket, content

    def download(self, found: Stat, to: Path, *, decoded: bool = False) -> None:
        if self._content is None:
            self._bucket.bucket.blob(found.at.name).delete()
        elif self._bucket.get(found.at.name) != self._content:
            self._bucket.put(found.at.name, self._content)
        super().download(found, to, decoded=decoded)


def test_an_object_replaced_between_listing_and_reading_is_read_whole(root: Path, bucket: Bucket) -> None:
    bucket.put("a.csv", b"old")
    client = Overtaken(bucket, b"new")
    (found,) = StorageFiles(client, root / "cache").fetch(bucket.uri("*.csv"))
    client.close()
    assert found.path.read_bytes() == b"new"
    assert found.version == f"{bucket.uri('a.csv')}#{bucket.generation('a.csv')}"


def test_an_object_deleted_between_listing_and_reading(root: Path, bucket: Bucket) -> None:
    bucket.put("a.csv", b"old")
    client = Overtaken(bucket, None)
    with pytest.raises(SourceError, match="was deleted while the source was read"):
        StorageFiles(client, root / "cache").fetch(bucket.uri("*.csv"))
    client.close()
    assert not [p for p in (root / "cache").rglob("*") if p.is_file()], "nothing half is left"
