"""Answers in a table of any database that SQLAlchemy speaks to, one transaction for each delivery.

What is new is laid over the rows by key; a full delivery replaces them. Columns are added, never changed or removed.
The table `_batchform_tables` beside it says which tables are ours. Another table is never written.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.adapters.destinations.sqlalchemy_columns import TableColumn, table_columns
from batchform.adapters.destinations.staging import check_folder, column_types, refusing, write_rows
from batchform.adapters.sql_database import LOCK_SECONDS, SqlDatabase, column_names, quoted
from batchform.canon import digest_of, file_digest
from batchform.errors import DestinationError
from batchform.ports import Delivered, Delivery
from batchform.rows.sql import literal
from batchform.rows.stream import stream
from batchform.spec.model_sql import Database, SqlDestination

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from sqlalchemy import Connection, Insert, Table

OWNED: Final = "_batchform_tables"
_OWNED_COLUMNS: Final = ("table_name", "spec", "digest", "shape", "delivered_at")
_ROWS_AT_ONCE: Final = 1_000
_ELSEWHERE: Final = "Choose another table or database in destination."
_ANEW: Final = (
    "Give the column another name in destination.columns, or drop the table: `batchform sync` then makes it anew from "
    "the archive, for nothing."
)


class _Owner(Struct, frozen=True):
    """What is recorded of our table. shape: types of all columns that it was ever given, and its key."""

    spec: str
    digest: str
    columns: Mapping[str, str]
    key: Sequence[str]


class SqlTable:
    """The `sql` destination."""

    def __init__(
        self,
        destination: SqlDestination,
        *,
        spec: str,
        root: Path,
        databases: Mapping[str, Database],
        was: Collection[str] = (),
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        """spec: name of the spec whose answers the table holds; was: its earlier names; lock_seconds: how long to
        wait for a lock."""
        name = destination.database
        if name not in databases:
            raise DestinationError(f"destination.database: there is no database {name!r} in batchform.yaml.")
        schema, _, self._name = destination.table.rpartition(".")
        self._schema = schema or None
        self._spec, self._was = spec, was
        self._shown = f"table {destination.table} of {name}"
        self._database = SqlDatabase(
            name, databases[name].url, root=root, error=DestinationError, lock_seconds=lock_seconds
        )

    # --- the port

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:  # noqa: ARG002
        """A database that cannot be reached counts as still holding the table."""
        try:
            if not self._is_there():
                return False
            with self._database.refusing(self._shown), self._database.reading() as db:
                owner = self._owner(db) if self._has(db, self._name) else None
                return owner is not None and all(owner.digest == stamp for stamp in stamps)
        except DestinationError:
            return True

    def check(self, columns: Sequence[str] | None = None) -> None:
        folded = self._name.casefold()
        if not folded.strip() or "\0" in folded or folded == OWNED or folded.startswith("sqlite_"):
            raise DestinationError(f"{self._shown}: a table cannot have this name.")
        path = self._database.sqlite_path
        if path is not None:
            if path.is_dir():
                raise DestinationError(f"{self._shown}: the path is a folder, not a database file.")
            check_folder(path.parent, shown=self._shown)
            if path.exists() and not os.access(path, os.W_OK):
                raise DestinationError(f"{self._shown} cannot be written: {path} is not writable.")
        if self._is_there():
            with self._database.refusing(f"{self._shown} cannot be written"), self._database.reading() as db:
                self._refuse_names(db, columns or ())
                self._refuse_foreign(db)
                self._refuse_without_rights(db)

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        self.check()
        path = self._database.sqlite_path
        is_new = path is not None and not path.exists()
        with refusing(self._shown), _spooled(con) as file:
            rows = write_rows(con, delivery.relation if delivery.full else delivery.changed, file, format="parquet")
            expected = rows if delivery.full else _count(con, delivery.relation)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._database.refusing(f"{self._shown} cannot be written"), self._database.writing() as db:
                    digest = self._write(db, con, delivery, file, expected)
            except BaseException:
                if path is not None and is_new:
                    for made in (path, *(Path(f"{path}{end}") for end in ("-journal", "-wal", "-shm"))):
                        made.unlink(missing_ok=True)
                raise
        return Delivered(expected, self._shown, stamps=(digest,))

    # --- writing

    def _write(self, db: Connection, con: DuckDBPyConnection, delivery: Delivery, file: Path, expected: int) -> str:
        """Make the table hold what is delivered; returns the digest by which that is recorded."""
        self._lock(db)
        self._refuse_foreign(db)
        key = delivery.key_columns
        types = column_types(con, delivery.relation)
        self._refuse_names(db, [name for name, *_ in types])
        digest = digest_of("table", [delivery.full, *map(list, types), list(key), file_digest(file)])
        columns = table_columns(types, key=key, dialect=db.dialect)
        table = self._table(columns, key, nullable=_has_null(con, file, key))
        owner = self._owner(db) if self._has(db, self._name) else None
        if owner is not None and owner.digest == digest and self._count(db, table) == expected:
            return digest
        self._shape(db, table, columns, key, owner)
        if delivery.full:
            self._replace(db, con, table, columns, file)
        else:
            self._fill(db, con, upserts(db.dialect.name, table, key), columns, file)
            if self._count(db, table) != expected:  # another table than the ledger knows: restored, or edited
                write_rows(con, delivery.relation, file, format="parquet")
                self._replace(db, con, table, columns, file)
        self._own(db, digest, columns, key, owner)
        return digest

    def _replace(
        self, db: Connection, con: DuckDBPyConnection, table: Table, columns: Sequence[TableColumn], file: Path
    ) -> None:
        db.execute(table.delete())  # not TRUNCATE: readers go on seeing the old rows
        self._fill(db, con, [table.insert()], columns, file)

    def _fill(
        self, db: Connection, con: DuckDBPyConnection, statements: Sequence[Any], columns: Sequence[TableColumn],
        file: Path,
    ) -> None:  # fmt: skip
        """Run statements on all rows of the Parquet file, a batch at a time."""
        selected = ", ".join(column.value for column in columns)
        converts = [(f"c{i}", column.convert) for i, column in enumerate(columns)]
        for batch in stream(con, f"SELECT {selected} FROM read_parquet({literal(str(file))})"):
            for start in range(0, len(batch), _ROWS_AT_ONCE):
                values = [
                    {n: v if v is None or c is None else c(v) for (n, c), v in zip(converts, row, strict=True)}
                    for row in batch[start : start + _ROWS_AT_ONCE]
                ]
                for statement in statements:
                    db.execute(statement, values)

    def _lock(self, db: Connection) -> None:
        """One delivery at a time; SQLite's transaction is such a lock by itself."""
        if db.dialect.name == "postgresql":
            from sqlalchemy import text

            name = f"batchform {self._schema or ''}.{self._name}"
            db.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    # --- the table

    def _table(self, columns: Sequence[TableColumn], key: Sequence[str], *, nullable: bool) -> Table:
        """The table as it shall be. Its columns have plain keys, whatever they are called."""
        from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint

        made = [Column(c.name, c.kind, key=f"c{i}") for i, c in enumerate(columns)]
        keys = [column for column in made if column.name in key]
        # An answer under an earlier key may have no value for a column of it.
        constraint = UniqueConstraint if nullable else PrimaryKeyConstraint
        return Table(self._name, MetaData(), *made, constraint(*keys), schema=self._schema)

    def _shape(
        self, db: Connection, table: Table, columns: Sequence[TableColumn], key: Sequence[str], owner: _Owner | None
    ) -> None:
        """Make the table, or add what columns it lacks. Raises DestinationError when that is not enough."""

        if owner is None:
            table.create(db)
            return
        if list(owner.key) != list(key):
            raise DestinationError(
                f"{self._shown} has the key {', '.join(owner.key)}, and answers now have {', '.join(key)}.", hint=_ANEW
            )
        there = {name.casefold() for name in column_names(db, self._name, self._schema)}
        known = {name.casefold(): kind for name, kind in owner.columns.items()}
        for column in columns:
            kind = column.kind.compile(dialect=db.dialect)
            was = known.get(column.name.casefold(), kind)
            if was != kind and column.name.casefold() in there:
                raise DestinationError(
                    f"{self._shown} has the column {column.name} as {was}, and answers now need {kind}: columns are "
                    "added, never changed.",
                    hint=_ANEW,
                )
            if column.name.casefold() not in there:
                self._add(db, f"{quoted(db, column.name)} {kind}")

    def _add(self, db: Connection, column: str) -> None:
        table = ".".join(quoted(db, part) for part in (self._schema, self._name) if part)
        add = "ADD" if db.dialect.name in ("mssql", "oracle") else "ADD COLUMN"
        db.exec_driver_sql(f"ALTER TABLE {table} {add} {column}", execution_options={"no_parameters": True})

    def _count(self, db: Connection, table: Table) -> int:
        from sqlalchemy import func, select

        return int(db.execute(select(func.count()).select_from(table)).scalar_one())

    # --- whose it is

    def _is_there(self) -> bool:
        """Whether there is a database to look at: SQLite's file is made by the first delivery."""
        path = self._database.sqlite_path
        return path is None or path.is_file()

    def _has(self, db: Connection, table: str) -> bool:
        from sqlalchemy import inspect

        return inspect(db).has_table(table, self._schema)

    def _refuse_foreign(self, db: Connection) -> None:
        """Raise DestinationError unless the table is this spec's or not there."""
        if self._has(db, OWNED):
            there = {name.lower() for name in column_names(db, OWNED, self._schema)}
            if there != set(_OWNED_COLUMNS):
                raise DestinationError(
                    f"{self._shown}: the database has a table {OWNED} that batchform did not make.", hint=_ELSEWHERE
                )
        if not self._has(db, self._name):
            return
        owner = self._owner(db)
        if owner is None:
            raise DestinationError(
                f"{self._shown} is already there, and batchform did not make it: it is left alone.", hint=_ELSEWHERE
            )
        if owner.spec != self._spec and owner.spec not in self._was:
            raise DestinationError(
                f"{self._shown} belongs to the spec {owner.spec}: two specs cannot share a table.",
                hint=f"Choose another table, or drop this one if {owner.spec} no longer delivers to it.",
            )

    def _refuse_names(self, db: Connection, columns: Sequence[str]) -> None:
        """PostgreSQL cuts names without a word, and a column would not be found again by its own."""
        if db.dialect.name != "postgresql":
            return
        for what, name in (("table", self._name), *(("column", name) for name in columns)):
            size = len(name.encode())
            if size > 63:
                raise DestinationError(
                    f"{self._shown}: the name of {what} {name!r} has {size} bytes, and the database keeps 63.",
                    hint="Give it a shorter one, in destination.columns." if what == "column" else _ELSEWHERE,
                )

    def _refuse_without_rights(self, db: Connection) -> None:
        """Known before anything is paid, where the database tells: PostgreSQL."""
        if db.dialect.name != "postgresql":
            return
        from sqlalchemy import inspect, text

        def may(what: str, *of: str) -> bool:
            given = ", ".join(f"CAST(:a{i} AS text)" for i in range(len(of)))
            return bool(
                db.execute(text(f"SELECT {what}({given})"), {f"a{i}": v for i, v in enumerate(of)}).scalar_one()
            )

        schema = self._schema or db.execute(text("SELECT current_schema()")).scalar_one()
        if not schema or schema not in inspect(db).get_schema_names():
            raise DestinationError(f"{self._shown} cannot be written: there is no schema {schema or 'to write to'}.")
        there = {name: self._has(db, name) for name in (self._name, OWNED)}
        quote = db.dialect.identifier_preparer.quote_identifier
        lacking: list[tuple[list[str], str, str]] = []  # rights, of what, the same as SQL writes it
        for name, rights in ((self._name, "SELECT INSERT UPDATE DELETE"), (OWNED, "SELECT INSERT DELETE")):
            of = f"{quote(schema)}.{quote(name)}"
            lacks = [right for right in rights.split() if there[name] and not may("has_table_privilege", of, right)]
            lacking += [(lacks, name, of)] if lacks else []
        if not all(there.values()) and not may("has_schema_privilege", schema, "CREATE"):
            lacking.append((["CREATE"], f"schema {schema}", f"SCHEMA {quote(schema)}"))
        if lacking:
            missing = ", ".join(f"{right} on {of}" for rights, of, _ in lacking for right in rights)
            user = quote(str(db.execute(text("SELECT current_user")).scalar_one()))
            grants = " ".join(f"GRANT {', '.join(rights)} ON {of} TO {user};" for rights, _, of in lacking)
            raise DestinationError(
                f"{self._shown} cannot be written: the user has no {missing}.",
                hint=f"Choose another schema, or let the owner grant it: `{grants}`",
            )

    def _owned(self) -> Table:
        from sqlalchemy import Column, MetaData, String, Table, UnicodeText

        columns = [Column(name, String(255) if name == "table_name" else UnicodeText()) for name in _OWNED_COLUMNS]
        columns[0].primary_key = True
        return Table(OWNED, MetaData(), *columns, schema=self._schema)

    def _recorded_name(self, db: Connection) -> str:
        return self._name.lower() if db.dialect.name == "sqlite" else self._name

    def _owner(self, db: Connection) -> _Owner | None:
        """What is recorded of the table, None if it is not ours."""
        from sqlalchemy import select

        if not self._has(db, OWNED):
            return None
        owned = self._owned()
        found = db.execute(select(owned).where(owned.c.table_name == self._recorded_name(db))).mappings().first()
        if found is None:
            return None
        shape = json.loads(found["shape"])
        return _Owner(found["spec"], found["digest"], shape["columns"], shape["key"])

    def _own(
        self, db: Connection, digest: str, columns: Sequence[TableColumn], key: Sequence[str], owner: _Owner | None
    ) -> None:
        owned = self._owned()
        if not self._has(db, OWNED):
            owned.create(db)
        kinds = {c.name: c.kind.compile(dialect=db.dialect) for c in columns}
        shape = {"columns": {**(owner.columns if owner else {}), **kinds}, "key": list(key)}
        name = self._recorded_name(db)
        db.execute(owned.delete().where(owned.c.table_name == name))
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        values = (name, self._spec, digest, json.dumps(shape, ensure_ascii=False), at)
        db.execute(owned.insert(), dict(zip(_OWNED_COLUMNS, values, strict=True)))


def upserts(database: str, table: Table, key: Sequence[str]) -> list[Any]:
    """Statements that lay rows over those of the same key; of two, both take all values. database: its dialect."""
    from sqlalchemy import bindparam
    from sqlalchemy.dialects import mysql, postgresql, sqlite

    keys = [column for column in table.columns if column.name in key]
    rest = [column for column in table.columns if column.name not in key]
    if database in ("postgresql", "sqlite"):
        insert: Any = (postgresql if database == "postgresql" else sqlite).insert(table)
        if not rest:
            return [insert.on_conflict_do_nothing(index_elements=keys)]
        return [insert.on_conflict_do_update(index_elements=keys, set_={c: insert.excluded[c.key] for c in rest})]
    if database in ("mysql", "mariadb"):
        insert = mysql.insert(table)
        return [insert.on_duplicate_key_update({c.key: insert.inserted[c.key] for c in rest or keys})]
    same = [column == bindparam(column.key, type_=column.type) for column in keys]
    plain: Insert = table.insert()
    return [table.delete().where(*same), plain]


@contextmanager
def _spooled(con: DuckDBPyConnection) -> Iterator[Path]:
    """A file in the connection's temp folder: rows are made before the database is written, and locked, at all."""
    [(folder,)] = con.execute("SELECT current_setting('temp_directory')").fetchall()
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"deliver-{secrets.token_hex(8)}.parquet"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _count(con: DuckDBPyConnection, relation: str) -> int:
    [(rows,)] = con.execute(f"SELECT count(*) FROM {relation}").fetchall()
    return int(rows)


def _has_null(con: DuckDBPyConnection, file: Path, key: Sequence[str]) -> bool:
    from batchform.rows.sql import identifier

    condition = " OR ".join(f"{identifier(name)} IS NULL" for name in key)
    return bool(key) and _count(con, f"read_parquet({literal(str(file))}) WHERE {condition}") > 0
