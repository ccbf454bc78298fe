"""What every Source adapter must do. A new adapter adds itself to `SPECS`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb import DuckDBPyConnection
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from pydantic import SecretStr, TypeAdapter

from batchform.adapters.bigquery_client import Access
from batchform.adapters.sources import connect, make_bigquery_source, make_source, make_sql_source
from batchform.emulator import EmulatorServer
from batchform.errors import SourceError
from batchform.ports import Relation, Source
from batchform.spec.bigquery import BigQuerySource
from batchform.spec.model import GoogleCloud
from batchform.spec.model import Source as SourceSpec
from batchform.spec.model_sql import Database, SqlSource
from postgres_kit import PostgresServer

_SPEC: TypeAdapter[Any] = TypeAdapter(SourceSpec)
_ROWS = 20
_SELECT = "SELECT 'k' || i AS name, 'text ' || i AS body FROM range(20) r(i)"


def _csv(root: Path) -> None:
    duckdb.sql(f"COPY ({_SELECT}) TO '{root}/t.csv' (HEADER)")


def _jsonl(root: Path) -> None:
    duckdb.sql(f"COPY ({_SELECT}) TO '{root}/t.jsonl' (FORMAT json)")


def _json(root: Path) -> None:
    duckdb.sql(f"COPY ({_SELECT}) TO '{root}/t.json' (FORMAT json, ARRAY true)")


def _parquet(root: Path) -> None:
    duckdb.sql(f"COPY ({_SELECT}) TO '{root}/t.parquet' (FORMAT parquet)")


def _sqlite(root: Path) -> None:
    with closing(sqlite3.connect(root / "t.sqlite")) as db:
        db.execute("CREATE TABLE t (name, body)")
        db.executemany("INSERT INTO t VALUES (?, ?)", [(f"k{i}", f"text {i}") for i in range(_ROWS)])
        db.commit()


def _duckdb(root: Path) -> None:
    with duckdb.connect(str(root / "t.duckdb")) as db:
        db.execute(f"CREATE TABLE t AS {_SELECT}")


def _files(root: Path) -> None:
    for number in range(_ROWS):
        (root / f"k{number}.txt").write_text(f"text {number}")


def _on_a_server(root: Path) -> None:
    """The table is in a database of a server; nothing is written into the project."""


FILELESS = {"postgres": "postgres_table", "bigquery-rest": "bigquery_hosts", "bigquery-storage": "bigquery_hosts"}
"""Kinds whose rows are in no file of the project, and the fixture that says where they are."""
TABLES = ("sqlite", "duckdb", "sql", *FILELESS)

SPECS: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "csv": (_csv, {"type": "csv", "path": "t*.csv"}),
    "jsonl": (_jsonl, {"type": "jsonl", "path": "t*.jsonl"}),
    "json": (_json, {"type": "json", "path": "t*.json"}),
    "parquet": (_parquet, {"type": "parquet", "path": "t*.parquet"}),
    "sqlite": (_sqlite, {"type": "sqlite", "path": "t.sqlite", "table": "t"}),
    "duckdb": (_duckdb, {"type": "duckdb", "path": "t.duckdb", "table": "t"}),
    "sql": (_sqlite, {"type": "sql", "database": "t", "table": "t"}),
    "postgres": (_on_a_server, {"type": "sql", "database": "t", "table": "t"}),
    "bigquery-rest": (_on_a_server, {"type": "bigquery", "table": "acme.rows.t", "read": "rest"}),
    "bigquery-storage": (_on_a_server, {"type": "bigquery", "table": "acme.rows.t", "read": "storage"}),
    "files": (_files, {"type": "files", "path": "k*.txt"}),
}


@pytest.fixture(params=list(SPECS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def postgres_table(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a database with the rows of all other kinds."""
    with postgres.database() as name:
        with postgres.connect(name) as db:
            db.execute("CREATE TABLE t (name text, body text)")
            db.execute("INSERT INTO t SELECT 'k' || i, 'text ' || i FROM generate_series(0, 19) i")
        db.close()
        yield postgres.url(name)


@pytest.fixture(scope="session")
def bigquery_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Environment of a BigQuery with the rows of all other kinds, as JSON."""
    with EmulatorServer(tmp_path_factory.mktemp("emulator")) as server:
        options = {"api_endpoint": server.url}
        with closing(bigquery.Client("acme", AnonymousCredentials(), client_options=options)) as client:
            client.create_dataset("rows")
            client.query(
                "CREATE TABLE rows.t AS SELECT CONCAT('k', CAST(i AS STRING)) AS name, "
                "CONCAT('text ', CAST(i AS STRING)) AS body FROM UNNEST(GENERATE_ARRAY(0, 19)) AS i"
            ).result()
        hosts = {"BIGQUERY_EMULATOR_HOST": server.url, "BIGQUERY_STORAGE_EMULATOR_HOST": server.bigquery_storage()}
        yield json.dumps(hosts)


@pytest.fixture
def root(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    SPECS[kind][0](folder)
    if kind in FILELESS:
        (folder / "url").write_text(request.getfixturevalue(FILELESS[kind]))
    return folder


@pytest.fixture
def con(tmp_path: Path, root: Path) -> Iterator[DuckDBPyConnection]:
    with connect(tmp_path / "temp", memory_limit="256MB", threads=2, allowed=[root]) as opened:
        yield opened


def _source(kind: str, root: Path, **changed: Any) -> Source:
    spec = _SPEC.validate_python({**SPECS[kind][1], **changed})
    url = root / "url"
    if isinstance(spec, BigQuerySource):
        access = Access(GoogleCloud(project="acme"), json.loads(url.read_text()) if url.exists() else {})
        return make_bigquery_source(spec, access=access, order=("name",), needed=None, cache=None)
    if isinstance(spec, SqlSource):
        database = Database(url=SecretStr(url.read_text() if url.exists() else "sqlite:///t.sqlite"))
        return make_sql_source(spec, root=root, databases={"t": database})
    return make_source(spec, root=root, allow=())


def _rows(con: DuckDBPyConnection, relation: Relation) -> list[tuple[Any, ...]]:
    return con.execute(f"SELECT * FROM {relation.sql}").fetchall()


def test_is_a_source_and_looks_at_nothing_before_it_is_opened(kind: str, tmp_path: Path) -> None:
    source = _source(kind, tmp_path / "nowhere")
    assert isinstance(source, Source)


def test_columns_are_those_of_the_rows(kind: str, root: Path, con: DuckDBPyConnection) -> None:
    relation = _source(kind, root).open(con)
    described = con.execute(f"DESCRIBE SELECT * FROM {relation.sql}").fetchall()
    assert list(relation.columns.items()) == [(row[0], row[1]) for row in described]
    assert {"name"} < set(relation.columns)
    assert len(_rows(con, relation)) == _ROWS
    assert relation.described
    assert all(path.is_file() for path in relation.paths)


def test_every_scan_sees_the_same_rows_in_the_same_order(kind: str, root: Path, con: DuckDBPyConnection) -> None:
    relation = _source(kind, root).open(con)
    rows = _rows(con, relation)
    assert _rows(con, relation) == rows
    cursor = con.cursor()  # other cursors of the run see them too
    assert _rows(cursor, relation) == rows
    cursor.close()
    assert _rows(con, _source(kind, root).open(con)) == rows
    assert _rows(con, relation) == rows  # opening it once more has not disturbed the first


def test_another_machine_reads_the_same(kind: str, root: Path, con: DuckDBPyConnection, tmp_path: Path) -> None:
    rows = _rows(con, _source(kind, root).open(con))
    moved = root.rename(tmp_path / "moved")
    with connect(tmp_path / "other", memory_limit="1GB", threads=1, allowed=[moved]) as other:
        assert _rows(other, _source(kind, moved).open(other)) == rows


def test_rows_can_be_located(kind: str, root: Path, con: DuckDBPyConnection) -> None:
    source = _source(kind, root)
    source.open(con)
    places = source.locate(con, range(_ROWS))
    assert len(set(places)) == _ROWS
    assert source.locate(con, [7, 0, 7]) == [places[7], places[0], places[7]]
    assert source.locate(con, []) == []
    assert not any(place.startswith("/") for place in places)


def test_where_keeps_the_rows_and_their_places(kind: str, root: Path, con: DuckDBPyConnection) -> None:
    everything = _source(kind, root)
    names = [
        row[list(relation.columns).index("name")] for relation in [everything.open(con)] for row in _rows(con, relation)
    ]
    source = _source(kind, root, where="name LIKE '%7%'")
    relation = source.open(con)
    kept = [row[list(relation.columns).index("name")] for row in _rows(con, relation)]
    assert kept == [name for name in names if "7" in name]
    if kind not in TABLES or kind == "duckdb":  # whose rows are numbered after the condition
        places = everything.locate(con, [number for number, name in enumerate(names) if "7" in name])
        assert source.locate(con, range(len(kept))) == places


def test_a_query_replaces_the_rows(kind: str, root: Path, con: DuckDBPyConnection) -> None:
    table = {"table": None} if kind in TABLES else {}
    of = {"bigquery": "acme.rows.t"}.get(SPECS[kind][1]["type"], "t") if table else "source"
    source = _source(kind, root, query=f"SELECT count(*) AS n, max(name) AS last FROM {of}", **table)
    relation = source.open(con)
    assert list(relation.columns) == ["n", "last"]
    assert _rows(con, relation)[0][0] == _ROWS
    assert len(source.locate(con, [0])) == 1


@pytest.mark.parametrize("field", ["where", "query"])
@pytest.mark.parametrize(
    "sql", ["nope = 1", "SELECT nope FROM source", "DELETE FROM t", "1; SELECT 2", "((", "SELECT 1; SELECT 2"]
)
def test_sql_that_fails_names_its_field(kind: str, root: Path, con: DuckDBPyConnection, field: str, sql: str) -> None:
    table = {"table": None} if kind in TABLES and field == "query" else {}
    with pytest.raises(SourceError, match=rf"source\.{field}") as caught:
        _source(kind, root, **{field: sql}, **table).open(con)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", [kind for kind, (_, spec) in SPECS.items() if "path" in spec], indirect=True)
def test_what_is_missing_is_named_with_where_we_looked(kind: str, root: Path, con: DuckDBPyConnection) -> None:
    with pytest.raises(SourceError) as caught:
        _source(kind, root, path="nowhere/x.data").open(con)
    assert "nowhere/x.data" in caught.value.message
    assert str(root) in caught.value.message
    assert caught.value.hint.startswith("There is ")


@pytest.mark.parametrize("kind", [kind for kind, (_, spec) in SPECS.items() if "path" in spec], indirect=True)
@pytest.mark.parametrize("way", ["absolute", "dots", "link", "folder link"])
def test_no_way_out_of_the_project(kind: str, root: Path, con: DuckDBPyConnection, tmp_path: Path, way: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    SPECS[kind][0](outside)
    name = next(path.name for path in sorted(outside.iterdir()))
    (root / "link").symlink_to(outside / name)
    (root / "folder").symlink_to(outside)
    ways = {
        "absolute": str(outside / name),
        "dots": f"../outside/{name}",
        "link": "link",
        "folder link": f"folder/{name}",
    }
    with pytest.raises(SourceError, match="outside the project"):
        _source(kind, root, path=ways[way]).open(con)
    allowed = make_source(_SPEC.validate_python({**SPECS[kind][1], "path": ways[way]}), root=root, allow=[outside])
    with connect(tmp_path / "temp2", memory_limit="256MB", threads=2, allowed=[root, outside]) as wider:
        assert _rows(wider, allowed.open(wider))


def test_nothing_is_written_beside_the_source(kind: str, root: Path, con: DuckDBPyConnection) -> None:
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    _rows(con, _source(kind, root, where="name <> ''").open(con))
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before
