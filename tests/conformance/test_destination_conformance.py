"""What every destination must do, whatever its kind: over all kinds, through a confined connection, on real files."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from destination_kit import FILES, KINDS, ON_DISK, ROWS, SQL, TABLES, Place, execute, row

from batchform.adapters.destinations.staging import SUFFIX
from batchform.errors import DestinationError
from batchform.ports import Delivery, Destination
from fork_kit import Forks


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, make_place: Callable[[str], Place]) -> Place:
    return make_place(request.param)


@pytest.fixture(params=ON_DISK)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


@pytest.fixture(params=FILES + TABLES)
def by_path(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


@pytest.fixture(params=FILES)
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


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
        "postgres": [("a|b", 1, {"x": [1, None]}, None, 0.5, True, at), ("c", 2, None, "", -1.0, False, at)],
    }
    expected["sql"] = expected["sqlite"]
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
    if place.kind in SQL:  # columns are added, never removed
        columns = "key", "n", "doc", "note", "score", "ok", "at", 'a "b", c'
        assert [dict(zip(columns, found, strict=True)) for found in place.read()] == [
            {**dict.fromkeys(columns), "key": key, 'a "b", c': n, "note": note} for key, n, _, note, *_ in ROWS
        ]
        return
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


def test_leftovers_of_a_killed_delivery_are_cleaned(by_path: Place) -> None:
    by_path.deliver([row("a")])
    stale = by_path.file.with_name(f".{by_path.file.name}.dead{SUFFIX}")
    stale.write_bytes(b"half")
    other = by_path.file.with_name(f".other.{SUFFIX}")
    other.write_bytes(b"not ours")
    by_path.deliver([row("b")])
    assert by_path.keys() == ["b"]
    assert not stale.exists() and other.exists()


def test_a_delivery_at_work_is_not_cleaned_away(by_path: Place) -> None:
    by_path.deliver([row("a")])
    busy = by_path.file.with_name(f".{by_path.file.name}.beef{SUFFIX}")
    with busy.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        by_path.deliver([row("b")])
        assert busy.exists()


def test_a_failing_query_leaves_the_old_content(place: Place) -> None:
    place.deliver([row("a")])
    before = place.identity()
    with pytest.raises(DestinationError, match=r"cannot be written: .*boom"):
        place.deliver([row("b")], columns="CASE WHEN key = 'b' THEN error('boom') ELSE key END AS key")
    assert place.identity() == before
    assert place.leftovers() == []


def test_a_failing_first_delivery_leaves_nothing(disk: Place) -> None:
    with pytest.raises(DestinationError, match="boom"):
        disk.deliver([row("b")], columns="CASE WHEN key = 'b' THEN error('boom') ELSE key END AS key")
    assert not disk.file.exists() and disk.leftovers() == []


def test_a_folder_in_the_way(disk: Place) -> None:
    disk.file.mkdir(parents=True)
    with pytest.raises(DestinationError, match="is a folder"):
        disk.destination().check()
    with pytest.raises(DestinationError, match="is a folder"):
        disk.deliver(ROWS)


def test_a_file_in_the_way(disk: Place) -> None:
    (disk.root / "out").write_text("not a folder")
    for act in (disk.destination().check, lambda: disk.deliver(ROWS)):
        with pytest.raises(DestinationError, match="is a file, not a folder"):
            act()
    assert (disk.root / "out").read_text() == "not a folder"


@pytest.mark.parametrize("path", ["../x", "/etc/answers", "gs://bucket/x", " ", "a\0b"])
def test_paths_outside_the_project_are_refused(by_path: Place, path: str) -> None:
    with pytest.raises(DestinationError, match=r"outside the project|not a local path|names no file"):
        by_path.destination(path=path)


def test_a_link_that_leads_out_is_refused(by_path: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    (by_path.root / "out").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(DestinationError, match="outside the project"):
        by_path.destination()


@pytest.mark.parametrize("note", ["random", "repeated"])
@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_leaves_the_old_content(disk: Place, forks: Forks, note: str, first: bool) -> None:
    """In a process of its own, which may not write files of more than 64 KB. Repeated text compresses well: the disk is
    then full only when the table itself is written."""
    if not first:
        disk.deliver([row("a")])
    rows = [(f"k{n}", n, "{}", os.urandom(400).hex() if note == "random" else "x" * 800, 0.0, True) for n in range(500)]
    done = forks.run("destination_kit:deliver_within_64_kb", str(disk.root), disk.kind, stdin=json.dumps(rows))
    if disk.kind == "parquet" and note == "repeated":
        assert done.stdout == ""  # it fits
        return
    assert (done.stdout.strip(), done.stderr) == ("refused", "")
    assert disk.file.exists() != first
    if not first:
        assert disk.keys() == ["a"]
    log = [] if first else [f"{disk.file.name}.wal"]  # DuckDB's own: its next writer takes it up
    assert set(disk.leftovers()) <= set(log)


def test_an_unwritable_folder_is_refused_before_anything_is_written(forks: Forks) -> None:
    """In a process of an ordinary user, since root may write everywhere."""
    for kind in ON_DISK:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            root.chmod(0o755)
            (root / "out").mkdir(mode=0o555)
            done = forks.run("destination_kit:check_as_ordinary_user", name, kind)
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


# --- whose file is it ----------------------------------------------------------------------------------------------

COLUMNS = ("key", "n", "doc", "note", "score", "ok", "at")


def test_what_was_delivered_is_known_by_its_columns(place: Place) -> None:
    place.destination().check(COLUMNS)
    place.deliver(ROWS)
    place.destination().check(COLUMNS)
    place.deliver([])
    place.destination().check(COLUMNS)


def test_odd_column_names_are_known_again(parts: Place) -> None:
    parts.deliver(ROWS, columns="""key, n AS "a ""b"", c\r\nü", note AS " " """)
    parts.destination().check(["key", 'a "b", c\r\nü', " "])


@pytest.mark.parametrize("columns", [COLUMNS[:-1], (*COLUMNS, "more"), ("n", "key", *COLUMNS[2:]), ()])
def test_a_file_with_other_columns_is_not_ours(parts: Place, columns: tuple[str, ...]) -> None:
    parts.deliver(ROWS)
    with pytest.raises(DestinationError, match=r"out/answers\.\w+ is already there, and batchform did not make it"):
        parts.destination().check(columns)
    parts.destination().check()  # recorded as delivered: whatever it holds


@pytest.mark.parametrize(
    "content",
    [b"my precious\n", b"\n", b"\0\xff\xfe", b"[1]\n", b'{"key": ', b'"', b"PAR1", b"[" * 100_000, b"x" * 3_000_000],
    ids=["prose", "blank", "binary", "array", "cut", "quote", "magic", "deep", "long"],
)
def test_a_file_that_is_not_of_the_format_is_not_ours(parts: Place, content: bytes) -> None:
    parts.file.parent.mkdir()
    parts.file.write_bytes(content)
    with pytest.raises(DestinationError, match="batchform did not make it") as refused:
        parts.destination().check(COLUMNS)
    assert refused.value.hint == "Move it away, or choose another path."
    assert parts.file.read_bytes() == content


def test_an_empty_file_may_be_filled(parts: Place) -> None:
    parts.file.parent.mkdir()
    parts.file.touch()
    parts.destination().check(COLUMNS)


def test_what_is_no_file_is_refused(parts: Place) -> None:
    parts.file.parent.mkdir()
    os.mkfifo(parts.file)
    for columns in (None, COLUMNS):
        with pytest.raises(DestinationError, match="is not a regular file"):
            parts.destination().check(columns)


def test_strangers_in_a_folder_of_parts_do_not_matter(parts: Place) -> None:
    parts.file.parent.mkdir()
    parts.file.write_bytes(b"mine")
    parts.destination(folder=True).check(COLUMNS)
