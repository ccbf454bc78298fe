"""Probes of databases that SQLAlchemy speaks to: URL, driver, connection, rights. All only read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from batchform.adapters.destinations.sqlalchemy_table import OWNED
from batchform.adapters.sql_database import NO_RIGHT, SqlDatabase
from batchform.errors import BatchformError, SourceError
from batchform.run.doctor import Finding, Subject
from batchform.spec.model_sql import Database, SqlDestination, SqlSource

_TELLS: Final = ("postgresql", "sqlite")
"""Databases that say beforehand what may be written."""


class Databases:
    """Those of batchform.yaml. root: the project's folder."""

    def __init__(self, databases: Mapping[str, Database], *, root: Path) -> None:
        self._databases = {
            name: SqlDatabase(name, database.url, root=root, error=SourceError) for name, database in databases.items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._databases

    def check(self, name: str, *, reads: bool) -> Iterator[Finding]:
        """The driver, and whether the database answers. reads: whether rows come from it, so that it must be there."""
        about, database = Subject(f"database {name}"), self._databases[name]
        try:
            where = database.described()
        except BatchformError as error:
            yield about.error("driver", error)
            return
        yield about.ok("driver", f"The URL leads to {where}; that driver is installed.")
        path = database.sqlite_path
        if path is not None and not path.exists() and not reads:
            yield about.unknown("connect", f"There is no file {path.name} yet; the first delivery makes it.")
            return
        try:
            with database.refusing(f"Database {name}"), database.reading() as con:
                con.exec_driver_sql("SELECT 1 FROM DUAL" if database.kind == "oracle" else "SELECT 1").fetchall()
                version = ".".join(map(str, con.dialect.server_version_info or ()))
        except BatchformError as error:
            yield about.error("connect", error)
            return
        yield about.ok("connect", f"It answers: {database.kind} {version}".rstrip() + ".")

    def source_refused(self, about: Subject, source: SqlSource, error: BatchformError) -> Finding:
        """The error of a source, with the grant that it lacks."""
        fix = ""
        if error.hint == NO_RIGHT and source.table:
            fix = f"GRANT SELECT ON {source.table} TO {self._databases[source.database].user};"
        return about.error("source", error, fix=fix)

    def destination_refused(self, about: Subject, to: SqlDestination, error: BatchformError) -> Finding:
        """The error of a destination, with the grant that it lacks."""
        fix = ""
        if error.hint == NO_RIGHT and OWNED in error.message:
            schema = to.table.rpartition(".")[0]
            of = f"{schema}.{OWNED}" if schema else OWNED
            fix = f"GRANT SELECT, INSERT, DELETE ON {of} TO {self._databases[to.database].user};"
        return about.error("destination", error, fix=fix)

    def check_rights(self, about: Subject, to: SqlDestination) -> Iterator[Finding]:
        """What the destination's own check could not ask; nothing where it could."""
        kind = self._databases[to.database].kind
        if kind not in _TELLS:
            message = f"Rights on {to.place} are not asked of {kind}: whether it may be written shows with a delivery."
            hint = "The user needs CREATE the first time, then SELECT, INSERT, UPDATE and DELETE."
            yield about.unknown("destination-rights", message, hint=hint)
