"""How many bytes a statement reads: the sum over the columns that it names, as BigQuery bills them.

Partition pruning and clustering are not taken into account.
"""

from __future__ import annotations

from sqlglot import errors, exp
from sqlglot.optimizer.scope import Scope, traverse_scope

from batchform.emulator.warehouse.relations import Relations, Used


def estimate(statement: exp.Expr, relations: Relations) -> int:
    """Bytes. A statement that is too odd to look into reads all columns of its tables."""
    named: dict[str, set[str]] = {}
    for query in (statement, *relations.views):
        for root in _queries(query):
            try:
                for scope in traverse_scope(root):
                    _add(scope, relations.used, named)
            except errors.SqlglotError:
                for marker in {t.name for t in root.find_all(exp.Table)} & relations.used.keys():
                    named[marker] = {"*"}
    for marker in _targets(statement) & relations.used.keys():
        named[marker] = {"*"}
    return sum(_bytes(relations.used[marker], columns) for marker, columns in named.items())


def _queries(statement: exp.Expr) -> list[exp.Expr]:
    if isinstance(statement, exp.Query):
        return [statement]
    found = [statement.args.get("expression"), statement.args.get("using")]
    inner = [e.this if isinstance(e, exp.Subquery) else e for e in found]
    return [e for e in inner if isinstance(e, exp.Query)]


def _targets(statement: exp.Expr) -> set[str]:
    """What DML works on, and what MERGE reads as a whole table."""
    if not isinstance(statement, (exp.Update, exp.Delete, exp.Merge)):
        return set()
    tables = [statement.this, statement.args.get("using")]
    return {t.name for t in tables if isinstance(t, exp.Table)}


def _add(scope: Scope, used: dict[str, Used], named: dict[str, set[str]]) -> None:
    sources = {alias: s for alias, s in scope.sources.items() if isinstance(s, exp.Table) and s.name in used}
    select = scope.expression
    stars = [p for p in select.expressions if p.is_star] if isinstance(select, exp.Select) else []
    for alias, source in sources.items():
        known = {f.name.lower() for f in used[source.name].version.schema}
        columns = named.setdefault(source.name, set())
        for star in stars:
            if not isinstance(star, exp.Column) or star.table in ("", alias):
                left_out = {e.name.lower() for e in (star.find(exp.Star) or star).args.get("except_") or []}
                columns |= known - left_out
        for column in scope.columns:
            name = column.name.lower()
            if column.table in ("", alias) and name in known:
                columns.add(name)
            elif name == alias.lower() and not column.table:
                columns |= known  # the row as a whole


def _bytes(used: Used, columns: set[str]) -> int:
    return sum(
        size
        for file in used.version.files
        for name, size in file.columns.items()
        if "*" in columns or name.lower() in columns
    )
