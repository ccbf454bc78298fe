"""Query parameters: named and positional, as typed literals in the statement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

from batchform.emulator.warehouse import values
from batchform.emulator.warehouse.declined import invalid, invalid_query
from batchform.emulator.warehouse.fields import ALIASES, DUCKDB


def filler(mode: str, parameters: list[dict[str, Any]]) -> Callable[[exp.Expr], exp.Expr]:
    """Puts a parameter's value where a statement names it. Raises Declined for one that is missing or malformed."""
    named = {p.get("name", "").lower(): p for p in parameters}
    rest = iter(parameters if mode.upper() != "NAMED" else [])

    def fill(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Parameter):
            name = node.name.lower()
            if name not in named or not name:
                raise invalid_query(f"Query parameter '{node.name}' not found")
            given = named[name]
        else:
            found = next(rest, None)
            if found is None:
                raise invalid_query(
                    "Query parameter number is too high: there are fewer parameters than question marks."
                )
            given = found
        return literal(given.get("parameterType") or {}, given.get("parameterValue") or {})

    return fill


def literal(kind: dict[str, Any], value: dict[str, Any]) -> exp.Expr:
    """A typed literal in DuckDB's terms."""
    name = str(kind.get("type", "")).upper()
    target = exp.DataType.build(duckdb_type(kind), dialect="duckdb")
    if name == "ARRAY":
        entries = value.get("arrayValues") or []
        return exp.Cast(this=exp.Array(expressions=[literal(kind["arrayType"], v) for v in entries]), to=target)
    if name == "STRUCT":
        fields, given = kind.get("structTypes") or [], value.get("structValues") or {}
        entries = [
            exp.PropertyEQ(
                this=exp.to_identifier(f["name"], quoted=True), expression=literal(f["type"], given[f["name"]])
            )
            for f in fields
        ]
        return exp.Struct(expressions=entries) if value.get("structValues") is not None else _null(target)
    shown = value.get("value")
    if shown is None:
        return _null(target)
    return exp.Cast(this=exp.Literal.string(_text(ALIASES.get(name, name), str(shown))), to=target)


def _null(target: exp.DataType) -> exp.Expr:
    return exp.Cast(this=exp.Null(), to=target)


def _text(kind: str, shown: str) -> str:
    """As DuckDB reads it. Checked here, since DuckDB would be asked only when rows are there."""
    try:
        kept = values.SCALARS[kind](shown)
    except values.Misfit as e:
        raise invalid(f"Invalid query parameter: {e.message}") from e
    if kind == "BYTES":
        return "".join(f"\\x{byte:02X}" for byte in kept)
    if kind in ("TIMESTAMP", "DATETIME", "DATE", "TIME"):
        return str(kept.isoformat())
    return shown if kind in ("STRING", "GEOGRAPHY", "JSON") else str(kept)


def duckdb_type(kind: dict[str, Any]) -> str:
    """A parameter's type in DuckDB's SQL."""
    name = str(kind.get("type", "")).upper()
    name = ALIASES.get(name, name)
    if name == "ARRAY":
        return duckdb_type(kind["arrayType"]) + "[]"
    if name in ("STRUCT", "RECORD"):
        inner = ", ".join(f'"{f["name"]}" {duckdb_type(f["type"])}' for f in kind.get("structTypes") or [])
        return f"STRUCT({inner})"
    if name not in DUCKDB:
        raise invalid(f"Invalid query parameter type: {kind.get('type')}.")
    return DUCKDB[name]
