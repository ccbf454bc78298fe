"""CREATE, DROP and ALTER of datasets, tables and views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlglot import exp

from batchform.emulator.warehouse import changes, translate
from batchform.emulator.warehouse.catalog import TableRef, TableRow, Version
from batchform.emulator.warehouse.declined import Declined, invalid, invalid_query, not_supported
from batchform.emulator.warehouse.estimate import estimate
from batchform.emulator.warehouse.fields import Field, Schema, read_schema
from batchform.emulator.warehouse.relations import Relations

if TYPE_CHECKING:
    import duckdb

    from batchform.emulator.warehouse.query import Outcome, Run


def run(job: Run, statement: exp.Expr, relations: Relations, cursor: duckdb.DuckDBPyConnection) -> Outcome:
    """Raises Declined."""
    if isinstance(statement, exp.Create):
        return _create(job, statement, relations, cursor)
    if isinstance(statement, exp.Drop):
        return _drop(job, statement)
    if isinstance(statement, exp.Alter):
        return _alter(job, statement)
    raise not_supported(f"the statement {statement.sql(dialect='bigquery')[:60]}")


def _create(job: Run, statement: exp.Create, relations: Relations, cursor: duckdb.DuckDBPyConnection) -> Outcome:
    kind = str(statement.args.get("kind")).upper()
    if kind == "SCHEMA":
        return _create_dataset(job, statement)
    if kind not in ("TABLE", "VIEW"):
        raise not_supported(f"CREATE {kind}")
    if kind == "VIEW" and statement.find(exp.MaterializedProperty):
        raise not_supported("materialized views")
    node = statement.this.this if isinstance(statement.this, exp.Schema) else statement.this
    ref = translate.ref_of(node, job.context.project, job.context.dataset)
    job.context.check_location(ref)
    there = _there(job, ref)
    outcome = _outcome(f"CREATE_{kind}", "CREATE", ref)
    if there and statement.args.get("exists"):
        outcome.ddl = "SKIP"
        return outcome
    if there and not statement.args.get("replace"):
        raise Declined(409, f"Already Exists: Table {ref}")
    meta = _meta(statement)
    files: list[Any] = []
    if kind == "VIEW":
        sql = statement.expression.sql(dialect="bigquery")
        schema = view_schema(job, statement.expression, relations, cursor)
        meta["view"] = {"query": sql, "useLegacySql": False}
    else:
        schema = _columns(statement)
        if statement.expression is not None:
            sql = job.sql_of(statement.expression, relations)
            found, names = job.shape(sql, relations, cursor)
            outcome.statement = "CREATE_TABLE_AS_SELECT"
            outcome.bytes_processed = estimate(statement.expression, relations)
            job.check_bytes(outcome.bytes_processed)
            schema = schema or found
            if not job.query.dry_run:
                files = job.write(sql, schema, names, cursor)
        if not schema:
            raise invalid_query("CREATE TABLE needs columns or a query.")
    if there:
        outcome.ddl = "REPLACE"
    if not job.query.dry_run:
        if there:
            job.workspace.replace(*there, files, schema)
            job.workspace.set_meta(there[0], meta)
        else:
            job.workspace.create(ref, schema, files, meta)
    return outcome


def view_schema(job: Run, query: exp.Expr, relations: Relations, cursor: duckdb.DuckDBPyConnection) -> Schema:
    """The columns of a view."""
    return job.shape(job.sql_of(query.copy(), relations), relations, cursor)[0]


def _create_dataset(job: Run, statement: exp.Create) -> Outcome:
    name, project = statement.this.db or statement.this.name, statement.this.catalog or job.context.project
    given = translate.options([statement.args["properties"]] if statement.args.get("properties") else [])
    location = str(_location(statement) or given.get("location") or job.context.location or "US")
    outcome = _outcome("CREATE_SCHEMA", "CREATE", None)
    if job.query.dry_run:
        return outcome
    try:
        changes.create_dataset(job.warehouse, project, name, location, {})
    except Declined:
        if not statement.args.get("exists"):
            raise
        outcome.ddl = "SKIP"
    return outcome


def _location(statement: exp.Create) -> str:
    found = statement.find(exp.LocationProperty)
    return str(found.this.name) if found else ""


def _there(job: Run, ref: TableRef) -> tuple[TableRow, Version] | None:
    try:
        return job.workspace.read(ref)
    except Declined as e:
        if e.status == 404:
            return None
        raise


def _outcome(statement: str, ddl: str, target: TableRef | None) -> Outcome:
    from batchform.emulator.warehouse.query import Outcome

    return Outcome(statement, ddl=ddl, target=target)


def _columns(statement: exp.Create) -> Schema:
    if not isinstance(statement.this, exp.Schema):
        return ()
    columns = [e for e in statement.this.expressions if isinstance(e, exp.ColumnDef)]
    return read_schema({"fields": [_column(c) for c in columns]})


def _column(column: exp.ColumnDef) -> dict[str, Any]:
    field = type_resource(column.name, column.args["kind"])
    for constraint in column.args.get("constraints") or []:
        if isinstance(constraint.kind, exp.NotNullColumnConstraint):
            field["mode"] = "REQUIRED"
        given = translate.options(constraint.find_all(exp.Property, exp.EQ))
        if given.get("description"):
            field["description"] = given["description"]
    return field


def type_resource(name: str, kind: exp.DataType) -> dict[str, Any]:
    """A column of a type of GoogleSQL as REST has it."""
    if kind.this == exp.DataType.Type.ARRAY:
        inner = kind.expressions[0] if kind.expressions else exp.DataType.build("STRING", dialect="bigquery")
        return {**type_resource(name, inner), "mode": "REPEATED"}
    if kind.this == exp.DataType.Type.STRUCT:
        fields = [type_resource(e.name, e.args["kind"]) for e in kind.expressions]
        return {"name": name, "type": "RECORD", "fields": fields}
    bare = exp.DataType(this=kind.this)
    return {"name": name, "type": bare.sql(dialect="bigquery")}


def _meta(statement: exp.Create) -> dict[str, Any]:
    """Partitioning, clustering and options as REST has them."""
    meta: dict[str, Any] = {}
    partition = statement.find(exp.PartitionedByProperty)
    if partition is not None:
        meta.update(_partitioning(partition.this))
    cluster = statement.find(exp.ClusterProperty)
    if cluster is not None:
        meta["clustering"] = {"fields": [e.name for e in cluster.expressions]}
    properties = statement.args.get("properties")
    given = translate.options([properties]) if properties else {}
    for name, ours in (("description", "description"), ("friendly_name", "friendlyName")):
        if given.get(name):
            meta[ours] = given[name]
    if isinstance(given.get("labels"), list):
        meta["labels"] = dict(given["labels"])
    return meta


def _partitioning(node: exp.Expr) -> dict[str, Any]:
    if isinstance(node, exp.Column):
        return {"timePartitioning": {"type": "DAY", "field": node.name}}
    if "RANGE_BUCKET" in node.sql(dialect="bigquery").upper():
        raise not_supported("PARTITION BY RANGE_BUCKET in SQL (tables.insert with rangePartitioning is)")
    column = node.find(exp.Column)
    unit = node.args.get("unit")
    kind = str(unit.name if unit is not None else "DAY").upper()
    if column is None or column.name.upper() in ("_PARTITIONDATE", "_PARTITIONTIME"):
        return {"timePartitioning": {"type": kind}}
    return {"timePartitioning": {"type": kind, "field": column.name}}


def _drop(job: Run, statement: exp.Drop) -> Outcome:
    kind = str(statement.args.get("kind")).upper()
    if kind not in ("TABLE", "VIEW"):
        raise not_supported(f"DROP {kind} in SQL")
    node = (statement.args.get("tables") or [statement.this])[0]
    ref = translate.ref_of(node, job.context.project, job.context.dataset)
    outcome = _outcome(f"DROP_{kind}", "DROP", ref)
    there = _there(job, ref)
    if there is None:
        if not statement.args.get("exists"):
            raise Declined(404, f"Not found: Table {ref}")
        outcome.ddl = "SKIP"
    elif ("view" in there[0].meta) != (kind == "VIEW"):
        raise invalid(f"{ref} is not a {kind.lower()}.")
    elif not job.query.dry_run:
        job.workspace.drop(there[0])
    return outcome


def _alter(job: Run, statement: exp.Alter) -> Outcome:
    ref = translate.ref_of(statement.this, job.context.project, job.context.dataset)
    table, version = job.workspace.read(ref)
    actions = statement.args.get("actions") or []
    columns = [a for a in actions if isinstance(a, exp.ColumnDef)]
    if not columns or len(columns) != len(actions):
        raise not_supported("ALTER TABLE other than ADD COLUMN")
    known = {f.name.lower() for f in version.schema}
    new: list[Field] = []
    for column in columns:
        if column.name.lower() in known:
            if column.args.get("exists"):
                continue
            raise invalid(f"Column already exists: {column.name}")
        new.extend(read_schema({"fields": [_column(column)]}))
    if any(f.required for f in new):
        raise invalid("A REQUIRED column cannot be added to a table that exists.")
    if not job.query.dry_run:
        job.workspace.append(table, version, [], (*version.schema, *new))
    return _outcome("ALTER_TABLE", "ALTER", ref)
