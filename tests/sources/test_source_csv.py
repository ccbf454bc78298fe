"""CSV: text cells, a fixed dialect, and a place for everything that is refused."""

from __future__ import annotations

import csv
import gzip
import io
import random
from typing import Any

import pytest

from batchform.errors import SourceError


def test_cells_are_text_and_empty_differs_from_absent(desk: Any) -> None:
    desk.write("a.csv", 'id,x,y\n007,,""\n12345678901234567890123,"a\nb","say ""hi"""\n')
    read = desk.read(type="csv", path="a.csv")
    assert read.rows == [("007", None, ""), ("12345678901234567890123", "a\nb", 'say "hi"')]
    assert dict(read.relation.columns) == {"id": "VARCHAR", "x": "VARCHAR", "y": "VARCHAR"}
    assert read.places() == ["a.csv:2", "a.csv:3"]


HOSTILE = ['q"uote', "sp ace", "new\nline", "ünï", "se;mi", "select", "'", "a,b", "[x]", "%s", "{y}", "back\\slash"]


def test_hostile_column_names(desk: Any) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HOSTILE, [str(i) for i in range(len(HOSTILE))]])
    desk.write("a.csv", out.getvalue())
    read = desk.read(type="csv", path="a.csv")
    assert list(read.relation.columns) == HOSTILE
    assert read.rows == [tuple(str(i) for i in range(len(HOSTILE)))]
    assert read.places() == ["a.csv:3"]


@pytest.mark.parametrize(
    "name", ["[1].csv", "wh?t.csv", "st*r.csv", "it's.csv", "a b.csv", "{a,b}.csv", "k=v/a.csv", "é.csv"]
)
def test_hostile_file_names(desk: Any, name: str) -> None:
    desk.write(name, "a\n1\n")
    desk.write("x.csv", "a\n2\n")
    read = desk.read(type="csv", path=name)
    assert (read.rows, read.relation.described, read.places()) == ([("1",)], name, [f"{name}:2"])
    assert list(read.relation.columns) == ["a"]  # a folder named k=v adds no column


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\r\n1,2\r\n3,4\r\n", [("1", "2"), ("3", "4")]),
        ("a,b\r1,2\r3,4\r", [("1", "2"), ("3", "4")]),
        ("a,b\n1,2\r\n3,4\n5,6", [("1", "2"), ("3", "4"), ("5", "6")]),
        ('a,b\r\n1,"x\ny"\r\n3,4\r\n', [("1", "x\ny"), ("3", "4")]),
        ('a,b\n1,"x\r\ny"\n3,4\r\n', [("1", "x\r\ny"), ("3", "4")]),
        ('a,b\n1,"x\ry"\n', [("1", "x\ry")]),
        ("a,b\n\n1,2\n\n", [("1", "2")]),
        ("a\n1\n\n2\n", [("1",), ("2",)]),
        ("a,b\n,\n", [(None, None)]),
        ("a,b\n1,\n2,3\n", [("1", None), ("2", "3")]),
        ('a,b\n1, "x,y"\n', [("1", "x,y")]),
        ('a,b\n1,x"y\n', [("1", 'x"y')]),
        ("\ufeffa,b\n1,2\n", [("1", "2")]),
        ("\ufeffa,b\r\n1,2\n", [("1", "2")]),
        ("a,b\n  1 ,#2\n", [("  1 ", "#2")]),
        ('a,b\n1,""', [("1", "")]),
        ('a,b\n1,"x"  \n\n', [("1", "x")]),
        ('a,b\n1, "x"""\n', [("1", 'x"')]),
        ('a\n"x"\n\n', [("x",)]),
        ('a\n""\n', [("",)]),
        ('a,b\n"1",x"\n', [("1", 'x"')]),
        ('a,b\n"1",x \n', [("1", "x ")]),
        ('a,b\n"x" "y\nz",w\n', [("x y\nz", "w")]),
        ("a,b\n", []),
        ("a,b", []),
    ],
)
def test_what_is_accepted(desk: Any, content: str, rows: list[tuple[Any, ...]]) -> None:
    desk.write("a.csv", content)
    read = desk.read(type="csv", path="a.csv")
    assert read.rows == rows
    assert next(iter(read.relation.columns)) == "a"
    assert len(read.places()) == len(rows)


REFUSED: list[tuple[str | bytes, int, str]] = [
    ("a,b\n1,2\n3\n", 3, "1 cells"),
    ("a,b\n1,2\n3,4,5\n", 3, "3 cells"),
    ("a,b\n1,2,\n", 2, "3 cells"),
    ("a,b\n1,2\n3,4,\n5,6\n", 3, "3 cells"),
    ("a,b\n1,2,,\n", 2, "4 cells"),
    ("a,b\n1,2\n3,4,", 3, "3 cells"),
    ("a,b\r\n1,2\r\n3,4,\r\n", 3, "3 cells"),
    ("a,b\n1,2\r\n3\n", 3, "1 cells"),
    ('a,b\n1,"2\n', 2, "never closed"),
    ('a,b\n1,"x\ny"\n3,"4\n5\n', 4, "never closed"),
    ('a,b\n1,"', 2, "never closed"),
    ('a,b\n1,"2\n\n\n', 2, "never closed"),
    ('a,b\n1,"x""\n', 2, "never closed"),
    ('a,b\n1,x"y\n2,"z\n', 3, "never closed"),
    ('a,b\n1,"x,z\n', 2, "never closed"),
    ('a\n"x\n\n', 2, "never closed"),
    ('a\n"x""', 2, "never closed"),
    ('a,b\n1,2\n3,"x,2\n', 3, "never closed"),
    ('a,b\n1,2"\n3,"x\n', 3, "never closed"),
    ('a,b\n1,"x"y\n', 2, "closing quote"),
    ('a,b\n1,"x\ny"z\n', 3, "closing quote"),
    ('a,b\n"1" 2,3\n', 2, "closing quote"),
    ("a,b\n   \n", 2, "1 cells"),
    ('a,b\n1,  "x,y"\n', 2, "3 cells"),
    (b"a,b\n1,\xff\n", 2, "0xff"),
    (b"a,b\n1,2\n3,caf\xe9\n", 3, "0xe9 at column 6"),
    (b"a,\xff\n1,2\n", 1, "0xff"),
    (b"a,b\n1,\xed\xa0\x80\n", 2, "UTF-8"),
    ("a,b\n1,2\n3,x\0y\n", 3, "NUL"),
    ("a\0,b\n1,2\n", 1, "NUL"),
    ("a,b\n1,2\n\0", 3, "NUL"),
    ("a,a\n1,2\n", 1, "column 'a' twice"),
    ("Id,id\n1,2\n", 1, "'Id' and 'id'"),
    ("a,\n1,2\n", 1, "no name for column 2"),
    (",b\n1,2\n", 1, "no name for column 1"),
    ('a,""\n1,2\n', 1, "no name for column 2"),
    ("\na,b\n1,2\n", 1, "blank"),
    ('a,"b\n1,2\n', 1, "never closed"),
    ("a,b\n" + "1,2\n" * 70_000 + "3\n", 70_002, "1 cells"),
    ("a,b\n" + '1,"x\ny"\n' * 3_000 + "3\n", 6_002, "1 cells"),
    ("a,b\n" + "1,2\n" * 100_000 + "3,4,\n", 100_002, "3 cells"),
]


@pytest.mark.parametrize(("content", "line", "words"), REFUSED)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_what_is_refused_is_refused_with_its_line(
    desk: Any, content: str | bytes, line: int, words: str, packed: str
) -> None:
    data = content.encode() if isinstance(content, str) else content
    desk.write(f"d/a.csv{packed}", gzip.compress(data, 1) if packed else data)
    with pytest.raises(SourceError) as caught:
        desk.read(type="csv", path=f"d/a.csv{packed}")
    assert str(caught.value.place) == f"d/a.csv{packed}:{line}"
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("where", [None, "a = '1'"])
@pytest.mark.parametrize("query", [None, "SELECT a FROM source"])
def test_a_bad_cell_in_a_column_that_nobody_asks_for(desk: Any, where: str | None, query: str | None) -> None:
    desk.write("a.csv", b"a,b\n1,2\n3,\xff\n")
    with pytest.raises(SourceError) as caught:
        desk.read(type="csv", path="a.csv", where=where, query=query)
    assert str(caught.value.place) == "a.csv:3"


def test_an_empty_file(desk: Any) -> None:
    desk.write("a.csv", "")
    with pytest.raises(SourceError, match=r"a\.csv is empty"):
        desk.read(type="csv", path="a.csv")


def test_several_files_join_by_column_name(desk: Any) -> None:
    desk.write("b.csv", "y,x\r\n4,3\r\n")
    desk.write("a.csv", "x,y\n1,2\n")
    desk.write("c.csv", "x,y\n5,6\n")
    read = desk.read(type="csv", path=["c.csv", "*.csv"])
    assert read.rows == [("1", "2"), ("3", "4"), ("5", "6")]
    assert read.places(2, 0, 1) == ["c.csv:2", "a.csv:2", "b.csv:2"]
    assert read.relation.described == "3 files, c.csv, *.csv"
    desk.write("d.csv", "x,z\n5,6\n")
    with pytest.raises(SourceError, match=r"d\.csv lacks 'y' and adds 'z', compared with a\.csv"):
        desk.read(type="csv", path="*.csv")


def test_dialects(desk: Any) -> None:
    desk.write("t.tsv", "a\tb\n1\t\n")
    assert desk.read(type="csv", path="t.tsv", delimiter="\t").rows == [("1", None)]
    assert desk.read(type="csv", path="t.tsv", delimiter=r"\t").rows == [("1", None)]
    desk.write("n.csv", 'a;b\n"1;"2"\n')
    assert desk.read(type="csv", path="n.csv", delimiter=";", quote="").rows == [('"1', '"2"')]
    desk.write("s.csv", "a|b\n'x|y'|'it''s'\n")
    assert desk.read(type="csv", path="s.csv", delimiter="|", quote="'").rows == [("x|y", "it's")]
    desk.write("m.csv", "a||b\n1||2|3\n")
    assert desk.read(type="csv", path="m.csv", delimiter="||").rows == [("1", "2|3")]


@pytest.mark.parametrize(
    "bad", [{"delimiter": "\n"}, {"delimiter": '"'}, {"quote": "é"}, {"quote": ","}, {"quote": "\n"}]
)
def test_dialects_that_cannot_be(desk: Any, bad: dict[str, str]) -> None:
    desk.write("a.csv", "a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"source\.(delimiter|quote)"):
        desk.read(type="csv", path="a.csv", **bad)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "shift_jis", "utf-8-sig", "UTF8"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings(desk: Any, encoding: str, end: str) -> None:
    word = "カタカナ" if encoding == "shift_jis" else "café"
    desk.write("a.csv", f'a,b{end}1,"{word}"{end}2,x{end}'.encode(encoding))
    read = desk.read(type="csv", path="a.csv", encoding=encoding)
    assert read.rows == [("1", word), ("2", "x")]
    assert read.places() == ["a.csv:2", "a.csv:3"]


def test_wrong_and_unknown_encodings(desk: Any) -> None:
    desk.write("a.csv", b"a,b\n1,2\n3,\x81\n")
    with pytest.raises(SourceError) as caught:
        desk.read(type="csv", path="a.csv", encoding="cp1252")
    assert str(caught.value.place) == "a.csv:3"
    for encoding in ("klingon", "hex", "rot13", "a\0b"):
        with pytest.raises(SourceError, match=r"source\.encoding"):
            desk.read(type="csv", path="a.csv", encoding=encoding)


def test_line_breaks_in_cells_that_look_like_rows(desk: Any) -> None:
    """More than DuckDB's read buffer of cells that a parallel reader would take for rows."""
    chance = random.Random(1)
    looks = ["1,2,3\n", "a,b,c\n", '"",""\n', "\n", '"\n', 'x,"y\n', ' "," z', "z" * 9_000]
    rows = [(str(i), "".join(chance.choices(looks, k=chance.randint(0, 120))) or None, "e") for i in range(600)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("i", "x", "e"), *rows])
    assert len(out.getvalue()) > 34 << 20
    desk.write("a.csv", out.getvalue())
    read = desk.read(type="csv", path="a.csv")
    assert read.rows == rows
    lines = out.getvalue().split("\n")
    (place,) = read.places(599)
    assert lines[int(place.split(":")[1]) - 1].startswith("599,")


def test_a_line_that_is_too_long(desk: Any) -> None:
    desk.write("a.csv", "a,b\n1," + "x" * (7 << 20) + "\n")
    assert len(desk.read(type="csv", path="a.csv").rows[0][1]) == 7 << 20
    desk.write("a.csv", "a,b\n1,2\n1," + "x" * (9 << 20) + "\n3,4\n")
    with pytest.raises(SourceError, match="longer than 8 MiB") as caught:
        desk.read(type="csv", path="a.csv")
    assert str(caught.value.place) == "a.csv:3"


def test_where_and_query(desk: Any) -> None:
    desk.write("a.csv", "id,n\n1,5\n2,\n3,7\n4,9\n")
    read = desk.read(type="csv", path="a.csv", where="n IS NOT NULL AND n::INT > 5 -- big ones")
    assert (read.rows, read.places()) == ([("3", "7"), ("4", "9")], ["a.csv:4", "a.csv:5"])
    read = desk.read(
        type="csv", path="a.csv", where="n IS NOT NULL", query="SELECT sum(n::INT) AS s, [1, 2] AS l FROM source;"
    )
    assert (read.rows, dict(read.relation.columns)) == ([(21, [1, 2])], {"s": "HUGEINT", "l": "INTEGER[]"})
    assert read.places() == ["row 1 of source.query"]
    read = desk.read(
        type="csv", path="a.csv", query="WITH source AS (FROM source) SELECT id FROM source ORDER BY id DESC"
    )
    assert read.rows == [("4",), ("3",), ("2",), ("1",)]
    with pytest.raises(SourceError, match=r"source\.where: Could not convert string"):
        desk.read(type="csv", path="a.csv", where="(id || 'x')::INT > 5")
