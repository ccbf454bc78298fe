"""JSON and JSON lines: types from all rows, values that never depend on other rows, exact places."""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import pytest

from batchform.errors import SourceError


def _lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (["a", None, "007", "2024-01-01"], "VARCHAR", ["a", None, "007", "2024-01-01"]),
        ([None, None], "VARCHAR", [None, None]),
        ([True, False, None], "BOOLEAN", [True, False, None]),
        ([1, -(2**63), 2**63 - 1], "BIGINT", [1, -(2**63), 2**63 - 1]),
        ([1, 2**63], "JSON", ["1", str(2**63)]),
        ([1, 2**64], "JSON", ["1", str(2**64)]),
        ([10**40, -1], "JSON", [str(10**40), "-1"]),
        ([1.5, -0.25], "DOUBLE", [1.5, -0.25]),
        ([1, 1.5], "JSON", ["1", "1.5"]),
        ([1, "x", 2.5], "VARCHAR", ["1", "x", "2.5"]),
        ([10**30, "x"], "VARCHAR", [str(10**30), "x"]),
        ([True, "x"], "JSON", ["true", '"x"']),
        ([True, 1], "JSON", ["true", "1"]),
        ([{"b": 1, "a": None}, None], "JSON", ['{"b":1,"a":null}', None]),
        ([[1, "x"], {}], "JSON", ['[1,"x"]', "{}"]),
        (["x", {"a": 1}], "JSON", ['"x"', '{"a":1}']),
        (['say "hi"\n\\', "é😀\u2028"], "VARCHAR", ['say "hi"\n\\', "é😀\u2028"]),
    ],
)
def test_a_column_is_the_narrowest_type_of_all_its_values(
    desk: Any, values: list[Any], kind: str, read: list[Any]
) -> None:
    desk.write("a.jsonl", _lines(*({"v": value} for value in values)))
    desk.write("a.json", json.dumps([{"v": value} for value in values], indent=1))
    for form in ("jsonl", "json"):
        found = desk.read(type=form, path=f"a.{form}")
        assert dict(found.relation.columns) == {"v": kind}
        assert [row[0] for row in found.rows] == read


def test_one_late_row_decides_like_an_early_one(desk: Any) -> None:
    rows: list[dict[str, Any]] = [{"v": i} for i in range(60_000)]
    desk.write("a.jsonl", _lines(*rows, {"v": "x", "late": 1}))
    read = desk.read(type="jsonl", path="a.jsonl")
    assert dict(read.relation.columns) == {"late": "BIGINT", "v": "VARCHAR"}
    assert (read.rows[7], read.rows[-1]) == ((None, "7"), (1, "x"))
    assert read.places(60_000) == ["a.jsonl:60001"]


def test_absent_and_null_blank_lines_and_order(desk: Any) -> None:
    desk.write("b.jsonl", '{"z":1,"a":null}\r\n\r\n{"a":"x"}')
    desk.write("a.jsonl", b'\xef\xbb\xbf{"m":{"k":[1]}}\n')
    read = desk.read(type="jsonl", path="*.jsonl")
    assert list(read.relation.columns) == ["a", "m", "z"]
    assert read.rows == [(None, '{"k":[1]}', None), (None, None, 1), ("x", None, None)]
    assert read.places(2, 0) == ["b.jsonl:3", "a.jsonl:1"]


def test_hostile_keys(desk: Any) -> None:
    keys = ['q"uote', "it's", "new\nline", "ünï", "a.b", "$", "select", " ", "[0]", "{x}", "a,b", "%s", "a: 1"]
    row = {key: str(number) for number, key in enumerate(keys)}
    desk.write("a.jsonl", _lines(row))
    read = desk.read(type="jsonl", path="a.jsonl")
    assert dict(zip(read.relation.columns, read.rows[0], strict=True)) == row


REFUSED_LINES: list[tuple[str | bytes, str, str]] = [
    ('{"a":1}\n{"a":}\n', "a.jsonl:2:6", "Expecting value"),
    ('{"a":1}\n{"a":1', "a.jsonl:2:7", "Expecting"),
    ('{"a":1}\n\n\n{"a":1}x\n', "a.jsonl:4:8", "Extra data"),
    ('{"a":1}{"a":2}\n', "a.jsonl:1:8", "Extra data"),
    ('{"a":\n1}\n', "a.jsonl:1:6", "Expecting value"),
    ('{"a":1}\n[{"a":1}]\n', "a.jsonl:2", "an array, not an object"),
    ('{"a":1}\n5\n', "a.jsonl:2", "a number, not an object"),
    ('{"a":1}\n"x"\n', "a.jsonl:2", "text, not an object"),
    ('{"a":1}\nnull\n', "a.jsonl:2", "null, not an object"),
    ('{"a":1}\ntrue\n', "a.jsonl:2", "a boolean, not an object"),
    ('{"a":NaN}\n', "a.jsonl:1", "NaN"),
    ('{"a":1}\n{"a":-Infinity}\n', "a.jsonl:2", "Infinity"),
    ('{"a":1}\n{"a":1,"a":2}\n', "a.jsonl:2", "'a' occurs twice"),
    ('{"a":"x\ty"}\n', "a.jsonl:1:8", "control character"),
    ('{"a":"x\0y"}\n', "a.jsonl:1:8", "control character"),
    (b'{"a":1}\n{"a":"\xff"}\n', "a.jsonl:2", "0xff"),
    ("{'a':1}\n", "a.jsonl:1:2", "double quotes"),
    ('{"a":01}\n', "a.jsonl:1:7", "Expecting"),
    ("x" * 10, "a.jsonl:1:1", "Expecting value"),
]


@pytest.mark.parametrize(("content", "place", "words"), REFUSED_LINES)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_bad_lines(desk: Any, content: str | bytes, place: str, words: str, packed: str) -> None:
    data = content.encode() if isinstance(content, str) else content
    desk.write(f"a.jsonl{packed}", gzip.compress(data) if packed else data)
    with pytest.raises(SourceError) as caught:
        desk.read(type="jsonl", path=f"a.jsonl{packed}")
    assert str(caught.value.place) == place.replace("a.jsonl", f"a.jsonl{packed}")
    assert words in caught.value.message


_TRAILING_COMMA = (
    ("a.json:1:9", "Illegal trailing comma") if sys.version_info >= (3, 13) else ("a.json:1:10", "Expecting value")
)
REFUSED_ARRAYS: list[tuple[str | bytes, str, str]] = [
    ('[{"a":1},\n {"a":}]', "a.json:2:7", "Expecting value"),
    ('[{"a":1},\n {"a":2}', "a.json:2:9", "Expecting"),
    ('[{"a":1},{"a":', "a.json:1:15", "Expecting value"),
    ('[{"a":1}] x', "a.json:1:11", "Extra data"),
    ('[{"a":1}]\n[{"a":2}]', "a.json:2:1", "Extra data"),
    ('[{"a":1},]', *_TRAILING_COMMA),
    ('{"a":1}', "None", "an object, not an array"),
    ("5", "None", "a number, not an array"),
    ("[1,2]", "None", "element 1 is a number"),
    ('[{"a":1},5]', "None", "element 2 is a number"),
    ('[{"a":1},null]', "None", "element 2 is null"),
    ('[{"a":1},[{"a":1}]]', "None", "element 2 is an array"),
    ("[]", "None", "holds no rows"),
    ("[{}]", "None", "holds no rows"),
    ('[{"a":1,"a":1}]', "a.json", "'a' occurs twice"),
    (b'[{"a":1},\n{"a":"\xff"}]', "a.json:2", "0xff"),
    ('[{"":1}]', "None", "no name for column 1"),
    ('[{"Id":1},{"id":2}]', "None", "'Id' and 'id'"),
    ('[{"a":NaN}]', "a.json", "NaN"),
    ("", "None", "is empty"),
]


@pytest.mark.parametrize(("content", "place", "words"), REFUSED_ARRAYS)
def test_bad_arrays(desk: Any, content: str | bytes, place: str, words: str) -> None:
    desk.write("a.json", content)
    with pytest.raises(SourceError) as caught:
        desk.read(type="json", path="a.json")
    assert str(caught.value.place) == place
    assert words in caught.value.message


def test_where_query_and_places_of_elements(desk: Any) -> None:
    desk.write("a.json", '[{"n":1,"m":{"k":"x"}},\n{"n":2}]')
    desk.write("b.json", ' [{"n":3}]\n')
    read = desk.read(type="json", path=["a.json", "b.json"], where="n >= 2")
    assert (read.rows, read.places()) == ([(None, 2), (None, 3)], ["a.json: element 2", "b.json: element 1"])
    read = desk.read(type="json", path="a.json", query="SELECT m ->> '$.k' AS k FROM source WHERE m IS NOT NULL")
    assert read.rows == [("x",)]


def test_too_many_keys(desk: Any) -> None:
    desk.write("a.jsonl", _lines(*({f"k{i}": 1} for i in range(5_001))))
    with pytest.raises(SourceError, match="more than 5000 different keys"):
        desk.read(type="jsonl", path="a.jsonl")


def test_csv_fields_do_not_fit(desk: Any) -> None:
    with pytest.raises(SourceError, match=r"source\.delimiter is for csv"):
        desk.source(type="jsonl", path="a.jsonl", delimiter=";")
