"""INSERT, UPDATE, DELETE, MERGE and TRUNCATE: run on a copy of the table in DuckDB, kept as a new version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlglot import exp

from batchform.emulator.warehouse import merges, translate
from batchform.emulator.warehouse.catalog import TableRow, Version
from batchform.emulator.warehouse.declined import invalid, invalid_query
from batchform.emulator.warehouse.estimate import estimate
from batchform.emulator.warehouse.fields import quoted
from batchform.emulator.warehouse.relations import Relations, Used, select_version

if TYPE_CHECKING:
    import duckdb

    from batchform.emulator.warehouse.query import Outcome, Run

TARGET: Final = "_target"
_COUNTS: Final = {
    "INSERT": "insertedRowCount",
    "UPDATE": "updatedRowCount",
    "DELETE": "deletedRowCount",
}


def run(job: Run, statement: exp.Expr, relations: Relations, cursor: duckdb.DuckDBPyConnection) -> Outcome:
    """Raises Declined."""
    from batchform.emulator.warehouse.query import Outcome, statement_kind

    if isinstance(statement, exp.TruncateTable):
        return _truncate(job, statement)
    node = _target_of(statement)
    ref = translate.ref_of(node, job.context.project, job.context.dataset)
    job.context.check_location(ref)
    table, version = job.workspace.read(ref)
    if "view" in table.meta:
        raise invalid(f"Cannot modify view {ref}.")
    if isinstance(statement, exp.Merge):
        merges.check_clauses(statement)
    prepared = job.prepared(statement)
    relations.used[TARGET] = Used(TARGET, ref.table, version)
    _rename(_target_of(prepared))
    relations.bind(prepared)
    if isinstance(prepared, exp.Merge):
        translate.insert_row(prepared, [f.name for f in version.schema])
    outcome = Outcome(statement_kind(statement), estimate(prepared, relations), target=ref)
    job.check_bytes(outcome.bytes_processed)
    insert = isinstance(prepared, exp.Insert)
    _copy(job, version, cursor, empty=insert or job.query.dry_run)
    if isinstance(prepared, exp.Merge):
        merges.check_values(prepared, version.schema, cursor)
    if job.query.dry_run:
        cursor.execute(f"EXPLAIN {prepared.sql(dialect='duckdb')}")
        return outcome
    outcome.dml = _execute(prepared, cursor)
    _keep(job, table, version, cursor, outcome.dml, append=insert)
    return outcome


def _target_of(statement: exp.Expr) -> exp.Table:
    if isinstance(statement, exp.Delete) and statement.args.get("tables"):  # DELETE without FROM
        statement.set("this", statement.args["tables"][0])
        statement.set("tables", None)
    node = statement.this
    if isinstance(node, exp.Schema):
        node = node.this
    if not isinstance(node, exp.Table):
        raise invalid_query("DML needs a table to work on.")
    return node


def _rename(node: exp.Table) -> None:
    alias = node.alias or node.name
    node.set("this", exp.to_identifier(TARGET))
    for part in ("db", "catalog"):
        node.set(part, None)
    if not isinstance(node.parent, (exp.Insert, exp.Schema)):
        node.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))


def _copy(job: Run, version: Version, cursor: duckdb.DuckDBPyConnection, *, empty: bool) -> None:
    columns = ", ".join(f"{quoted(f.name)} {f.duckdb()}{' NOT NULL' if f.required else ''}" for f in version.schema)
    cursor.execute(f"CREATE TEMP TABLE {TARGET} ({columns})")
    if not empty and version.files:
        cursor.execute(f"INSERT INTO {TARGET} {select_version(job.warehouse, version)}")


def _execute(statement: exp.Expr, cursor: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows by what was done to them, as dmlStats has it."""
    counts = dict.fromkeys(_COUNTS.values(), 0)
    sql = statement.sql(dialect="duckdb")
    if isinstance(statement, exp.Merge):
        for (action,) in cursor.execute(f"{sql} RETURNING merge_action").fetchall():
            counts[_COUNTS[action]] += 1
        return counts
    found = cursor.execute(sql).fetchone()
    word = type(statement).__name__.upper()
    counts[_COUNTS[word]] = int(found[0]) if found else 0
    return counts


def _keep(
    job: Run,
    table: TableRow,
    version: Version,
    cursor: duckdb.DuckDBPyConnection,
    counts: dict[str, int],
    *,
    append: bool,
) -> None:
    if not any(counts.values()):
        return
    only_inserts = append or not (counts["updatedRowCount"] or counts["deletedRowCount"])
    names = [f.name for f in version.schema]
    source: Any = f"SELECT * FROM {TARGET}"
    if only_inserts and not append:  # a MERGE that only added rows: those come last
        source += f" OFFSET {version.rows}"
    files = job.write(source, version.schema, names, cursor)
    if append:
        job.workspace.append(table, version, files)
    else:  # what others add meanwhile could have matched: the whole is tried again then
        job.workspace.replace(table, version, (*version.files, *files) if only_inserts else files)


def _truncate(job: Run, statement: exp.Expr) -> Outcome:
    from batchform.emulator.warehouse.query import Outcome

    node = statement.expressions[0]
    ref = translate.ref_of(node, job.context.project, job.context.dataset)
    job.context.check_location(ref)
    table, version = job.workspace.read(ref)
    if not job.query.dry_run:
        job.workspace.replace(table, version, [])
    return Outcome(
        "TRUNCATE_TABLE", 0, target=ref, dml={**dict.fromkeys(_COUNTS.values(), 0), "deletedRowCount": version.rows}
    )
