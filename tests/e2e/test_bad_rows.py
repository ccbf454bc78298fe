"""Rows that cannot be read, keyed or rendered, through all commands: one clear error, and nothing touched."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bad_input_kit import Break, both, check, refused, spec, template, write
from tests_e2e_kit import SPEC, Workspace

CSV = "data/tickets.csv"
HEAD = b"id,tenant,title,body\n"


def data(name: str, content: bytes, **source: Any) -> Break:
    kind = name.partition(".")[2].partition(".")[0]
    return both(write(f"data/{name}", content), spec(source={"type": kind, "path": f"data/{name}", **source}))


def where(condition: str) -> Break:
    return spec(source={**SPEC["source"], "where": condition})


def replaced(make: Callable[[Path], Any]) -> Break:
    def replace(w: Workspace) -> None:
        (w.root / CSV).unlink()
        make(w.root / CSV)

    return replace


ROW = b"T-1,a,b,c\n"
LINE = b'{"id": "T-1", "title": "a", "body": "b"}\n'
PLACE = "specs/triage.yaml:15:9"
SOURCES: dict[str, tuple[Break, tuple[str, ...]]] = {
    "missing": (lambda w: (w.root / CSV).unlink(), (PLACE, "There is no file data/tickets.csv", "folder is empty")),
    "no-match": (spec(source={"type": "csv", "path": "data/ticket-*.csv"}), (PLACE, "No file matches", "tickets.csv")),
    "empty": (write(CSV, b""), (PLACE, "data/tickets.csv is empty", "header")),
    "only-a-header": (write(CSV, HEAD), (PLACE, "has no rows", "Nothing was planned or forgotten")),
    "folder": (replaced(Path.mkdir), (PLACE, "is a folder", "data/tickets.csv/*")),
    "link-to-nowhere": (replaced(lambda p: p.symlink_to("nowhere")), (PLACE, "leads nowhere")),
    "pipe": (replaced(os.mkfifo), (PLACE, "neither a file")),
    "missing-column": (template("{{ titel }}"), ("no column `titel`", "templates/triage.j2", "mean `title`")),
    "missing-column-of-row": (template("{{ row.titel }}"), ("no column `titel`", "mean `title`")),
    "missing-key-column": (spec(idempotency={"key": ["idd"]}), ("specs/triage.yaml:9:3", "`idd`", "mean `id`")),
    "missing-column-of-key": (spec(idempotency={"key": "{{ idd }}"}), ("specs/triage.yaml:8:8", "no column `idd`")),
    "undefined-attribute": (
        template("Title\n{{ title.team }}"), ("templates/triage.j2:2", "row with key 'T-1'", "`team`"),
    ),
    "sandbox": (template("{{ title.__class__ }}"), ("templates/triage.j2:1", "row with key 'T-1'", "__class__")),
    "division": (template("{{ 1 / (title|length - 8) }}"), ("templates/triage.j2:1", "'T-1'", "division by zero")),
    "endless": (template("{{ title * 10000000000 }}"), ("templates/triage.j2:1", "'T-1'", "10,000,000")),
    "renders-to-nothing": (
        template("{{ body if title != 'ticket 3' }}"),
        ("templates/triage.j2 renders to nothing", "1 row (`T-3`)", "source.where", "[BF313 empty-prompt]"),
    ),
    "where-unknown-column": (where("idd = '1'"), ("specs/triage.yaml:17:10", 'source.where', '"idd"')),
    "where-syntax": (where("id = = '1'"), ("specs/triage.yaml:17:10", "source.where is not valid SQL")),
    "where-cast": (where("CAST(title AS INTEGER) > 1"), ("specs/triage.yaml:17:10", "source.where", "ticket 1")),
    "query-reads-elsewhere": (
        spec(source={**SPEC["source"], "query": "SELECT * FROM read_csv('/etc/passwd')"}),
        ("specs/triage.yaml:16:10", "source.query", "/etc/passwd"),
    ),
    "query-writes": (
        spec(source={**SPEC["source"], "query": "DROP TABLE source"}), ("specs/triage.yaml:16:10", "may only read"),
    ),
    "csv-not-utf8": (data("x.csv", HEAD + ROW + b"T-2,a,caf\xe9,c\n"), ("data/x.csv:3", "0xe9", "source.encoding")),
    "csv-nul": (data("x.csv", HEAD + ROW + b"T-2,a,n\0l,c\n"), ("data/x.csv:3", "NUL")),
    "csv-utf16": (data("x.csv", (HEAD + ROW).decode().encode("utf-16")), ("data/x.csv:1", "NUL", "UTF-16")),
    "csv-not-utf16": (data("x.csv", HEAD + ROW, encoding="utf-16"), ("data/x.csv:1", "not utf-16", "source.encoding")),
    "csv-short-line": (data("x.csv", HEAD + ROW + b"T-2,a,b\n"), ("data/x.csv:3", "3 cells", "has 4")),
    "csv-long-line": (data("x.csv", HEAD + ROW + b"T-2,a,b,c,d\n"), ("data/x.csv:3", "5 cells", "has 4")),
    "csv-open-quote": (data("x.csv", HEAD + ROW + b'T-2,a,"b,c\n'), ("data/x.csv:3", "never closed")),
    "csv-header-twice": (data("x.csv", b"id,ID,title,body\n1,2,3,4\n"), ("data/x.csv:1", "'id'", "'ID'")),
    "gzip-cut": (data("x.csv.gz", gzip.compress(HEAD + ROW * 999)[:-20]), (PLACE, "data/x.csv.gz", "not a whole gzip")),
    "gzip-flipped": (
        data("x.csv.gz", (z := gzip.compress(HEAD + ROW))[:-8] + b"\0\0\0\0" + z[-4:]), (PLACE, "data/x.csv.gz", "CRC"),
    ),
    "not-gzip": (data("x.csv.gz", HEAD + ROW), (PLACE, "data/x.csv.gz", "gzip")),
    "zstd-cut": (data("x.csv.zst", b"\x28\xb5\x2f\xfd\x00"), (PLACE, "data/x.csv.zst", "zstd")),
    "jsonl-bad-line": (data("x.jsonl", LINE + b'{"id": "T-2", "title": \n' + LINE), ("data/x.jsonl:2", "not valid")),
    "jsonl-array": (data("x.jsonl", LINE + b"[1]\n"), ("data/x.jsonl:2", "an array, not an object")),
    "jsonl-not-utf8": (data("x.jsonl", LINE + b'{"id": "\xe9"}\n'), ("data/x.jsonl:2", "0xe9")),
    "jsonl-nul": (data("x.jsonl", LINE + b'{"id": "\0"}\n'), ("data/x.jsonl:2", "not valid JSON")),
    "jsonl-half-a-pair": (data("x.jsonl", LINE + b'{"id": "\\ud800"}\n'), ("data/x.jsonl:2", "surrogate")),
    "jsonl-nan": (data("x.jsonl", LINE + b'{"id": NaN}\n'), ("data/x.jsonl:2", "NaN")),
    "jsonl-key-twice": (data("x.jsonl", LINE + b'{"id": "1", "id": "2"}\n'), ("data/x.jsonl:2", "'id' occurs twice")),
    "jsonl-undefined": (
        both(data("x.jsonl", b'{"id": "T-1", "m": {"a": 1}}\n{"id": "T-2", "m": {}}\n'), template("{{ m.a }}")),
        ("templates/triage.j2:1", "row with key 'T-2'", "`a`"),
    ),
    "json-object": (data("x.json", LINE), (PLACE, "holds an object", "type: jsonl")),
    "json-cut-behind-a-comma": (data("x.json", b"[" + LINE.strip() + b","), ("data/x.json:1:", "not valid JSON")),
    "json-without-rows": (data("x.json", b"[]"), (PLACE, "no rows")),
    "parquet-broken": (data("x.parquet", b"PAR1 is not enough PAR1"), (PLACE, "data/x.parquet")),
    "sqlite-broken": (
        data("x.sqlite", b"this is no database" * 99, table="t"), (PLACE, "data/x.sqlite is not a SQLite database"),
    ),
    "duckdb-broken": (
        data("x.duckdb", b"this is no database" * 999, table="t"), (PLACE, "data/x.duckdb is not a DuckDB database"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_bad_rows(project: Workspace, name: str) -> None:
    breaking, says = SOURCES[name]
    breaking(project)
    check(project, *says, valid=True)


def test_marks_and_controls_that_are_no_error(project: Workspace) -> None:
    project.write(CSV, b"\xef\xbb\xbf" + (project.root / CSV).read_bytes())
    assert project.actions() == {"keep": 6}
    data("x.jsonl", b"\xef\xbb\xbf" + LINE.replace(b'"a"', b'"\\u0000\\t"'))(project)
    assert project.actions() == {"rerun": 1, "forget": 5}


def test_a_condition_that_no_row_meets_is_no_error(project: Workspace) -> None:
    where("id = 'nobody'")(project)
    assert project.actions() == {"forget": 6}


# --- keys ------------------------------------------------------------------------------------------------------------


def keyed(kind: str, keys: list[str | None]) -> Break:
    """A source of this kind with these keys."""

    def make(w: Workspace) -> None:
        rows = [(key, f"title {i}", "body") for i, key in enumerate(keys)]
        path = w.root / f"data/keys.{kind}"
        if kind == "csv":
            cells = ["" if key is None else f'"{key}"' for key in keys]
            path.write_text("id,title,body\n" + "".join(f"{c},t,b\n" for c in cells))
        elif kind == "jsonl":
            path.write_text(
                "".join(json.dumps(dict(zip(("id", "title", "body"), r, strict=True))) + "\n" for r in rows)
            )
        elif kind == "sqlite":
            with contextlib.closing(sqlite3.connect(path)) as con:
                con.execute("CREATE TABLE t (id TEXT, title TEXT, body TEXT)")
                con.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
                con.commit()
        else:
            with duckdb.connect() as con:
                con.execute("CREATE TABLE t (id TEXT, title TEXT, body TEXT)")
                con.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
                con.execute(f"COPY t TO '{path}' (FORMAT parquet)")
        w.spec(source={"type": kind, "path": f"data/keys.{kind}", **({"table": "t"} if kind == "sqlite" else {})})

    return make


KINDS = {"csv": (2, "data/keys.csv:"), "jsonl": (1, "data/keys.jsonl:"), "parquet": (1, "row "), "sqlite": (1, "row ")}
KEYS = {
    "null": ([None], "NULL", range(2, 7)),
    "empty": ([""], "empty key", range(2, 7)),
    "duplicate": (["x"], "repeat a key", range(2, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", KEYS)
def test_bad_keys_are_shown_with_the_first_offenders_and_their_places(project: Workspace, kind: str, bad: str) -> None:
    first, place = KINDS[kind]
    keys, says, offenders = KEYS[bad]
    keyed(kind, ["a", "b", *keys * 7, "c"])(project)
    places = [f"{place}{first + row}" for row in offenders]
    check(project, "specs/triage.yaml:9:3", "of 10 rows", says, *places, valid=True)
    assert f"{place}{first + 7}" not in project.run("plan").err


@pytest.mark.parametrize("kind", KINDS)
def test_five_duplicate_keys_are_shown(project: Workspace, kind: str) -> None:
    keyed(kind, [key for key in "abcdefg" for _ in range(2)])(project)
    found = project.run("plan")
    refused(found, "7", *(f"'{key}'" for key in "abcde"))
    assert "'f'" not in found.err
