"""What names rows by keys that they had before: archived results, and orders to send rows again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchform.rows.sql import literal

if TYPE_CHECKING:
    from batchform.ledger.store import Ledger


def under_all_keys(ledger: Ledger, spec: str, archived: str) -> str:
    """Results, also under the keys that their rows took since. archived: SELECT of them with `key_hash`.

    Returns a SELECT with `held_as` beside, the key_hash under which each is archived. Keys may have changed often: the
    ways from one to the next are followed once, whatever their number.
    """
    held = f"SELECT *, key_hash AS held_as FROM ({archived})"
    moves = ledger.control().keys.get(spec, ())
    if not moves:
        return held
    steps = " UNION ALL ".join(
        f"SELECT before, key_hash, {serial} AS serial FROM read_parquet({literal(str(ledger.blob(name)))})"
        for serial, name in moves
    )
    ways = (
        f"WITH RECURSIVE steps AS MATERIALIZED ({steps}), ways AS (SELECT before, key_hash, serial FROM steps UNION "
        "SELECT w.before, s.key_hash, s.serial FROM ways w JOIN steps s "
        "ON s.before = w.key_hash AND s.serial > w.serial) "
        "SELECT DISTINCT before, key_hash FROM ways WHERE before <> key_hash"
    )
    renamed = f"SELECT a.* REPLACE (w.key_hash AS key_hash) FROM ({held}) a JOIN ({ways}) w ON w.before = a.key_hash"
    return f"{held} UNION ALL {renamed}"


def asked_rows(ledger: Ledger, spec: str) -> str | None:
    """FROM-able (key_hash UUID, serial) of rows that a person asked to send again, by the keys that they have now, with
    the serials of the orders; None if there are none. An order goes along with its rows: whatever row took one of
    their earlier keys since was not meant."""
    orders = ledger.control().reruns.get(spec, ())
    if not orders:
        return None
    asked = " UNION ALL ".join(
        f"SELECT CAST(key_hash AS UUID) AS key_hash, CAST({serial} AS BIGINT) AS serial "
        f"FROM read_parquet({literal(str(ledger.blob(order.chosen)))})"
        for serial, order in orders
    )
    for serial, name in ledger.control().keys.get(spec, ()):
        if serial <= orders[0][0]:
            continue
        moved = f"read_parquet({literal(str(ledger.blob(name)))})"
        asked = (
            f"SELECT coalesce(m.key_hash, q.key_hash) AS key_hash, q.serial FROM ({asked}) q "
            f"LEFT JOIN {moved} m ON m.before = q.key_hash AND q.serial < {serial} "
            f"WHERE m.before IS NOT NULL OR q.serial >= {serial} OR q.key_hash NOT IN (SELECT key_hash FROM {moved})"
        )
    return f"({asked})"


def first_keys(ledger: Ledger, spec: str) -> str | None:
    """FROM-able (key_hash, first) of keys that rows took, with the first that such a row had; None if none did. For an
    order of rows that changes of their keys do not change."""
    moves = ledger.control().keys.get(spec, ())
    if not moves:
        return None
    steps = " UNION ALL ".join(
        f"SELECT key_hash, before, {serial} AS serial FROM read_parquet({literal(str(ledger.blob(name)))})"
        for serial, name in moves
    )
    return (
        f"(WITH RECURSIVE steps AS MATERIALIZED ({steps}), back AS ("
        "SELECT key_hash, arg_max(before, serial) AS before, max(serial) AS serial FROM steps GROUP BY key_hash UNION "
        "SELECT b.key_hash, s.before, s.serial FROM back b JOIN steps s "
        "ON s.key_hash = b.before AND s.serial < b.serial) "
        "SELECT key_hash, arg_min(before, serial) AS first FROM back GROUP BY key_hash)"
    )
