"""A project, a confined DuckDB, and a database in a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
from pydantic import SecretStr

from batchform.adapters.destinations import make_destination
from batchform.adapters.sources import make_sql_source
from batchform.ports import Delivered, Delivery, Destination, Source
from batchform.spec.model_sql import Database, SqlDestination, SqlSource
from postgres_kit import PostgresServer


class Shop:
    """A database by its URL, and what batchform reads and writes there."""

    def __init__(self, server: PostgresServer, name: str, root: Path, con: duckdb.DuckDBPyConnection) -> None:
        self.server, self.name, self.root, self.con = server, name, root, con
        self.url = server.url(name)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        found: list[tuple[Any, ...]] = []
        with self.server.connect(self.name) as db:
            for statement in statements:
                done = db.execute(statement)
                found = done.fetchall() if done.description else []
        db.close()
        return found

    def source(self, *, needed: set[str] | None = None, url: str = "", **spec: Any) -> Source:
        databases = {"shop": Database(url=SecretStr(url or self.url))}
        made = SqlSource(type="sql", database="shop", **spec)
        return make_sql_source(made, root=self.root, databases=databases, needed=needed)

    def read(self, **spec: Any) -> list[dict[str, Any]]:
        relation = self.source(**spec).open(self.con)
        return self.con.sql(f"SELECT * FROM {relation.sql}").to_arrow_table().to_pylist()

    def destination(self, *, table: str = "answers", url: str = "", spec: str = "triage") -> Destination:
        databases = {"shop": Database(url=SecretStr(url or self.url))}
        made = SqlDestination(type="sql", database="shop", table=table)
        return make_destination(made, spec=spec, root=self.root, allow=(), databases=databases)

    def deliver(self, rows: str, *, changed: str = "", full: bool = True, **where: Any) -> Delivered:
        """rows, changed: SELECTs of DuckDB with a column `key`."""
        delivery = Delivery("triage", "triage-0.d.1", f"({rows})", f"({changed or rows})", ("key",), full)
        return self.destination(**where).deliver(self.con, delivery)
