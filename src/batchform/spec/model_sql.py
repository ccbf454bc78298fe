"""Databases that SQLAlchemy speaks to, and the sources and destinations in them. `model.py` has the rest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from batchform.spec.fields import Strict, Wire


class Database(Strict):
    """A database of sources and destinations of type sql: whatever SQLAlchemy speaks to."""

    url: SecretStr = Wire(description="SQLAlchemy's URL, from the environment: ${ENV:SHOP_DB}.")


class SqlSource(Strict):
    """Rows from a table or query of a database that batchform.yaml names, read through SQLAlchemy (extra `sql`)."""

    type: Literal["sql"] = Field(description="A database that SQLAlchemy speaks to.")
    database: str = Wire(description="Name of the database in batchform.yaml.")
    table: str | None = Wire(None, description="Table or view, with its schema if need be; or give `query`.")
    where: str | None = Wire(None, description="SQL condition on the table's rows, in the database's own SQL.")
    query: str | None = Wire(None, description="SQL of the database itself, in place of `table`.")


class SqlDestination(Strict):
    """Answers in a table of a database that batchform.yaml names, written through SQLAlchemy (extra `sql`)."""

    type: Literal["sql"] = Field(description="A database that SQLAlchemy speaks to.")
    database: str = Field(description="Name of the database in batchform.yaml.")
    table: str = Field(description="The table, with its schema if need be; made when it does not exist.")
    columns: dict[str, str] | None = Field(None, description="Output column → expression; default: all.")
    flatten: bool = Field(
        default=False, description="One column per property of the response, in place of one JSON column."
    )
    prune: bool = Field(default=False, description="Remove answers whose key left the source.")

    @property
    def place(self) -> str:
        """Where answers go, as messages name it."""
        return f"{self.database}, table {self.table}"

    @property
    def takes_parts(self) -> bool:
        """Whether each delivery adds a part, in place of writing all anew."""
        return False
