"""How rows come into a table of BigQuery that is there: columns that it lacks, and the statement that merges by key.

BigQuery adds columns, and fields of a STRUCT, at the end and by the API alone; it converts one STRUCT to another by the
places of their fields. So staged structs are made anew with the table's fields in the table's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from batchform.adapters.bigquery_client import quoted, quoted_text
from batchform.adapters.bigquery_types import Column
from batchform.errors import DestinationError

METADATA: Final = "_batchform"
# A value of the first type may be put into a column of the second.
_WIDENS: Final = {
    "INTEGER": {"NUMERIC", "BIGNUMERIC", "FLOAT"},
    "NUMERIC": {"BIGNUMERIC", "FLOAT"},
    "BIGNUMERIC": {"FLOAT"},
    "JSON": {"STRING"},
}


def evolved(
    schema: Sequence[dict[str, Any]], there: Sequence[Column], ours: Sequence[Column], *, shown: str
) -> list[dict[str, Any]] | None:
    """The table's schema with what it lacks of ours; None when it has all. Raises DestinationError for another change.

    schema: as REST has it, which is kept as it is; there: the same as columns.
    """
    if clashes := _clashes(there, ours):
        raise DestinationError(
            f"{shown}: the column {'; '.join(clashes)}.",
            hint="Only columns and fields are added here. Deliver it under another name (destination.columns), or "
            "elsewhere.",
        )
    grown = _grown(schema, ours)
    return None if grown == list(schema) else grown


def _clashes(there: Sequence[Column], ours: Sequence[Column], path: str = "") -> list[str]:
    """Columns, and fields of structs, into which our values do not go."""
    known, found = _named(there), []
    for column in ours:
        other = known.get(column.name.casefold())
        if other is None:
            continue
        name = path + other.name
        if column.kind == other.kind == "RECORD" and column.mode == other.mode:
            found += _clashes(other.fields, column.fields, f"{name}.")
        elif not _fits(column, other):
            found.append(f"`{name}` is {other.shown}, and the answers have {column.shown}")
    return found


def _fits(ours: Column, there: Column) -> bool:
    """Whether our values go into a column that is no STRUCT as it is."""
    same = ours.kind == there.kind or there.kind in _WIDENS.get(ours.kind, ())
    return same and ours.mode == there.mode


def _grown(schema: Sequence[dict[str, Any]], ours: Sequence[Column]) -> list[dict[str, Any]]:
    wanted, grown = _named(ours), []
    for field in schema:
        column = wanted.pop(str(field["name"]).casefold(), None)
        more = _grown(field["fields"], column.fields) if column is not None and column.fields else None
        grown.append(field if more is None else {**field, "fields": more})
    return [*grown, *(c.api() for c in wanted.values())]


def _named(columns: Sequence[Column]) -> dict[str, Column]:
    return {c.name.casefold(): c for c in columns}


# --- the merge ---------------------------------------------------------------------------------------------------


def merge_sql(
    target: str,
    staging: str,
    columns: Sequence[Column],
    there: Sequence[Column],
    *,
    key: Sequence[str],
    remove: str | None,
) -> str:
    """One statement that puts the staged rows into the table: by key, in place of what they had.

    remove: the condition of rows of the table that are removed when they are not staged ("true": all), None for none.
    """
    known = {c.name: _named(there).get(c.name.casefold(), c) for c in columns}
    # Below the MERGE, whose own clauses take no subquery of a row's array.
    nested = [c for c in columns if c.kind == "RECORD" or c.mode == "REPEATED"]
    anew = [
        f"{_made(quoted(c.name), c, known[c.name])} AS {quoted(c.name)}" for c in nested if not _alike(c, known[c.name])
    ]
    staged = f"(SELECT * REPLACE ({', '.join(anew)}) FROM {quoted(staging)})" if anew else quoted(staging)
    values = {c.name: _parsed(f"S.{quoted(c.name)}", c, known[c.name]) for c in columns}
    match = " AND ".join(f"T.{quoted(k)} = S.{quoted(k)}" for k in key)
    keyed = {k.casefold() for k in key}
    sets = ", ".join(f"{quoted(c)} = {v}" for c, v in values.items() if c.casefold() not in keyed)
    parts = [f"MERGE {quoted(target)} T", f"USING {staged} S", f"ON {match}"]
    if sets:
        parts.append(f"WHEN MATCHED THEN UPDATE SET {sets}")
    names = ", ".join(map(quoted, values))
    parts.append(f"WHEN NOT MATCHED BY TARGET THEN INSERT ({names}) VALUES ({', '.join(values.values())})")
    if remove is not None:
        condition = "" if remove == "true" else f" AND {remove}"
        parts.append(f"WHEN NOT MATCHED BY SOURCE{condition} THEN DELETE")
    return "\n".join(parts)


def _parsed(value: str, ours: Column, there: Column) -> str:
    """JSON is staged as text."""
    if ours.kind == there.kind == "JSON":
        return f"PARSE_JSON({value}, wide_number_mode=>'round')"
    return value


def _made(value: str, ours: Column, there: Column, *, deep: int = 0) -> str:
    """SQL of a staged value as one of the table's own type. deep: how many arrays it lies in."""
    if _alike(ours, there):
        return value
    if ours.mode == "REPEATED":
        each, place = f"e{deep}", f"o{deep}"
        one = _one(each, ours, there, deep=deep + 1)
        select = f"AS STRUCT {one}" if ours.kind == "RECORD" else one
        return f"ARRAY(SELECT {select} FROM UNNEST({value}) AS {each} WITH OFFSET AS {place} ORDER BY {place})"
    if ours.kind == "RECORD":
        return f"CASE WHEN {value} IS NOT NULL THEN STRUCT({_one(value, ours, there, deep=deep)}) END"
    return _one(value, ours, there, deep=deep)


def _one(value: str, ours: Column, there: Column, *, deep: int) -> str:
    """A value that is no array, or the fields of a struct."""
    if ours.kind != "RECORD":
        return (
            _parsed(value, ours, there) if ours.kind == "JSON" else f"CAST({value} AS {Column('', there.kind).shown})"
        )
    mine, made = _named(ours.fields), []
    for field in there.fields:
        staged = mine.get(field.name.casefold())
        if staged is None:
            made.append(f"CAST(NULL AS {field.sql(quoted)}) AS {quoted(field.name)}")
        else:
            inner = _made(f"{value}.{quoted(staged.name)}", staged, field, deep=deep)
            made.append(f"{inner} AS {quoted(field.name)}")
    return ", ".join(made)


def _alike(ours: Column, there: Column) -> bool:
    """Whether a staged value is of the table's type as it is: the same fields of the same types, in their places."""
    if ours.kind == "JSON":
        return there.kind != "JSON"
    fields = list(zip(ours.fields, there.fields, strict=False))
    return (ours.kind, len(ours.fields)) == (there.kind, len(there.fields)) and all(
        a.name.casefold() == b.name.casefold() and _alike(a, b) for a, b in fields
    )


def own_rows(*names: str) -> str:
    """The condition of rows of a shared table that a spec delivered, under these names."""
    same = [f"T.{quoted(METADATA)}.spec = {quoted_text(name)}" for name in names]
    return same[0] if len(same) == 1 else f"({' OR '.join(same)})"
