"""What every destination must do, whatever its kind: over all kinds, through a confined connection, on real files."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from batchform.adapters.destinations import make_destination
from batchform.adapters.destinations.databases import DuckDBTable, SqliteTable
from batchform.adapters.destinations.staging import SUFFIX
from batchform.adapters.sources import connect
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery, Destination
from batchform.spec.model import DatabaseDestination, FileDestination

FILES = ["jsonl", "csv", "parquet"]
TABLES = ["sqlite", "duckdb"]
KINDS = FILES + TABLES
Row = tuple[Any, ...]
ROWS: list[Row] = [("a|b", 1, '{"x":[1,null]}', None, 0.5, True), ("c", 2, None, "", -1.0, False)]


class Place:
    """A project folder with one destination of a kind."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        self.kind = kind
        suffix = {"sqlite": "db"}.get(kind, kind)
        self.file = root / "out" / f"answers.{suffix}"
        self.shown = f"out/answers.{suffix}"

    def destination(self, *, folder: bool = False, path: str | None = None) -> Destination:
        shown = path or ("out/" if folder else self.shown)
        if self.kind in TABLES:
            made: Any = DatabaseDestination(type=self.kind, path=shown, table="answers")  # type: ignore[arg-type]
        else:
            made = FileDestination(type=self.kind, path=shown)  # type: ignore[arg-type]
        return make_destination(made, root=self.root, allow=())

    def deliver(
        self,
        rows: list[Row],
        *,
        to: Destination | None = None,
        columns: str = "",
        changed: list[Row] | None = None,
        name: str = "triage-00000000.aaaa.1",
        previous: tuple[str, ...] = (),
        spec: str = "triage",
        full: bool = True,
    ) -> Delivered:
        with closing(self.connect()) as con:
            for view, some in (("everything", rows), ("news", rows if changed is None else changed)):
                types = "key VARCHAR, n BIGINT, doc JSON, note VARCHAR, score DOUBLE, ok BOOLEAN"
                con.execute(f"CREATE TEMP TABLE t_{view} ({types})")
                if some:
                    con.executemany(f"INSERT INTO t_{view} VALUES (?, ?, ?, ?, ?, ?)", some)
                at = "TIMESTAMPTZ '2026-11-21 13:30:00.25+01' AS at"
                chosen = columns or f"*, {at}"
                con.execute(f"CREATE TEMP VIEW {view} AS SELECT {chosen} FROM t_{view} ORDER BY key")
            delivery = Delivery(spec, name, "everything", "news", ("key",), full, previous, name.partition(".")[0])
            return (to or self.destination()).deliver(con, delivery)

    def connect(self) -> duckdb.DuckDBPyConnection:
        return connect(self.root / ".batchform" / "tmp", memory_limit="256MB", threads=2, allowed=[self.root])

    def read(self, path: Path | None = None) -> list[Row]:
        """The rows, read with tools that are not batchform's."""
        path = path or self.file
        match self.kind:
            case "jsonl":
                return [tuple(json.loads(line).values()) for line in path.read_text().split("\n")[:-1]]
            case "csv":
                with path.open(newline="") as file:
                    return [tuple(row) for row in csv.reader(file)][1:]
            case "parquet":
                return [tuple(row.values()) for row in pq.read_table(path).to_pylist()]
            case "sqlite":
                with closing(sqlite3.connect(path)) as db:
                    return db.execute("SELECT * FROM answers ORDER BY rowid").fetchall()
        with duckdb.connect(str(path), read_only=True) as con:
            return [tuple(r.values()) for r in con.sql("SELECT * FROM answers").to_arrow_table().to_pylist()]

    def keys(self) -> list[str]:
        if self.kind != "duckdb":
            return [row[0] for row in self.read()]
        with duckdb.connect(str(self.file), read_only=True) as con:
            return [key for (key,) in con.execute("SELECT key FROM answers ORDER BY rowid").fetchall()]

    def identity(self) -> tuple[int, int, bytes]:
        """What changes when the destination is written."""
        found = self.file.stat()
        return found.st_ino, found.st_mtime_ns, self.file.read_bytes()

    def leftovers(self) -> list[str]:
        return [p.name for p in (self.root / "out").glob("*") if p.name != self.file.name]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path, request.param)


@pytest.fixture(params=FILES)
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


def row(key: str, n: int = 0) -> Row:
    return (key, n, "{}", "note", 0.0, True)


# --- the same for all --------------------------------------------------------------------------------------------


def test_is_a_destination_that_is_not_there_yet(place: Place) -> None:
    made = place.destination()
    assert isinstance(made, Destination)
    assert not made.exists()
    made.check()
    assert list(place.root.iterdir()) == []  # neither touches anything


def test_first_delivery_makes_folders_and_reads_back(place: Place) -> None:
    delivered = place.deliver(ROWS)
    assert delivered.rows == 2 and place.shown in delivered.location
    assert place.destination().exists()
    assert place.leftovers() == []
    at = datetime(2026, 11, 21, 12, 30, 0, 250_000, tzinfo=UTC)
    stamp = "2026-11-21T12:30:00.250000Z"
    expected = {
        "jsonl": [("a|b", 1, {"x": [1, None]}, None, 0.5, True, stamp), ("c", 2, None, "", -1.0, False, stamp)],
        "csv": [
            ("a|b", "1", '{"x":[1,null]}', "", "0.5", "true", stamp),
            ("c", "2", "", "", "-1.0", "false", stamp),
        ],
        "parquet": [("a|b", 1, '{"x":[1,null]}', None, 0.5, True, at), ("c", 2, None, "", -1.0, False, at)],
        "sqlite": [("a|b", 1, '{"x":[1,null]}', None, 0.5, 1, stamp), ("c", 2, None, "", -1.0, 0, stamp)],
        "duckdb": [("a|b", 1, '{"x":[1,null]}', None, 0.5, True, at), ("c", 2, None, "", -1.0, False, at)],
    }
    assert place.read() == expected[place.kind]


def test_the_same_again_touches_nothing(place: Place) -> None:
    place.deliver(ROWS)
    before = place.identity()
    assert place.deliver(ROWS, name="triage-00000000.aaaa.2").rows == 2
    assert place.identity() == before
    assert place.leftovers() == []


def test_new_and_changed_rows_replace_the_old_content(place: Place) -> None:
    place.deliver([row("a"), row("c")])
    place.deliver([row("a", 5), row("b"), row("c")])
    assert place.keys() == ["a", "b", "c"]


def test_pruned_rows_vanish_down_to_none(place: Place) -> None:
    place.deliver([row("a"), row("b")])
    place.deliver([row("b")])
    assert place.keys() == ["b"]
    assert place.deliver([]).rows == 0
    assert place.keys() == []
    assert place.destination().exists()


def test_a_changed_mapping_changes_the_columns(place: Place) -> None:
    place.deliver(ROWS)
    place.deliver(ROWS, columns="""key, n AS "a ""b"", c", note""")
    assert place.keys() == ["a|b", "c"]
    assert len(place.read()[0]) == 3
    if place.kind == "csv":
        assert place.file.read_text().splitlines()[0] == 'key,"a ""b"", c",note'


def test_rows_keep_their_order(place: Place) -> None:
    keys = [f"{n:06d}" for n in range(30_000)]
    with closing(place.connect()) as con:
        con.execute("CREATE TEMP VIEW v AS SELECT printf('%06d', 29999 - range) AS key FROM range(30000) ORDER BY key")
        place.destination().deliver(con, Delivery("triage", "n.1", "v", "v", ("key",), full=True))
    assert place.keys() == keys


def test_text_survives_as_it_is(place: Place) -> None:
    nasty = [
        '"',
        "a,b",
        "line\nbreak\r\n",
        "''",
        "\\",
        " padded ",
        "ünï🎈",
        "\x01\x7f",
        "NULL",
        "=1+1",
        "a\tb",
        "\u2028",
    ]
    rows = sorted((text, i, json.dumps({"t": text}), text, 1.5, None) for i, text in enumerate(nasty))
    place.deliver(rows)
    assert place.keys() == [r[0] for r in rows]
    assert [r[3] for r in place.read()] == [r[3] for r in rows]


def test_leftovers_of_a_killed_delivery_are_cleaned(place: Place) -> None:
    place.deliver([row("a")])
    stale = place.file.with_name(f".{place.file.name}.dead{SUFFIX}")
    stale.write_bytes(b"half")
    other = place.file.with_name(f".other.{SUFFIX}")
    other.write_bytes(b"not ours")
    place.deliver([row("b")])
    assert place.keys() == ["b"]
    assert not stale.exists() and other.exists()


def test_a_delivery_at_work_is_not_cleaned_away(place: Place) -> None:
    place.deliver([row("a")])
    busy = place.file.with_name(f".{place.file.name}.beef{SUFFIX}")
    with busy.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        place.deliver([row("b")])
        assert busy.exists()


def test_a_failing_query_leaves_the_old_content(place: Place) -> None:
    place.deliver([row("a")])
    before = place.identity()
    with pytest.raises(DestinationError, match=r"cannot be written: .*boom"):
        place.deliver([row("b")], columns="CASE WHEN key = 'b' THEN error('boom') ELSE key END AS key")
    assert place.identity() == before
    assert place.leftovers() == []


def test_a_failing_first_delivery_leaves_nothing(place: Place) -> None:
    with pytest.raises(DestinationError, match="boom"):
        place.deliver([row("b")], columns="CASE WHEN key = 'b' THEN error('boom') ELSE key END AS key")
    assert not place.file.exists() and place.leftovers() == []


def test_a_folder_in_the_way(place: Place) -> None:
    place.file.mkdir(parents=True)
    with pytest.raises(DestinationError, match="is a folder"):
        place.destination().check()
    with pytest.raises(DestinationError, match="is a folder"):
        place.deliver(ROWS)


def test_a_file_in_the_way(place: Place) -> None:
    (place.root / "out").write_text("not a folder")
    for act in (place.destination().check, lambda: place.deliver(ROWS)):
        with pytest.raises(DestinationError, match="is a file, not a folder"):
            act()
    assert (place.root / "out").read_text() == "not a folder"


@pytest.mark.parametrize("path", ["../x", "/etc/answers", "gs://bucket/x", " ", "a\0b"])
def test_paths_outside_the_project_are_refused(place: Place, path: str) -> None:
    with pytest.raises(DestinationError, match=r"outside the project|not a local path|names no file"):
        place.destination(path=path)


def test_a_link_that_leads_out_is_refused(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    (place.root / "out").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(DestinationError, match="outside the project"):
        place.destination()


@pytest.mark.parametrize("note", ["random", "repeated"])
@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_leaves_the_old_content(place: Place, note: str, first: bool) -> None:
    """In a process of its own, which may not write files of more than 64 KB. Repeated text compresses well: the disk is
    then full only when the table itself is written."""
    if not first:
        place.deliver([row("a")])
    rows = [(f"k{n}", n, "{}", os.urandom(400).hex() if note == "random" else "x" * 800, 0.0, True) for n in range(500)]
    done = subprocess.run(
        [sys.executable, __file__, str(place.root), place.kind], input=json.dumps(rows), text=True, capture_output=True
    )
    if place.kind == "parquet" and note == "repeated":
        assert done.stdout == ""  # it fits
        return
    assert (done.stdout.strip(), done.stderr) == ("refused", "")
    assert place.file.exists() != first
    if not first:
        assert place.keys() == ["a"]
    log = [] if first else [f"{place.file.name}.wal"]  # DuckDB's own: its next writer takes it up
    assert set(place.leftovers()) <= set(log)


def test_an_unwritable_folder_is_refused_before_anything_is_written() -> None:
    """In a process of an ordinary user, since root may write everywhere."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            root.chmod(0o755)
            (root / "out").mkdir(mode=0o555)
            done = subprocess.run([sys.executable, __file__, name, kind, "check"], text=True, capture_output=True)
            assert (done.stdout.strip(), done.stderr) == ("refused", ""), kind
            assert list((root / "out").iterdir()) == []


# --- files ---------------------------------------------------------------------------------------------------------


def test_readers_see_the_old_file_or_the_new_one(parts: Place) -> None:
    parts.deliver([row("a")])
    with parts.file.open("rb") as reader:
        parts.deliver([row("b")])
        old = reader.read()
    assert old != parts.file.read_bytes() and old


def test_permissions_of_the_file_stay(parts: Place) -> None:
    parts.deliver([row("a")])
    parts.file.chmod(0o640)
    parts.deliver([row("b")])
    assert stat.S_IMODE(parts.file.stat().st_mode) == 0o640


def test_csv_tells_null_from_empty(tmp_path: Path) -> None:
    place = Place(tmp_path, "csv")
    place.deliver([("a", None, None, "", None, None)], columns="key, n, note")
    assert place.file.read_text() == 'key,n,note\na,,""\n'


def test_parts_add_up_and_a_full_delivery_replaces_them(parts: Place) -> None:
    folder = parts.destination(folder=True)
    assert not folder.exists()
    owner, other = "triage-00000000", "other-00000000"
    first = parts.deliver([row("a")], to=folder, name=f"{owner}.d.0")
    second = parts.deliver(
        [row("a"), row("b")], to=folder, changed=[row("b")], name=f"{owner}.d.1", previous=first.parts, full=False
    )
    parts.deliver([row("z")], to=folder, name=f"{other}.d.0", spec="other")
    (parts.root / "out" / "README").write_text("mine")
    assert second.parts == (f"part-{owner}.d.0.{parts.kind}", f"part-{owner}.d.1.{parts.kind}")
    assert (first.rows, second.rows) == (1, 1)
    assert folder.exists(second.parts) and not folder.exists((*second.parts, "part-gone"))
    found = [r[0] for name in second.parts for r in parts.read(parts.root / "out" / name)]
    assert found == ["a", "b"]
    full = parts.deliver([row("a"), row("b")], to=folder, name=f"{owner}.e.0", previous=second.parts)
    names = {f"part-{owner}.e.0.{parts.kind}", f"part-{other}.d.0.{parts.kind}", "README"}
    assert {p.name for p in (parts.root / "out").iterdir()} == names
    assert full.parts == (f"part-{owner}.e.0.{parts.kind}",)


def test_the_same_part_again_touches_nothing(parts: Place) -> None:
    folder = parts.destination(folder=True)
    made = parts.deliver([row("a")], to=folder)
    path = parts.root / "out" / made.parts[0]
    before = path.stat().st_mtime_ns, path.stat().st_ino
    parts.deliver([row("a")], to=folder)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_a_file_where_parts_should_be(parts: Place) -> None:
    (parts.root / "out").write_text("x")
    with pytest.raises(DestinationError, match="out/ is a file"):
        parts.destination(folder=True).check()


# --- tables --------------------------------------------------------------------------------------------------------


def execute(place: Place, *statements: str) -> list[Row]:
    """Run SQL in the destination's database as its owner would."""
    opened: Any = sqlite3.connect(place.file) if place.kind == "sqlite" else duckdb.connect(str(place.file))
    with closing(opened) as db:
        found: list[Row] = []
        for statement in statements:
            found = db.execute(statement).fetchall()
        if place.kind == "sqlite":
            db.commit()
    return found


def test_a_foreign_table_is_refused(table: Place) -> None:
    table.file.parent.mkdir()
    execute(table, "CREATE TABLE Answers (mine INTEGER)", "INSERT INTO Answers VALUES (1)")
    before = table.identity()
    for act in (table.destination().check, lambda: table.deliver(ROWS)):
        with pytest.raises(DestinationError, match="batchform did not make it"):
            act()
    assert not table.destination().exists()
    assert table.identity() == before


def test_a_foreign_view_is_refused(table: Place) -> None:
    table.file.parent.mkdir()
    execute(table, "CREATE VIEW answers AS SELECT 1 AS mine")
    with pytest.raises(DestinationError, match="batchform did not make it"):
        table.deliver(ROWS)


def test_a_table_of_another_spec_is_refused(table: Place) -> None:
    table.deliver([row("a")])
    with pytest.raises(DestinationError, match="belongs to the spec triage"):
        table.deliver([row("b")], spec="other", name="other-0.a.1")
    assert table.keys() == ["a"]


def test_a_bookkeeping_table_of_someone_else_is_refused(table: Place) -> None:
    table.file.parent.mkdir()
    execute(table, "CREATE TABLE _batchform (x INTEGER)")
    with pytest.raises(DestinationError, match="_batchform that batchform did not make"):
        table.deliver(ROWS)


@pytest.mark.parametrize("name", ["_batchform", "_BatchForm", "sqlite_master", " "])
def test_reserved_table_names_are_refused(table: Place, name: str) -> None:
    kind = SqliteTable if table.kind == "sqlite" else DuckDBTable
    with pytest.raises(DestinationError, match="cannot have this name"):
        kind(table.file, table=name, shown="x").check()


def test_other_tables_and_views_stay(table: Place) -> None:
    table.file.parent.mkdir()
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


def test_not_a_database(table: Place) -> None:
    table.file.parent.mkdir()
    table.file.write_bytes(b"this is a text file, and long enough to have a header " * 100)
    before = table.identity()
    with pytest.raises(DestinationError, match="cannot be written"):
        table.deliver(ROWS)
    assert table.identity() == before


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
    impatient = SqliteTable(place.file, table="answers", shown=place.shown, lock_seconds=0.05)
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


def test_wide_numbers_stay_exact(place: Place) -> None:
    with closing(place.connect()) as con:
        con.execute("CREATE TEMP VIEW v AS SELECT 'a' AS key, 170141183460469231731687303715884105727::HUGEINT AS n")
        place.destination().deliver(con, Delivery("triage", "n.1", "v", "v", ("key",), full=True))
    if place.kind == "duckdb":
        assert execute(place, "SELECT n FROM answers") == [(2**127 - 1,)]
    else:
        assert int(place.read()[0][1]) == 2**127 - 1


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    place = Place(tmp_path, "jsonl")
    place.deliver([("a", 1, None, None, float("nan"), None), ("b", 1, None, None, float("inf"), None)])
    assert [r[4] for r in place.read()] == [None, None]


def _child() -> None:
    """What the subprocesses of this file do: deliver under a small file size limit, or only check."""
    place = Place(Path(sys.argv[1]), sys.argv[2])
    try:
        if sys.argv[3:] == ["check"]:
            destination = place.destination()
            if os.geteuid() == 0:
                os.setuid(65534)
            destination.check()
        else:
            rows = [tuple(r) for r in json.load(sys.stdin)]
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
            place.deliver(rows)
    except DestinationError as error:
        print("refused" if "cannot be written" in error.render() else error.render())  # noqa: T201


if __name__ == "__main__":
    _child()
