"""GoogleSQL → DuckDB: what sqlglot leaves to be done, and which statements there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from sqlglot import errors, exp, parse, parse_one

from batchform.emulator.warehouse.catalog import TableRef
from batchform.emulator.warehouse.declined import invalid, invalid_query, not_supported

DIALECT: Final = "bigquery"
INFORMATION: Final = "INFORMATION_SCHEMA."
_DECIMAL: Final = "DECIMAL(38, 9)"
_GEOGRAPHY: Final = ("ST_GEOGFROMTEXT", "ST_ASTEXT", "ST_GEOGFROM")


def statements(sql: str) -> list[exp.Expr]:
    """The statements of a script. Raises Declined."""
    try:
        found = [e for e in parse(sql, read=DIALECT) if e is not None and not isinstance(e, exp.Semicolon)]
    except errors.SqlglotError as e:
        raise invalid_query(f"Syntax error: {_first_line(str(e))}") from e
    if not found:
        raise invalid_query("Syntax error: Unexpected end of statement")
    for statement in found:
        if isinstance(statement, (exp.Command, exp.Declare, exp.Set)) or not isinstance(statement, exp.Expr):
            words = " ".join(statement.sql(dialect=DIALECT).split()[:3])
            raise not_supported(f"the statement {words} …")
        if isinstance(statement, (exp.Column, exp.Identifier, exp.Alias)):
            raise invalid_query(f"Syntax error: Unexpected identifier in {statement.sql(dialect=DIALECT)[:80]}")
    return found


def _first_line(message: str) -> str:
    return message.splitlines()[0].replace("\x1b[4m", "").replace("\x1b[0m", "")


def parse_view(sql: str) -> exp.Query:
    """The query of a view."""
    found = statements(sql)
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        raise invalid_query("A view is one SELECT.")
    return found[0]


def condition(sql: str) -> exp.Expr:
    """An expression such as a row restriction. Raises Declined."""
    try:
        return parse_one(sql, read=DIALECT)
    except errors.SqlglotError as e:
        raise invalid(f"request failed: row filter for table is invalid. Filter is '{sql}'") from e


def tables_in(statement: exp.Expr) -> Iterator[exp.Table]:
    """The tables that a statement names, without its own CTEs and without arrays in FROM."""
    named = {cte.alias.lower() for cte in statement.find_all(exp.CTE)}
    for table in list(statement.find_all(exp.Table)):
        if not isinstance(table.this, exp.Identifier):
            raise not_supported(f"{table.this.sql(dialect=DIALECT)[:60]} in FROM")
        if not (table.name.lower() in named and not table.db):
            yield table


def ref_of(table: exp.Table, project: str, dataset: str) -> TableRef:
    """Which table is meant. dataset: the default one, or nothing. Raises Declined."""
    if not (table.db or dataset):
        raise invalid(f'Table "{table.name}" must be qualified with a dataset (e.g. dataset.table).')
    return TableRef(table.catalog or project, table.db or dataset, table.name)


def prepare(statement: exp.Expr, now: float, parameter: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """The same statement with parameters and the time filled in, and with what DuckDB says otherwise rewritten."""

    def change(node: exp.Expr) -> exp.Expr:
        if isinstance(node, (exp.Parameter, exp.Placeholder)):
            return parameter(node)
        if type(node) in _CLOCK:
            return _CLOCK[type(node)](datetime.fromtimestamp(now, UTC))
        if isinstance(node, exp.Literal) and not node.is_string and not node.this.isdigit():
            return node if isinstance(node.parent, exp.DataTypeParam) else _cast(node.copy(), "DOUBLE")
        if isinstance(node, exp.DataType):
            return _type(node)
        return node

    return _rewritten(statement.transform(change))


def _rewritten(statement: exp.Expr) -> exp.Expr:
    """What DuckDB says otherwise, from the inside out: `transform` does not look into what it has put in."""
    for node in reversed(list(statement.find_all(exp.Anonymous, exp.Unnest, *_RESULTS))):
        if isinstance(node, exp.Anonymous):
            new = _function(node)
        elif isinstance(node, exp.Unnest):
            new = _with_offset(node) if node.args.get("offset") else node
        else:
            new = _cast(node.copy(), _RESULTS[type(node)])
        if new is not node:
            node.replace(new)
            statement = new if node is statement else statement
    return statement


def _cast(node: exp.Expr, kind: str) -> exp.Expr:
    return exp.Cast(this=node, to=exp.DataType.build(kind, dialect="duckdb"))


_RESULTS: Final[dict[type[exp.Expr], str]] = {
    exp.DateAdd: "DATE",
    exp.DateSub: "DATE",
    exp.StrToTime: "TIMESTAMPTZ",
    exp.UnixToTime: "TIMESTAMPTZ",
}
"""Functions that give another type in DuckDB."""
_CLOCK: Final[dict[type, Callable[[datetime], exp.Expr]]] = {
    exp.CurrentTimestamp: lambda now: _cast(exp.Literal.string(now.isoformat()), "TIMESTAMPTZ"),
    exp.CurrentDatetime: lambda now: _cast(exp.Literal.string(now.replace(tzinfo=None).isoformat()), "TIMESTAMP"),
    exp.CurrentDate: lambda now: _cast(exp.Literal.string(now.date().isoformat()), "DATE"),
    exp.CurrentTime: lambda now: _cast(exp.Literal.string(now.time().isoformat()), "TIME"),
}


def _type(node: exp.DataType) -> exp.Expr:
    """NUMERIC keeps all its digits; BIGNUMERIC and GEOGRAPHY are text."""
    if node.this in (exp.DataType.Type.BIGDECIMAL, exp.DataType.Type.GEOGRAPHY):
        return exp.DataType.build("VARCHAR", dialect="duckdb")
    if node.this == exp.DataType.Type.DECIMAL and not node.expressions:
        return exp.DataType.build(_DECIMAL, dialect="duckdb")
    return node


def _function(node: exp.Anonymous) -> exp.Expr:
    name = node.name.upper()
    if name in _GEOGRAPHY:
        inner: exp.Expr = node.expressions[0].copy()
        return inner
    if name == "ST_GEOGPOINT":
        x, y = (_cast(e.copy(), "VARCHAR") for e in node.expressions)
        pieces = [exp.Literal.string("POINT("), x, exp.Literal.string(" "), y, exp.Literal.string(")")]
        return exp.Concat(expressions=pieces, safe=False, coalesce=False)
    return node


def _with_offset(node: exp.Unnest) -> exp.Expr:
    """`UNNEST(a) AS x WITH OFFSET AS o`, where sqlglot counts from one."""
    alias = node.args.get("alias")
    columns = alias.columns if alias else []
    element = columns[0].name if columns else "_value"
    offset = node.args["offset"]
    counter = offset.name if isinstance(offset, exp.Identifier) else "offset"
    array = node.expressions[0]
    numbers = _call("range", _call("len", array.copy()))
    select = exp.select(
        exp.alias_(_call("unnest", array.copy()), element, quoted=True),
        exp.alias_(_call("unnest", numbers), counter, quoted=True),
    )
    return exp.Lateral(this=select.subquery(), alias=exp.TableAlias(this=exp.to_identifier(f"_offset_{id(node)}")))


def _call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def name_columns(query: exp.Expr) -> None:
    """Columns without a name are f0_, f1_, … in the order of their appearance."""
    while isinstance(query, (exp.SetOperation, exp.Subquery)):
        query = query.this
    if not isinstance(query, exp.Select):
        return
    unnamed = 0
    for i, projection in enumerate(query.expressions):
        if projection.is_star or isinstance(projection, (exp.Alias, exp.Column, exp.Dot, exp.Aliases)):
            continue
        query.expressions[i].replace(exp.alias_(projection.copy(), f"f{unnamed}_"))
        unnamed += 1


def insert_row(merge: exp.Merge, columns: list[str]) -> None:
    """`INSERT ROW` written out."""
    source = merge.args["using"].alias_or_name
    for insert in merge.find_all(exp.Insert):
        if insert.this is not None and insert.this.sql().upper() == "ROW":
            names = [exp.to_identifier(c, quoted=True) for c in columns]
            insert.set("this", exp.Tuple(expressions=names))
            insert.set("expression", exp.Tuple(expressions=[exp.column(c, table=source, quoted=True) for c in columns]))


def options(nodes: list[Any]) -> dict[str, Any]:
    """`OPTIONS (a = 1, b = 'x')` as plain values."""
    found: dict[str, Any] = {}
    for node in nodes:
        entries = node.expressions if isinstance(node, exp.Properties) else [node]
        for entry in entries:
            if isinstance(entry, exp.FileFormatProperty):
                found["format"] = entry.name
            elif isinstance(entry, (exp.Property, exp.EQ)):
                name = entry.name if isinstance(entry, exp.Property) else entry.this.name
                found[name.lower()] = _plain(entry.args.get("value") or entry.args.get("expression"))
    return found


def _plain(node: Any) -> Any:
    if isinstance(node, exp.Literal):
        return node.this if node.is_string else float(node.this) if "." in node.this else int(node.this)
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, (exp.Array, exp.Tuple)):
        return [_plain(e) for e in node.expressions]
    return None if node is None or isinstance(node, exp.Null) else node.sql(dialect=DIALECT)
