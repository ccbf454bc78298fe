"""Runs SQL: a statement or a script of them, in a workspace that is committed after each, or as a transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlglot import exp

from batchform.emulator.store import new_id
from batchform.emulator.warehouse import ddl, dml, params, translate
from batchform.emulator.warehouse.catalog import Conflict, File, TableRef
from batchform.emulator.warehouse.declined import Declined, invalid, invalid_query, not_supported
from batchform.emulator.warehouse.estimate import estimate
from batchform.emulator.warehouse.fields import Field, Schema, quoted, schema_resource, text
from batchform.emulator.warehouse.relations import Context, Relations, field_of, kept_sql
from batchform.emulator.warehouse.rows import GROUP_ROWS, measured
from batchform.emulator.warehouse.warehouse import Warehouse
from batchform.emulator.warehouse.workspace import Step, Workspace

if TYPE_CHECKING:
    import duckdb

_TRIES: Final = 200
ANONYMOUS_SECONDS: Final = 24 * 3600


class Outcome(msgspec.Struct):
    """What a job has done: what its statistics are made of."""

    statement: str = ""
    bytes_processed: int = 0
    schema: Schema | None = None
    destination: TableRef | None = None
    dml: dict[str, int] | None = None
    ddl: str = ""
    target: TableRef | None = None
    load: dict[str, Any] | None = None
    extract: dict[str, Any] | None = None
    statements: int = 1
    referenced: list[TableRef] = []


class Query(msgspec.Struct):
    """A query as a job's configuration has it."""

    sql: str
    dataset: str = ""
    mode: str = "NAMED"
    parameters: list[dict[str, Any]] = []
    destination: TableRef | None = None
    write: str = "WRITE_EMPTY"
    create: str = "CREATE_IF_NEEDED"
    dry_run: bool = False
    limit_bytes: int | None = None
    settings: dict[str, Any] = {}


Finish = Callable[[Outcome], Step]


class Run:
    """One job's SQL. finish: what belongs into the transaction of the last change."""

    def __init__(self, warehouse: Warehouse, project: str, location: str, query: Query, finish: Finish) -> None:
        self.warehouse, self.query, self._finish = warehouse, query, finish
        self.context = Context(warehouse, project, query.dataset, location, warehouse.now())
        self.workspace = Workspace(warehouse)
        self._fill = params.filler(query.mode, query.parameters)

    def all(self) -> Outcome:
        """Run it. Raises Declined; what was committed before stays."""
        statements = translate.statements(self.query.sql)
        if len(statements) == 1:
            return self._single(statements[0])
        outcome, total, inside = Outcome(), 0, False
        try:
            for statement in statements:
                inside, found = self._step(statement, inside)
                outcome = found or outcome
                total += found.bytes_processed if found else 0
        except Conflict:
            raise _aborted() from None
        outcome = msgspec.structs.replace(
            outcome, statement="SCRIPT", bytes_processed=total, statements=len(statements)
        )
        self._commit(outcome)
        return outcome

    def _step(self, statement: exp.Expr, inside: bool) -> tuple[bool, Outcome | None]:
        """One statement of a script. inside: a transaction."""
        if isinstance(statement, exp.Transaction):
            if inside:
                raise invalid_query("Transactions cannot be nested.")
            return True, None
        if isinstance(statement, (exp.Commit, exp.Rollback)):
            if not inside:
                raise invalid_query("There is no transaction to end.")
            if isinstance(statement, exp.Commit):
                self.workspace.commit()
            self.workspace.forget()
            return False, None
        if inside:
            if isinstance(statement, (exp.Create, exp.Drop, exp.Alter)):
                raise not_supported("DDL inside a transaction")
            return True, self._run(statement)
        return False, self._retrying(statement, lambda _: None)

    def _single(self, statement: exp.Expr) -> Outcome:
        if isinstance(statement, (exp.Transaction, exp.Commit, exp.Rollback)):
            raise not_supported("transactions that span queries: send BEGIN TRANSACTION to COMMIT as one script")
        if self.query.dry_run:
            return self._run(statement)
        return self._retrying(statement, self._commit)

    def _retrying(self, statement: exp.Expr, commit: Callable[[Outcome], None]) -> Outcome:
        """Run and commit; again when somebody else changed the same table meanwhile."""
        with self.warehouse.turn(statement_kind(statement) if not isinstance(statement, exp.Query) else ""):
            for _ in range(_TRIES):
                try:
                    outcome = self._run(statement.copy())
                    commit(outcome)
                    self.workspace.commit()
                except Conflict:
                    self.workspace.forget()
                else:
                    return outcome
        raise _aborted()

    def _commit(self, outcome: Outcome) -> None:
        self.workspace.commit(self._finish(outcome))

    def _run(self, statement: exp.Expr) -> Outcome:
        with self.warehouse.engine.cursor() as cursor, self.warehouse.engine.declining():
            relations = Relations(self.context, self.workspace.read, cursor)
            if isinstance(statement, exp.Query):
                return self._select(statement, relations, cursor)
            if isinstance(statement, exp.Export):
                return self._export(statement, relations, cursor)
            if isinstance(statement, (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.TruncateTable)):
                return dml.run(self, statement, relations, cursor)
            return ddl.run(self, statement, relations, cursor)

    def prepared(self, statement: exp.Expr) -> exp.Expr:
        """With parameters, and in DuckDB's terms."""
        return translate.prepare(statement, self.context.now, params.filler(self.query.mode, self.query.parameters))

    def sql_of(self, query: exp.Expr, relations: Relations) -> str:
        """A query in DuckDB's SQL, with its columns named."""
        relations.note_casts(query)
        query = self.prepared(query)
        relations.bind(query)
        translate.name_columns(query)
        return str(query.sql(dialect="duckdb"))

    def check_bytes(self, size: int) -> None:
        """Raises Declined when the query may not read so much."""
        limit = self.query.limit_bytes
        billed = max(size, 10 * 1024**2) if size else 0
        if limit is not None and billed > limit:
            message = f"Query exceeded limit for bytes billed: {limit}. {billed} or higher required."
            raise Declined(400, message, reason="bytesBilledLimitExceeded")

    def shape(self, sql: str, relations: Relations, cursor: duckdb.DuckDBPyConnection) -> tuple[Schema, list[str]]:
        """The columns of a query's result, and what DuckDB calls them."""
        relation = cursor.sql(sql)
        hints = relations.text_fields()
        names = list(relation.columns)
        seen: set[str] = set()
        for name in names:
            if name.lower() in seen:
                raise invalid_query(
                    f"Duplicate column names in the result are not supported. Found duplicate(s): {name}"
                )
            seen.add(name.lower())
        fields = tuple(field_of(n, kind, hints) for n, kind in zip(names, relation.types, strict=True))
        return fields, names

    def write(self, sql: str, schema: Schema, names: list[str], cursor: duckdb.DuckDBPyConnection) -> list[File]:
        """The rows of a query as a new file."""
        file = new_id(24)
        path = text(str(self.warehouse.path(file)))
        kept = kept_sql(schema, f"({sql}) AS _result", names=names)
        cursor.execute(f"COPY ({kept}) TO {path} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {GROUP_ROWS})")
        found = measured(self.warehouse, file, schema)
        return [found] if found else []

    def _select(self, statement: exp.Expr, relations: Relations, cursor: Any) -> Outcome:
        relations.note_casts(statement)
        prepared = self.prepared(statement)
        relations.bind(prepared)
        translate.name_columns(prepared)
        sql = str(prepared.sql(dialect="duckdb"))
        schema, names = self.shape(sql, relations, cursor)
        outcome = Outcome("SELECT", estimate(prepared, relations), schema, referenced=relations.referenced())
        self.check_bytes(outcome.bytes_processed)
        if self.query.dry_run:
            return outcome
        outcome.destination = self._store(self.write(sql, schema, names, cursor), schema)
        return outcome

    def _store(self, files: list[File], schema: Schema) -> TableRef:
        """Put a result where the job wants it, or into a table that nobody sees and that is gone tomorrow."""
        query, context = self.query, self.context
        if query.destination is None:
            home = self.warehouse.anonymous(context.project, context.location or "US")
            ref = TableRef(context.project, home, "anon" + new_id(40))
            expires = int((self.warehouse.now() + ANONYMOUS_SECONDS) * 1000)
            self.workspace.create(ref, schema, files, {"expirationTime": str(expires)})
            return ref
        context.check_location(query.destination)
        store(self.workspace, query, query.destination, schema, files)
        return query.destination

    def _export(self, statement: exp.Expr, relations: Relations, cursor: Any) -> Outcome:
        from batchform.emulator.warehouse import extracts

        query = statement.this
        prepared = self.prepared(query)
        relations.bind(prepared)
        translate.name_columns(prepared)
        sql = str(prepared.sql(dialect="duckdb"))
        schema, names = self.shape(sql, relations, cursor)
        outcome = Outcome("EXPORT_DATA", estimate(prepared, relations))
        self.check_bytes(outcome.bytes_processed)
        if not self.query.dry_run:
            given = translate.options((statement.args.get("options") and [statement.args["options"]]) or [])
            order = extracts.of_options(given)
            files = self.write(sql, schema, names, cursor)
            outcome.extract = extracts.write(self.warehouse, schema, files, order)
        return outcome


def store(workspace: Workspace, query: Any, ref: TableRef, schema: Schema, files: list[File]) -> None:
    """Rows into a destination table, as writeDisposition and createDisposition of `query` say."""
    try:
        table, version = workspace.read(ref)
    except Declined as e:
        if e.status != 404 or query.create == "CREATE_NEVER" or "Dataset" in e.message:
            raise
        workspace.create(ref, schema, files, dict(query.settings))
        return
    if query.write == "WRITE_EMPTY" and version.rows:
        raise Declined(409, f"Already Exists: Table {ref}", reason="duplicate")
    if query.write == "WRITE_TRUNCATE":
        workspace.replace(table, version, files, schema)
        if query.settings:
            workspace.set_meta(table, {**table.meta, **query.settings})
        return
    check_fits(ref, version.schema, schema)
    workspace.append(table, version, files)


def check_fits(ref: TableRef, there: Schema, new: Schema) -> None:
    """Raises Declined when rows of one schema cannot stand in a table of the other."""
    known = {f.name.lower(): f for f in there}
    for field in new:
        old = known.get(field.name.lower())
        if old is None:
            raise invalid(f"Provided Schema does not match Table {ref}. Cannot add fields (field: {field.name})")
        if (old.type, old.repeated) != (field.type, field.repeated):
            raise invalid(
                f"Provided Schema does not match Table {ref}. Field {field.name} has changed type from"
                f" {old.type} to {field.type}"
            )


def statement_kind(statement: exp.Expr) -> str:
    """INSERT, UPDATE, …: as statistics have it."""
    return type(statement).__name__.upper()


def _aborted() -> Declined:
    return Declined(400, "Transaction is aborted due to concurrent update against a table that it changes.")


__all__ = ["Field", "Outcome", "Query", "Run", "quoted", "schema_resource"]
