"""Types of BigQuery: the same rows by REST and by the Storage Read API, nothing lost, text as BigQuery writes it."""

from __future__ import annotations

import base64
import datetime as dt
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from google.cloud.bigquery import SchemaField
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.adapters import bigquery_types as types
from batchform.errors import SourceError

_NUMERIC = st.decimals(min_value=-(10**28), max_value=10**28, places=9)
_BIG = st.decimals(min_value=-(10**30), max_value=10**30, places=38)
_MOMENTS = st.datetimes(min_value=dt.datetime(1, 1, 1), max_value=dt.datetime(9999, 12, 31, 23, 59, 59, 999999))
_EPOCH = dt.datetime(1970, 1, 1)


def _shortest(value: Decimal) -> str:
    """As REST writes NUMERIC: no trailing zeros. Not by `normalize`, which rounds to the 28 digits of the context."""
    return format(value, "f").rstrip("0").rstrip(".")


# BigQuery's type → (values, how REST writes one, the type of the Storage Read API)
SCALARS: dict[str, tuple[st.SearchStrategy[Any], Any, pa.DataType]] = {
    "STRING": (st.text(), str, pa.string()),
    "BYTES": (st.binary(), lambda v: base64.b64encode(v).decode(), pa.binary()),
    "INTEGER": (st.integers(-(2**63), 2**63 - 1), str, pa.int64()),
    "FLOAT": (st.floats(allow_nan=False), repr, pa.float64()),
    "BOOLEAN": (st.booleans(), lambda v: str(v).lower(), pa.bool_()),
    "NUMERIC": (_NUMERIC, _shortest, pa.decimal128(38, 9)),
    "BIGNUMERIC": (_BIG, lambda v: format(v, "f"), pa.decimal256(76, 38)),
    "DATE": (st.dates(), dt.date.isoformat, pa.date32()),
    "TIME": (st.times(), dt.time.isoformat, pa.time64("us")),
    "DATETIME": (_MOMENTS, dt.datetime.isoformat, pa.timestamp("us")),
    "TIMESTAMP": (_MOMENTS, lambda v: str((v - _EPOCH) // dt.timedelta(microseconds=1)), pa.timestamp("us", tz="UTC")),
    "JSON": (st.sampled_from(['{"a":1}', "null", '"x"', "0.1234567890123456789"]), str, pa.string()),
    "GEOGRAPHY": (st.sampled_from(["POINT(1 2)", "LINESTRING(0 0, 1 1)"]), str, pa.string()),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[SchemaField, st.SearchStrategy[Any], Any, pa.DataType]:
    """A column of any shape: (field, its values, how REST writes one, its Arrow type)."""
    shape = draw(st.sampled_from(["plain", "plain", "list", "struct", "structs"]))
    kind = draw(st.sampled_from(sorted(SCALARS)))
    values, rest, arrow = SCALARS[kind]
    if shape == "plain":
        return SchemaField("c", kind), values | st.none(), lambda v: None if v is None else rest(v), arrow
    if shape == "list":
        field = SchemaField("c", kind, mode="REPEATED")
        return field, st.lists(values, max_size=4), lambda v: [{"v": rest(i)} for i in v], pa.list_(arrow)
    inner = [SchemaField("a", kind), SchemaField("b", "INTEGER", mode="REPEATED")]
    struct = st.fixed_dictionaries({"a": values | st.none(), "b": st.lists(st.integers(-9, 9), max_size=2)})
    kept = pa.struct([("a", arrow), ("b", pa.list_(pa.int64()))])

    def one(v: Any) -> Any:
        a = None if v["a"] is None else rest(v["a"])
        return {"f": [{"v": a}, {"v": [{"v": str(i)} for i in v["b"]]}]}

    if shape == "struct":
        field = SchemaField("c", "RECORD", fields=inner)
        return field, struct | st.none(), lambda v: None if v is None else one(v), kept
    field = SchemaField("c", "STRUCT", mode="REPEATED", fields=inner)
    return field, st.lists(struct, max_size=3), lambda v: [{"v": one(i)} for i in v], pa.list_(kept)


@given(st.data())
def test_both_ways_bring_the_same_rows(data: st.DataObject) -> None:
    field, values, rest, arrow = data.draw(columns())
    rows = data.draw(st.lists(values, max_size=5))
    schema = types.arrow_schema([field])
    by_rest = types.from_rest([{"f": [{"v": rest(v)}]} for v in rows], [field], schema)
    sent = pa.record_batch([pa.array(rows, arrow)], names=["c"])
    by_storage = types.from_arrow(sent, [field], schema)
    assert by_rest.schema == by_storage.schema == schema
    assert by_rest.to_pylist() == by_storage.to_pylist()
    cut = types.from_arrow(sent.slice(1), [field], schema)  # a slice has offsets that do not begin at 0
    assert cut.to_pylist() == by_rest.to_pylist()[1:]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_duckdb_holds_every_value(data: st.DataObject) -> None:
    field, values, rest, _ = data.draw(columns())
    rows = data.draw(st.lists(values, max_size=5))
    batch = types.from_rest([{"f": [{"v": rest(v)}]} for v in rows], [field], types.arrow_schema([field]))
    table = pa.Table.from_batches([batch])
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("t", table)
        kind = types.duckdb_type(field)
        read = con.sql(f"SELECT CAST(c AS {kind}) AS c FROM t")
        assert [str(k) for k in read.types] == [str(duckdb.sqltype(kind))]
        got = read.to_arrow_table()
        if kind != "JSON":
            assert got.to_pylist() == table.to_pylist()
        else:
            assert got.cast(pa.schema([("c", pa.string())])).to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("1.50", "1.5"),
        ("100", "100"),
        ("100.000", "100"),
        ("-0.10", "-0.1"),
        ("1E+3", "1000"),
        ("1.2E-7", "0.00000012"),
    ],
)
def test_big_numbers_are_text_as_bigquery_writes_it(given_text: str, shown: str) -> None:
    field = SchemaField("c", "BIGNUMERIC")
    assert types.plain_decimals(pa.array([given_text, None])).to_pylist() == [shown, None]
    batch = types.from_rest([{"f": [{"v": given_text}]}], [field], types.arrow_schema([field]))
    assert batch.to_pylist() == [{"c": shown}]


@pytest.mark.parametrize("cell", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite(cell: str) -> None:
    field = SchemaField("c", "FLOAT64")
    [row] = types.from_rest([{"f": [{"v": cell}]}], [field], types.arrow_schema([field])).to_pylist()
    assert repr(row["c"]) == {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}[cell]


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (SchemaField("c", "INT64"), "BIGINT"),
        (SchemaField("c", "DECIMAL", precision=10, scale=2), "DECIMAL(38,9)"),
        (SchemaField("c", "JSON"), "JSON"),
        (SchemaField("c", "JSON", mode="REPEATED"), "VARCHAR[]"),
        (SchemaField("c", "INTERVAL"), "VARCHAR"),
        (SchemaField("c", "RECORD", fields=[SchemaField('a"b', "JSON")]), 'STRUCT("a""b" VARCHAR)'),
    ],
)
def test_types_in_duckdb(field: SchemaField, kind: str) -> None:
    assert types.duckdb_type(field) == kind


@pytest.mark.parametrize(
    "field",
    [
        SchemaField("span", "INTERVAL", mode="REPEATED"),
        SchemaField("s", "RECORD", fields=[SchemaField("span", "RANGE", range_element_type="DATE")]),
        SchemaField("span", "SOMETHING_NEW"),
    ],
)
def test_what_cannot_be_read_is_named(field: SchemaField) -> None:
    with pytest.raises(SourceError, match=r"span is of type \w+, which cannot be read") as caught:
        types.duckdb_type(field)
    assert "source.query" in caught.value.hint


@pytest.mark.parametrize(
    ("duckdb_type", "shown"),
    [
        ("VARCHAR", "STRING"),
        ("UUID", "STRING"),
        ("BIGINT", "INT64"),
        ("UINTEGER", "INT64"),
        ("UBIGINT", "BIGNUMERIC"),
        ("HUGEINT", "BIGNUMERIC"),
        ("DOUBLE", "FLOAT64"),
        ("BOOLEAN", "BOOL"),
        ("BLOB", "BYTES"),
        ("DECIMAL(38,9)", "NUMERIC"),
        ("DECIMAL(38,8)", "BIGNUMERIC"),
        ("DECIMAL(20,10)", "BIGNUMERIC"),
        ("DATE", "DATE"),
        ("TIME", "TIME"),
        ("TIMESTAMP", "DATETIME"),
        ("TIMESTAMPTZ", "TIMESTAMP"),
        ("JSON", "JSON"),
        ("VARCHAR[]", "ARRAY<STRING>"),
        ("VARCHAR[][]", "JSON"),
        ("STRUCT(a BIGINT, b VARCHAR[])", "STRUCT<a INT64, b ARRAY<STRING>>"),
        ("STRUCT(a BIGINT)[]", "ARRAY<STRUCT<a INT64>>"),
        ("MAP(VARCHAR, BIGINT)", "JSON"),
        ("INTERVAL", "STRING"),
    ],
)
def test_types_of_a_destination(duckdb_type: str, shown: str) -> None:
    with duckdb.connect() as con:
        column = types.column_of("c", con.sql(f"SELECT NULL::{duckdb_type} AS c").types[0])
    assert column.shown == shown
    assert types.column_in(SchemaField.from_api_repr(column.api())) == column


def test_decimals_come_exact() -> None:
    field = SchemaField("c", "NUMERIC")
    [row] = types.from_rest([{"f": [{"v": "12.5"}]}], [field], types.arrow_schema([field])).to_pylist()
    assert row["c"] == Decimal("12.5")
