"""What BigQuery refuses of a MERGE and DuckDB does not: structs that are not the column's, subqueries of a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from batchform.emulator.warehouse.declined import invalid_query, not_supported
from batchform.emulator.warehouse.fields import AS_TEXT, Field, Schema
from batchform.emulator.warehouse.relations import field_of

if TYPE_CHECKING:
    import duckdb


def check_clauses(merge: exp.Merge) -> None:
    """Raises Declined for a subquery of a clause that reads the row: those are taken below USING only."""
    rows = {merge.this.alias_or_name.lower(), merge.args["using"].alias_or_name.lower()}
    for part in ("on", "whens"):
        clause = merge.args.get(part)
        for select in clause.find_all(exp.Select) if clause is not None else ():
            if any(c.table.lower() in rows for c in select.find_all(exp.Column)):
                raise invalid_query("Correlated subqueries are not supported in the clauses of a MERGE.")


def check_values(merge: exp.Merge, schema: Schema, cursor: duckdb.DuckDBPyConnection) -> None:
    """Raises Declined for a struct or an array whose type is not its column's: it is assigned by the places of fields,
    and nothing in it is converted. merge: in DuckDB's terms, over relations that are there."""
    nested = {f.name.lower(): f for f in schema if f.type == "RECORD" or f.repeated}
    pairs = [(nested[name.lower()], value) for name, value in _assigned(merge) if name.lower() in nested]
    if not pairs:
        return
    values = ", ".join(value.sql(dialect="duckdb") for _, value in pairs)
    sources = f"{merge.this.sql(dialect='duckdb')}, {merge.args['using'].sql(dialect='duckdb')}"
    for (field, _), kind in zip(pairs, cursor.sql(f"SELECT {values} FROM {sources}").types, strict=True):
        given = field_of(field.name, kind, {})
        if _is_null(kind):
            continue
        if not _same(given, field):
            there = f"{field.name}, which has type {field.sql_type()}"
            raise invalid_query(f"Value of type {given.sql_type()} cannot be assigned to {there}")
        if not _same_names(given, field):  # DuckDB goes by them
            raise not_supported(f"a MERGE that writes a struct of other names into {field.name}")


def _assigned(merge: exp.Merge) -> Iterator[tuple[str, exp.Expr]]:
    """The columns that are written, and what with."""
    for when in merge.find_all(exp.When):
        then = when.args.get("then")
        if isinstance(then, exp.Update):
            yield from ((e.this.name, e.expression) for e in then.expressions if isinstance(e, exp.EQ))
        elif isinstance(then, exp.Insert) and then.this is not None and then.expression is not None:
            yield from ((c.name, v) for c, v in zip(then.this.expressions, then.expression.expressions, strict=False))


def _is_null(kind: Any) -> bool:
    return str(kind) in ("NULL", '"NULL"')


def _same(given: Field, field: Field) -> bool:
    if (given.repeated, len(given.fields)) != (field.repeated, len(field.fields)):
        return False
    alike = given.type == field.type or (field.type in AS_TEXT and given.type == "STRING")
    return alike and all(map(_same, given.fields, field.fields))


def _same_names(given: Field, field: Field) -> bool:
    pairs = zip(given.fields, field.fields, strict=True)
    return all(a.name.lower() == b.name.lower() and _same_names(a, b) for a, b in pairs)
