"""The tables of the emulator's BigQuery as the rest of the emulator uses them, without HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchform.emulator.clock import SystemClock
from batchform.emulator.store import Store
from batchform.emulator.warehouse.declined import Declined
from batchform.emulator.warehouse.tables import TableRef, Tables

REF = TableRef.parse("bq://acme.tickets.open")
FIELDS = [
    {"name": "key", "type": "STRING", "mode": "REQUIRED"},
    {"name": "request", "type": "JSON"},
    {"name": "price", "type": "NUMERIC"},
    {"name": "exact", "type": "BIGNUMERIC"},
    {"name": "at", "type": "TIMESTAMP"},
    {"name": "parts", "type": "RECORD", "mode": "REPEATED", "fields": [{"name": "blob", "type": "BYTES"}]},
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state", SystemClock())
    yield opened
    opened.close()


@pytest.fixture
def tables(store: Store) -> Tables:
    made = Tables(store)
    made.create_dataset("acme", "tickets", "EU")
    return made


def test_what_is_appended_is_read_back(tables: Tables) -> None:
    row = {
        "key": "1",
        "request": {"contents": [{"parts": [{"text": "hé"}]}], "n": [1, 2.5]},
        "price": "12345678901234567890123456789.123456789",
        "exact": "99999999999999999999999999999999999999.12345678901234567890123456789012345678",
        "at": "2024-02-03T04:05:06.000007Z",
        "parts": [{"blob": "AAE="}],
    }
    tables.create(REF, FIELDS)
    assert tables.append(REF, [row, {"key": "2"}]) == 2
    blank = {"request": None, "price": None, "exact": None, "at": None, "parts": []}
    assert list(tables.rows(REF)) == [row, {"key": "2", **blank}]
    assert (tables.count(REF), tables.location("acme", "tickets")) == (2, "EU")


def test_one_row_that_does_not_fit_adds_none(tables: Tables) -> None:
    tables.create(REF, FIELDS)
    with pytest.raises(Declined, match=r"parts\.\[0\]\.blob: Cannot convert value to bytes"):
        tables.append(REF, [{"key": "1"}, {"key": "2", "parts": [{"blob": "?"}]}])
    with pytest.raises(Declined, match="Missing required field: key"):
        tables.append(REF, [{"price": 1}])
    assert list(tables.rows(REF)) == []


def test_a_reader_keeps_what_it_began_with(tables: Tables) -> None:
    tables.create(REF, [FIELDS[0]])
    tables.append(REF, [{"key": str(i)} for i in range(5)])
    rows = tables.rows(REF)
    first = next(rows)
    tables.append(REF, [{"key": "late"}])
    assert [first["key"], *(row["key"] for row in rows)] == ["0", "1", "2", "3", "4"]


def test_many_small_appends_stay_few_files_in_order(tables: Tables) -> None:
    tables.create(REF, [FIELDS[0]])
    for i in range(60):
        tables.append(REF, [{"key": str(i)}])
    assert [row["key"] for row in tables.rows(REF)] == [str(i) for i in range(60)]


def test_state_is_there_after_a_restart(tables: Tables, store: Store, tmp_path: Path) -> None:
    tables.create(REF, [FIELDS[0]])
    tables.append(REF, [{"key": "a"}])
    store.close()
    again = Store(tmp_path / "state", SystemClock())
    try:
        assert [row["key"] for row in Tables(again).rows(REF)] == ["a"]
    finally:
        again.close()


def test_what_is_not_there_and_what_is(tables: Tables) -> None:
    assert not tables.exists(REF)
    with pytest.raises(Declined, match=r"Not found: Table acme:tickets\.open"):
        tables.schema(REF)
    tables.create(REF, FIELDS)
    assert [f.type for f in tables.schema(REF)][-1] == "RECORD"
    with pytest.raises(Declined, match="Already Exists"):
        tables.create(REF, FIELDS)
    with pytest.raises(Declined, match="Not found: Dataset acme:other"):
        tables.location("acme", "other")
