"""The keys that rows of a source had under an earlier key of their spec, beside those that they have now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchform.errors import SourceError
from batchform.rows.key_sql import key_sql
from batchform.rows.keyed import WIDE, KeyedRows
from batchform.rows.names import PART
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EARLIER = "bf_earlier"


def earlier_keys(con: DuckDBPyConnection, spec: ResolvedSpec, rows: KeyedRows) -> str:
    """Temp table (key, key_hash, before): each row that `prepare` has keyed, with the hash of its earlier key; NULL
    where it had none. Raises SourceError for columns that the source does not have."""
    earlier = spec.moved_key
    assert earlier is not None
    named = earlier.columns if earlier.template is None else tuple(sorted(earlier.template.columns or ()))
    if missing := [c for c in named if c not in rows.columns]:
        raise SourceError(
            f"the source of {spec.name} has no column `{missing[0]}`, which the earlier key was made of",
            place=spec.at("moved.key"),
            hint="Rows are found by their earlier keys: read that column, too, until they have moved.",
        )
    base = f"(SELECT bf_key, bf_key_hash, * EXCLUDE (bf_key, bf_key_hash) FROM {WIDE}) s"
    key, base = key_sql(con, earlier.template, earlier.columns, rows.columns, base, rendered="bf_earlier_keys")
    if PART in rows.columns:
        key = f"{key} || s.{PART}"
    keyed = f"SELECT bf_key, bf_key_hash, {key} AS before FROM {base}"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {EARLIER} AS SELECT bf_key AS key, bf_key_hash AS key_hash, "
        f"CAST(left(sha256(before), 32) AS UUID) AS before FROM ({keyed})"
    )
    return EARLIER
