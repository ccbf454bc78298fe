"""What both kinds of database table must do beyond that, and each by itself."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from destination_kit import ROWS, SQL, TABLES, Place, execute, row

from batchform.adapters.destinations.databases import DuckDBTable, SqliteTable
from batchform.errors import DestinationError


@pytest.fixture(params=TABLES + SQL)
def table(request: pytest.FixtureRequest, make_place: Callable[[str], Place]) -> Place:
    return make_place(request.param)


@pytest.fixture(params=[*TABLES, "sql"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


# --- tables --------------------------------------------------------------------------------------------------------


def test_a_foreign_table_is_refused(table: Place) -> None:
    table.file.parent.mkdir(exist_ok=True)
    name = "answers" if table.kind == "postgres" else "Answers"  # elsewhere, case does not tell tables apart
    execute(table, f"CREATE TABLE {name} (mine INTEGER)", f"INSERT INTO {name} VALUES (1)")
    before = table.identity()
    for act in (table.destination().check, lambda: table.deliver(ROWS)):
        with pytest.raises(DestinationError, match="batchform did not make it"):
            act()
    assert not table.destination().exists()
    assert table.identity() == before


def test_a_foreign_view_is_refused(table: Place) -> None:
    table.file.parent.mkdir(exist_ok=True)
    execute(table, "CREATE VIEW answers AS SELECT 1 AS mine")
    with pytest.raises(DestinationError, match="batchform did not make it"):
        table.deliver(ROWS)


def test_a_table_of_another_spec_is_refused(table: Place) -> None:
    table.deliver([row("a")])
    with pytest.raises(DestinationError, match="belongs to the spec triage"):
        table.destination(spec="other").check()
    with pytest.raises(DestinationError, match="belongs to the spec triage"):
        table.deliver([row("b")], spec="other", name="other-0.a.1")
    assert table.keys() == ["a"]


def test_a_bookkeeping_table_of_someone_else_is_refused(table: Place) -> None:
    table.file.parent.mkdir(exist_ok=True)
    execute(table, f"CREATE TABLE {table.owned} (x INTEGER)")
    with pytest.raises(DestinationError, match=f"{table.owned} that batchform did not make"):
        table.deliver(ROWS)


@pytest.mark.parametrize("name", ["_batchform", "_BatchForm", "sqlite_master", " "])
def test_reserved_table_names_are_refused(tmp_path: Path, name: str) -> None:
    for kind in (SqliteTable, DuckDBTable):
        with pytest.raises(DestinationError, match="cannot have this name"):
            kind(tmp_path / "x.db", table=name, spec="triage", shown="x").check()


def test_other_tables_and_views_stay(table: Place) -> None:
    table.file.parent.mkdir(exist_ok=True)
    execute(table, "CREATE TABLE mine (x INTEGER)", "INSERT INTO mine VALUES (7)")
    table.deliver([row("a", 1)])
    execute(table, "CREATE VIEW sums AS SELECT sum(n) AS n FROM answers")
    table.deliver([row("a", 1), row("b", 2)])
    assert execute(table, "SELECT x FROM mine") == [(7,)]
    assert execute(table, "SELECT n FROM sums") == [(3,)]


def test_a_dropped_table_is_written_again(table: Place) -> None:
    table.deliver([row("a")])
    execute(table, "DROP TABLE answers")
    assert not table.destination().exists()
    table.deliver([row("a")])
    assert table.keys() == ["a"]


def test_not_a_database(file: Place) -> None:
    file.file.parent.mkdir(exist_ok=True)
    file.file.write_bytes(b"this is a text file, and long enough to have a header " * 100)
    before = file.identity()
    with pytest.raises(DestinationError, match=r"cannot be written|shop cannot be reached: file is not a database"):
        file.deliver(ROWS)
    assert file.identity() == before


def test_sqlite_has_the_key_as_primary_key_and_keeps_indexes(tmp_path: Path) -> None:
    place = Place(tmp_path, "sqlite")
    place.deliver([row("a")])
    execute(place, "CREATE INDEX mine ON answers (n)")
    place.deliver([row("a"), row("b")])
    listed = execute(place, "SELECT name FROM pragma_index_list('answers') ORDER BY name")
    assert listed == [("mine",), ("sqlite_autoindex_answers_1",)]


def test_sqlite_readers_keep_their_snapshot_or_wait(tmp_path: Path) -> None:
    place = Place(tmp_path, "sqlite")
    place.deliver([row("a")])
    execute(place, "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(place.file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT key FROM answers").fetchall() == [("a",)]
        place.deliver([row("b")])
        assert reader.execute("SELECT key FROM answers").fetchall() == [("a",)]
        reader.execute("COMMIT")
        assert reader.execute("SELECT key FROM answers").fetchall() == [("b",)]


def test_a_locked_sqlite_is_refused_in_time(tmp_path: Path) -> None:
    place = Place(tmp_path, "sqlite")
    place.deliver([row("a")])
    impatient = SqliteTable(place.file, table="answers", spec="triage", shown=place.shown, lock_seconds=0.05)
    with closing(sqlite3.connect(place.file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert impatient.exists()
        with pytest.raises(DestinationError, match=r"kept it locked for 0\.05 seconds"):
            place.deliver([row("b")], to=impatient)
        other.execute("ROLLBACK")
    assert place.keys() == ["a"]


def test_a_sqlite_lock_that_ends_is_waited_for(tmp_path: Path) -> None:
    place = Place(tmp_path, "sqlite")
    place.deliver([row("a")])
    other = sqlite3.connect(place.file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.2, lambda: other.execute("ROLLBACK"))
    timer.start()
    place.deliver([row("b")])
    timer.join()
    other.close()
    assert place.keys() == ["b"]


def test_a_duckdb_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, "duckdb")
    place.deliver([row("a")])
    holder = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(place.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        assert place.destination().exists()
        with pytest.raises(DestinationError, match="another connection has it open"):
            place.deliver([row("b")])
        other.communicate()
    assert place.keys() == ["a"]
