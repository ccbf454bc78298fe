"""Delivery from a real ledger, through a confined connection, to real files and tables; read back with other tools."""

from __future__ import annotations

import csv
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from delivery_kit import FixedClock, World, said
from msgspec.structs import replace

from batchform.adapters.local_blobs import LocalBlobs
from batchform.errors import DestinationError, LedgerCorrupt
from batchform.ledger.store import Ledger, RowsFile
from batchform.ports import Delivered, Delivery
from batchform.run.deliver import deliver_spec
from batchform.run.row_states import write_states

JSONL = {"type": "jsonl", "path": "results/triage.jsonl"}
DEFAULT = [
    "id", "response", "text", "finish_reason", "prompt_tokens", "output_tokens", "thought_tokens", "cached_tokens",
    "total_tokens", "model_version", "batch_job", "answered_at",
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "project")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def identity(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def without_stamps(delivered: Delivered | None) -> Delivered | None:
    """What was delivered, without what tells the written file from another."""
    assert delivered is not None and delivered.stamps
    return replace(delivered, stamps=())


def test_default_columns_in_jsonl(world: World) -> None:
    spec = world.spec(JSONL)
    world.answer({"T-2": said("bug", tags=["x"]), "T-1": said("ünïcode \" ' \\ \n", score=0.5)})
    assert without_stamps(world.deliver(spec)) == Delivered(2, "results/triage.jsonl")
    first, second = lines(world.root / "results/triage.jsonl")
    assert list(first) == DEFAULT
    assert [first["id"], second["id"]] == ["T-1", "T-2"]
    assert first["response"] == {"category": "ünïcode \" ' \\ \n", "score": 0.5}
    assert second == {
        "id": "T-2",
        "response": {"category": "bug", "tags": ["x"]},
        "text": said("bug", tags=["x"])[0],
        "finish_reason": "STOP",
        "prompt_tokens": 11,
        "output_tokens": 5,
        "thought_tokens": None,
        "cached_tokens": 0,
        "total_tokens": 16,
        "model_version": "emulator",
        "batch_job": "batches/1",
        "answered_at": "2026-11-21T12:30:00.000000Z",
    }


def test_free_text_answers_have_no_response_column(world: World) -> None:
    spec = world.spec({"type": "csv", "path": "out.csv"}, schema=None)
    world.answer({"1": ('Hello, "you"\nthere', None), "2": ("", None)})
    world.deliver(spec)
    with (world.root / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [c for c in DEFAULT if c != "response"]
    assert rows[0]["text"] == 'Hello, "you"\nthere'
    raw = (world.root / "out.csv").read_text()
    assert '2,"",STOP,11,5,,0,16' in raw  # empty text is quoted, NULL is nothing


def test_flatten_types_columns_by_the_schema(world: World) -> None:
    schema = {"type": "object", "properties": {
        "Text": {"type": ["string", "null"]}, "n": {"type": ["integer", "null"]}, "x": {"type": "number"},
        "ok": {"type": "boolean"}, "list": {"type": "array", "items": {}}, "id": {"type": "string"},
    }}  # fmt: skip
    spec = world.spec({"type": "parquet", "path": "r.parquet", "flatten": True}, schema=schema)
    world.answer({
        "a": ("", {"Text": "t", "n": 7, "x": 1, "ok": True, "list": [1, {"b": None}], "id": "inner"}),
        "b": ("", {"Text": None, "n": None}),
    })  # fmt: skip
    world.deliver(spec)
    table = pq.read_table(world.root / "r.parquet")
    assert table.column_names[:7] == ["id", "response_Text", "n", "x", "ok", "list", "response_id"]
    assert [str(t) for t in table.schema.types[:7]] == [
        "string",
        "string",
        "int64",
        "double",
        "bool",
        "string",
        "string",
    ]
    assert "timestamp[us, tz=UTC]" in [str(t) for t in table.schema.types]
    rows = table.to_pylist()
    assert [rows[0][c] for c in table.column_names[:7]] == ["a", "t", 7, 1.0, True, '[1,{"b":null}]', "inner"]
    assert [rows[1][c] for c in table.column_names[:7]] == ["b", None, None, None, None, None, None]


def test_mapping_compiles_to_sql_and_jinja(world: World) -> None:
    columns = {
        "label": "response.category",
        "first_tag": "response.tags[0]",
        "tags": 'response["tags"]',
        "tokens": "usage.total_token_count",
        "cost": "cost_usd",
        "subject": "row.subject",
        "note": "{{ key }}: {{ response.tags | default([]) | join('+') }} {{ usage.total_token_count }}"
        " {{ row.subject }} {{ answered_at.year }}",
        "job": "batch_job",
    }
    spec = world.spec({**JSONL, "columns": columns})
    world.answer({"1": said("bug", tags=["p", "q"]), "2": said("idea")})

    def source(con: duckdb.DuckDBPyConnection) -> str:
        con.execute("CREATE TEMP TABLE src AS SELECT CAST(left(sha256('1'), 32) AS UUID) key_hash, 'Hi' AS subject")
        return "src"

    world.deliver(spec, source_rows=source)
    one, two = lines(world.root / "results/triage.jsonl")
    assert one == {
        "id": "1", "label": "bug", "first_tag": "p", "tags": ["p", "q"], "tokens": 16, "cost": 0.25, "subject": "Hi",
        "note": "1: p+q 16 Hi 2026", "job": "batches/1",
    }  # fmt: skip
    assert two["subject"] is None and two["tags"] is None and two["note"] == "2:  16 None 2026"


def test_row_needs_the_source_and_its_column(world: World) -> None:
    spec = world.spec({**JSONL, "columns": {"s": "row.subjct"}})
    world.answer({"1": said("bug")})
    with pytest.raises(DestinationError, match="the source is not at hand"):
        world.deliver(spec)
    with pytest.raises(DestinationError, match=r"no column `subjct` \(did you mean `subject`\?\)"):
        world.deliver(spec, source_rows=lambda _: "(SELECT uuid() AS key_hash, 'x' AS subject)")
    assert not (world.root / "results").exists()


def test_jinja_failure_names_the_key(world: World) -> None:
    spec = world.spec({**JSONL, "columns": {"s": "{{ response.score + 1 }}"}})
    world.answer({"T-1": said("bug", score=1), "T-2": said("bug")})
    with pytest.raises(DestinationError, match=r"columns\.s of triage fails for the key 'T-2'"):
        world.deliver(spec)


def test_a_jinja_column_shows_no_memory_address(world: World) -> None:
    spec = world.spec({**JSONL, "columns": {"s": "{{ key ~ key.upper }}"}})
    world.answer({"T-1": said("bug")})
    with pytest.raises(DestinationError, match=r"columns\.s of triage fails for the key 'T-1': it prints a function"):
        world.deliver(spec)


def test_nothing_new_is_nothing_done(world: World) -> None:
    spec = world.spec(JSONL)
    assert not world.need(spec).any and world.deliver(spec) is None
    world.answer({"1": said("bug")})
    assert world.need(spec).changed == 1
    assert world.deliver(spec) is not None
    before, serial = identity(world.root / "results/triage.jsonl"), world.ledger.serial
    assert not world.need(spec).any and world.deliver(spec) is None
    assert world.ledger.serial == serial
    assert identity(world.root / "results/triage.jsonl") == before


def test_bookkeeping_does_not_deliver_again(world: World) -> None:
    spec = world.spec(JSONL)
    world.answer({"1": said("bug")})
    world.deliver(spec)
    world.restate(["1"], status="'in_flight'")
    assert not world.need(spec).any
    world.restate(["1"], status="'absent'")
    assert world.deliver(spec) is None


def test_mapping_and_destination_are_redelivered(world: World) -> None:
    world.answer({"1": said("bug"), "2": said("idea")})
    world.deliver(world.spec(JSONL))
    mapped = world.spec({**JSONL, "columns": {"label": "response.category"}})
    assert world.need(mapped).full
    world.deliver(mapped)
    assert lines(world.root / "results/triage.jsonl") == [{"id": "1", "label": "bug"}, {"id": "2", "label": "idea"}]
    moved = world.spec({**JSONL, "path": "elsewhere/x.jsonl", "columns": {"label": "response.category"}})
    assert without_stamps(world.deliver(moved)) == Delivered(2, "elsewhere/x.jsonl")
    (world.root / "elsewhere/x.jsonl").unlink()
    assert world.need(moved).full and world.deliver(moved) is not None
    assert len(lines(world.root / "elsewhere/x.jsonl")) == 2


def test_a_later_answer_replaces_the_earlier_one(world: World) -> None:
    spec = world.spec({**JSONL, "columns": {"label": "response.category", "job": "batch_job"}})
    world.answer({"1": said("bug"), "2": said("idea")})
    world.deliver(spec)
    world.answer({"1": said("question")})
    assert world.need(spec).changed == 1
    world.deliver(spec)
    assert [(r["id"], r["label"], r["job"]) for r in lines(world.root / "results/triage.jsonl")] == [
        ("1", "question", "batches/2"),
        ("2", "idea", "batches/1"),
    ]


def test_pruned_rows_vanish_and_absent_ones_stay(world: World) -> None:
    spec = world.spec({**JSONL, "prune": True})
    world.answer({"1": said("bug"), "2": said("idea"), "3": said("bug")})
    world.deliver(spec)
    world.restate(["2"], status="'gone'")
    world.restate(["3"], status="'absent'")
    assert world.need(spec).removed == 1
    world.deliver(spec)
    assert [r["id"] for r in lines(world.root / "results/triage.jsonl")] == ["1", "3"]
    world.restate(["1", "3"], status="'gone'")
    world.deliver(spec)
    assert (world.root / "results/triage.jsonl").read_text() == ""
    world.restate(["2"], status="'answered'", answer_serial="NULL")
    world.deliver(spec)
    assert [r["id"] for r in lines(world.root / "results/triage.jsonl")] == ["2"]


def test_two_ways_of_parsing_live_side_by_side(world: World) -> None:
    spec = world.spec({**JSONL, "columns": {"label": "response.category"}})
    world.answer({"1": said("old"), "2": said("old")})
    world.answer({"2": said("new")}, parse_digest="sha256:" + "b" * 64)
    world.deliver(spec)
    assert [r["label"] for r in lines(world.root / "results/triage.jsonl")] == ["old", "new"]


def test_reused_answers_come_from_the_other_rows_line(world: World) -> None:
    spec = world.spec({**JSONL, "columns": {"label": "response.category"}})
    world.answer({"1": said("shared"), "2": said("own")})
    world.restate(["2"], answer_key_hash="CAST(left(sha256('1'), 32) AS UUID)", answer_serial="NULL")
    world.deliver(spec)
    assert [(r["id"], r["label"]) for r in lines(world.root / "results/triage.jsonl")] == [
        ("1", "shared"),
        ("2", "shared"),
    ]


def test_a_recorded_answer_that_is_missing_stops_the_delivery(world: World) -> None:
    spec = world.spec(JSONL)
    world.answer({"1": said("bug"), "2": said("bug")})
    world.restate(["2"], answer_key_hash="uuid()")
    with pytest.raises(LedgerCorrupt, match=r"2 rows are recorded as answered, .* hold 1 of them"):
        world.deliver(spec)
    assert not (world.root / "results").exists()


# --- keys --------------------------------------------------------------------------------------------------------


def test_key_columns_have_the_sources_types(world: World) -> None:
    spec = world.spec({"type": "parquet", "path": "r.parquet"}, key=["tenant", "n", "day"])
    kinds = (("tenant", "VARCHAR"), ("n", "BIGINT"), ("day", "DATE"))
    world.answer({r"a\|b\\|-7|2026-01-31": said("x"), "|12|2026-02-01": said("y")}, key_columns=kinds)
    world.deliver(spec)
    rows = pq.read_table(world.root / "r.parquet", columns=["tenant", "n", "day"]).to_pylist()
    assert [(r["tenant"], r["n"], str(r["day"])) for r in rows] == [
        (r"a|b" + "\\", -7, "2026-01-31"),
        ("", 12, "2026-02-01"),
    ]
    assert world.ledger.control().deliveries["triage"].key_columns == kinds


def test_a_key_that_does_not_read_back_stays_text(world: World) -> None:
    spec = world.spec(JSONL)
    world.answer({"007": said("x"), "8": said("y")}, key_columns=(("id", "BIGINT"),))
    world.deliver(spec)
    assert [r["id"] for r in lines(world.root / "results/triage.jsonl")] == ["007", "8"]


def test_an_expression_key_is_one_column(world: World) -> None:
    spec = world.spec({**JSONL, "columns": {"label": "response.category"}}, key="{{ a }}/{{ b }}")
    world.answer({"x/1": said("bug")}, key_columns=())
    world.deliver(spec)
    assert lines(world.root / "results/triage.jsonl") == [{"key": "x/1", "label": "bug"}]


def test_keys_of_an_earlier_choice_of_columns_are_delivered_too(world: World) -> None:
    world.answer({"1": said("bug")})
    spec = world.spec({**JSONL, "columns": {"label": "response.category"}}, key=["id", "lang"])
    world.answer({"1|en": said("idea")}, key_columns=(("id", "VARCHAR"), ("lang", "VARCHAR")))
    world.deliver(spec)
    rows = [(r["id"], r["lang"], r["label"]) for r in lines(world.root / "results/triage.jsonl")]
    assert rows == [("1", None, "bug"), ("1", "en", "idea")]


# --- part folders ------------------------------------------------------------------------------------------------

PARTS = {"type": "jsonl", "path": "parts/", "columns": {"label": "response.category"}}


def part_rows(world: World, folder: str = "parts") -> list[tuple[str, str]]:
    found = [r for p in sorted((world.root / folder).glob("part-*")) for r in lines(p)]
    return sorted((r["id"], r["label"]) for r in found)


def test_parts_hold_what_is_new(world: World) -> None:
    spec = world.spec(PARTS)
    world.answer({"1": said("a"), "2": said("b")})
    first = world.deliver(spec)
    world.answer({"3": said("c")})
    second = world.deliver(spec)
    assert first is not None and second is not None
    assert (first.rows, second.rows) == (2, 1)
    assert second.parts == (*first.parts, second.location.removeprefix("parts/"))
    assert part_rows(world) == [("1", "a"), ("2", "b"), ("3", "c")]
    assert world.deliver(spec) is None


def test_a_changed_mapping_replaces_all_parts(world: World) -> None:
    spec = world.spec(PARTS)
    for number in "12":
        world.answer({number: said("a")})
        world.deliver(spec)
    (world.root / "parts/mine.jsonl").write_text("{}\n")
    changed = world.spec({**PARTS, "columns": {"label": "text"}})
    delivered = world.deliver(changed)
    assert delivered is not None and delivered.rows == 2
    assert sorted(p.name for p in (world.root / "parts").iterdir()) == ["mine.jsonl", *delivered.parts]


def test_pruning_replaces_all_parts(world: World) -> None:
    spec = world.spec({**PARTS, "prune": True})
    for number in "123":
        world.answer({number: said("a")})
        world.deliver(spec)
    world.restate(["2"], status="'gone'")
    world.deliver(spec)
    assert part_rows(world) == [("1", "a"), ("3", "a")]
    world.answer({"4": said("d")})
    world.deliver(spec)
    assert part_rows(world) == [("1", "a"), ("3", "a"), ("4", "d")]


def test_a_part_that_was_removed_is_noticed(world: World) -> None:
    spec = world.spec(PARTS)
    for number in "12":
        world.answer({number: said("a")})
        world.deliver(spec)
    next((world.root / "parts").glob("part-*")).unlink()
    assert world.need(spec).full
    world.deliver(spec)
    assert part_rows(world) == [("1", "a"), ("2", "a")]


# --- a delivery that is killed before it is recorded -----------------------------------------------------------------


class KilledError(Exception):
    pass


class DyingDestination:
    """Writes, and dies before anyone hears of it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def exists(self, parts: tuple[str, ...] = (), **written: Any) -> bool:
        return bool(self.inner.exists(parts, **written))

    def check(self, columns: tuple[str, ...] | None = None) -> None:
        self.inner.check(columns)

    def deliver(self, con: duckdb.DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.inner.deliver(con, delivery)
        raise KilledError


def die(world: World, spec: Any) -> None:
    with pytest.raises(KilledError):
        deliver_spec(
            world.ledger, spec, DyingDestination(world.destination(spec)), connect=world.connect,
            clock=FixedClock(), who="ann@desk", scratch=world.scratch,
        )  # fmt: skip


def test_killed_after_writing_a_file(world: World) -> None:
    spec = world.spec(JSONL)
    world.answer({"1": said("a")})
    die(world, spec)
    before = identity(world.root / "results/triage.jsonl")
    assert world.deliver(spec) is not None
    assert identity(world.root / "results/triage.jsonl") == before


@pytest.mark.parametrize("more_first", [False, True])
def test_killed_after_writing_a_part(world: World, more_first: bool) -> None:
    spec = world.spec(PARTS)
    world.answer({"1": said("a")})
    world.deliver(spec)
    world.answer({"2": said("b")})
    die(world, spec)
    if more_first:
        world.answer({"3": said("c")})
    world.deliver(spec)
    assert part_rows(world) == [("1", "a"), ("2", "b"), *([("3", "c")] if more_first else [])]
    assert world.deliver(spec) is None


def test_killed_after_writing_a_part_then_remapped(world: World) -> None:
    spec = world.spec(PARTS)
    world.answer({"1": said("a")})
    world.deliver(spec)
    world.answer({"2": said("b")})
    die(world, spec)
    world.deliver(world.spec({**PARTS, "columns": {"label": "text"}}))
    assert [k for k, _ in part_rows(world)] == ["1", "2"]
    assert len(list((world.root / "parts").iterdir())) == 1


def test_killed_amid_a_full_delivery_of_parts(world: World) -> None:
    spec = world.spec(PARTS)
    for number in "12":
        world.answer({number: said("a")})
        world.deliver(spec)
    remapped = world.spec({**PARTS, "columns": {"label": "finish_reason"}})
    die(world, remapped)
    world.deliver(remapped)
    assert part_rows(world) == [("1", "STOP"), ("2", "STOP")]


# --- two deliveries at once -------------------------------------------------------------------------------------------


class OverlappedDestination:
    """Writes between two moments of another delivery."""

    def __init__(self, inner: Any, *, before: Callable[[], object], after: Callable[[], object]) -> None:
        self.inner, self.before, self.after = inner, before, after

    def exists(self, parts: tuple[str, ...] = (), **written: Any) -> bool:
        return bool(self.inner.exists(parts, **written))

    def check(self, columns: tuple[str, ...] | None = None) -> None:
        self.inner.check(columns)

    def deliver(self, con: duckdb.DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.before()
        written: Delivered = self.inner.deliver(con, delivery)
        self.after()
        return written


@pytest.mark.parametrize("kind", ["file", "parts"])
def test_a_slow_delivery_does_not_take_back_what_a_later_one_wrote(world: World, kind: str) -> None:
    spec = world.spec(JSONL if kind == "file" else PARTS)
    world.answer({"1": said("a")})
    world.deliver(spec)
    world.answer({"2": said("b")})
    began, wrote = threading.Event(), threading.Event()

    def deliver(ledger: Ledger, before: Callable[[], object], after: Callable[[], object]) -> None:
        there = OverlappedDestination(world.destination(spec), before=before, after=after)
        deliver_spec(
            ledger, spec, there, connect=world.connect, clock=FixedClock(), who="ann@desk", scratch=world.scratch,
        )  # fmt: skip

    def hold() -> None:
        began.set()
        assert wrote.wait(30)

    other = Ledger.open(LocalBlobs(world.root / ".batchform"), clock=FixedClock(), who="bob@desk")
    slow = threading.Thread(target=deliver, args=(other, hold, lambda: None))
    slow.start()
    assert began.wait(30)
    world.answer({"3": said("c")})

    def let_the_slow_one_end() -> None:
        wrote.set()
        slow.join(30)

    deliver(world.ledger, lambda: None, let_the_slow_one_end)
    assert world.deliver(spec) is None
    found = (
        part_rows(world) if kind == "parts"
        else [(r["id"], r["text"]) for r in lines(world.root / "results/triage.jsonl")]
    )  # fmt: skip
    assert [key for key, _ in found] == ["1", "2", "3"]


# --- databases, size -------------------------------------------------------------------------------------------------


def test_sqlite_table(world: World) -> None:
    spec = world.spec({"type": "sqlite", "path": "db/r.db", "table": "triage", "flatten": True})
    world.answer({"10": said("bug", urgent=True, score=0.5, tags=["a"])}, key_columns=(("id", "BIGINT"),))
    world.deliver(spec)
    with closing(sqlite3.connect(world.root / "db/r.db")) as db:
        rows = db.execute("SELECT id, category, score, count, urgent, tags, answered_at FROM triage").fetchall()
        assert rows == [(10, "bug", 0.5, None, 1, '["a"]', "2026-11-21T12:30:00.000000Z")]
        assert db.execute("SELECT table_name, spec FROM _batchform").fetchall() == [("triage", "triage")]


def test_duckdb_table_beside_others(world: World) -> None:
    path = world.root / "app.duckdb"
    with duckdb.connect(str(path)) as db:
        db.execute("CREATE TABLE tickets AS SELECT '1' AS id, 'Hi' AS subject")
    spec = world.spec(
        {"type": "duckdb", "path": "app.duckdb", "table": "triage", "columns": {"label": "response.category"}}
    )
    world.answer({"1": said("bug")})
    world.deliver(spec)
    with duckdb.connect(str(path), read_only=True) as db:
        assert db.execute("SELECT * FROM triage").fetchall() == [("1", "bug")]
        assert db.execute("SELECT count(*) FROM tickets").fetchone() == (1,)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_many_rows_in_little_memory_are_in_order_and_stable(world: World, kind: str) -> None:
    """300 MB of answers pass through a connection that may use 256 MB, in order, and give the same bytes twice."""
    rows = 120_000
    spec = world.spec({"type": kind, "path": f"big.{kind}"}, schema=None)
    blow_up(world, world.answer({"0": ("", None)}), rows=rows)
    die(world, spec)
    path = world.root / f"big.{kind}"
    before = identity(path)
    delivered = world.deliver(spec)
    assert delivered is not None and delivered.rows == rows
    assert identity(path) == before
    with duckdb.connect() as con:
        reader = {"jsonl": "read_json", "parquet": "read_parquet"}[kind]
        con.execute(f"CREATE TABLE got AS SELECT id, length(text) AS size FROM {reader}('{path}')")
        assert con.execute("SELECT count(DISTINCT id), min(size) FROM got").fetchall() == [(rows, 2500)]
        out_of_order = (
            "SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY rowid) AS before FROM got) WHERE id <= before"
        )
        assert con.execute(out_of_order).fetchall() == [(0,)]


def blow_up(world: World, tag: str, *, rows: int) -> None:
    """Make the job's answers and the spec's rows many, in DuckDB, since a loop would take too long."""
    name = f"answers/{tag}.{'a' * 12}.parquet"
    answers, states = world.scratch / "many.parquet", world.scratch / "states.parquet"
    hashed = "CAST(left(sha256(k), 32) AS UUID)"
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW keys AS SELECT 'k' || range AS k, range AS n FROM range({rows})")
        con.execute(
            f"COPY (SELECT a.* REPLACE ({hashed} AS key_hash, rpad(md5(k), 2500, md5(k)) AS text, n AS line) "
            f"FROM read_parquet('{world.ledger.blob(name)}') a, keys ORDER BY md5(k)) "
            f"TO '{answers}' (FORMAT parquet, ROW_GROUP_SIZE 8192)"
        )
        relation = world.ledger.rows_relation(con, "triage")
        values = {"key": "k", "key_hash": hashed, "answer_key_hash": hashed, "answer_serial": "NULL"}
        count = write_states(con, values, f"{relation} r, keys", states)
    world.ledger.put_blob(name, answers)
    world.restate(["0"], answer_fp="NULL", status="'pending'")
    world.ledger.commit([], [RowsFile("triage", states, count)])
