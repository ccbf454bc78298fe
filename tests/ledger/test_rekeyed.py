"""What names rows by their earlier keys, after many changes of keys."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import duckdb
from ledger_kit import open_ledger

from batchform.ledger.records import Moved, RerunRequested
from batchform.ledger.rekeyed import asked_rows, under_all_keys
from batchform.ledger.store import Ledger
from batchform.rows.sql import literal

AT = "2026-11-22T12:00:00Z"
MOVES = 24


def keyed(ledger: Ledger, name: str, folder: Path, **columns: str) -> str:
    """A blob of one row of key hashes, given as small numbers."""
    values = ", ".join(f"'{UUID(int=int(number))}'::UUID AS {column}" for column, number in columns.items())
    duckdb.sql(f"COPY (SELECT {values}) TO {literal(str(folder / 'keys.parquet'))} (FORMAT parquet)")
    ledger.put_blob(f"archive/{name}.parquet", folder / "keys.parquet")
    return f"archive/{name}.parquet"


def numbers(found: list[tuple[UUID, int]]) -> list[tuple[int, int]]:
    return sorted((key.int, other.int if isinstance(other, UUID) else other) for key, other in found)


def test_keys_that_changed_many_times_are_followed_once(tmp_path: Path) -> None:
    """Each change of keys used to double what every later plan read."""
    ledger = open_ledger(tmp_path / "ledger")
    archived = f"SELECT '{UUID(int=1)}'::UUID AS key_hash, 'bf-1' AS tag"
    assert "RECURSIVE" not in under_all_keys(ledger, "s", archived)
    for number in range(1, MOVES + 1):
        keys = keyed(ledger, f"moved-{number}", tmp_path, before=str(number), key_hash=str(number + 1))
        ledger.commit([Moved(at=AT, spec="s", keys=keys)])
    found = duckdb.sql(f"SELECT key_hash, held_as FROM ({under_all_keys(ledger, 's', archived)})").fetchall()
    assert numbers(found) == [(number, 1) for number in range(1, MOVES + 2)]
    # A key that was free again and became another row's: its results are not those of the row that had it before.
    late = archived.replace(str(UUID(int=1)), str(UUID(int=MOVES + 1)))
    found = duckdb.sql(f"SELECT key_hash, held_as FROM ({under_all_keys(ledger, 's', late)})").fetchall()
    assert numbers(found) == [(MOVES + 1, MOVES + 1)]


def test_orders_go_along_with_the_rows_that_they_named(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger")
    assert asked_rows(ledger, "s") is None

    def order(name: str, key: str) -> int:
        chosen = keyed(ledger, name, tmp_path, key_hash=key)
        return ledger.commit([RerunRequested(at=AT, spec="s", chosen=chosen, rows=1)]).serial

    def moves(before: str, key: str) -> None:
        keys = keyed(ledger, f"moved-{before}-{key}", tmp_path, before=before, key_hash=key)
        ledger.commit([Moved(at=AT, spec="s", keys=keys)])

    first, other = order("rerun-1", "1"), order("rerun-2", "7")
    moves("1", "2")
    moves("9", "7")  # what was asked of 7 was asked of the row that had this key then
    again = order("rerun-3", "1")  # another row, which has the key by now
    moves("2", "3")
    found = duckdb.sql(f"SELECT key_hash, serial FROM {asked_rows(ledger, 's')} q").fetchall()
    assert numbers(found) == [(1, again), (3, first)]
    assert other
